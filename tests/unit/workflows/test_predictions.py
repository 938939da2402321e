"""Which rows a reviewer sees, in which order, and what they say."""

from __future__ import annotations

from typing import Any

from adapterctl.evaluation.scorecard import Cell, ExampleScore, Scorecard
from adapterctl.examples import Example
from adapterctl.workflows.predictions import compare_rows


def row(number: int, score: float, answer: str = "", **more: Any) -> ExampleScore:
    return ExampleScore(f"r{number}", "ja", "qa", answer, "right", score, row=f"hash {number}", **more)


def card(*rows: ExampleScore) -> Scorecard:
    return Scorecard("m", (Cell("ja", "qa", len(rows), "accuracy", 0.5, {"accuracy": 0.5}, rows),))


BEFORE = card(row(1, 1.0, "old 1"), row(2, 0.5), row(3, 0.2), row(4, 0.0), row(5, 0.9, "old 5"))
AFTER = card(row(1, 0.0, "new 1"), row(2, 0.5), row(3, 0.3), row(4, 1.0), row(5, 0.8, "new 5"))


def test_what_got_worse_comes_first_then_the_largest_gains() -> None:
    found = compare_rows(AFTER, BEFORE)
    assert found.columns == {
        "language": ["ja"] * 4,
        "task": ["qa"] * 4,
        "id": ["r1", "r5", "r4", "r3"],
        "change": [-1.0, -0.1, 1.0, 0.1],
        "champion": [1.0, 0.9, 0.0, 0.2],
        "candidate": [0.0, 0.8, 1.0, 0.3],
    }
    assert (found.worse, found.better, found.alike, found.alone) == (2, 2, 1, 0)
    assert (found.shown, found.left_out) == (4, 1)


def test_regressions_are_kept_where_there_is_no_room_for_all() -> None:
    found = compare_rows(AFTER, BEFORE, most=3)
    assert found.columns["id"] == ["r1", "r5", "r4"]
    assert found.left_out == 2
    assert (found.worse, found.better) == (2, 2)


def test_a_row_that_asks_something_else_now_is_not_compared() -> None:
    other = ExampleScore("r1", "ja", "qa", "x", "right", 0.0, row="another hash")
    found = compare_rows(card(other), BEFORE)
    assert found.columns["champion"] == [None]
    assert found.columns["change"] == [None]
    assert (found.worse, found.alone) == (0, 1)


def test_a_first_release_shows_its_worst_rows() -> None:
    found = compare_rows(AFTER, None)
    assert found.columns["id"] == ["r1", "r3", "r2", "r5", "r4"]
    assert found.alone == 5


def test_what_rows_say_is_told_only_where_it_may_be() -> None:
    examples = {"ja": [Example("r1", "ja", "qa", "right", question="Q?", context="C", choices=("a", "b"))]}
    assert "new 1" not in str(compare_rows(AFTER, BEFORE).columns)
    told = compare_rows(AFTER, BEFORE, examples=examples).columns
    assert told["asked"][:2] == ["C\nQ?\na\nb", ""]
    assert told["reference"][0] == "right"
    assert told["champion's answer"][:2] == ["old 1", "old 5"]
    assert told["candidate's answer"][:2] == ["new 1", "new 5"]


def test_long_texts_are_cut() -> None:
    found = compare_rows(card(row(1, 0.0, "x" * 9000)), BEFORE, examples={})
    assert len(found.columns["candidate's answer"][0]) == 2000
