from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapterctl.errors import DataError
from adapterctl.evaluation.metrics import make_cell, make_scorecard, rouge
from adapterctl.evaluation.scorecard import ExampleScore
from adapterctl.tasks import TaskSettings

LABEL = TaskSettings(kind="label", labels=["a", "b", "c"])
TEXT = TaskSettings(kind="text")


def row(number: int, answer: int, chosen: int, classes: int = 3) -> ExampleScore:
    details = {"log_likelihoods": [-1.0] * classes, "chosen": chosen, "answer": answer}
    return ExampleScore(f"{number:03d}", "de", "t", "abc"[chosen], "abc"[answer], float(answer == chosen), "", details)


@pytest.mark.parametrize(
    "text", ["東京は日本の首都です。", "他们在北京。", "한국어는 재미있다", "مرحبا بالعالم", "！？"]
)
def test_a_text_equals_itself(text):
    assert rouge(text, text) == {"rouge_1": 1.0, "rouge_l": 1.0}


def test_equal_numbers_do_not_make_japanese_sentences_equal():
    # 11 tokens each; in common and in this order は 2024 年 に 10, and た of した/まれた: 6.
    got = rouge("犬は2024年に10匹生まれた。", "売上は2024年に10%増加した。")
    assert got["rouge_l"] == pytest.approx(2 * 6 / (11 + 11))
    assert got["rouge_1"] == pytest.approx(2 * 6 / (11 + 11))


def test_umlauts_count():
    assert rouge("Die Größe überrascht", "Die Grüße überrascht")["rouge_l"] == pytest.approx(2 / 3)


def test_order_counts_for_rouge_l_only():
    got = rouge("c b a", "a b c")
    assert got["rouge_1"] == 1.0
    assert got["rouge_l"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(("prediction", "reference"), [("", "雨"), ("雨", "雪"), ("...", "rain"), ("rain", "!!!")])
def test_nothing_in_common_is_worth_nothing(prediction, reference):
    assert rouge(prediction, reference) == {"rouge_1": 0.0, "rouge_l": 0.0}


@given(st.text(max_size=40), st.text(max_size=40))
def test_rouge_is_symmetric_and_within_bounds(one, other):
    there, back = rouge(one, other), rouge(other, one)
    assert there == pytest.approx(back)
    assert 0 <= there["rouge_l"] <= there["rouge_1"] <= 1


def test_classification_by_hand():
    # answers a a b b, chosen a b b b: class a P 1 R 1/2 F 2/3; class b P 2/3 R 1 F 4/5; class c never: 0.
    cell = make_cell([row(0, 0, 0), row(1, 0, 1), row(2, 1, 1), row(3, 1, 1)], LABEL)
    assert cell.metrics == pytest.approx(
        {"accuracy": 3 / 4, "macro_f1": (2 / 3 + 4 / 5) / 3, "macro_precision": 5 / 9, "macro_recall": 1 / 2}
    )
    assert (cell.primary, cell.value) == ("macro_f1", cell.metrics["macro_f1"])


def test_classes_of_choices_are_their_places():
    choice = TaskSettings(kind="choice", metric="macro_f1")
    cell = make_cell([row(0, 0, 0, 2), row(1, 2, 2, 3)], choice)
    assert cell.value == pytest.approx(2 / 3)


def test_text_cell_is_the_mean():
    rows = [
        ExampleScore(f"{i}", "ja", "s", "p", "r", value, "", {"rouge_1": 0.5, "rouge_l": value, "ended": True})
        for i, value in enumerate((0.25, 0.5, 0.0))
    ]
    cell = make_cell(rows, TEXT)
    assert cell.metrics == pytest.approx({"rouge_1": 0.5, "rouge_l": 0.25})
    assert (cell.n, cell.primary, cell.value) == (3, "rouge_l", pytest.approx(0.25))


def test_the_order_of_rows_does_not_matter():
    rows = [row(number, number % 3, number % 2) for number in range(12)]
    assert make_cell(rows, LABEL) == make_cell(rows[::-1], LABEL)


def test_a_scorecard_has_a_cell_for_each_language_and_task():
    rows = [row(0, 0, 0), replace(row(0, 1, 1), lang="ja"), replace(row(0, 1, 0), task="u"), row(1, 1, 1)]
    card = make_scorecard("base", rows, {"t": LABEL, "u": LABEL})
    assert [(cell.lang, cell.task, cell.n) for cell in card.cells] == [("de", "t", 2), ("de", "u", 1), ("ja", "t", 1)]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "one language and task"),
        ([row(0, 0, 0), replace(row(1, 0, 0), lang="fr")], "one language and task"),
        ([row(5, 0, 0), row(4, 0, 0), row(5, 1, 1)], "ids stand twice.*005"),
    ],
)
def test_rows_that_make_no_cell(rows, message):
    with pytest.raises(DataError, match=message):
        make_cell(rows, LABEL)
