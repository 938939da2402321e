"""Which test rows are new, and what became of them; the numbers are worked out by hand."""

from __future__ import annotations

from math import log
from types import SimpleNamespace
from typing import Any

import pytest

from adapterctl.errors import RegistryError
from adapterctl.evaluation.policy import GateSettings
from adapterctl.evaluation.scorecard import Cell, ExampleScore, Scorecard
from adapterctl.workflows.newrows import new_rows


def card(scores: dict[str, dict[str, float]]) -> Scorecard:
    """Return a scorecard of one task, right and wrong answers, from scores by language and row."""
    cells = []
    for lang, rows in scores.items():
        found = tuple(
            ExampleScore(
                id=row, lang=lang, task="mood", prediction="", reference="", score=score, row=row,
                details={"chosen": int(score), "answer": 1},
            )
            for row, score in rows.items()
        )  # fmt: skip
        value = sum(rows.values()) / len(rows)
        cells.append(Cell(lang, "mood", len(rows), "accuracy", value, {"accuracy": value}, found))
    return Scorecard("model", tuple(cells))


def reading(bits: dict[str, float]) -> Scorecard:
    """Return a scorecard of texts of 10 bytes that are read with so many bits a byte."""
    rows = tuple(
        ExampleScore(
            id=row, lang="ja", task="read", prediction="", reference="", score=-value, row=row,
            details={"nats": value * log(2) * 10, "bytes": 10, "tokens": 4},
        )
        for row, value in bits.items()
    )  # fmt: skip
    return Scorecard("model", (Cell("ja", "read", len(rows), "bits_per_byte", 0.0, {}, rows),))


def session(released: Scorecard | None) -> Any:
    def read_json(place: str, path: str) -> Any:
        assert (place, path) == ("run", "scorecard.json")
        if released is None:
            raise RegistryError("gone")
        return released.as_dict()

    config = SimpleNamespace(gate=GateSettings(resamples=999))
    return SimpleNamespace(registry=SimpleNamespace(read_json=read_json), workspace=SimpleNamespace(config=config))


CHAMPION: Any = SimpleNamespace(run_id="run")
BEFORE = card({"de": {"d1": 1.0, "d2": 0.0}, "ja": {"j1": 1.0, "j2": 0.0, "j3": 0.0, "j4": 1.0}})
AFTER = card({"de": {"d1": 0.0, "d2": 0.0}, "ja": {"j1": 0.0, "j2": 1.0, "j3": 1.0, "j4": 1.0}})


def test_only_rows_that_the_champion_was_not_released_on_are_compared() -> None:
    released = card({"de": {"d1": 1.0, "d2": 0.0}, "ja": {"j1": 1.0}})
    (found,) = new_rows(session(released), AFTER, BEFORE, CHAMPION)
    assert (found.lang, found.task, found.metric, found.n) == ("ja", "mood", "accuracy", 3)
    assert found.champion == pytest.approx(1 / 3)
    assert found.candidate == pytest.approx(1.0)
    assert found.difference == pytest.approx(2 / 3)
    # Differences are 1, 1 and 0: no mean of resamples leaves [0, 1].
    assert 0.0 <= found.low <= 2 / 3 <= found.high <= 1.0
    assert new_rows(session(released), AFTER, BEFORE, CHAMPION) == (found,)


def test_without_new_rows_or_without_the_released_scorecard_there_is_nothing_to_tell() -> None:
    assert new_rows(session(BEFORE), AFTER, BEFORE, CHAMPION) == ()
    assert new_rows(session(None), AFTER, BEFORE, CHAMPION) == ()


def test_lower_is_better_for_texts_that_are_read() -> None:
    before, after = reading({"a": 2.0, "b": 3.0, "c": 4.0}), reading({"a": 9.0, "b": 2.0, "c": 2.0})
    (found,) = new_rows(session(reading({"a": 1.0})), after, before, CHAMPION)
    assert (found.metric, found.n) == ("bits_per_byte", 2)
    assert (found.champion, found.candidate) == (pytest.approx(3.5), pytest.approx(2.0))
    assert found.difference == pytest.approx(1.5)
    # The gains are 1 and 2 bits.
    assert 1.0 <= found.low <= 1.5 <= found.high <= 2.0


def test_a_champion_of_an_earlier_version_has_no_scorecard_that_can_be_read() -> None:
    earlier = session(BEFORE)
    earlier.registry.read_json = lambda place, path: {"schema": 1, "model": "champion", "cells": []}
    assert new_rows(earlier, AFTER, BEFORE, CHAMPION) == ()
