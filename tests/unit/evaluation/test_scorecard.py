from __future__ import annotations

import json
from dataclasses import replace

import pytest

from adapterctl.errors import DataError
from adapterctl.evaluation.scorecard import Cell, ExampleScore, Scorecard


def cell(lang: str, task: str, value: float) -> Cell:
    details = {"log_likelihoods": [-0.1, -1 / 3], "chosen": 0, "answer": 0}
    rows = (ExampleScore("1", lang, task, "良い", "良い", 1.0, "abc", "page 7", details),)
    signatures = {"accuracy": "accuracy|log-likelihood|engine:transformers"}
    return Cell(lang, task, 1, "accuracy", value, {"accuracy": value, "macro_f1": 0.5}, rows, signatures)


CARD = Scorecard("merged/7", (cell("ja", "a", 0.5), cell("de", "b", 0.25), cell("de", "a", 0.75)))


def test_cells_are_sorted_and_found():
    assert [(one.lang, one.task) for one in CARD.cells] == [("de", "a"), ("de", "b"), ("ja", "a")]
    assert CARD.cell("de", "b").value == 0.25
    assert CARD.find("ja", "b") is None
    assert (CARD.languages, CARD.tasks) == (("de", "ja"), ("a", "b"))


def test_means():
    assert CARD.language("de") == 0.5
    assert CARD.language("ja") == 0.5
    assert Scorecard("m", (*CARD.cells, cell("ja", "b", 1.0))).average == pytest.approx((0.5 + 0.75) / 2)


def test_json_round_trip_is_exact():
    assert Scorecard.from_dict(json.loads(json.dumps(CARD.as_dict(), allow_nan=False))) == CARD
    assert Cell.from_dict(json.loads(json.dumps(CARD.cells[0].as_dict()))) == CARD.cells[0]


def test_without_texts_only_numbers_and_hashes_are_left():
    details = {
        "log_likelihoods": [-0.1, None],
        "ended": True,
        "said": "良い",
        "more": {"words": ["良い"], "n": 1},
        "n": 2,
    }
    rows = (
        ExampleScore("1", "ja", "a", "良い", "良い", 1.0, "abc", "page 7", details),
        ExampleScore("2", "ja", "a", "", "良い", 0.0, "def"),
    )
    made = Scorecard("m", (Cell("ja", "a", 2, "accuracy", 0.5, {"accuracy": 0.5}, rows),))
    stored = json.dumps(made.as_dict(texts=False), ensure_ascii=False)
    assert "良" not in stored
    kept = Scorecard.from_dict(json.loads(stored))
    first, second = kept.cells[0].scores
    assert (first.id, first.row, first.group, first.score) == ("1", "abc", "page 7", 1.0)
    assert first.details == {"log_likelihoods": [-0.1, None], "ended": True, "n": 2, "empty": False}
    assert second.details == {"empty": True}
    # What is told of it stays the same, also when it is stored once more.
    assert kept.summary() == made.summary()
    assert Scorecard.from_dict(kept.as_dict(texts=False)) == kept
    assert made.summary()["cells"][0]["empty"] == 1


def test_another_form_is_refused():
    with pytest.raises(DataError, match="form 99"):
        Scorecard.from_dict(CARD.as_dict() | {"schema": 99})


def test_the_summary_is_small_and_has_the_values():
    summary = CARD.summary()
    assert "良い" not in json.dumps(summary, ensure_ascii=False)
    assert summary["languages"] == {"de": 0.5, "ja": 0.5}
    assert summary["cells"][1] == {
        "lang": "de", "task": "b", "n": 1, "primary": "accuracy", "value": 0.25,
        "metrics": {"accuracy": 0.25, "macro_f1": 0.5}, "empty": 0, "cut": 0, "shortened": 0,
        "signatures": {"accuracy": "accuracy|log-likelihood|engine:transformers"},
    }  # fmt: skip


def test_only_some_languages():
    assert CARD.only({"ja"}).languages == ("ja",)


@pytest.mark.parametrize(
    "ask", [lambda: CARD.cell("fr", "a"), lambda: CARD.language("fr"), lambda: Scorecard("m", ()).average]
)
def test_what_was_not_measured_is_an_error_with_a_mend(ask):
    with pytest.raises(DataError) as caught:
        ask()
    assert caught.value.hint


def read(lang: str, value: float) -> Cell:
    rows = (ExampleScore("1", lang, "text", "", "", -value, details={"nats": 2.0, "tokens": 2, "bytes": 3}),)
    return Cell(lang, "text", 1, "bits_per_byte", value, {"bits_per_byte": value}, rows)


def test_perplexity_is_told_apart_from_the_mean():
    card = Scorecard("m", (*CARD.cells, read("ja", 1.5), read("fr", 2.5)))
    assert (card.language("ja"), card.average) == (0.5, 0.5)
    assert set(card.languages) == {"de", "fr", "ja"}
    assert card.summary()["languages"] == {"de": 0.5, "ja": 0.5}
    assert [one["value"] for one in card.summary()["cells"] if one["task"] == "text"] == [2.5, 1.5]


def test_a_scorecard_of_perplexity_alone_has_no_average():
    card = Scorecard("m", (read("fr", 2.5),))
    with pytest.raises(DataError, match="no metric that goes from 0 to 1, so that it has no mean"):
        _ = card.average
    summary = card.summary()
    assert (summary["average"], summary["languages"]) == (None, {})


def test_a_metric_that_only_the_suite_knows_counts_in_the_mean():
    assert replace(cell("de", "a", 0.5), primary="comet").averaged
    assert not read("de", 1.0).averaged


def test_empty_and_cut_texts_are_counted():
    rows = tuple(
        ExampleScore(f"{number}", "de", "s", text, "r", 0.0, details={"ended": ended})
        for number, (text, ended) in enumerate([("", True), ("a", False), ("", False), ("b", True)])
    )
    one = Cell("de", "s", 4, "rouge_l", 0.0, {"rouge_l": 0.0}, rows)
    assert (one.empty, one.cut) == (2, 2)
    assert (read("de", 1.0).empty, read("de", 1.0).cut) == (0, 0)
