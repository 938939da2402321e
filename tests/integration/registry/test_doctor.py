"""``doctor``: every ailment of a registry has its own words and its mend, and ``--fix`` does what is safe."""

from __future__ import annotations

import json
import os
import platform
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.integration.registry.test_trouble import answering
from tests.support.cli import Result, invoke
from tests.support.disk import small_disk
from tests.support.registries import client_of, stored_folder
from tests.support.small_workspace import change
from tests.support.store import registry_of

from adapterctl.registry import lease
from adapterctl.registry.client import Registry
from adapterctl.workflows import ailments
from adapterctl.workspace.workspace import Workspace

TENSORS = "adapter_model.safetensors"
AREAS = ("registry", "artifact store", "aliases", "adapters", "lock", "books", "leftovers")


def doctor(root: Path, *options: str) -> Result:
    return invoke("-C", root, "doctor", "--json", *options)


def found(told: Result, level: str = "") -> list[tuple[str, str, str]]:
    """Return what is not well in the registry and around it."""
    return [
        (finding["area"], finding["message"], finding["mend"])
        for finding in told.json["findings"]
        if finding["area"] in AREAS and (finding["level"] == level if level else finding["level"] != "ok")
    ]


def store_of(root: Path) -> sqlite3.Connection:
    return sqlite3.connect(root / "registry" / "mlflow.db")


def test_a_healthy_registry(root: Path) -> None:
    told = doctor(root)
    assert (told.exit_code, told.json["healthy"], found(told)) == (0, True, [])
    messages = {area: message for area, message, _ in found(told, "ok")}
    assert "3 registered models" in messages["registry"]
    assert messages["adapters"].startswith("5 versions are as they were published")
    assert "7 versions" in {area: text for area, text, _ in found(doctor(root, "--deep"), "ok")}["adapters"]
    told = doctor(root, "--fix")
    assert (told.exit_code, told.json["mended"], found(told)) == (0, [], [])
    assert "+ nothing to mend" in invoke("-C", root, "doctor", "--fix").out


# --- a registry that does not answer


def old_schema(root: Path) -> None:
    with closing(store_of(root)) as database, database:
        database.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
    # MLflow looks at the schema of a file once in a process.
    (root / "registry").rename(root / "older")
    change(root, "adapterctl.yaml", '  uri: ""', '  uri: "sqlite:///older/mlflow.db"')


def no_database(root: Path) -> None:
    (root / "registry" / "mlflow.db").write_text("this is a diary, " * 100)


ADDRESSES: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "old schema": (old_schema, "made by an older MLflow", "mlflow db upgrade"),
    "file store": (
        lambda root: change(root, "adapterctl.yaml", '  uri: ""', '  uri: "./mlruns"'),
        "file store",
        "mlflow migrate-filestore",
    ),
    "no database": (no_database, "damaged or not a database", "backup"),
    "unreachable": (
        lambda root: change(root, "adapterctl.yaml", '  uri: ""', '  uri: "http://127.0.0.1:9"'),
        "no MLflow answers",
        "registry.uri",
    ),
}


@pytest.mark.parametrize("name", ADDRESSES)
def test_a_registry_that_does_not_answer_is_told_once(root: Path, name: str) -> None:
    spoil, message, mend = ADDRESSES[name]
    spoil(root)
    told = doctor(root)
    assert (told.exit_code, told.json["healthy"]) == (2, False)
    ((area, said, hint),) = found(told)
    assert area == "registry"
    assert message in said
    assert mend in hint
    fixed = doctor(root, "--fix")
    assert fixed.exit_code == 5
    assert message in fixed.json["error"]["message"]


@pytest.mark.parametrize(
    ("status", "body", "message", "mend"),
    [
        (401, "You are not authenticated.", "asks who you are", "MLFLOW_TRACKING_USERNAME"),
        (
            403,
            "Invalid Host header - possible DNS rebinding attack detected",
            "refuses the host name",
            "--allowed-hosts",
        ),
        (403, '{"error_code": "PERMISSION_DENIED", "message": "no"}', "does not permit this", "permission"),
        (404, "<html>nothing</html>", "is not an MLflow server", "browser"),
        (507, '{"error_code": "INTERNAL_ERROR", "message": "database or disk is full"}', "disk is full", "space"),
    ],
)
def test_a_server_that_refuses(root: Path, status: int, body: str, message: str, mend: str) -> None:
    with answering(status, body) as port:
        change(root, "adapterctl.yaml", '  uri: ""', f'  uri: "http://127.0.0.1:{port}"')
        told = doctor(root)
    assert told.exit_code == 2
    ((_, said, hint),) = found(told)
    assert message in said
    assert mend in hint


# --- its disk


def test_a_full_artifact_store(root: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", "48k") as disk:
        change(root, "adapterctl.yaml", '  uri: ""', f'  uri: "sqlite:///other.db"\n  artifacts: "{disk}"')
        told = doctor(root)
        assert told.exit_code == 2
        assert any("the disk is full" in message for _, message, _ in found(told, "error"))


def test_an_artifact_store_that_became_read_only(root: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", "80m") as disk:
        change(root, "adapterctl.yaml", '  uri: ""', f'  uri: "sqlite:///other.db"\n  artifacts: "{disk}"')
        assert not found(doctor(root), "error")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        told = doctor(root)
        assert told.exit_code == 2
        ((area, message, mend),) = found(told, "error")
        assert (area, "read-only" in message, bool(mend)) == ("artifact store", True, True)
        assert list(disk.iterdir()) == []


def test_a_disk_that_is_nearly_full(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 500 * 2**20

    monkeypatch.setattr(ailments, "disk_usage", lambda _: Usage)
    told = doctor(root)
    assert told.exit_code == 0
    assert [(area, message.startswith("0.5 GiB free")) for area, message, _ in found(told)] == [
        ("artifact store", True)
    ]


# --- what killed processes left


def left_run(registry: Registry, name: str, host: str, process: str, age: float = 0.0) -> str:
    tags = {"adapterctl.key": name, "adapterctl.host": host, "adapterctl.process": process}
    started = int((time.time() - age) * 1000)
    run = client_of(registry).create_run(registry.experiment_id, start_time=started, tags=tags, run_name=name)
    return str(run.info.run_id)


def test_leftovers_of_the_dead_are_swept_and_those_of_others_wait_a_day(root: Path) -> None:
    registry, client = registry_of(root), client_of(registry_of(root))
    here = platform.node()
    ids = {
        name: left_run(registry, name, host, process, age)
        for name, host, process, age in (
            ("dead here", here, "1@1.00", 0),
            ("young elsewhere", "elsewhere", "1@1.00", 3600),
            ("old elsewhere", "elsewhere", "1@1.00", 90_000),
        )
    }
    with registry.run("alive", "alive") as alive:
        models = [
            client.create_logged_model(registry.experiment_id, name="pocket-ja", source_run_id=run_id)
            for run_id in (ids["dead here"], ids["young elsewhere"], alive.run_id)
        ]
        (root / "half.bin").write_bytes(b"x" * 1000)
        client.log_model_artifact(models[0].model_id, str(root / "half.bin"))
        told = doctor(root)
        assert told.exit_code == 0
        left = {message.partition(", begun")[0]: mend for _, message, mend in found(told)}
        assert set(left) == {
            "unfinished run 'dead here'",
            "unfinished run 'young elsewhere'",
            "unfinished run 'old elsewhere'",
            "unfinished model 'pocket-ja'",
        }
        assert "doctor --fix" in left["unfinished run 'dead here'"]
        assert "after a day" in left["unfinished run 'young elsewhere'"]
        fixed = doctor(root, "--fix")
        assert [text.partition(", begun")[0] for text in fixed.json["mended"]] == [
            "marked the run 'old elsewhere'",
            "marked the run 'dead here'",
            "removed the unfinished model 'pocket-ja'",
        ]
        assert client.get_run(alive.run_id).info.status == "RUNNING"
    assert {name: client.get_run(run_id).info.status for name, run_id in ids.items()} == {
        "dead here": "KILLED",
        "young elsewhere": "RUNNING",
        "old elsewhere": "KILLED",
    }
    assert not list((root / "registry" / "artifacts").rglob("half.bin"))
    assert len(found(fixed)) == 2


def test_unfinished_files(root: Path) -> None:
    state = Workspace.open(root).paths
    made = {
        "state": state.root / ".adapterctl-tmp-a",
        "young": root / "serving" / ".adapterctl-tmp-b",
        "old": root / "serving" / ".adapterctl-tmp-c",
        "fetching": state.fetched / ".adapterctl-tmp-d",
    }
    for path in made.values():
        path.mkdir(parents=True)
        (path / "x").write_text("x")
    (root / "serving" / "link").symlink_to(root / "evaluation")
    long_ago = time.time() - 7200
    os.utime(made["old"], (long_ago, long_ago))
    assert len(found(doctor(root))) == 4
    told = doctor(root, "--fix")
    assert len(told.json["mended"]) == 2
    assert {name for name, path in made.items() if path.exists()} == {"young", "fetching"}
    assert (root / "evaluation" / "suite.yaml").exists()


def test_a_lock_that_a_killed_process_left(root: Path) -> None:
    registry = registry_of(root)
    with registry.exclusive("update"):
        ((name, text),) = [
            tag for tag in client_of(registry).get_experiment(registry.experiment_id).tags.items() if "lock" in tag[0]
        ]
    client_of(registry).set_experiment_tag(
        registry.experiment_id, name, json.dumps(json.loads(text) | {"process": "1@1.00"})
    )
    told = doctor(root)
    assert told.exit_code == 0
    ((area, message, mend),) = found(told)
    assert (area, mend) == ("lock", "adapterctl doctor --fix")
    assert "'update'" in message
    told = doctor(root, "--fix")
    assert "freed the project's lock" in told.json["mended"][0]
    assert lease.queue(registry.connection) == []
    assert found(told) == []


def test_a_lock_of_another_machine_that_is_silent(root: Path) -> None:
    registry = registry_of(root)
    with registry.exclusive("update"):
        ((name, text),) = [
            tag for tag in client_of(registry).get_experiment(registry.experiment_id).tags.items() if "lock" in tag[0]
        ]
    silent = json.loads(text) | {"host": "elsewhere", "kernel": "another", "expires": time.time() - 100}
    client_of(registry).set_experiment_tag(registry.experiment_id, name, json.dumps(silent))
    ((_, message, mend),) = found(doctor(root))
    assert "gave no sign of life" in message
    assert "takes it over" in mend


def test_what_was_interrupted_is_told_and_not_decided(root: Path) -> None:
    registry = registry_of(root)
    journal = Workspace.open(root).paths.journal
    journal.parent.mkdir(exist_ok=True)
    journal.write_text(json.dumps({"command": "update", "langs": ["ja"], "update_id": "u", "champion": 3}))
    registry.set_alias("pocket-merged", "returning", 2)
    told = doctor(root, "--fix")
    assert (told.exit_code, told.json["mended"]) == (0, [])
    assert {mend for _, _, mend in found(told)} == {
        "go on with: adapterctl update --lang ja",
        "finish it: adapterctl rollback; or undo it: adapterctl promote",
    }
    assert journal.exists()
    assert registry.aliases("pocket-merged") == {"champion": 3, "previous": 2, "returning": 2}


# --- aliases and files


def test_aliases_that_point_nowhere_are_removed(root: Path) -> None:
    with closing(store_of(root)) as database, database:
        database.execute(
            "INSERT INTO registered_model_aliases (alias, version, name, workspace) "
            "VALUES ('candidate', 9, 'pocket-merged', 'default'), ('mine', 7, 'pocket-ja', 'default')"
        )
    told = doctor(root)
    assert told.exit_code == 2
    assert [(area, message) for area, message, _ in found(told)] == [
        ("aliases", "pocket-ja: the alias mine points to version 7, which is not there"),
        ("aliases", "pocket-merged: the alias candidate points to version 9, which is not there"),
    ]
    assert all("doctor --fix removes it" in mend for _, _, mend in found(told))
    told = doctor(root, "--fix")
    assert (told.exit_code, found(told), len(told.json["mended"])) == (0, [], 2)
    assert registry_of(root).aliases("pocket-merged") == {"champion": 3, "previous": 2}


def test_a_candidate_that_is_no_release(root: Path) -> None:
    registry = registry_of(root)
    registry.set_alias("pocket-merged", "candidate", 1)
    folder = registry.artifacts_of(registry.version("pocket-merged", 1).run_id)
    (Path(folder) / "release.json").unlink()
    told = doctor(root, "--fix")
    assert (told.exit_code, told.json["mended"]) == (2, [])
    ((area, message, mend),) = found(told)
    assert (area, "candidate points to version 1" in message) == ("aliases", True)
    assert "adapterctl reject" in mend


def test_what_is_served_is_hashed_and_the_rest_when_asked(root: Path) -> None:
    registry = registry_of(root)

    def spoil(name: str, number: int) -> None:
        path = stored_folder(registry, registry.version(name, number)) / TENSORS
        path.write_bytes(path.read_bytes()[:-1] + b"x")

    spoil("pocket-merged", 1)
    assert found(doctor(root)) == []
    ((_, message, _),) = found(doctor(root, "--deep"))
    assert message.startswith("pocket-merged v1: the file adapter_model.safetensors is not the one")
    # An adapter that the previous release pins, and the champion itself.
    spoil("pocket-ja", 2)
    spoil("pocket-merged", 3)
    told = doctor(root, "--fix")
    assert (told.exit_code, told.json["mended"]) == (2, [])
    assert [message.partition(":")[0] for _, message, _ in found(told, "error")] == ["pocket-ja v2", "pocket-merged v3"]


def test_a_champion_that_was_registered_before_its_files_were_there(root: Path) -> None:
    registry = registry_of(root)
    client_of(registry).finalize_logged_model(registry.version("pocket-merged", 3).model_id, "FAILED")
    ((area, message, _),) = found(doctor(root))
    assert (area, "registered before all files were there" in message) == ("adapters", True)


def test_nothing_is_mended_while_somebody_works(root: Path) -> None:
    workspace = Workspace.open(root)
    left = workspace.state / ".adapterctl-tmp-a"
    with workspace.lock("update"):
        left.mkdir()
        told = doctor(root, "--fix")
    assert told.exit_code == 4
    assert left.exists()


def test_names_from_the_registry_do_nothing_to_a_terminal(root: Path) -> None:
    left_run(registry_of(root), "<b>bold</b>[red]\x1b[31m", platform.node(), "1@1.00")
    told = invoke("-C", root, "doctor")
    assert "\x1b" not in told.out
    assert "<b>bold</b>[red]" in told.out
