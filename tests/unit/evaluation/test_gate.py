from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapterctl.errors import DataError
from adapterctl.evaluation.gate import gate
from adapterctl.evaluation.metrics import make_scorecard
from adapterctl.evaluation.power import power
from adapterctl.evaluation.scorecard import ExampleScore, Scorecard
from adapterctl.evaluation.suite import GateSettings
from adapterctl.evaluation.verdict import Verdict
from adapterctl.tasks import TaskSettings

TASKS = {
    "label": TaskSettings(kind="label", labels=["a", "b", "c"]),
    "choice": TaskSettings(kind="choice"),
    "text": TaskSettings(kind="text"),
}
QUICK = GateSettings(resamples=999)
N = 40


def text_row(lang: str, number: int, value: float) -> ExampleScore:
    value = min(1.0, max(0.0, value))
    details = {"rouge_1": value, "rouge_l": value, "ended": True}
    return ExampleScore(f"{number:03d}", lang, "text", "p", "r", value, f"h{number}", details)


def class_row(lang: str, task: str, number: int, answer: int, chosen: int) -> ExampleScore:
    details = {"log_likelihoods": [-1.0] * 3, "chosen": chosen, "answer": answer}
    score = float(answer == chosen)
    return ExampleScore(f"{number:03d}", lang, task, "abc"[chosen], "abc"[answer], score, f"h{number}", details)


def rows(
    loss: float = 0.0, wrong: float = 0.3, seed: int = 0, langs: tuple[str, ...] = ("de", "ja")
) -> list[ExampleScore]:
    random = np.random.default_rng(seed)
    made = []
    for lang in langs:
        for number in range(N):
            made.append(text_row(lang, number, 0.6 + 0.01 * (number % 20) - loss))
            for task in ("label", "choice"):
                answer = number % 3
                made.append(
                    class_row(lang, task, number, answer, answer if random.random() > wrong else (answer + 1) % 3)
                )
    return made


def card(made: list[ExampleScore], name: str = "m") -> Scorecard:
    return make_scorecard(name, made, TASKS)


CHAMPION = card(rows(), "champion")


def test_an_identical_candidate_passes_with_bound_zero():
    verdict = gate(CHAMPION, CHAMPION, QUICK)
    assert verdict.passed
    assert {(cell.lower_bound, cell.low, cell.high, cell.difference) for cell in verdict.cells} == {(0, 0, 0, 0)}
    assert {cell.n for cell in verdict.cells} == {N}
    assert all(cell.detectable > 0 for cell in verdict.cells)
    assert [one.lang for one in verdict.languages] == ["de", "ja"]


@pytest.mark.parametrize(("loss", "passed"), [(0.1, False), (0.021, False), (0.019, True), (-0.1, True)])
def test_a_loss_in_every_row_is_measured_exactly(loss, passed):
    candidate, champion = card(rows(loss)), card(rows(0.0))
    cell = gate(candidate, champion, QUICK).cell("de", "text")
    assert (cell.difference, cell.lower_bound) == (pytest.approx(-loss), pytest.approx(-loss))
    assert cell.passed is passed


def test_a_worse_language_fails_and_the_other_does_not():
    made = [one for one in rows() if one.lang == "ja"] + rows(0.2, wrong=0.9, seed=1, langs=("de",))
    verdict = gate(card(made, "candidate"), CHAMPION, QUICK)
    assert not verdict.passed
    assert {cell.lang for cell in verdict.failed} == {"de"}
    assert len(verdict.failed) == 3
    assert not verdict.language("de").passed
    assert verdict.language("ja").passed
    assert (verdict.candidate, verdict.champion) == ("candidate", "champion")


def test_the_numbers_of_a_comparison():
    candidate = card(rows(wrong=0.5, seed=1))
    verdict = gate(candidate, CHAMPION, QUICK)
    for cell in verdict.cells:
        assert cell.metric == TASKS[cell.task].primary_metric
        assert cell.champion == pytest.approx(CHAMPION.cell(cell.lang, cell.task).value)
        assert cell.candidate == pytest.approx(candidate.cell(cell.lang, cell.task).value)
        assert cell.difference == pytest.approx(cell.candidate - cell.champion)
        assert cell.low <= cell.lower_bound <= cell.difference <= cell.high
    lang = verdict.language("de")
    assert lang.difference == pytest.approx(np.mean([cell.difference for cell in verdict.cells if cell.lang == "de"]))
    assert lang.champion == pytest.approx(CHAMPION.language("de"))
    assert lang.low < lang.difference < lang.high
    widths = [cell.high - cell.low for cell in verdict.cells if cell.lang == "de"]
    # Independent tasks: the variance of the mean of three is the sum of theirs over nine.
    assert lang.high - lang.low == pytest.approx(np.sqrt(np.square(widths).sum()) / 3, rel=0.15)


@pytest.mark.parametrize(("margin", "passed"), [(0.020, False), (0.0275, True), (0.035, True)])
def test_the_one_sided_bound_decides(margin, passed):
    """No difference on average, ±0.1 in each of 40 rows: standard error 0.1/√40 = 0.0158.

    The one-sided bound is −1.645 of it, −0.026; the two-sided interval begins at −1.96 of it, −0.031; on the grid of
    possible means, steps of 0.005, −0.025 and −0.030.
    """
    champion = card([text_row("de", number, 0.5) for number in range(N)])
    candidate = card([text_row("de", number, 0.4 if number % 2 else 0.6) for number in range(N)])
    cell = gate(candidate, champion, GateSettings(margin=margin)).cell("de", "text")
    assert cell.difference == pytest.approx(0, abs=1e-9)
    assert cell.lower_bound == pytest.approx(-0.025, abs=1e-9)
    assert (cell.low, cell.high) == pytest.approx((-0.03, 0.03), abs=1e-9)
    assert cell.detectable == pytest.approx(2.4865 * 0.0158, rel=0.05)
    assert cell.passed is passed


def test_macro_f1_is_compared_as_macro_f1():
    """More right answers and yet a lower macro-F1: the rare classes are given up."""
    answers = [0] * 30 + [1] * 5 + [2] * 5
    before = [0] * 18 + [1] * 6 + [2] * 6 + [1] * 5 + [2] * 5
    after = [0] * 40
    made = [
        [class_row("de", "label", i, *pair) for i, pair in enumerate(zip(answers, side, strict=True))]
        for side in (before, after)
    ]
    champion, candidate = map(card, made)
    assert candidate.cell("de", "label").metrics["accuracy"] > champion.cell("de", "label").metrics["accuracy"]
    cell = gate(candidate, champion, QUICK).cell("de", "label")
    assert cell.difference < -0.3
    assert cell.high < 0
    assert not cell.passed


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), wrong=st.floats(0, 0.6), loss=st.floats(-0.1, 0.1), more=st.floats(0.001, 0.3))
def test_a_wider_margin_never_turns_a_pass_into_a_failure(seed, wrong, loss, more):
    candidate = card(rows(loss, wrong, seed))
    strict = gate(candidate, CHAMPION, GateSettings(margin=0.02, resamples=99))
    loose = gate(candidate, CHAMPION, GateSettings(margin=0.02 + more, resamples=99))
    for before, after in zip(strict.cells, loose.cells, strict=True):
        assert after.lower_bound == before.lower_bound
        assert after.passed >= before.passed


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), order=st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(seed, order):
    made = rows(0.01, 0.4, seed)
    mixed, champion = list(made), rows()
    order.shuffle(mixed)
    order.shuffle(champion)
    quick = GateSettings(resamples=99)
    assert gate(card(mixed), card(champion), quick) == gate(card(made), card(rows()), quick)


def test_a_language_has_its_own_random_numbers():
    candidate = rows(wrong=0.5, seed=1)
    both = gate(card(candidate), CHAMPION, QUICK)
    alone = gate(card(candidate).only({"ja"}), CHAMPION.only({"ja"}), QUICK)
    assert alone.cells == tuple(cell for cell in both.cells if cell.lang == "ja")
    assert gate(card(candidate), CHAMPION, GateSettings(resamples=999, seed=1)).cells != both.cells


def test_margins_by_task():
    settings = GateSettings(resamples=999, margins={"text": 0.2})
    verdict = gate(card(rows(0.1)), CHAMPION, settings)
    assert verdict.passed
    assert {cell.margin for cell in verdict.cells} == {0.2, 0.02}


def test_only_rows_that_both_have_are_compared():
    made = [one for one in rows() if one.id != "003"]
    made = [replace(one, row="changed") if one.id == "005" else one for one in made]
    made.append(text_row("de", 777, 0.0))
    cell = gate(card(made), CHAMPION, QUICK).cell("de", "text")
    assert cell.unpaired == ("003", "005", "777")
    assert cell.n == N - 2
    assert cell.difference == 0


def test_what_cannot_be_compared_is_refused_with_all_reasons():
    made = [replace(one, row="other") if one.task == "text" else one for one in rows() if one.task != "choice"]
    candidate = card(made)
    with pytest.raises(DataError) as caught:
        gate(replace(candidate, tokenizer="sudachi/1"), CHAMPION, QUICK)
    told = "\n".join(map(str, caught.value.problems))
    assert "tokenizers differ" in told
    assert told.count("the candidate has no rows") == 2
    assert told.count("no row in common") == 2
    with pytest.raises(DataError, match="ja/text: the champion has no rows"):
        gate(CHAMPION, CHAMPION.only({"de"}), QUICK)
    with pytest.raises(DataError, match="empty"):
        gate(Scorecard("m", ()), Scorecard("n", ()), QUICK)


def test_another_metric_is_refused():
    other = make_scorecard("m", rows(), TASKS | {"text": TaskSettings(kind="text", metric="rouge_1")})
    with pytest.raises(DataError, match="metrics differ: rouge_1 and rouge_l"):
        gate(other, CHAMPION, QUICK)


def test_json_round_trip_is_exact():
    made = [one for one in rows(0.05, 0.5, 2) if one.id != "003"]
    verdict = gate(card(made), CHAMPION, QUICK)
    assert Verdict.from_dict(json.loads(json.dumps(verdict.as_dict(), allow_nan=False))) == verdict
    with pytest.raises(DataError, match="form None"):
        Verdict.from_dict({})


def test_what_was_not_compared_is_an_error():
    verdict = gate(CHAMPION, CHAMPION, QUICK)
    for ask in (lambda: verdict.cell("fr", "text"), lambda: verdict.language("fr")):
        with pytest.raises(DataError, match="'fr'"):
            ask()


def test_power_before_there_is_a_champion_is_the_worst_case():
    (cell,) = power({("de", "choice"): 100}, GateSettings())
    # (1.6449 + 0.8416) · 0.5 / 10
    assert cell.detectable == pytest.approx(0.12432, abs=1e-4)
    assert (cell.n, cell.margin, cell.measured, cell.enough) == (100, 0.02, False, False)


def test_power_with_a_champion_uses_its_spread():
    places = {("ja", "text"): 400, ("ja", "label"): 400, ("de", "choice"): N, ("fr", "text"): 10}
    known = {(cell.lang, cell.task): cell for cell in power(places, GateSettings(margin=0.1), CHAMPION)}
    assert list(known) == sorted(places)
    spread = np.std([0.01 * (number % 20) for number in range(N)])
    assert known["ja", "text"].detectable == pytest.approx(2.4865 * spread / 20, rel=1e-3)
    assert known["ja", "text"].enough
    right = CHAMPION.cell("de", "choice").value
    assert known["de", "choice"].detectable == pytest.approx(2.4865 * np.sqrt(right * (1 - right) / N), rel=1e-3)
    assert not known["fr", "text"].measured
    # Macro-F1 of three equally frequent classes varies about as accuracy does.
    accuracy = CHAMPION.cell("ja", "label").metrics["accuracy"]
    wanted = 2.4865 * np.sqrt(accuracy * (1 - accuracy) / 400)
    assert known["ja", "label"].detectable == pytest.approx(wanted, rel=0.25)
