from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from adapterctl.errors import RegistryError
from adapterctl.registry.versions import Version
from adapterctl.workflows.changes import Change, DataChange, Known, averages, changes, data_change, score_changes
from adapterctl.workflows.releases import Pin, Release

HASH = "a" * 64


def cell(lang: str, value: float, **named: Any) -> dict[str, Any]:
    plain = {"lang": lang, "task": "qa", "n": 6, "primary": "accuracy", "value": value}
    return {**plain, "metrics": {"accuracy": value}, "signatures": {"accuracy": "v1"}, **named}


def release(version: int, *cells: dict[str, Any], **named: Any) -> Release:
    means = {one["lang"]: one["value"] for one in cells}
    scores = {"average": sum(means.values()) / len(means) if means else None, "languages": means, "cells": list(cells)}
    pin = Pin(lang="ja", version=1, content_hash=HASH, training_key=HASH, inputs_key=HASH)
    plain = {
        "version": version,
        "created": "",
        "reason": "",
        "base": "b",
        "base_identity": "i",
        "recipe": {},
        "scale": 0.3,
        "adapters": {"ja": pin},
        "content_hash": HASH,
        "merge_key": HASH,
        "scores": scores,
    }
    return Release(**{**plain, **named})


def test_settings_that_differ_by_their_dotted_keys() -> None:
    before = {"method": "ties", "weights": {"de": 1.0, "ja": 1.0}, "layers": {}, "same": [1]}
    after = {"method": "core-tsv", "weights": {"ja": 2.0}, "layers": {}, "same": [1]}
    assert list(changes(before, after)) == [
        Change("method", "ties", "core-tsv"), Change("weights.de", 1.0, None), Change("weights.ja", 1.0, 2.0),
    ]  # fmt: skip
    assert list(changes(after, after)) == []


def test_scores_of_the_same_measure_have_a_difference() -> None:
    found = list(score_changes(release(1, cell("de", 0.5), cell("ja", 0.25)), release(2, cell("ja", 0.75))))
    assert [(one.lang, one.before, one.after, one.difference, one.why_not) for one in found] == [
        ("de", 0.5, None, None, "measured on one side only"), ("ja", 0.25, 0.75, 0.5, ""),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"n": 12}, "other test rows: 6 before, 12 now"),
        ({"signatures": {"accuracy": "v2"}}, "the metric was computed differently"),
        ({"signatures": {}}, "the metric was computed differently"),
        ({"primary": "macro_f1"}, "another metric before: accuracy"),
    ],
)
def test_scores_that_cannot_be_compared_say_why(other: dict[str, Any], why: str) -> None:
    (found,) = score_changes(release(1, cell("ja", 0.25)), release(2, cell("ja", 0.75, **other)))
    assert (found.why_not, found.difference) == (why, None)
    assert (found.before, found.after) == (0.25, 0.75)


def gated(compared_with: int) -> Release:
    verdict = {
        "passed": True,
        "cells": [{"lang": "ja", "task": "qa", "metric": "accuracy", "champion": 0.5, "candidate": 0.75}],
        "languages": [{"lang": "ja", "champion": 0.5}],
    }
    return release(2, cell("ja", 0.75, n=12), verdict=verdict, compared_with=compared_with)


def test_the_gate_has_measured_both_on_the_same_rows() -> None:
    before = release(1, cell("ja", 0.25))
    (found,) = score_changes(before, gated(1))
    assert (found.before, found.after, found.difference) == (0.5, 0.75, 0.25)
    assert averages(before, gated(1)) == (0.5, 0.75)


def test_a_verdict_against_another_version_is_not_taken() -> None:
    before = release(1, cell("ja", 0.25))
    (found,) = score_changes(before, gated(7))
    assert (found.before, found.difference) == (0.25, None)
    assert averages(before, gated(7)) == (0.25, 0.75)


def test_a_language_that_the_left_side_was_never_measured_on_leaves_no_average() -> None:
    both = gated(1).model_copy(update={"scores": release(2, cell("de", 0.5), cell("ja", 0.75)).scores})
    assert averages(release(1, cell("ja", 0.25)), both) == (None, 0.625)


@pytest.mark.parametrize("cells", [None, "x", [None, 3, "x"], [{"lang": "ja"}], {"ja": 1}])
def test_a_verdict_that_somebody_has_damaged_is_passed_over(cells: Any) -> None:
    after = gated(1).model_copy(update={"verdict": {"passed": True, "cells": cells, "languages": cells}})
    (found,) = score_changes(release(1, cell("ja", 0.25)), after)
    assert found.before == 0.25
    assert averages(release(1, cell("ja", 0.25)), after)[0] is None


@dataclass
class Artifacts:
    """Stands for a registry that holds ``rows.json`` by run."""

    held: dict[str, Any]

    def read_json(self, run_id: str, path: str) -> Any:
        assert path == "rows.json"
        if run_id not in self.held:
            raise RegistryError(f"no {path}")
        return self.held[run_id]


def known(number: int, sha256: str, rows: int | None, run_id: str = "") -> Known:
    version = Version("shop-ja", number, HASH, run_id, "", {}, "", "", "") if run_id else None
    return Known(number, sha256, rows, version)


ROWS = Artifacts({"one": ["a", "b", "b", "c"], "two": ["b", "c", "d", "e"], "odd": {"a": 1}, "mixed": ["a", 1]})


def test_rows_are_counted_by_their_hashes() -> None:
    found = data_change(ROWS, "ja", known(1, "x", 4, "one"), known(2, "y", 4, "two"))  # type: ignore[arg-type]
    assert found == DataChange("ja", 1, 2, 4, 4, False, added=2, removed=2)


def test_equal_rows_need_not_be_read() -> None:
    found = data_change(ROWS, "ja", known(1, "x", 4), known(2, "x", 4))  # type: ignore[arg-type]
    assert found == DataChange("ja", 1, 2, 4, 4, True, added=0, removed=0)


@pytest.mark.parametrize("run_id", ["", "none", "odd", "mixed"])
def test_rows_that_nobody_noted_are_unknown_and_not_zero(run_id: str) -> None:
    found = data_change(ROWS, "ja", known(1, "", None, run_id), known(2, "y", 4, "two"))  # type: ignore[arg-type]
    assert found == DataChange("ja", 1, 2, None, 4, None, added=None, removed=None)


def test_a_language_that_came_or_went() -> None:
    came = data_change(ROWS, "ja", None, known(2, "y", 4, "two"))  # type: ignore[arg-type]
    assert came == DataChange("ja", None, 2, None, 4, None)
    went = data_change(ROWS, "ja", known(1, "x", 4, "one"), None)  # type: ignore[arg-type]
    assert went == DataChange("ja", 1, None, 4, None, None)
