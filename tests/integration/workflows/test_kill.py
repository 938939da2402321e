"""kill -9 anywhere in an update, then the same command again: it ends as if nothing had been."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.program import Programs
from tests.support.small_workspace import search_in_updates
from tests.support.store import delivered_ids, ledger_of, read_store, registry_of

from adapterctl.files import unfinished
from adapterctl.workflows import releases
from adapterctl.workspace.workspace import Workspace

Copy = Callable[[Path], Path]
UPDATE = ("update", "--lang", "ja", "--json")
MLFLOW = "mlflow:MlflowClient."

BEFORE_THE_RELEASE = {
    "run made": {"at": f"{MLFLOW}create_run", "when": "after"},
    "before the first checkpoint": {"at": "adapterctl.training.checkpoints:save", "when": "before"},
    "checkpoint": {"at": "adapterctl.training.checkpoints:save", "when": "after"},
    "adapter written": {"at": "adapterctl.training.checkpoints:remove", "when": "before"},
    "adapter's model made": {"at": f"{MLFLOW}create_logged_model", "when": "after"},
    "adapter registered": {"at": f"{MLFLOW}create_model_version", "when": "after"},
    "merging": {"at": "adapterctl.lora.write:AdapterWriter.finish", "when": "after"},
    "choosing λ": {"at": "adapterctl.evaluation.answers:answer", "when": "after", "call": 3},
    "merging again": {"at": "adapterctl.lora.write:AdapterWriter.finish", "when": "before"},
    "scoring": {"at": "adapterctl.evaluation.answers:answer", "when": "before", "call": 2},
    "gating": {"at": "adapterctl.evaluation.gate:gate", "when": "after"},
}
"""In the order in which an update comes by."""

RELEASING = {
    "model made": {"at": f"{MLFLOW}create_logged_model", "when": "after"},
    "files written": {"at": f"{MLFLOW}finalize_logged_model", "when": "before"},
    "before the version": {"at": f"{MLFLOW}create_model_version", "when": "before"},
    "version made": {"at": f"{MLFLOW}create_model_version", "when": "after"},
    "release written": {"at": "adapterctl.workflows.releases:publish_release", "when": "after"},
    "candidate set": {"at": f"{MLFLOW}set_registered_model_alias", "when": "after"},
    "previous set": {"at": f"{MLFLOW}set_registered_model_alias", "when": "after", "call": 2},
    "champion set": {"at": f"{MLFLOW}set_registered_model_alias", "when": "after", "call": 3},
    "candidate dropped": {"at": f"{MLFLOW}delete_registered_model_alias", "when": "after"},
    "costs noted": {"at": "adapterctl.workflows.update:log_comparison", "when": "after"},
}


def kill(program: Programs, root: Path, point: dict[str, Any]) -> None:
    done = program(root, *UPDATE, trap={**point, "do": "kill"})
    assert done.exit_code == -signal.SIGKILL, done.err
    assert done.out == ""


def release(root: Path) -> dict[str, Any]:
    """Return what stands behind the champion, without what no two runs have in common."""
    found = releases.current(registry_of(root), "pocket")
    assert found is not None
    return found.model_dump(exclude={"created", "run_id"})


def comparable(said: str) -> dict[str, Any]:
    value = json.loads(said)
    del value["candidate"]["run_id"]
    return dict(value)


def check_like_uninterrupted(root: Path, said: str, updated: Path) -> None:
    assert comparable(said) == comparable((updated / "said.json").read_text(encoding="utf-8"))
    store = read_store(root)
    assert store == read_store(updated)
    assert set(store.runs.values()) == {1}
    assert {status for _, status in store.runs} == {"FINISHED"}
    assert {status for _, status in store.models} == {"READY"}
    assert store.versions["pocket-merged"].keys() == store.versions["pocket-ja"].keys() == {1, 2}
    assert store.aliases == {"champion": 2, "previous": 1}
    assert (store.doubled, store.leftovers) == ([], [])
    assert release(root) == release(updated)
    workspace = Workspace.open(root)
    assert not workspace.paths.journal.exists()
    assert not workspace.paths.checkpoints.exists()
    assert ledger_of(root).read().notes == ()
    assert not workspace.paths.ledger.exists()
    assert set(delivered_ids(registry_of(root)).values()) == {1}
    assert unfinished(root) == []


def test_killed_at_every_point_up_to_the_release_one_after_the_other(
    arrived: Path, copy: Copy, program: Programs, tmp_path: Path
) -> None:
    root, undisturbed = copy(arrived), Path(shutil.copytree(arrived, tmp_path / "undisturbed"))
    for workspace in (root, undisturbed):
        search_in_updates(workspace)
    whole = program(undisturbed, *UPDATE)
    assert whole.exit_code == 0, whole.err
    (undisturbed / "said.json").write_text(whole.out, encoding="utf-8")
    run_ids, booked = set(), set()
    for name, point in BEFORE_THE_RELEASE.items():
        kill(program, root, point)
        found = [entry.id for entry in ledger_of(root).entries()]
        assert len(set(found)) == len(found), name
        assert booked <= set(found), name
        booked = set(found)
        told = program(root, "status", "--json").json
        assert (told["champion"]["version"], told["candidate"]) == (1, None), name
        assert told["pending"]["langs"] == ["ja"], name
        run_ids |= {left.id for left in read_store(root).leftovers if left.name == "update ja"}
    assert len(run_ids) == 1
    findings = json.loads(program(root, "doctor", "--json").out)["findings"]
    mends = [f["mend"] for f in findings if f["level"] == "warning" and f["area"] == "leftovers"]
    assert "go on with: adapterctl update --lang ja" in mends
    again = program(root, "update", "--continue", "--json")
    assert again.exit_code == 0, again.err
    assert {again.json["candidate"]["run_id"]} == run_ids
    check_like_uninterrupted(root, again.out, undisturbed)
    findings = json.loads(program(root, "doctor", "--json").out)["findings"]
    assert [(f["level"], f["message"]) for f in findings if f["area"] == "leftovers"] == [("ok", "none")]


@pytest.fixture(scope="module")
def about_to_register(arrived: Path, program: Programs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace whose update was killed when all was done but the release."""
    root = Path(shutil.copytree(arrived, tmp_path_factory.mktemp("register") / "workspace"))
    kill(program, root, {"at": f"{MLFLOW}create_logged_model", "when": "before", "call": 2})
    return root


@pytest.mark.parametrize("point", RELEASING)
def test_killed_while_the_release_is_registered(
    about_to_register: Path, updated: Path, copy: Copy, program: Programs, point: str
) -> None:
    root = copy(about_to_register)
    kill(program, root, RELEASING[point])
    champion = registry_of(root).aliases("pocket-merged")["champion"]
    assert champion == (2 if point in ("champion set", "candidate dropped", "costs noted") else 1)
    if point == "version made":
        listed = program(root, "history", "--json").json["releases"]
        assert [past["version"] for past in listed] == [1]
    again = program(root, *UPDATE)
    assert again.exit_code == 0, again.err
    check_like_uninterrupted(root, again.out, updated)


def test_killed_when_all_is_done_there_is_nothing_left_to_do(
    about_to_register: Path, updated: Path, copy: Copy, program: Programs
) -> None:
    root = copy(about_to_register)
    kill(program, root, {"at": "adapterctl.cli.commands.maintain:candidate_dict", "when": "before"})
    again = program(root, *UPDATE)
    assert (again.exit_code, again.json["changed"], again.json["before"]) == (0, False, 2)
    check_like_uninterrupted(root, (updated / "said.json").read_text(encoding="utf-8"), updated)


def test_new_rows_after_a_kill_make_an_update_of_their_own(
    about_to_register: Path, copy: Copy, program: Programs
) -> None:
    root = copy(about_to_register)
    for path in root.glob("adapters/data/ja/*.arrived.train.jsonl"):
        path.unlink()
    done = program(root, "update", "--lang", "ja", "--if-changed", "--json")
    assert (done.exit_code, done.json["changed"]) == (0, False)
    assert program(root, "status", "--json").json["pending"] is None
    refused = program(root, "update", "--continue")
    assert refused.exit_code == 2
    assert "no update was interrupted" in refused.err


SETUP_POINTS = [
    {"at": "adapterctl.training.checkpoints:save", "when": "after", "call": 3},
    {"at": f"{MLFLOW}create_model_version", "when": "after", "call": 3},
    {"at": f"{MLFLOW}set_registered_model_alias", "when": "after", "call": 2},
]


def test_a_setup_that_is_killed_again_and_again_ends_like_one_that_is_not(
    fresh: Path, served: Path, copy: Copy, program: Programs
) -> None:
    root = copy(fresh)
    for point in SETUP_POINTS:
        done = program(root, "setup", trap={**point, "do": "kill"})
        assert done.exit_code == -signal.SIGKILL, done.err
    done = program(root, "setup", "--json")
    assert done.exit_code == 0, done.err
    store = read_store(root)
    assert store == read_store(served)
    assert set(store.runs.values()) == {1}
    assert release(root) == release(served)


ROLLBACK_POINTS = [{"at": f"{MLFLOW}set_registered_model_alias", "when": "after", "call": call} for call in (1, 2, 3)]


@pytest.mark.parametrize("point", ROLLBACK_POINTS, ids=["returning", "previous", "champion"])
def test_a_killed_rollback_is_finished_by_the_next(
    updated: Path, copy: Copy, program: Programs, point: dict[str, Any]
) -> None:
    root = copy(updated)
    assert program(root, "rollback", trap={**point, "do": "kill"}).exit_code == -signal.SIGKILL
    done = program(root, "rollback", "--json")
    assert done.json["champion"]["version"] == 1
    assert done.json["before"]["version"] == 2
    assert registry_of(root).aliases("pocket-merged") == {"champion": 1, "previous": 2}


REMOVE_POINTS = {
    "out of the file": {"at": "adapterctl.workspace.editing:remove_language", "when": "after"},
    "merging": {"at": "adapterctl.lora.write:AdapterWriter.finish", "when": "before"},
    "champion set": {"at": f"{MLFLOW}set_registered_model_alias", "when": "after", "call": 3},
}


def test_a_killed_removal_goes_on(served: Path, copy: Copy, program: Programs) -> None:
    root = copy(served)
    for point in REMOVE_POINTS.values():
        done = program(root, "remove", "--lang", "de", trap={**point, "do": "kill"})
        assert done.exit_code == -signal.SIGKILL, done.err
    done = program(root, "remove", "--lang", "de", "--json")
    assert done.exit_code == 0, done.err
    assert done.json["candidate"]["promoted"]
    status = program(root, "status", "--json").json
    assert (sorted(status["champion"]["adapters"]), status["pending"]) == (["en", "ja"], None)
    assert registry_of(root).aliases("pocket-merged") == {"champion": 2, "previous": 1}
    assert set(read_store(root).runs.values()) == {1}
    again = program(root, "remove", "--lang", "de")
    assert again.exit_code == 2
    assert "language 'de' is not in this workspace" in again.err
