"""The books of a workspace: written whether or not the registry answers, and kept in it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest
from tests.support.program import Programs
from tests.support.small_workspace import change
from tests.support.store import delivered_ids, ledger_of, registry_of

from adapterctl.accounting.usage import Usage
from adapterctl.errors import RegistryError
from adapterctl.workflows.doctor import examine
from adapterctl.workflows.init import init_workspace
from adapterctl.workflows.reporting import SilentReporter
from adapterctl.workflows.session import Session, reading, working
from adapterctl.workspace.workspace import Workspace

Copy = Callable[[Path], Path]


class Notes(SilentReporter):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    init_workspace(tmp_path / "workspace", "pocket", languages=["de"])
    return tmp_path / "workspace"


def outbox(root: Path) -> Path:
    return Workspace.open(root).paths.ledger


def steps(session: Session) -> list[tuple[str, str, str]]:
    return [(entry.command, entry.step, entry.outcome) for entry in session.ledger.entries()]


def look(root: Path) -> Session:
    return reading(Workspace.open(root), "status")


def test_a_command_that_needs_no_registry_does_not_load_it_and_is_booked(root: Path) -> None:
    script = f"""
import sys
from adapterctl.workflows.reporting import SilentReporter
from adapterctl.workflows.session import working
from adapterctl.workspace.workspace import Workspace
with working(Workspace.open({str(root)!r}), "evaluate", "base", SilentReporter()) as session:
    with session.step("evaluate", "base", "", "evaluate base"):
        pass
assert "mlflow" not in sys.modules
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)
    lines = [json.loads(line) for line in outbox(root).read_text(encoding="utf-8").splitlines()]
    assert [line["step"] for line in lines] == ["evaluate", "process"]
    # The store is not made for looking at books that cannot be in it.
    assert steps(look(root)) == [("evaluate", "evaluate", "done"), ("evaluate", "process", "done")]
    assert not (root / "registry" / "mlflow.db").exists()
    with working(Workspace.open(root), "promote", "merged", SilentReporter()) as session:
        assert session.registry.names() == []
        # What waited has been delivered before anything else is done.
        assert not outbox(root).exists()
    assert not outbox(root).exists()
    assert [command for command, _, _ in steps(look(root))] == ["evaluate", "evaluate", "promote"]
    assert sorted(delivered_ids(registry_of(root)).values()) == [1, 1, 1]


def test_looking_delivers_nothing(root: Path) -> None:
    with working(Workspace.open(root), "evaluate", "base", SilentReporter()):
        pass
    registry_of(root)
    before = outbox(root).read_bytes()
    session = look(root)
    assert session.registry.names() == []
    assert steps(session) == [("evaluate", "process", "done")]
    findings = [(found.level, found.message) for found in examine(root) if found.area == "books"]
    assert findings == [
        (
            "ok",
            f"1 entries; 1 of them wait in {outbox(root)} for the next command that changes something in the registry",
        )
    ]
    assert outbox(root).read_bytes() == before


def test_what_failed_and_is_done_again_is_booked_both_times(root: Path) -> None:
    def attempt(fails: bool) -> None:
        with working(Workspace.open(root), "setup", "", SilentReporter()) as session:
            session.update_id = "s1"
            with session.registry.run("setup:s1", "setup"), session.step("train", "de", "k", "train de") as record:
                record.meter.count(tokens=50, row_epochs=5, steps=2, flops=1e6)
                if fails:
                    raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        attempt(fails=True)
    attempt(fails=False)
    session = look(root)
    assert steps(session) == [
        ("setup", "train", "failed"), ("setup", "process", "failed"),
        ("setup", "train", "done"), ("setup", "process", "done"),
    ]  # fmt: skip
    assert session.ledger.last_update_id("setup") == "s1"
    client = mlflow.MlflowClient(session.registry.resolved.uri)
    (found,) = client.search_runs([session.registry.experiment_id], "tags.`adapterctl.books` = '1'")
    assert (found.info.run_name, found.info.status) == ("setup", "FINISHED")
    assert found.data.metrics["usage.train.tokens"] == 100


def test_books_wait_while_the_registry_does_not_answer(root: Path) -> None:
    said = Notes()
    change(root, "adapterctl.yaml", 'uri: ""', "uri: http://127.0.0.1:1")
    with (
        pytest.raises(RegistryError),
        working(Workspace.open(root), "update", "de", said) as session,
        session.step("train", "de", "k", "train de"),
    ):
        session.registry.names()
    assert len(outbox(root).read_text(encoding="utf-8").splitlines()) == 2
    with pytest.raises(RegistryError, match="no MLflow answers"):
        look(root).ledger.entries()
    change(root, "adapterctl.yaml", "uri: http://127.0.0.1:1", 'uri: ""')
    with working(Workspace.open(root), "update", "de", said) as session:
        session.registry.names()
    assert said.said == []
    assert steps(look(root)) == [
        ("update", "train", "failed"), ("update", "process", "failed"), ("update", "process", "done"),
    ]  # fmt: skip


def test_a_command_that_did_its_work_does_not_fail_over_the_books(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from adapterctl.registry.client import Registry

    def refuse(*_: object, **__: object) -> None:
        raise RegistryError("the registry is kept busy by another process")

    said = Notes()
    monkeypatch.setattr(Registry, "write_books", refuse)
    with working(Workspace.open(root), "evaluate", "ja", said) as session:
        session.registry.names()
    monkeypatch.undo()
    assert said.said == [f"the books wait in {outbox(root)}: the registry is kept busy by another process"]
    assert steps(look(root)) == [("evaluate", "process", "done")]


def test_a_ledger_of_an_earlier_version_is_delivered_once(root: Path) -> None:
    old = {
        "id": "0123456789abcdef", "time": "2025-05-01T10:00:00.000+00:00", "command": "update", "subject": "ja",
        "step": "train", "key": "k", "measured": True, "reused": False, "update_id": "u", "machine": "m",
        "process": "1@2", "outcome": "done",
        "usage": {"wall_seconds": 2.5, "cpu_seconds": 2.0, "device": "NVIDIA H200", "device_seconds": 1.5, "tokens": 9},
    }  # fmt: skip
    path = outbox(root)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(old) + "\n", encoding="utf-8")
    for _ in range(2):
        with working(Workspace.open(root), "promote", "merged", SilentReporter()) as session:
            session.registry.names()
    (found,) = look(root).ledger.entries(command="update")
    assert found.usage == Usage(wall_seconds=2.5, cpu_seconds=2.0, devices={"NVIDIA H200": 1.5}, tokens=9)
    assert delivered_ids(registry_of(root))["0123456789abcdef"] == 1
    assert not path.exists()


POINTS = {
    "a step booked": {"at": "adapterctl.accounting.outbox:Outbox.append", "when": "after"},
    "all steps booked": {"at": "adapterctl.accounting.outbox:Outbox.append", "when": "after", "call": 2},
    "the whole booked": {"at": "adapterctl.accounting.outbox:Outbox.append", "when": "after", "call": 3},
    "before the books are delivered": {"at": "adapterctl.registry.books:write", "when": "before"},
    "in the middle of it": {"at": "mlflow:MlflowClient.log_batch", "when": "after", "call": 2},
    "books delivered": {"at": "adapterctl.registry.books:write", "when": "after"},
    "outbox not cleared": {"at": "adapterctl.accounting.outbox:Outbox.remove", "when": "before"},
}

NEW = dict(zip(POINTS, (1, 2, 3, 0, 0, 0, 0), strict=True))
"""How many steps of its own each attempt has booked: the later ones are killed while they deliver the earlier's."""


def test_after_kills_at_every_point_each_finished_step_is_on_the_books_once(
    served: Path, copy: Copy, program: Programs
) -> None:
    root, booked = copy(served), {entry.id for entry in ledger_of(served).entries()}
    for name, point in POINTS.items():
        done = program(root, "train", "--lang", "de", trap={**point, "do": "kill"})
        assert done.exit_code == -signal.SIGKILL, (name, done.err)
        found = Counter(entry.id for entry in ledger_of(root).entries())
        assert set(found.values()) == {1}, name
        assert booked <= found.keys(), name
        assert len(found) - len(booked) == NEW[name], name
        booked = set(found)
    done = program(root, "train", "--lang", "de")
    assert done.exit_code == 0, done.err
    entries = ledger_of(root).entries()
    assert booked < {entry.id for entry in entries}
    assert delivered_ids(registry_of(root)) == Counter(entry.id for entry in entries)
    assert not outbox(root).exists()
    assert [left.key for left in registry_of(root).leftovers() if left.key.startswith("books:")] == []


def test_scores_that_are_kept_are_told_without_the_registry(served: Path, copy: Copy, program: Programs) -> None:
    root = copy(served)
    # Other tests ask questions in the workspace that this one is a copy of, and leave their entries on the way.
    outbox(root).unlink(missing_ok=True)
    before = len(ledger_of(root).entries())
    done = program(root, "evaluate", "base", "--json")
    assert done.exit_code == 0, done.err
    assert outbox(root).exists()
    assert len(ledger_of(root).entries()) == before + 2
    assert program(root, "evaluate", "ja@champion", "--lang", "ja").exit_code == 0
    assert not outbox(root).exists()
    assert set(delivered_ids(registry_of(root)).values()) == {1}
