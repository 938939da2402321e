"""A registry that somebody else writes to: what is not as it should be is refused, or shown as the text that it is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.cli import Result, invoke
from tests.support.published import NAME, make_workspace, publish
from tests.support.registries import client_of, stored_folder
from tests.support.store import registry_of

MARKUP = '<script>alert(1)</script><img src=x onerror="alert(2)">'
STEERING = "\x1b[2J\x1b]0;owned\x07\r"
READING = (("status",), ("history",), ("lineage", "merged@champion"), ("diff", "previous", "champion"))


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with two releases; do not change it."""
    folder = tmp_path_factory.mktemp("hostile")
    root = make_workspace(folder / "workspace")
    publish(root, folder / "first", "previous", seed=1)
    publish(root, folder / "second", "champion", seed=2)
    return root


@pytest.fixture
def root(published: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(published, tmp_path / "workspace"))


def run(root: Path, *args: str) -> Result:
    return invoke("-C", root, *args)


def rewrite(root: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change what the champion's run says that the release is."""
    registry = registry_of(root)
    version = registry.version(NAME, 2)
    path = Path(registry.artifacts_of(version.run_id)) / "release.json"
    told = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps(change(told) or told), encoding="utf-8")


def harmless(result: Result) -> None:
    assert not set("\x1b\x07\r\x9b") & set(result.out + result.err)
    assert "Traceback" not in result.err
    assert result.exit_code in (0, 2, 5, 6), result.err


@pytest.mark.parametrize("command", READING, ids=lambda command: command[0])
@pytest.mark.parametrize("tag", [MARKUP, "../../etc/passwd", "ja\n", STEERING, "", "x" * 36])
def test_a_language_that_is_none_is_refused(root: Path, command: tuple[str, ...], tag: str) -> None:
    pin = {"lang": "ja", "version": 1, "content_hash": "0" * 64, "training_key": "0" * 64, "inputs_key": "0" * 64}
    rewrite(root, lambda told: told["adapters"].update({tag: pin}))
    result = run(root, *command)
    harmless(result)
    assert "<script>" not in result.out
    if command[0] == "status":
        assert result.exit_code == 5
        assert "has no readable release.json" in result.err


@pytest.mark.parametrize("command", READING, ids=lambda command: command[0])
def test_texts_that_would_steer_a_terminal_are_shown_without_it(root: Path, command: tuple[str, ...]) -> None:
    rewrite(root, lambda told: told.update(reason=f"update {STEERING}", base=STEERING, created=STEERING))
    version = registry_of(root).version(NAME, 2)
    client = client_of(registry_of(root))
    for key in ("adapterctl.reason", "adapterctl.gate", "review", "adapterctl.base_model", "lang"):
        client.set_model_version_tag(NAME, "2", key, STEERING + MARKUP)
    events = json.dumps([{"time": STEERING, "what": STEERING, "by": MARKUP, "reason": STEERING}])
    client.set_model_version_tag(NAME, "2", "adapterctl.events", events)
    client.update_model_version(NAME, str(version.version), description=MARKUP + STEERING)
    harmless(run(root, *command))
    harmless(run(root, *command, "--json"))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda told: [], "no readable release.json"),
        (lambda told: told.update(version="two"), "no readable release.json"),
        (lambda told: told.update(scores={"languages": MARKUP}), "no readable release.json"),
        (lambda told: told.update(verdict={"passed": MARKUP, "cells": 7}), "no readable release.json"),
        (lambda told: told.update(content_hash="../../../etc"), "no readable release.json"),
        (lambda told: told.update(unknown="key"), "no readable release.json"),
    ],
)
def test_a_release_that_is_none_is_refused(root: Path, change: Callable[[dict[str, Any]], Any], told: str) -> None:
    path = Path(registry_of(root).artifacts_of(registry_of(root).version(NAME, 2).run_id)) / "release.json"
    value = json.loads(path.read_text("utf-8"))
    changed = change(value)
    path.write_text(json.dumps(value if changed is None else changed), encoding="utf-8")
    registry_of(root).set_alias(NAME, "candidate", 2)
    assert run(root, "reject", "--reason", "nobody can read it").exit_code == 2
    registry_of(root).drop_alias(NAME, "candidate")
    for command in (("promote", "--version", "2"), ("status",), ("rollback",)):
        result = run(root, *command)
        harmless(result)
        # A champion that nobody can read must not keep the one before from coming back.
        assert (result.exit_code, told in result.err) == ((0, False) if command[0] == "rollback" else (5, True))
    assert registry_of(root).aliases(NAME) == {"champion": 1, "previous": 2}
    assert run(root, "promote", "--version", "1").exit_code == 0


def test_a_candidate_that_nobody_can_read_is_rejected(root: Path) -> None:
    rewrite(root, lambda told: {"nothing": "of use"})
    registry = registry_of(root)
    registry.drop_alias(NAME, "previous")
    registry.set_alias(NAME, "champion", 1)
    registry.set_alias(NAME, "candidate", 2)
    assert run(root, "promote").exit_code == 5
    done = run(root, "reject", "--reason", "nobody can read it", "--json")
    assert done.exit_code == 0, done.err
    assert registry_of(root).aliases(NAME) == {"champion": 1}
    tags = registry_of(root).version(NAME, 2).tags
    assert tags["review"] == "rejected"
    assert json.loads(tags["adapterctl.events"])[-1]["reason"] == "nobody can read it"


def test_a_config_without_end_is_refused_with_everything_else_as_it_should_be(root: Path, tmp_path: Path) -> None:
    """Whoever can publish can also make the list of hashes fit: it is the file itself that must not be trusted."""
    made = publish(root, tmp_path / "large", seed=3)
    config = tmp_path / "large" / "adapter_config.json"
    value = json.loads(config.read_text("utf-8"))
    config.write_text(json.dumps({**value, "padding": "x" * (40 << 20)}), encoding="utf-8")
    registry = registry_of(root)
    with registry.run("large", "large") as opened:
        version = registry.publish(
            NAME, tmp_path / "large", content_hash="f" * 64, run=opened, model_type="merged-adapter",
            tags={"adapterctl.release_run": made.version.run_id},
        )  # fmt: skip
    for command in (("evaluate", f"merged/{version.version}"), ("export", str(tmp_path / "to"), "--release",
                                                                f"merged/{version.version}")):  # fmt: skip
        result = run(root, *command)
        harmless(result)
        assert result.exit_code in (5, 6), result.err
    assert not any((tmp_path / "to").rglob("adapter_config.json")) if (tmp_path / "to").exists() else True


def test_files_that_were_swapped_are_refused_everywhere(root: Path, tmp_path: Path) -> None:
    registry = registry_of(root)
    file = stored_folder(registry, registry.version(NAME, 1)) / "adapter_model.safetensors"
    content = bytearray(file.read_bytes())
    content[-2] ^= 64
    file.write_bytes(content)
    rollback = run(root, "rollback")
    assert rollback.exit_code == 6
    assert "is not the one that was published" in rollback.err
    promote = run(root, "promote", "--version", "1")
    assert promote.exit_code == 6
    export = run(root, "export", str(tmp_path / "to"), "--release", "previous")
    assert export.exit_code == 6
    assert run(root, "registry", "verify").exit_code == 6
    assert registry_of(root).aliases(NAME) == {"champion": 2, "previous": 1}
