from __future__ import annotations

import math
import sys
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapterctl.errors import DataError
from adapterctl.evaluation.answers import Answer
from adapterctl.evaluation.engine import PreparedRow
from adapterctl.evaluation.metrics import judge, make_cell, make_scorecard
from adapterctl.evaluation.scorecard import Cell, ExampleScore
from adapterctl.evaluation.suite import SuiteSettings
from adapterctl.evaluation.texts import rouge, sentence_bleu
from adapterctl.examples import Example
from adapterctl.tasks import TaskSettings

LABEL = TaskSettings(kind="classification", labels=["a", "b", "c"])
CHOICE = TaskSettings(kind="multiple-choice", metrics=["accuracy", "accuracy_norm"])
TEXT = TaskSettings(kind="generation", metrics=["rouge_l", "rouge_1"])
TRANSLATION = TaskSettings(kind="translation", metrics=["chrf", "bleu", "rouge_2"])
READ = TaskSettings(kind="perplexity")


def row(number: int, answer: int, chosen: int, classes: int = 3) -> ExampleScore:
    details = {"log_likelihoods": [-1.0] * classes, "chosen": chosen, "answer": answer}
    right = float(answer == chosen)
    return ExampleScore(f"{number:03d}", "de", "t", "abc"[chosen], "abc"[answer], right, details=details)


def prepared(example: Example, task: TaskSettings) -> PreparedRow:
    return PreparedRow(example, task, prompt=(1, 2), candidates=(), dropped=0, asked=f"hash of {example.id}")


def judged(task: TaskSettings, *pairs: tuple[str, str], lang: str = "de", **suite: Any) -> tuple[ExampleScore, ...]:
    """Judge texts: pairs of prediction and reference."""
    examples = [
        Example(id=f"{number}", lang=lang, task="t", reference=reference, input=f"source {number}")
        for number, (_, reference) in enumerate(pairs)
    ]
    settings = SuiteSettings(tasks={"t": task}, test=["{lang}.jsonl"], **suite)
    answers = [Answer(prediction, {"ended": True}) for prediction, _ in pairs]
    return judge([prepared(example, task) for example in examples], answers, settings)


def cell(rows: list[ExampleScore], task: TaskSettings) -> Cell:
    return make_cell(rows, task, {})


def test_order_counts_for_rouge_l_and_2_only():
    got = rouge("c b a", "a b c")
    assert got == pytest.approx({"rouge_1": 1.0, "rouge_2": 0.0, "rouge_l": 1 / 3})


@pytest.mark.parametrize("text", ["！？", "word", "..."])
def test_equal_texts_are_worth_all_even_with_nothing_to_count(text):
    assert rouge(f"{text}\n", text) == {"rouge_1": 1.0, "rouge_2": 1.0, "rouge_l": 1.0}


@pytest.mark.parametrize(("prediction", "reference"), [("", "雨"), ("雨", "雪"), ("...", "rain"), ("rain", "!!!")])
def test_nothing_in_common_is_worth_nothing(prediction, reference):
    assert set(rouge(prediction, reference).values()) == {0.0}


@given(st.text(max_size=40), st.text(max_size=40))
def test_rouge_is_symmetric_and_within_bounds(one, other):
    there, back = rouge(one, other), rouge(other, one)
    assert there == pytest.approx(back)
    assert 0 <= there["rouge_l"] <= there["rouge_1"] <= 1
    assert 0 <= there["rouge_2"] <= 1


def test_the_bleu_of_one_short_text_is_asked_for_what_it_can_have():
    from sacrebleu import sentence_bleu as theirs

    from adapterctl.evaluation.texts import bleu_counts

    for prediction, reference in (("a cat sat", "a cat sat"), ("a cat", "the cat sat"), ("", "a"), ("x", "y")):
        counts = bleu_counts([prediction], [reference], "en")[0]
        assert sentence_bleu(counts) == pytest.approx(theirs(prediction, [reference]).score / 100)


def test_a_chosen_label():
    examples = [Example(id=f"{n}", lang="de", task="t", reference=one, group="g") for n, one in enumerate("ba")]
    details = {"log_likelihoods": [-1.5, -0.5, -2.0], "lengths": [1, 1, 1], "chosen": 1}
    answers = [Answer("b", details | {"answer": 1}), Answer("b", details | {"answer": 0})]
    suite = SuiteSettings(tasks={"t": LABEL}, test=["{lang}.jsonl"])
    right, wrong = judge([prepared(one, LABEL) for one in examples], answers, suite)
    assert right == ExampleScore("0", "de", "t", "b", "b", 1.0, "hash of 0", "g", details | {"answer": 1})
    assert (wrong.prediction, wrong.reference, wrong.score) == ("b", "a", 0.0)


def test_the_reference_of_a_choice_is_what_its_task_answers_with():
    example = Example(id="7", lang="de", task="t", reference="B", question="?", choices=("rot", "blau"), answer_index=1)
    suite = SuiteSettings(tasks={"t": CHOICE}, test=["{lang}.jsonl"])
    details = {"log_likelihoods": [-1.0, -1.25], "lengths": [3, 4], "chosen": 0, "chosen_norm": 1, "answer": 1}
    (score,) = judge([prepared(example, CHOICE)], [Answer("rot", details)], suite)
    assert (score.prediction, score.reference, score.score) == ("rot", "blau", 0.0)
    assert cell([score], CHOICE).metrics == {"accuracy": 0.0, "accuracy_norm": 1.0}


def test_texts_get_what_their_metrics_are_computed_from():
    scores = judged(TRANSLATION, ("the cat sat on a mat", "the cat sat on the mat"), ("", "a dog"))
    assert [sorted(score.details) for score in scores] == [["bleu_stats", "chrf_stats", "ended", "rouge_2"]] * 2
    # In common 3 of 5 pairs of words; tokens 6 and 6, matches 5 3 2 1 of 6 5 4 3.
    assert scores[0].details["rouge_2"] == pytest.approx(3 / 5)
    assert scores[0].details["bleu_stats"] == [6, 6, 5, 3, 2, 1, 6, 5, 4, 3]
    assert scores[1].score == 0.0


def test_a_row_is_worth_the_tasks_first_metric_alone():
    from sacrebleu import sentence_bleu, sentence_chrf

    pair = ("the cat sat on a mat", "the cat sat on the mat")
    theirs = {
        "chrf": sentence_chrf(pair[0], [pair[1]]).score / 100,
        "bleu": sentence_bleu(pair[0], [pair[1]]).score / 100,
    }
    for metric, expected in (*theirs.items(), ("rouge_2", 3 / 5)):
        (score,) = judged(TRANSLATION.model_copy(update={"metric": metric}), pair)
        assert score.score == pytest.approx(expected)


def test_corpus_metrics_are_those_of_the_corpus():
    from sacrebleu.metrics import BLEU, CHRF

    predictions = ["the cat sat on a mat", "", "a dog barked at the moon"]
    references = ["the cat sat on the mat", "a dog", "the dog barked at the full moon"]
    scores = judged(TRANSLATION, *zip(predictions, references, strict=True))
    got = cell(list(scores), TRANSLATION)
    assert got.metrics["chrf"] == pytest.approx(CHRF().corpus_score(predictions, [references]).score / 100)
    assert got.metrics["bleu"] == pytest.approx(BLEU().corpus_score(predictions, [references]).score / 100)
    assert (got.primary, got.value, got.empty) == ("chrf", got.metrics["chrf"], 1)


def test_the_tokenizer_of_rouge_is_that_of_the_language():
    pytest.importorskip("sudachipy", reason="needs the extra adapterctl[ja]")
    pair = ("東京が日本の首都だ。", "東京は日本の首都です。")
    task, by = TaskSettings(kind="generation", metrics=["rouge_1"]), {"rouge_tokenizer": {"ja": "sudachi"}}
    # Morphemes: 4 of 6 and 6; characters: 7 of 9 and 10.
    assert judged(task, pair, lang="ja", **by)[0].score == pytest.approx(4 / 6)
    assert judged(task, pair, lang="ja-JP", **by)[0].score == pytest.approx(4 / 6)
    assert judged(task, pair, lang="zh", **by)[0].score == pytest.approx(14 / 19)


def test_text_that_is_read():
    examples = [Example(id=f"{n}", lang="de", task="t", reference="", input="abcd") for n in range(2)]
    suite = SuiteSettings(tasks={"t": READ}, test=["{lang}.jsonl"])
    answers = [Answer("", {"nats": bits * math.log(2), "tokens": 2, "bytes": 4}) for bits in (4, 8)]
    scores = judge([prepared(one, READ) for one in examples], answers, suite)
    assert [score.score for score in scores] == pytest.approx([-1.0, -2.0])
    got = cell(list(scores), READ)
    # 12 bits over 8 bytes, over 4 tokens.
    assert got.metrics == pytest.approx({"bits_per_byte": 1.5, "perplexity": 2.0**3})
    assert (got.primary, got.averaged) == ("bits_per_byte", False)


def test_a_text_without_bytes_is_refused():
    suite = SuiteSettings(tasks={"t": READ}, test=["{lang}.jsonl"])
    example = prepared(Example(id="7", lang="de", task="t", reference=""), READ)
    with pytest.raises(DataError, match=r"row '7' \(de, t\) has no text"):
        judge([example], [Answer("", {"nats": 0.0, "tokens": 0, "bytes": 0})], suite)


SCORER = """
import json, sys
print(json.dumps({"signature": "length/1"}))
for line in sys.stdin:
    row = json.loads(line)
    print(json.dumps({"id": row["id"], "score": len(row["prediction"]) / len(row["source"])}))
"""


def test_an_external_metric_becomes_the_mean_of_what_it_says():
    task = TaskSettings(kind="translation", metrics=["length", "chrf"])
    external = {"length": {"command": [sys.executable, "-c", SCORER], "signature": "v1"}}
    scores = judged(task, ("abc", "x"), ("abcdef", "y"), external=external)
    # The sources "source 0" and "source 1" have eight characters.
    assert [score.score for score in scores] == pytest.approx([3 / 8, 6 / 8])
    got = make_cell(scores, task, {"length": "length|v1|engine:e", "chrf": "chrF2|engine:e"})
    assert got.value == pytest.approx(9 / 16)
    assert got.signatures == {"length": "length|v1|engine:e|length/1", "chrf": "chrF2|engine:e"}


def test_rows_of_two_versions_of_a_command_are_not_averaged():
    task = TaskSettings(kind="translation", metrics=["comet"])
    old, new, none = (
        ExampleScore(f"{n}", "de", "t", "p", "r", 0.5, details={"comet": 0.5, **reported})
        for n, reported in enumerate(({"reported": {"comet": "a/1"}}, {"reported": {"comet": "a/2"}}, {}))
    )
    for rows, message in (([old, new], r"external\.comet: a/1 and a/2"), ([none, new], "names none and a/2")):
        with pytest.raises(DataError, match=message) as caught:
            make_cell(rows, task, {"comet": "comet|engine:e"})
        assert "external.comet.signature" in caught.value.hint


def test_an_answer_that_was_judged_before_keeps_nothing_of_it():
    example = Example(id="1", lang="de", task="t", reference="a b", input="x")
    old = {"ended": False, "rouge_2": 0.9, "chrf_stats": [1] * 18, "comet": 0.5, "reported": {"comet": "old"}}
    suite = SuiteSettings(tasks={"t": TEXT}, test=["{lang}.jsonl"], external={"comet": {"command": ["x"]}})
    (score,) = judge([prepared(example, TEXT)], [Answer("a c", old)], suite)
    assert score.details == {"ended": False, "rouge_1": 0.5, "rouge_l": 0.5}


def test_no_rows_no_scores():
    assert judged(TEXT) == ()


def test_rows_of_two_places_are_not_judged_together():
    examples = [Example(id="1", lang=lang, task="t", reference="r") for lang in ("de", "fr")]
    suite = SuiteSettings(tasks={"t": TEXT}, test=["{lang}.jsonl"])
    with pytest.raises(DataError, match="one language and task"):
        judge([prepared(one, TEXT) for one in examples], [Answer("a", {})] * 2, suite)


def test_classification_by_hand():
    # answers a a b b, chosen a b b b: class a P 1 R 1/2 F 2/3; class b P 2/3 R 1 F 4/5; class c never: 0.
    got = cell([row(0, 0, 0), row(1, 0, 1), row(2, 1, 1), row(3, 1, 1)], LABEL)
    assert got.metrics == pytest.approx(
        {"accuracy": 3 / 4, "macro_f1": (2 / 3 + 4 / 5) / 3, "macro_precision": 5 / 9, "macro_recall": 1 / 2}
    )
    assert (got.primary, got.value) == ("macro_f1", got.metrics["macro_f1"])


def test_classes_of_choices_are_their_places():
    choice = TaskSettings(kind="multiple-choice", metrics=["macro_f1"])
    assert cell([row(0, 0, 0, 2), row(1, 2, 2, 3)], choice).value == pytest.approx(2 / 3)


def test_text_cell_is_the_mean():
    rows = [
        ExampleScore(f"{i}", "ja", "s", "p", "r", value, details={"rouge_1": 0.5, "rouge_l": value, "ended": True})
        for i, value in enumerate((0.25, 0.5, 0.0))
    ]
    got = cell(rows, TEXT)
    assert got.metrics == pytest.approx({"rouge_1": 0.5, "rouge_l": 0.25})
    assert (got.n, got.primary, got.value) == (3, "rouge_l", pytest.approx(0.25))


def test_the_order_of_rows_does_not_matter():
    rows = [row(number, number % 3, number % 2) for number in range(12)]
    assert cell(rows, LABEL) == cell(rows[::-1], LABEL)


def test_a_scorecard_has_a_cell_for_each_language_and_task():
    rows = [row(0, 0, 0), replace(row(0, 1, 1), lang="ja"), replace(row(0, 1, 0), task="u"), row(1, 1, 1)]
    card = make_scorecard("base", rows, {"t": LABEL, "u": LABEL})
    assert [(one.lang, one.task, one.n) for one in card.cells] == [("de", "t", 2), ("de", "u", 1), ("ja", "t", 1)]


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
        cell(rows, LABEL)


def test_a_metric_that_is_not_defined_is_refused():
    rows = [ExampleScore("1", "de", "t", "", "", 0.0, details={"nats": math.inf, "tokens": 3, "bytes": 5})]
    with pytest.raises(DataError, match="'bits_per_byte' is not defined on the rows of de, task 't'"):
        cell(rows, READ)


@pytest.mark.parametrize(("task", "missing"), [(CHOICE, "chosen_norm"), (LABEL, "log_likelihoods"), (READ, "nats")])
def test_a_row_without_what_a_metric_needs_is_named(task, missing):
    known = {name: value for name, value in row(0, 0, 0).details.items() if name != missing}
    with pytest.raises(DataError, match=rf"row '000' .* has no '{missing}'"):
        cell([replace(row(0, 0, 0), details=known)], task)


@pytest.mark.parametrize("task", [LABEL, TEXT, TRANSLATION])
def test_one_row_makes_a_cell(task):
    rows = [row(0, 1, 1)] if task is LABEL else list(judged(task, ("the cat sat here", "the cat sat here")))
    got = cell(rows, task)
    assert got.n == 1
    assert got.value == pytest.approx(1 / 3 if task is LABEL else 1.0)
