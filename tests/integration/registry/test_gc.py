"""``registry gc``: exactly what was shown goes, nothing that anything needs, and the room is free afterwards."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.support.cli import Result, invoke
from tests.support.program import Programs
from tests.support.registries import client_of, release, stored_folder, train
from tests.support.store import registry_of

from adapterctl.errors import LockHeld
from adapterctl.registry import collecting, verifying
from adapterctl.registry.client import Registry


def gc(root: Path, keep: int, *options: str) -> Result:
    return invoke("-C", root, "registry", "gc", "--keep", str(keep), *options, "--json")


def going(told: Result) -> list[tuple[str, int | None]]:
    return [(item["name"], item["version"]) for item in told.json["doomed"]]


def there(root: Path) -> dict[str, list[int]]:
    registry = registry_of(root)
    return {name: [version.version for version in registry.versions(name)] for name in registry.names()}


ALL = {"pocket-de": [1], "pocket-ja": [1, 2, 3], "pocket-merged": [1, 2, 3]}
OLD = [("pocket-merged", 1), ("pocket-ja", 1)]
"""What the newest release and the one before it do not need: the merge goes before its adapter."""


def test_the_plan_changes_nothing_and_says_why(root: Path) -> None:
    told = gc(root, 1, "--plan")
    assert (told.exit_code, going(told), told.json["applied"]) == (0, OLD, False)
    kept = {(item["name"], item["version"]): item["why"] for item in told.json["kept"]}
    assert kept == {
        ("pocket-de", 1): "champion",
        ("pocket-ja", 2): "part of pocket-merged v2",
        ("pocket-ja", 3): "champion",
        ("pocket-merged", 2): "previous",
        ("pocket-merged", 3): "champion",
    }
    assert there(root) == ALL
    text = invoke("-C", root, "registry", "gc", "--keep", "1", "--verbose").out
    assert f"adapterctl registry gc --keep 1 --apply {told.json['plan']}" in text
    assert "pocket-ja v2 stays: part of pocket-merged v2" in text
    assert "Nothing to delete: all 7 versions" in invoke("-C", root, "registry", "gc", "--keep", "3").out


def test_exactly_the_plan_goes_and_the_room_is_free(root: Path) -> None:
    registry = registry_of(root)
    folders = [stored_folder(registry, registry.version(name, number)) for name, number in OLD]
    taken = sum(path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file())
    plan = gc(root, 1, "--plan").json
    assert plan["bytes"] == taken
    told = gc(root, 1, "--apply", plan["plan"])
    assert told.exit_code == 0, told.err
    assert (going(told), told.json["applied"]) == (OLD, True)
    assert there(root) == {"pocket-de": [1], "pocket-ja": [2, 3], "pocket-merged": [2, 3]}
    assert not any(path.is_file() for folder in folders for path in folder.rglob("*"))
    assert len(client_of(registry).search_logged_models([registry.experiment_id])) == 5
    assert invoke("-C", root, "registry", "verify").exit_code == 0
    assert going(gc(root, 1)) == []
    # The books and figures stay: they are what things have cost.
    assert {run.data.tags["adapterctl.key"] for run in client_of(registry).search_runs([registry.experiment_id])} >= {
        "update:1",
        "update:2",
        "update:3",
    }
    assert invoke("-C", root, "rollback", "--json").exit_code == 0


def test_a_plan_that_is_not_the_present_one(root: Path) -> None:
    registry = registry_of(root)
    plan = gc(root, 1).json["plan"]
    registry.set_alias("pocket-merged", "mine", 1)
    told = gc(root, 1, "--apply", plan)
    assert told.exit_code == 2
    assert "nothing was deleted" in told.json["error"]["message"]
    assert there(root) == ALL
    assert gc(root, 2, "--apply", plan).exit_code == 2
    assert gc(root, 1, "--apply", "x").exit_code == 2
    assert gc(root, 1, "--apply", plan, "--plan").exit_code == 2
    assert gc(root, 0).exit_code == 2


NEEDED: dict[str, tuple[Callable[[Path, Registry], Any], str]] = {
    "an alias of anybody's": (lambda _, registry: registry.set_alias("pocket-merged", "mine", 1), "mine"),
    "a tag": (
        lambda _, registry: registry.set_version_tags(registry.version("pocket-merged", 1), {"keep": "for the audit"}),
        "tag keep",
    ),
    "approved": (
        lambda _, registry: (
            client_of(registry).delete_model_version_tag("pocket-merged", "1", "adapterctl.events"),
            registry.set_version_tags(registry.version("pocket-merged", 1), {"review": "Approved"}),
        ),
        "approved, and not promoted yet",
    ),
    "an interrupted update": (
        lambda root, _: (root / ".adapterctl" / "journal.json").write_text(
            json.dumps({"command": "update", "langs": ["ja"], "update_id": "u", "champion": 1})
        ),
        "the interrupted update compares with it",
    ),
}


@pytest.mark.parametrize("name", NEEDED)
def test_what_is_needed_stays_with_its_adapters(root: Path, name: str) -> None:
    need, why = NEEDED[name]
    (root / ".adapterctl").mkdir(exist_ok=True)
    need(root, registry_of(root))
    told = gc(root, 1)
    assert going(told) == []
    kept = {(item["name"], item["version"]): item["why"] for item in told.json["kept"]}
    assert kept["pocket-merged", 1] == why
    assert kept["pocket-ja", 1] == "part of pocket-merged v1"


def test_approved_long_ago_is_no_reason(root: Path) -> None:
    registry = registry_of(root)
    registry.set_version_tags(registry.version("pocket-merged", 1), {"review": "approved", "keep": "false"})
    assert going(gc(root, 1)) == OLD


def test_what_a_run_at_work_made_stays(root: Path, tmp_path: Path) -> None:
    registry = registry_of(root)
    with registry.run("update:9", "update 9") as parent:
        train(registry, "ja", 9, tmp_path, parent)
        train(registry, "ja", 10, tmp_path, parent)
        told = gc(root, 1)
        kept = {(item["name"], item["version"]): item["why"] for item in told.json["kept"]}
        assert "used by the run 'update 9'" in kept["pocket-ja", 4]
    assert ("pocket-ja", 4) in going(gc(root, 1))


def test_what_something_else_registered_stays(root: Path) -> None:
    client_of(registry_of(root)).create_model_version("pocket-de", source="s3://bucket/adapter")
    kept = {(item["name"], item["version"]): item["why"] for item in gc(root, 1).json["kept"]}
    assert kept["pocket-de", 2] == "not made by adapterctl"


def test_a_release_that_nobody_can_explain_stops_everything(root: Path) -> None:
    registry = registry_of(root)
    champion = registry.version("pocket-merged", 3)
    (Path(registry.artifacts_of(champion.run_id)) / "release.json").unlink()
    # The version's own tag still says what it was made of.
    assert going(gc(root, 1)) == OLD
    registry.set_version_tags(champion, {"adapterctl.inputs": "pocket-ja:three"})
    assert gc(root, 1).exit_code == 5
    client_of(registry).delete_model_version_tag("pocket-merged", "3", "adapterctl.inputs")
    told = gc(root, 1)
    assert told.exit_code == 5
    assert "release.json" in told.json["error"]["message"]


def test_a_logged_model_of_two_versions_keeps_its_files(root: Path) -> None:
    registry = registry_of(root)
    old = registry.version("pocket-ja", 1)
    client = client_of(registry)
    os.environ["MLFLOW_TRACKING_URI"] = registry.resolved.uri
    try:
        client.create_model_version("pocket-ja", f"models:/{old.model_id}", run_id=old.run_id, tags=dict(old.tags))
    finally:
        del os.environ["MLFLOW_TRACKING_URI"]
    plan = gc(root, 1).json
    assert [item["model_id"] for item in plan["doomed"] if item["name"] == "pocket-ja"] == [""]
    assert gc(root, 1, "--apply", plan["plan"]).exit_code == 0
    assert registry.versions("pocket-ja")[-1].version == 4
    assert invoke("-C", root, "registry", "verify").exit_code == 0


def test_somebody_gives_it_an_alias_at_the_last_moment(root: Path) -> None:
    registry = registry_of(root)
    plan = collecting.plan(registry.connection, registry.names(), 1, pins=lambda _: [], wanted=lambda _: "")
    registry.set_alias("pocket-merged", "mine", 1)
    with pytest.raises(LockHeld, match="is needed since"):
        collecting.carry_out(registry.connection, plan, lambda _: "")
    assert there(root) == ALL


def test_publications_that_were_given_up_go(root: Path) -> None:
    registry = registry_of(root)
    client = client_of(registry)
    tags = {"adapterctl.project": "pocket", "adapterctl.content_hash": "a" * 64}
    for state in ("READY", "PENDING"):
        model = client.create_logged_model(registry.experiment_id, name="pocket-ja", tags=tags)
        (root / "x.bin").write_bytes(b"x" * 1000)
        client.log_model_artifact(model.model_id, str(root / "x.bin"))
        if state == "READY":
            client.finalize_logged_model(model.model_id, "READY")
    assert None not in [version for _, version in going(gc(root, 1))]
    database = registry.resolved.database_file
    assert database is not None
    with closing(sqlite3.connect(database)) as store, store:
        store.execute("UPDATE logged_models SET creation_timestamp_ms = creation_timestamp_ms - 90000000")
    told = gc(root, 1)
    rest = [item for item in told.json["doomed"] if item["version"] is None]
    # One that says PENDING is the sweep's, which asks whether somebody is at work on it.
    assert [(item["name"], item["bytes"]) for item in rest] == [("pocket-ja", 1000)]
    assert gc(root, 1, "--apply", told.json["plan"]).exit_code == 0
    assert going(gc(root, 1)) == []


MLFLOW = "mlflow:MlflowClient."
POINTS = {
    "noted": {"at": f"{MLFLOW}set_logged_model_tags", "when": "after"},
    "version gone": {"at": f"{MLFLOW}delete_model_version", "when": "after"},
    "failed": {"at": f"{MLFLOW}finalize_logged_model", "when": "after"},
    "files gone": {
        "at": "mlflow.store.artifact.local_artifact_repo:LocalArtifactRepository.delete_artifacts",
        "when": "after",
    },
    "second version gone": {"at": f"{MLFLOW}delete_model_version", "when": "after", "call": 2},
}


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_leaves_nothing_half_and_another_call_finishes(root: Path, program: Programs, point: str) -> None:
    registry = registry_of(root)
    plan = gc(root, 1).json["plan"]
    killed = program(root, "registry", "gc", "--keep", "1", "--apply", plan, trap={**POINTS[point], "do": "kill"})
    assert killed.exit_code == -9
    assert verifying.verify(registry.connection, registry.names()).faults == []
    told = gc(root, 1)
    assert going(told)
    assert gc(root, 1, "--apply", told.json["plan"]).exit_code == 0
    assert there(root) == {"pocket-de": [1], "pocket-ja": [2, 3], "pocket-merged": [2, 3]}
    assert len(client_of(registry).search_logged_models([registry.experiment_id])) == 5
    assert len(list((root / "registry" / "artifacts").rglob("adapter_model.safetensors"))) == 5


def test_published_again_after_a_kill(root: Path, program: Programs, tmp_path: Path) -> None:
    """Between the version and its files a model looks like one of an interrupted publication."""
    registry = registry_of(root)
    plan = gc(root, 1).json["plan"]
    for point in ("version gone", "files gone"):
        copy = Path(shutil.copytree(root, tmp_path / point))
        program(copy, "registry", "gc", "--keep", "1", "--apply", plan, trap={**POINTS[point], "do": "kill"})
        registry = registry_of(copy)
        adapters = {lang: registry.versions(f"pocket-{lang}")[0] for lang in ("de", "ja")}
        with registry.run("update:again", "again") as run:
            release(registry, adapters, 1, tmp_path / f"made {point}", run)
        assert verifying.verify(registry.connection, registry.names()).faults == [], point
        assert there(copy)["pocket-merged"] == [2, 3, 4]
        told = gc(copy, 3)
        assert gc(copy, 3, "--apply", told.json["plan"]).exit_code == 0
        assert verifying.verify(registry.connection, registry.names()).faults == [], point


def test_who_finds_the_lock_held_waits_for_nobody(root: Path, program: Programs, tmp_path: Path) -> None:
    plan = gc(root, 1).json["plan"]
    trap = {"at": f"{MLFLOW}set_logged_model_tags", "when": "before", "do": "wait", "mark": str(tmp_path / "mark")}
    first = program.start(root, "registry", "gc", "--keep", "1", "--apply", plan, trap=trap)
    while not (tmp_path / "mark").exists():
        time.sleep(0.05)
    assert program(root, "registry", "gc", "--keep", "1", "--apply", plan).exit_code == 4
    (tmp_path / "mark").unlink()
    assert first.wait().exit_code == 0
