"""What was spent so far, update after update, from the books alone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from adapterctl.accounting.amounts import Amount
from adapterctl.accounting.comparison import Line, Side
from adapterctl.accounting.entries import Entry
from adapterctl.accounting.prices import PriceSheet
from adapterctl.accounting.usage import Usage
from adapterctl.workflows.spending import spent_so_far


def entry(
    command: str, update_id: str, seconds: float, at: int, *, step: str = "process", outcome: str = "done"
) -> Entry:
    return Entry(
        id=f"{command} {update_id} {at}", time=f"2026-01-01T00:00:{at:02}+00:00", command=command, subject="ja",
        step=step, key="", usage=Usage(wall_seconds=seconds), update_id=update_id, machine="box",
        process=f"{at}", outcome=outcome,
    )  # fmt: skip


def session(entries: list[Entry], update_id: str) -> Any:
    finished = [one.update_id for one in entries if one.command == "setup" and one.outcome == "done"]
    ledger = SimpleNamespace(entries=lambda: entries, last_update_id=lambda command: finished[-1] if finished else None)
    config = SimpleNamespace(prices=PriceSheet())
    return SimpleNamespace(ledger=ledger, update_id=update_id, workspace=SimpleNamespace(config=config))


def retrain(seconds: float, measured: bool) -> Side:
    return Side("retrain-all", (Line("train", Amount(seconds, measured), Amount(0.0, measured)),), "USD")


def test_every_update_adds_to_both_ways_and_what_failed_to_the_next() -> None:
    books = [
        entry("setup", "s", 100.0, 1),
        entry("update", "a", 7.0, 2, outcome="failed"),
        entry("update", "a", 10.0, 3),
        entry("update", "given up", 5.0, 4, outcome="failed"),
        entry("evaluate", "", 50.0, 5),
        entry("update", "b", 20.0, 6),
    ]
    now = [entry("update", "c", 30.0, 9)]
    points = spent_so_far(session(books, "c"), retrain(60.0, True), retrain(80.0, False), now)["wall"]
    assert [point.at for point in points] == [0, 1, 2, 3]
    assert [point.merged.value for point in points] == [100.0, 117.0, 142.0, 172.0]
    assert all(point.merged.measured for point in points)
    assert [point.combined.value for point in points] == [60.0, 140.0, 220.0, 300.0]
    assert [point.combined.measured for point in points] == [True, False, False, False]


def test_without_a_set_up_on_the_books_nothing_is_added_up() -> None:
    assert spent_so_far(session([entry("update", "a", 1.0, 1)], "a"), retrain(1.0, True), retrain(1.0, True)) == {}
