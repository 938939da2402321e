"""The comparison of two scorecards, row by row."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.gate_rows import CHAMPION, QUICK, TASKS, N, card, class_row, read_row, rows, text_row

from adapterctl.errors import DataError
from adapterctl.evaluation.gate import gate
from adapterctl.evaluation.metrics import make_scorecard
from adapterctl.evaluation.policy import GateSettings
from adapterctl.evaluation.scorecard import ExampleScore, Scorecard
from adapterctl.evaluation.verdict import Verdict
from adapterctl.tasks import TaskSettings


def test_an_identical_candidate_passes_with_bound_zero():
    verdict = gate(CHAMPION, CHAMPION, QUICK)
    assert verdict.passed
    assert {(cell.lower_bound, cell.low, cell.high, cell.difference) for cell in verdict.cells} == {(0, 0, 0, 0)}
    assert {cell.n for cell in verdict.cells} == {N}
    assert all(cell.detectable > 0 for cell in verdict.cells)
    assert [one.lang for one in verdict.languages] == ["de", "ja"]
    assert {(one.outcome, one.p_value, one.improved) for one in verdict.languages} == {("pass", 1.0, False)}
    assert (verdict.outcome, verdict.waits, verdict.gain, verdict.failed, verdict.undecided) == (
        "pass", False, None, (), (),
    )  # fmt: skip


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


@pytest.mark.parametrize(("margin", "passed"), [(0.020, False), (0.028, True), (0.035, True)])
def test_the_one_sided_bound_decides(margin, passed):
    """No difference on average, ±0.1 in each of 40 rows: standard error 0.1/√40 = 0.0158.

    Student's quantiles for 39 degrees, times √(40/39), are 1.706 and 2.048: the one-sided bound is −0.027, and the
    two-sided interval begins at −0.032; on the grid of possible means, steps of 0.005, −0.025 and −0.030 or −0.035;
    half a step further out, −0.0275 and −0.0325 or −0.0375.
    """
    champion = card([text_row("de", number, 0.5) for number in range(N)])
    candidate = card([text_row("de", number, 0.4 if number % 2 else 0.6) for number in range(N)])
    cell = gate(candidate, champion, GateSettings(margin=margin)).cell("de", "text")
    assert cell.difference == pytest.approx(0, abs=1e-9)
    assert cell.lower_bound == pytest.approx(-0.0275, abs=1e-9)
    assert (cell.low, cell.high) == pytest.approx((-0.035, 0.035), abs=0.0026)
    assert cell.detectable == pytest.approx(2.4865 * 0.0158, rel=0.05)
    assert cell.passed is passed
    # 0.039 is detectable, so where the bound does not decide, the rows are too few.
    assert cell.outcome == ("pass" if passed else "inconclusive")


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
        gate(candidate, CHAMPION, QUICK)
    told = "\n".join(map(str, caught.value.problems))
    assert told.count("the candidate has no rows") == 2
    assert told.count("no row in common") == 2
    with pytest.raises(DataError, match="ja/text: the champion has no rows"):
        gate(CHAMPION, CHAMPION.only({"de"}), QUICK)
    with pytest.raises(DataError, match="empty"):
        gate(Scorecard("m", ()), Scorecard("n", ()), QUICK)


def test_another_metric_is_refused():
    other = make_scorecard(
        "m", rows(), TASKS | {"text": TaskSettings(kind="generation", metric="rouge_1", metrics=["rouge_l"])}
    )
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


def test_lower_is_better_for_text_that_is_read():
    """1.5 bits a byte become 1.6 in every row: a loss of 0.1; perplexity 2**(100/30 · bits)."""
    before = card([read_row("de", number, 1.4 + 0.01 * (number % 20)) for number in range(N)])
    after = card([read_row("de", number, 1.5 + 0.01 * (number % 20)) for number in range(N)])
    settings = GateSettings(resamples=999, margins={"read": 0.11})
    (cell,) = gate(after, before, settings).cells
    assert (cell.metric, cell.champion, cell.candidate) == ("bits_per_byte", pytest.approx(1.495), pytest.approx(1.595))
    assert (cell.difference, cell.lower_bound) == (pytest.approx(-0.1), pytest.approx(-0.1))
    assert cell.outcome == "pass"
    better = gate(before, after, settings)
    assert better.cells[0].difference == pytest.approx(0.1)
    assert better.language("de").difference == pytest.approx(0.1)
    # Without a margin of its own, a share of the champion's value: 2 % of 1.495 bits, and below of the perplexity.
    assert gate(after, before, QUICK).cells[0].margin == pytest.approx(0.0299)
    assert gate(after, before, QUICK).cells[0].outcome == "fail"
    tasks = {"read": TaskSettings(kind="perplexity", metric="perplexity")}
    sides = [make_scorecard("m", side.cells[0].scores, tasks) for side in (after, before)]
    (cell,) = gate(*sides, QUICK).cells
    assert cell.champion == pytest.approx(2 ** (100 / 30 * 1.495))
    assert cell.candidate == pytest.approx(2 ** (100 / 30 * 1.595))
    assert cell.margin == pytest.approx(0.02 * cell.champion)


def test_text_that_is_read_does_not_count_in_the_mean_of_a_language():
    read = [read_row("de", number, 3.0) for number in range(N)]
    worse = [read_row("de", number, 4.0) for number in range(N)]
    champion, candidate = (card([*rows(langs=("de",)), *more]) for more in (read, worse))
    one = gate(candidate, champion, QUICK).language("de")
    assert (one.difference, one.champion) == (0.0, pytest.approx(CHAMPION.language("de")))
    assert one.outcome == "fail"


def signed(side: Scorecard, signature: str) -> Scorecard:
    return Scorecard(side.model, tuple(replace(cell, signatures={cell.primary: signature}) for cell in side.cells))


def test_scores_of_different_signatures_are_never_compared():
    ours, theirs = signed(CHAMPION, "rouge-score:0.1.2|unicode/1"), signed(CHAMPION, "rouge-score:0.1.2|sudachi/1")
    assert gate(ours, ours, QUICK).passed
    with pytest.raises(DataError) as caught:
        gate(ours, theirs, QUICK)
    told = str(caught.value)
    assert "rouge-score:0.1.2|unicode/1 and rouge-score:0.1.2|sudachi/1" in told
    assert "de/text: rouge_l was computed in two ways" in told
    assert "adapterctl evaluate" in caught.value.hint
    with pytest.raises(DataError, match=r"none and rouge-score"):
        gate(CHAMPION, theirs, QUICK)
    # What is only reported may change its library: it is not compared.
    told_only = Scorecard(
        "m", tuple(replace(cell, signatures={"rouge_1": f"by {number}"}) for number, cell in enumerate(CHAMPION.cells))
    )
    assert gate(told_only, CHAMPION, QUICK).passed


def test_corpus_chrf_is_compared_as_sacrebleu_does():
    from sacrebleu.metrics.chrf import CHRF
    from sacrebleu.significance import PairedTest

    random = np.random.default_rng(3)
    words = ["regen", "wolke", "sonne", "wind", "nebel", "sturm", "hagel", "schnee"]
    references = [" ".join(random.choice(words, 7)) for _ in range(60)]

    def spoilt(share: float) -> list[str]:
        return [" ".join("xx" if random.random() < share else word for word in text.split()) for text in references]

    champion, candidate = spoilt(0.2), spoilt(0.3)
    tasks = {"translation": TaskSettings(kind="generation", metrics=["chrf"])}

    def side(texts: list[str]) -> Scorecard:
        made = []
        for number, (text, reference) in enumerate(zip(texts, references, strict=True)):
            counts = CHRF()._extract_corpus_statistics([text], [[reference]])[0]
            details = {"chrf": CHRF().sentence_score(text, [reference]).score / 100, "chrf_stats": counts}
            made.append(
                ExampleScore(
                    f"{number:03d}", "de", "translation", text, reference, details["chrf"], f"h{number}", "", details
                )
            )
        return make_scorecard("m", made, tasks)

    (cell,) = gate(side(candidate), side(champion), GateSettings(margin=0.2)).cells
    tested = PairedTest(
        [("champion", champion), ("candidate", candidate)], {"chrF": CHRF(references=[references])},
        references=None, test_type="bs", n_samples=2000,
    )()[1]  # fmt: skip
    (scores,) = (found for name, found in tested.items() if name != "System")
    assert cell.champion * 100 == pytest.approx(scores[0].score, abs=0.01)
    assert cell.candidate * 100 == pytest.approx(scores[1].score, abs=0.01)
    old, new = (CHRF().corpus_score(texts, [references]).score / 100 for texts in (champion, candidate))
    assert cell.difference == pytest.approx(new - old, abs=1e-6)
    # sacrebleu's ± is half of the percentile interval of each system alone; both vary by about as much here, and the
    # texts were spoilt independently, so that the difference varies by their root sum of squares.
    half = math.hypot(scores[0].ci, scores[1].ci) / 100
    assert (cell.high - cell.low) / 2 == pytest.approx(half, rel=0.2)
