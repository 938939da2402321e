"""The one law: a metric of rows follows from the sum of what each row gives."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapterctl.errors import DataError
from adapterctl.evaluation.catalogue import METRICS
from adapterctl.evaluation.metrics import make_cell
from adapterctl.evaluation.scorecard import ExampleScore
from adapterctl.evaluation.sums import class_count, from_sums, row_statistics
from adapterctl.evaluation.texts import bleu_counts, bleu_tokenizer, chrf_counts
from adapterctl.tasks import METRICS_OF_KIND, TaskSettings

WORDS = ["the", "cat", "sat", "on", "mat", "!", "Größe", "東京", "は", "日本の首都", "。", "他们在北京"]
TEXTS = st.lists(st.sampled_from(WORDS), max_size=9).map(" ".join)
PAIRS = st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=6)
CHOICES = st.integers(2, 5).flatmap(
    lambda classes: st.tuples(
        st.just(classes),
        st.lists(st.tuples(*[st.integers(0, classes - 1)] * 3), min_size=1, max_size=20),
    )
)


def score(number: int, **details: Any) -> ExampleScore:
    return ExampleScore(f"{number:03d}", "de", "t", "p", "r", 0.0, details=details)


def chosen(classes: int, rows: list[tuple[int, int, int]]) -> list[ExampleScore]:
    return [
        score(number, log_likelihoods=[-1.0] * classes, answer=answer, chosen=one, chosen_norm=other)
        for number, (answer, one, other) in enumerate(rows)
    ]


def summed(metric: str, rows: list[ExampleScore]) -> float:
    return float(from_sums(metric, row_statistics(metric, rows).sum(0)))


@given(CHOICES)
@settings(max_examples=60)
def test_what_is_chosen_adds_up_to_what_scikit_learn_says(drawn):
    from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score

    classes, rows = drawn
    scores = chosen(classes, rows)
    answers, one, other = zip(*rows, strict=True)
    macro = {"labels": list(range(classes)), "average": "macro", "zero_division": 0.0}
    expected = {
        "accuracy": accuracy_score(answers, one),
        "accuracy_norm": accuracy_score(answers, other),
        "macro_f1": f1_score(answers, one, **macro),
        "macro_precision": precision_score(answers, one, **macro),
        "macro_recall": recall_score(answers, one, **macro),
    }
    assert {metric: summed(metric, scores) for metric in expected} == pytest.approx(expected, abs=1e-12)


@given(PAIRS)
@settings(max_examples=100)
def test_chrf_adds_up_to_what_sacrebleu_says(pairs):
    from sacrebleu.metrics import CHRF

    predictions, references = map(list, zip(*pairs, strict=True))
    rows = [score(number, chrf_stats=counts) for number, counts in enumerate(chrf_counts(predictions, references))]
    assert summed("chrf", rows) == pytest.approx(CHRF().corpus_score(predictions, [references]).score / 100, abs=1e-12)


@pytest.mark.parametrize("lang", ["de", "zh", "ja"])
@given(pairs=PAIRS)
@settings(max_examples=60)
def test_bleu_adds_up_to_what_sacrebleu_says(lang, pairs):
    from sacrebleu.metrics import BLEU

    predictions, references = map(list, zip(*pairs, strict=True))
    rows = [
        score(number, bleu_stats=counts) for number, counts in enumerate(bleu_counts(predictions, references, lang))
    ]
    theirs = BLEU(tokenize=bleu_tokenizer(lang)).corpus_score(predictions, [references]).score
    assert summed("bleu", rows) == pytest.approx(theirs / 100, abs=1e-12)


def test_resampled_corpora_are_computed_at_once():
    from sacrebleu.metrics import BLEU, CHRF

    random = np.random.default_rng(3)
    predictions, references = ([" ".join(random.choice(WORDS, 7)) for _ in range(12)] for _ in range(2))
    draws = random.integers(0, 12, size=(2, 5, 12))
    for metric, theirs, counts in (
        ("chrf", CHRF(), chrf_counts(predictions, references)),
        ("bleu", BLEU(tokenize="char"), bleu_counts(predictions, references, "ja")),
    ):
        statistics = row_statistics(metric, [score(i, **{f"{metric}_stats": one}) for i, one in enumerate(counts)])
        values = from_sums(metric, statistics[draws].sum(axis=-2))
        assert values.shape == (2, 5)
        for place in np.ndindex(2, 5):
            drawn = draws[place]
            corpus = [predictions[i] for i in drawn], [[references[i] for i in drawn]]
            assert values[place] == pytest.approx(theirs.corpus_score(*corpus).score / 100)


def test_classes_are_resampled_at_once():
    from sklearn.metrics import f1_score

    random = np.random.default_rng(4)
    rows = [tuple(int(one) for one in row) for row in random.integers(0, 3, size=(15, 3))]
    draws = random.integers(0, 15, size=(6, 15))
    values = from_sums("macro_f1", row_statistics("macro_f1", chosen(3, rows))[draws].sum(axis=1))
    expected = [
        f1_score([rows[i][0] for i in d], [rows[i][1] for i in d], labels=[0, 1, 2], average="macro", zero_division=0.0)
        for d in draws
    ]
    assert values == pytest.approx(expected)


def test_read_text_by_hand():
    # 6 ln 2 nats over 3 bytes and 2 ln 2 over 5: one bit a byte; over 4 tokens 2 ln 2 each: perplexity 4.
    rows = [
        score(0, nats=6 * math.log(2), bytes=3, tokens=3),
        score(1, nats=2 * math.log(2), bytes=5, tokens=1),
    ]
    assert summed("bits_per_byte", rows) == pytest.approx(1.0)
    assert summed("perplexity", rows) == pytest.approx(4.0)


def test_a_mean_by_hand():
    assert summed("rouge_l", [score(0, rouge_l=0.25), score(1, rouge_l=0.75), score(2, rouge_l=0.5)]) == 0.5
    assert summed("comet", [score(0, comet=0.5), score(1, comet=1.0)]) == 0.75


def test_nothing_to_divide_by_is_not_a_number():
    assert math.isnan(from_sums("perplexity", np.zeros(2)))
    assert math.isnan(from_sums("rouge_l", np.zeros(2)))
    assert from_sums("chrf", np.zeros(18)) == from_sums("bleu", np.zeros(10)) == from_sums("macro_f1", np.zeros(6)) == 0


def test_a_text_nobody_expects_is_infinitely_perplexing_and_no_warning():
    assert from_sums("perplexity", np.array([9000.0, 1.0])) == math.inf


EVERY_KIND = {
    "classification": chosen(3, [(0, 1, 1), (1, 1, 1), (2, 2, 0), (2, 0, 2)]),
    "multiple-choice": chosen(4, [(0, 1, 0), (1, 1, 3), (3, 3, 3)]),
    "translation": [
        score(
            number,
            rouge_1=0.5, rouge_2=0.125 * number, rouge_l=0.25, bertscore=0.9,
            chrf_stats=chrf_counts([text], ["the cat sat on the mat"])[0],
            bleu_stats=bleu_counts([text], ["the cat sat on the mat"], "en")[0],
        )
        for number, text in enumerate(["the cat sat on a mat", "", "a mat"])
    ],
    "perplexity": [score(0, nats=12.5, bytes=11, tokens=4), score(1, nats=3.0, bytes=2, tokens=1)],
}  # fmt: skip


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_the_sums_give_the_cell_in_every_metric(kind):
    extra = {"labels": ["a", "b", "c"]} if kind == "classification" else {}
    rows = EVERY_KIND[kind]
    cell = make_cell(rows, TaskSettings(kind=kind, metrics=list(METRICS_OF_KIND[kind]), **extra), {})
    assert cell.metrics == pytest.approx({metric: summed(metric, rows) for metric in METRICS_OF_KIND[kind]})


def test_every_metric_of_our_own_is_among_those():
    assert set(METRICS) == {name for kind in EVERY_KIND for name in METRICS_OF_KIND[kind]}


def test_classes_are_counted_by_what_rows_offer():
    assert class_count([*chosen(2, [(0, 0, 0)]), *chosen(4, [(3, 0, 0)])]) == 4
    assert class_count([score(0, rouge_l=1.0)]) == class_count([]) == 0
    assert row_statistics("macro_f1", chosen(2, [(0, 1, 1)]), classes=3).tolist() == [[0, 0, 0, 0, 1, 0, 1, 0, 0]]


def test_no_rows_give_no_statistics():
    assert row_statistics("rouge_l", []).shape == (0, 2)


@pytest.mark.parametrize(
    ("metric", "missing"),
    [
        ("rouge_2", "rouge_2"),
        ("chrf", "chrf_stats"),
        ("bleu", "bleu_stats"),
        ("accuracy_norm", "chosen_norm"),
        ("perplexity", "nats"),
        ("macro_f1", "log_likelihoods"),
    ],
)
def test_a_row_without_what_a_metric_needs_is_named(metric, missing):
    row = replace(score(7), details={"rouge_1": 0.5})
    with pytest.raises(DataError, match=rf"row '007' \(de, t\) has no '{missing}'.*'{metric}'"):
        row_statistics(metric, [row])
