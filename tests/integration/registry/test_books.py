"""The books in the registry: nothing is lost, nothing is there twice, whoever is killed when."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest
from tests.support.store import delivered_ids

from adapterctl.accounting.entries import Entry
from adapterctl.accounting.ledger import Ledger
from adapterctl.accounting.usage import Usage
from adapterctl.registry.client import Registry
from adapterctl.registry.settings import RegistrySettings, ResolvedRegistry


def entry(step: str = "train", seconds: float = 2.0, **changes: Any) -> Entry:
    made = Entry.now(
        command="update",
        subject="ja",
        step=step,
        key="k" * 64,
        usage=Usage(wall_seconds=seconds, tokens=100, peak_memory_bytes=int(1000 * seconds)),
        update_id="u1",
        machine="box",
    )
    return dataclasses.replace(made, **changes)


def client_of(resolved: ResolvedRegistry) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(resolved.uri, registry_uri=resolved.uri)


def run_of(registry: Registry, key: str) -> Any:
    client = client_of(registry.resolved)
    (found,) = client.search_runs([registry.experiment_id], f"tags.`adapterctl.key` = '{key}'")
    return client.get_run(found.info.run_id)


@pytest.fixture
def registry(store: ResolvedRegistry, project: str) -> Registry:
    return Registry.connect(store, project)


@pytest.fixture
def ledger(registry: Registry, tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.jsonl", lambda: registry)


def book(ledger: Ledger, registry: Registry, *entries: Entry) -> None:
    for one in entries:
        ledger.append(one)
    ledger.deliver(registry)


def test_what_is_delivered_is_read_again_as_it_was_written(registry: Registry, ledger: Ledger) -> None:
    usage = Usage(wall_seconds=0.1 + 0.2, devices={"NVIDIA H200": 1e-3}, energy_joules=1 / 3, energy_measured=True)
    written = [entry(), entry("merge", usage=usage), entry("process", update_id="", command="évaluer", subject="日本")]
    book(ledger, registry, *written)
    assert not ledger.outbox.path.exists()
    # What was written in one millisecond has no order over several runs.
    assert sorted(ledger.read().entries, key=written.index) == written
    assert ledger.read().notes == ()
    assert ledger.last_update_id("update") is None
    assert Ledger(ledger.outbox.path, lambda: registry).entries(step="merge") == [written[1]]


def test_another_project_has_other_books(registry: Registry, ledger: Ledger) -> None:
    book(ledger, registry, entry())
    assert Registry.connect(registry.resolved, f"{registry.project}-2").read_books() == ([], [])


def test_a_run_shows_sums_of_all_attempts_and_keeps_its_own_life(registry: Registry, ledger: Ledger) -> None:
    def stop() -> str:
        with registry.run("update:u1", "update ja") as run:
            raise RuntimeError(run.run_id)

    with pytest.raises(RuntimeError) as stopped:
        stop()
    run_id = str(stopped.value)
    book(ledger, registry, entry(seconds=2.0, outcome="failed"), entry("process", 3.0, outcome="failed"))
    book(ledger, registry, entry(seconds=1.5, process="99@1800"))
    found = run_of(registry, "update:u1")
    assert (found.info.run_id, found.info.status) == (run_id, "FAILED")
    assert found.data.tags["adapterctl.books"] == "1"
    shown = {name: value for name, value in found.data.metrics.items() if name.startswith("usage.")}
    assert shown == {
        "usage.train.wall_seconds": 3.5, "usage.train.tokens": 200, "usage.train.peak_memory_bytes": 2000,
        "usage.process.wall_seconds": 3.0, "usage.process.tokens": 100, "usage.process.peak_memory_bytes": 3000,
    }  # fmt: skip
    history = client_of(registry.resolved).get_metric_history(run_id, "usage.train.wall_seconds")
    assert sorted((point.step, point.value) for point in history) == [(2, 2.0), (3, 3.5)]
    with registry.run("update:u1", "update ja") as again:
        assert again.run_id == run_id
    assert run_of(registry, "update:u1").info.status == "FINISHED"
    assert len(ledger.entries(update_id="u1")) == 3


def test_a_process_without_a_name_for_its_work_has_a_run_of_its_own(registry: Registry, ledger: Ledger) -> None:
    alone = {"command": "evaluate", "update_id": "", "process": "7@1700"}
    first = entry("evaluate", 2.0, **alone, time="2026-01-01T00:00:10.000+00:00")
    whole = entry("process", 10.0, **alone, time="2026-01-01T00:00:12.000+00:00")
    book(ledger, registry, first, whole)
    found = run_of(registry, "books:box:7@1700")
    assert (found.info.run_name, found.info.status) == ("evaluate", "FINISHED")
    assert (found.info.start_time, found.info.end_time) == (1767225602000, 1767225612000)
    assert found.data.tags["adapterctl.command"] == "evaluate"
    book(ledger, registry, entry("process", 1.0, **alone, outcome="failed"))
    assert run_of(registry, "books:box:7@1700").info.status == "FAILED"
    assert registry.leftovers() == []


def test_a_start_that_failed_is_booked_before_its_run_is_made(registry: Registry, ledger: Ledger) -> None:
    book(ledger, registry, entry("process", 1.0, outcome="failed"))
    assert run_of(registry, "update:u1").info.status == "FAILED"
    with registry.run("update:u1", "update ja") as run:
        assert (run.reopened, run.name) == (True, "update ja")
    assert run_of(registry, "update:u1").info.status == "FINISHED"
    assert len(ledger.entries()) == 1


def test_many_entries_of_one_run_are_spread_over_tags(registry: Registry, ledger: Ledger) -> None:
    written = [entry(key=f"{number:064d}", subject="日" * 300) for number in range(60)]
    book(ledger, registry, *written[:50])
    book(ledger, registry, *written[50:])
    assert {one.id for one in ledger.entries()} == {one.id for one in written}
    assert set(delivered_ids(registry).values()) == {1}
    tags = run_of(registry, "update:u1").data.tags
    texts = [text for name, text in tags.items() if name.startswith("adapterctl.books.")]
    assert len(texts) > 10
    assert max(map(len, texts)) <= 4800


def test_two_machines_whose_processes_have_the_same_name_share_a_run(registry: Registry, tmp_path: Path) -> None:
    ledgers = [Ledger(tmp_path / name, lambda: registry) for name in ("one", "two")]
    for machine, ledger in zip("ab", ledgers, strict=True):
        book(ledger, registry, entry(machine=machine, process="1@1700"))
    for ledger in ledgers:
        assert sorted(one.machine for one in ledger.read().entries) == ["a", "b"]


def test_a_tag_that_somebody_spoilt_hides_no_other(registry: Registry, ledger: Ledger) -> None:
    book(ledger, registry, entry(), entry(process="2@2"), entry(process="3@3"))
    client, run_id = client_of(registry.resolved), run_of(registry, "update:u1").info.run_id
    client.set_tag(run_id, "adapterctl.books.2-2.0", "[{")
    client.set_tag(run_id, "adapterctl.books.3-3.0", "7")
    contents = Ledger(ledger.outbox.path, lambda: registry).read()
    assert len(contents.entries) == 1
    assert [note.partition(" of run")[0] for note in contents.notes] == [
        "the tag adapterctl.books.2-2.0", "the tag adapterctl.books.3-3.0",
    ]  # fmt: skip
    # And what comes later does not take the spoilt tag's place.
    book(ledger, registry, entry(process="2@2"))
    assert len(ledger.read().entries) == 2


def test_a_tag_of_entries_that_are_none_stops_no_delivery(registry: Registry, ledger: Ledger) -> None:
    book(ledger, registry, entry())
    client, run_id = client_of(registry.resolved), run_of(registry, "update:u1").info.run_id
    odd = {**entry().as_dict(), "id": "odd", "usage": {"wall_seconds": 10**400}}
    client.set_tag(run_id, "adapterctl.books.x.0", json.dumps([{"id": []}]))
    client.set_tag(run_id, "adapterctl.books.x.1", json.dumps([odd]))
    book(ledger, registry, entry(process="2@2"))
    contents = ledger.read()
    assert len(contents.entries) == 2
    assert not ledger.outbox.path.exists()
    assert len(contents.notes) == 2
    assert "adapterctl.books.x.0" in contents.notes[0]
    assert "'odd'" in contents.notes[1]


def test_a_long_history_is_read_in_a_handful_of_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry.connect(RegistrySettings(uri="").resolve(tmp_path), "pocket")
    ledger = Ledger(tmp_path / "ledger.jsonl", lambda: registry)
    with ledger.outbox.path.open("w") as handle:
        for number in range(400):
            handle.write(json.dumps(entry(process=f"{number % 20}@17", update_id=f"u{number % 20}").as_dict()) + "\n")
    assert ledger.deliver(registry) == 400
    calls: Counter[str] = Counter()
    search = mlflow.MlflowClient.search_runs

    def counted(*arguments: Any, **named: Any) -> Any:
        calls["search"] += 1
        return search(*arguments, **named)

    monkeypatch.setattr(mlflow.MlflowClient, "search_runs", counted)
    assert len(ledger.entries()) == len(ledger.entries(step="train")) == 400
    assert calls["search"] == 1


POINTS: dict[str, dict[str, Any]] = {
    "an entry written": {"class": "Outbox", "method": "append", "when": "after", "call": 2},
    "before the run": {"method": "create_run", "when": "before"},
    "run made": {"method": "create_run", "when": "after"},
    "metrics noted": {"method": "log_batch", "when": "after"},
    "before the end of the run": {"method": "set_terminated", "when": "before"},
    "run ended": {"method": "set_terminated", "when": "after"},
    "before the second run": {"method": "create_run", "when": "before", "call": 2},
    "second run made": {"method": "create_run", "when": "after", "call": 2},
    "before the outbox is cleared": {"class": "Outbox", "method": "remove", "when": "before"},
    "outbox cleared": {"class": "Outbox", "method": "remove", "when": "after"},
    "later entries noted": {"method": "log_batch", "when": "after", "call": 3},
    "before later metrics": {"method": "log_batch", "when": "before", "call": 4},
    "before the outbox is cleared again": {"class": "Outbox", "method": "remove", "when": "before", "call": 2},
}


def test_after_a_kill_anywhere_every_entry_is_there_once(tmp_path: Path, robot: Callable[..., list[int]]) -> None:
    Registry.connect(RegistrySettings(uri="").resolve(tmp_path / "template"), "pocket")
    alone = {"command": "evaluate", "update_id": "", "process": "7@1700"}
    first = [entry(), entry("merge", 1.0), entry("process", **alone)]
    later = [entry("register", 0.5), entry("process", 9.0)]
    orders, roots = [], []
    for number, kill in enumerate(POINTS.values()):
        root = tmp_path / str(number)
        shutil.copytree(tmp_path / "template", root)
        resolved = RegistrySettings(uri="").resolve(root)
        entries = [[one.as_dict() for one in together] for together in (first, later)]
        orders.append(
            {
                "do": "books",
                "store": dataclasses.asdict(resolved),
                "project": "pocket",
                "outbox": str(root / "ledger.jsonl"),
                "entries": entries,
                "kill": kill,
            }
        )
        roots.append((root, resolved))
    assert robot(orders, together=True) == [-9] * len(POINTS)
    for name, (root, resolved) in zip(POINTS, roots, strict=True):
        registry = Registry.connect(resolved, "pocket")
        ledger = Ledger(root / "ledger.jsonl", lambda registry=registry: registry)  # type: ignore[misc]
        found = Counter(one.id for one in ledger.read().entries)
        written = first[:2] if name == "an entry written" else first
        assert found.keys() >= {one.id for one in written}, name
        assert set(found.values()) == {1}, name
        # The next command appends what this one could not, and delivers all.
        missing = [one for one in (*first, *later) if one.id not in found]
        book(ledger, registry, *missing)
        assert delivered_ids(registry) == Counter(one.id for one in (*first, *later)), name
        assert not ledger.outbox.path.exists(), name
        shown = run_of(registry, "update:u1").data.metrics
        assert (shown["usage.train.wall_seconds"], shown["usage.process.wall_seconds"]) == (2.0, 9.0), name
        assert run_of(registry, "books:box:7@1700").info.status == "FINISHED", name
        own = [left.key for left in registry.leftovers() if left.key.startswith("books:")]
        assert own == [], name
