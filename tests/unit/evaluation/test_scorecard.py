from __future__ import annotations

import json
from dataclasses import replace

import pytest

from adapterctl.errors import DataError
from adapterctl.evaluation.scorecard import Cell, ExampleScore, Scorecard, cell_key
from adapterctl.examples import Example
from adapterctl.tasks import TaskSettings


def cell(lang: str, task: str, value: float) -> Cell:
    details = {"log_likelihoods": [-0.1, -1 / 3], "chosen": 0, "answer": 0}
    rows = (ExampleScore("1", lang, task, "良い", "良い", 1.0, "abc", details),)
    return Cell(lang, task, 1, "accuracy", value, {"accuracy": value, "macro_f1": 0.5}, rows)


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


def test_another_form_is_refused():
    with pytest.raises(DataError, match="form 99"):
        Scorecard.from_dict(CARD.as_dict() | {"schema": 99})


def test_the_summary_is_small_and_has_the_values():
    summary = CARD.summary()
    assert "良い" not in json.dumps(summary, ensure_ascii=False)
    assert summary["languages"] == {"de": 0.5, "ja": 0.5}
    assert summary["cells"][1] == {
        "lang": "de", "task": "b", "n": 1, "primary": "accuracy", "value": 0.25,
        "metrics": {"accuracy": 0.25, "macro_f1": 0.5},
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


ROWS = [Example(id=f"{i}", lang="de", task="s", reference="r", input=f"text {i}") for i in range(3)]
TASK = TaskSettings(kind="text")


def test_the_key_of_a_cell_depends_on_what_its_scores_depend_on():
    known = cell_key("m", ROWS, TASK)
    others = [
        cell_key("n", ROWS, TASK),
        cell_key("m", ROWS[:2], TASK),
        cell_key("m", [*ROWS[:2], replace(ROWS[2], input="other")], TASK),
        cell_key("m", ROWS, TASK.model_copy(update={"max_new_tokens": 3})),
        cell_key("m", ROWS, TASK.model_copy(update={"prompt": "{input}!"})),
        cell_key("m", ROWS, TASK, chat=True),
    ]
    assert len({known, *others}) == 7
    assert cell_key("m", ROWS[::-1], TASK) == known
