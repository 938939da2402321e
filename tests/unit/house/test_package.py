"""What the package promises as a whole."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

import adapterctl
from adapterctl import errors

ROOT = Path(__file__).parents[3]
MOST_LINES = 400


def test_exported_names() -> None:
    assert set(adapterctl.__all__) == {
        "AdapterError",
        "AdapterctlError",
        "BaseModelError",
        "ConfigError",
        "DataError",
        "EndpointError",
        "GateFailed",
        "LockHeld",
        "MergeError",
        "Problem",
        "RegistryError",
        "StorageError",
        "UsageError",
        "Workspace",
        "__version__",
        "merge",
    }
    assert dir(adapterctl) == sorted(adapterctl.__all__)


@pytest.mark.parametrize("name", adapterctl.__all__)
def test_every_exported_name_is_there(name: str) -> None:
    assert getattr(adapterctl, name) is not None


def test_what_type_checkers_see_is_what_is_exported() -> None:
    tree = ast.parse(Path(adapterctl.__file__).read_text(encoding="utf-8"))
    blocks = [node for node in tree.body if isinstance(node, ast.If)]
    named = {alias.name for block in blocks for node in block.body for alias in getattr(node, "names", ())}
    assert named | {"__version__"} == set(adapterctl.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Workspaces'"):
        _ = adapterctl.Workspaces


def test_every_error_is_exported() -> None:
    classes = {
        name for name, value in vars(errors).items() if isinstance(value, type) and value.__module__ == errors.__name__
    }
    assert classes <= set(adapterctl.__all__)


def test_the_tree_of_errors_is_drawn_as_it_is() -> None:
    drawn = re.findall(r"^\s*(├── |└── )?([A-Z]\w+) +(\d+) ", errors.__doc__ or "", flags=re.MULTILINE)
    root, *children = [(name, int(code)) for _, name, code in drawn]
    assert root == ("AdapterctlError", errors.AdapterctlError.exit_code)
    assert children == [(found.__name__, found.exit_code) for found in errors.AdapterctlError.__subclasses__()]
    assert all(not found.__subclasses__() for found in errors.AdapterctlError.__subclasses__())


def test_the_package_is_typed() -> None:
    assert (Path(adapterctl.__file__).parent / "py.typed").is_file()


def test_no_file_is_long() -> None:
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for folder in ("src", "tests", "scripts", "benchmarks")
        for path in (ROOT / folder).rglob("*.py")
    }
    assert {path: lines for path, lines in lengths.items() if lines > MOST_LINES} == {}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_dependency_has_a_tested_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [
        *project["dependencies"],
        *(name for extra in project["optional-dependencies"].values() for name in extra),
    ]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {_normal(line.partition("==")[0]) for line in lines if "==" in line}
    assert {_normal(re.split(r"[<>=!\[; ]", name)[0]) for name in wanted} - pinned == set()
