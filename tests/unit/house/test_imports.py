"""Imports point down, rooms do not know one another, and nothing heavy is imported before it is needed."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import adapterctl

PACKAGE = Path(adapterctl.__file__).parent
ROOMS = {"training", "merging", "evaluation", "registry", "accounting", "pocket", "serving", "scheduling"}
FLOORS = {"ground": 0, "room": 1, "workspace": 2, "workflows": 3, "api": 4, "cli": 5, "__main__": 6}
HEAVY = {"torch", "transformers", "peft", "mlflow", "sklearn", "scipy", "matplotlib", "numpy", "pydantic", "rich"}
VERY_HEAVY = HEAVY - {"numpy", "pydantic", "rich"}


def part_of(module: str) -> str:
    """Return the part of the house of ``adapterctl.x.y``: ``x``, or ``""`` for the package itself."""
    return module.split(".")[1] if "." in module else ""


def floor_of(module: str) -> int:
    part = part_of(module)
    return FLOORS["room"] if part in ROOMS else FLOORS.get(part, FLOORS["ground"])


def imports_of(path: Path) -> set[str]:
    """Return the modules that a file imports anywhere, type checking included."""
    package = ["adapterctl", *path.relative_to(PACKAGE).parts[:-1]]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            # ``from adapterctl import files`` imports adapterctl.files.
            inner = module in ("adapterctl", *(f"adapterctl.{room}" for room in ROOMS))
            found.update(f"{module}.{alias.name}" for alias in node.names) if inner else found.add(module)
    return found


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(["adapterctl", *(part for part in parts if part != "__init__")])


MODULES = {module_name(path): imports_of(path) for path in sorted(PACKAGE.rglob("*.py"))}
# What the package itself offers is imported when it is asked for; it stands on no floor.
PAIRS = sorted(
    (module, name)
    for module, names in MODULES.items()
    for name in names
    if module != "adapterctl" and name.startswith("adapterctl.")
)


def test_the_rules_have_something_to_look_at() -> None:
    assert {part_of(module) for module in MODULES} >= ROOMS | {"workspace", "workflows", "cli"}
    assert ("adapterctl.workflows.session", "adapterctl.accounting.meter") in PAIRS


def test_imports_point_down() -> None:
    assert [pair for pair in PAIRS if floor_of(pair[1]) > floor_of(pair[0])] == []


def test_rooms_do_not_import_one_another() -> None:
    crossing = [
        (module, name)
        for module, name in PAIRS
        if {part_of(module), part_of(name)} <= ROOMS and part_of(module) != part_of(name)
    ]
    assert crossing == []


def test_only_the_registry_imports_mlflow() -> None:
    users = {part_of(module) for module, names in MODULES.items() if any(n.split(".")[0] == "mlflow" for n in names)}
    assert users == {"registry"}


def loaded_by(code: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter holds after running ``code``."""
    script = f"import sys, json\n{code}\nprint(json.dumps(sorted({{n.split('.')[0] for n in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("args", [["--help"], ["--version"], ["nonsense"], ["pocket", "--help"]])
def test_the_program_starts_light(args: list[str]) -> None:
    loaded = loaded_by(f"from adapterctl.cli.main import run\nrun({args!r})")
    assert "click" in loaded
    assert loaded & HEAVY == set()


def test_the_package_is_imported_light() -> None:
    assert loaded_by("import adapterctl") & (HEAVY | {"click"}) == set()


def test_the_help_of_every_command_is_light() -> None:
    code = """
import click
from adapterctl.cli.main import cli
ctx = click.Context(cli)
for name in cli.list_commands(ctx):
    cli.get_command(ctx, name).get_help(click.Context(cli.get_command(ctx, name)))
"""
    assert loaded_by(code) & VERY_HEAVY == set()


SETTINGS = [
    *(f"adapterctl.{room}" for room in sorted(ROOMS)),
    "adapterctl.training.settings",
    "adapterctl.merging.recipe",
    "adapterctl.evaluation.suite",
    "adapterctl.registry.settings",
    "adapterctl.accounting.prices",
    "adapterctl.scheduling.emit",
    "adapterctl.workspace.workspace",
]


def test_looking_at_a_registry_needs_no_torch() -> None:
    assert loaded_by("import adapterctl.registry.client, adapterctl.workflows.review") & {"torch", "mlflow"} == set()


def test_settings_are_read_without_heavy_libraries() -> None:
    assert loaded_by("\n".join(f"import {module}" for module in SETTINGS)) & VERY_HEAVY == set()
