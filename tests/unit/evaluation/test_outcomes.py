"""What the gate concludes: three outcomes, what policy makes of them, required gains, improvements."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
from tests.support.gate_rows import CHAMPION, QUICK, accuracy_cards, card, class_row, rows, text_row

from adapterctl.evaluation.gate import gate
from adapterctl.evaluation.metrics import make_scorecard
from adapterctl.evaluation.policy import GateSettings
from adapterctl.evaluation.scorecard import Cell, Scorecard
from adapterctl.evaluation.verdict import Verdict
from adapterctl.tasks import TaskSettings


def outcome_of(n: int, losses: int, gains: int, **options: object) -> str:
    return gate(*accuracy_cards(n, losses, gains), GateSettings(resamples=999, **options)).cells[0].outcome


@pytest.mark.parametrize(
    ("n", "losses", "gains", "margin", "outcome"),
    [
        # 5 % ± 1.6 %: the bound, about −0.083, decides.
        (200, 10, 0, 0.10, "pass"),
        (200, 10, 0, 0.02, "fail"),  # at least 2.7 % are lost
        (200, 6, 0, 0.02, "inconclusive"),  # 3 % ± 1.2 %: detectable 0.030, and a loss of 0.01 would be no surprise
        (200, 30, 0, 0.02, "fail"),  # 15 % ± 2.5 %: at least 11 % are lost
        (40, 2, 2, 0.02, "inconclusive"),
        (400, 20, 4, 0.06, "fail"),  # −4 % ± 1.2 %: detectable 0.030 is below the margin, and yet it is not shown
        (9, 0, 0, 0.5, "inconclusive"),  # fewer rows than ten
        (1, 0, 0, 0.5, "inconclusive"),
        (1, 1, 0, 0.5, "inconclusive"),  # one row shows nothing, not even a loss
        (8, 8, 0, 0.5, "fail"),  # every row is lost
    ],
)
def test_the_three_outcomes(n, losses, gains, margin, outcome):
    assert outcome_of(n, losses, gains, margin=margin) == outcome


def test_the_least_number_of_rows_is_a_setting():
    assert outcome_of(9, 0, 0, margin=0.5) == "inconclusive"
    assert outcome_of(9, 0, 0, margin=0.5, min_examples=9) == "pass"
    assert outcome_of(100, 0, 0, margin=0.5, min_examples=101) == "inconclusive"


def different_answers(n: int) -> tuple[Scorecard, Scorecard]:
    """Return two models that are right in the same rows with other log-likelihoods."""
    candidate, champion = accuracy_cards(n, 0, 0)
    rows = [replace(one, details={**one.details, "log_likelihoods": [-2.0] * 3}) for one in candidate.cells[0].scores]
    return card(rows, "candidate"), champion


@pytest.mark.parametrize(("n", "outcome"), [(30, "inconclusive"), (148, "inconclusive"), (149, "pass")])
def test_too_few_rows_without_a_loss_exclude_no_rare_loss(n, outcome):
    """A loss in 2 % of all rows is missed by n rows with 0.98ⁿ: with 55 % by 30, with 5 % by 148.3."""
    (cell,) = gate(*different_answers(n), QUICK).cells
    assert (cell.difference, cell.lower_bound, cell.outcome) == (0, 0, outcome)
    assert cell.unseen == pytest.approx(1 - 0.05 ** (1 / n))


def test_what_counts_as_lost_is_told_by_the_metric_itself():
    """By log-likelihood per character one answer is lost, by the raw one none is."""
    tasks = {"choice": TaskSettings(kind="multiple-choice", metric="accuracy_norm")}
    candidate, champion = (side.cells[0].scores for side in different_answers(30))
    lost = {**candidate[0].details, "chosen_norm": (candidate[0].details["answer"] + 1) % 3}
    sides = [[replace(candidate[0], details=lost), *candidate[1:]], champion]
    (cell,) = gate(*(make_scorecard("m", side, tasks) for side in sides), QUICK).cells
    assert (cell.metric, cell.unseen) == ("accuracy_norm", 0)
    assert cell.difference == pytest.approx(-1 / 30)


@pytest.mark.parametrize(("sizes", "outcome"), [((40, 40, 40), "pass"), ((58, 58, 4), "inconclusive")])
def test_unseen_losses_of_a_small_class_cost_a_macro_mean_more(sizes, outcome):
    """120 rows without a loss leave 2.5 % unseen: in a class of a third of the rows that costs macro-F1 0.025 at most,
    in one of a thirtieth it may cost 0.025 · 30 / 3 = 0.25.
    """
    answers = [answer for answer, size in enumerate(sizes) for _ in range(size)]
    champion = [class_row("de", "label", number, answer, answer) for number, answer in enumerate(answers)]
    other = [replace(one, details={**one.details, "log_likelihoods": [-2.0] * 3}) for one in champion]
    (cell,) = gate(card(other), card(champion), GateSettings(margin=0.1, resamples=999)).cells
    assert (cell.metric, cell.difference) == ("macro_f1", 0)
    assert cell.unseen == pytest.approx(0.0247, abs=1e-4)
    assert cell.outcome == outcome


def test_gains_outweigh_what_may_be_unseen():
    """20 of 40 rows gained: unseen losses of 7 % of the rows cannot turn that into a loss of 2 %."""
    candidate, champion = accuracy_cards(40, 0, 20)
    (cell,) = gate(candidate, champion, QUICK).cells
    assert cell.unseen == pytest.approx(0.0722, abs=1e-4)
    assert cell.outcome == "pass"


@pytest.mark.parametrize(
    ("policy", "passed", "waits"), [("fail", False, False), ("review", False, True), ("pass", True, False)]
)
def test_policy_says_what_inconclusive_means(policy, passed, waits):
    settings = GateSettings(resamples=999, inconclusive=policy)
    verdict = gate(*accuracy_cards(40, 2, 2), settings)
    assert (verdict.outcome, verdict.passed, verdict.waits) == ("inconclusive", passed, waits)
    assert (verdict.failed, verdict.undecided) == ((), verdict.cells)
    lost = gate(*accuracy_cards(200, 30, 0), settings)
    assert (lost.outcome, lost.passed, lost.waits) == ("fail", False, False)
    assert Verdict.from_dict(json.loads(json.dumps(verdict.as_dict()))) == verdict
    assert (verdict.as_dict()["outcome"], verdict.as_dict()["passed"]) == ("inconclusive", passed)


def test_groups_are_resampled_together():
    """Ten rows of one group that are lost together are one loss, not ten: the bound is wider by √10."""
    cards = []
    for side in accuracy_cards(400, 40, 0):
        cards.append(card([replace(one, group=f"g{int(one.id) // 10}") for one in side.cells[0].scores]))
    (grouped,), (alone,) = gate(*cards, QUICK).cells, gate(*accuracy_cards(400, 40, 0), QUICK).cells
    assert (grouped.n, grouped.units, alone.units) == (400, 40, 400)
    assert grouped.difference == alone.difference == pytest.approx(-0.1)
    # Half a step of the mean, 1 / 40 and 1 / 400, is part of it.
    assert grouped.detectable - 1 / 80 == pytest.approx((alone.detectable - 1 / 800) * math.sqrt(10))
    width = (grouped.high - grouped.low - 1 / 40) / (alone.high - alone.low - 1 / 400)
    assert width == pytest.approx(math.sqrt(10), rel=0.15)
    few = [card([replace(one, group=f"g{int(one.id) // 50}") for one in side.cells[0].scores]) for side in cards]
    assert gate(*few, GateSettings(margin=0.9, resamples=999)).cells[0].outcome == "inconclusive"


def gained(gain: float, lang: str = "ja") -> Scorecard:
    """Return the champion's rows, with every text of a language better by ``gain`` ± 0.05."""
    made = rows()
    return card([
        text_row(one.lang, int(one.id), one.score + gain + (0.05 if int(one.id) % 2 else -0.05))
        if (one.lang, one.task) == (lang, "text") else one for one in made
    ])  # fmt: skip


@pytest.mark.parametrize(
    ("gain", "required", "outcome"),
    # The mean over three tasks gains a third; its standard error is 0.05 / √40 / 3 = 0.0026, the bound 0.0045 below.
    [(0.06, 0.01, "pass"), (0.06, 0.018, "inconclusive"), (0.06, 0.025, "fail"), (0.06, 0.0, "pass")],
)
def test_the_updated_language_may_have_to_gain(gain, required, outcome):
    settings = GateSettings(resamples=999, required_gain=required)
    verdict = gate(gained(gain), CHAMPION, settings, updated=["ja"])
    assert verdict.gain is not None
    assert (verdict.gain.lang, verdict.gain.required, verdict.gain.outcome) == ("ja", required, outcome)
    assert verdict.gain.difference == pytest.approx(0.02)
    assert verdict.gain.lower_bound == pytest.approx(0.02 - 0.0045, abs=0.0012)
    assert all(cell.passed for cell in verdict.cells)
    assert verdict.outcome == outcome
    assert verdict.passed is (outcome == "pass")
    assert Verdict.from_dict(json.loads(json.dumps(verdict.as_dict()))) == verdict


def test_a_gain_is_required_of_the_updated_language_alone():
    settings = GateSettings(resamples=999, required_gain=0.01)
    assert gate(gained(0.06), CHAMPION, settings).gain is None
    assert gate(gained(0.06), CHAMPION, settings, updated=["ko"]).gain is None
    assert gate(gained(0.06), CHAMPION, QUICK, updated=["ja"]).gain is None
    lacking = gate(gained(0.06), CHAMPION, settings, updated=["de"]).gain
    assert lacking is not None
    assert lacking.outcome == "fail"


@pytest.mark.parametrize(("n", "outcome"), [(1, "inconclusive"), (9, "inconclusive"), (10, "pass")])
def test_a_gain_is_not_shown_by_fewer_rows_than_decide(n, outcome):
    """Every text gains 0.3 exactly, so that the bound is 0.3 itself; nine of them are too few all the same."""
    before, after = ([text_row("ja", number, value) for number in range(n)] for value in (0.4, 0.7))
    settings = GateSettings(resamples=999, required_gain=0.1, inconclusive="pass")
    gain = gate(card(after), card(before), settings, updated=["ja"]).gain
    assert gain is not None
    assert (gain.lower_bound, gain.outcome) == (pytest.approx(0.3), outcome)


def test_an_external_metric_beyond_1_is_no_part_of_the_mean():
    """A command may score from 0 to 100: its difference of 1 would outweigh that of ROUGE, which is 0.1."""

    def side(rouge: float, points: float) -> Scorecard:
        texts = [text_row("ja", number, rouge) for number in range(20)]
        scored = tuple(replace(one, task="far", details={"comet": points}) for one in texts)
        far = Cell("ja", "far", 20, "comet", points, {"comet": points}, scored)
        return Scorecard("m", (*card(texts).cells, far))

    verdict = gate(side(0.6, 71.0), side(0.5, 70.0), QUICK)
    assert verdict.language("ja").difference == pytest.approx(0.1)
    assert verdict.language("ja").champion == pytest.approx(0.5)
    assert verdict.cell("ja", "far").difference == pytest.approx(1.0)


def test_improved_is_said_with_a_correction_for_many_languages():
    """One language of six improves a little, p about 0.02: alone it is an improvement, among six it is not."""
    langs = ("aa", "bb", "cc", "dd", "ee", "ff")
    random = np.random.default_rng(0)
    champion, candidate = [], []
    for lang in langs:
        for number in range(60):
            moved = random.normal(0.0, 0.1)
            champion.append(text_row(lang, number, 0.5))
            candidate.append(text_row(lang, number, 0.5 + moved))
    moves = {lang: [one.score - 0.5 for one in candidate if one.lang == lang] for lang in langs}
    verdict = gate(card(candidate), card(champion), GateSettings(margin=0.2))
    wanted = [scipy.stats.ttest_1samp(moves[lang], 0, alternative="greater").pvalue for lang in langs]
    assert [one.p_value for one in verdict.languages] == pytest.approx(wanted, abs=0.015)
    corrected = scipy.stats.false_discovery_control([one.p_value for one in verdict.languages])
    assert [one.adjusted for one in verdict.languages] == pytest.approx(list(corrected))
    assert [one.improved for one in verdict.languages] == [bool(value <= 0.05) for value in corrected]
    best = min(verdict.languages, key=lambda one: one.p_value)
    alone = gate(card(candidate).only({best.lang}), card(champion).only({best.lang}), GateSettings(margin=0.2))
    assert alone.languages[0].adjusted == best.p_value


def test_a_plain_improvement_is_said():
    verdict = gate(gained(0.06), CHAMPION, QUICK)
    assert {one.lang: one.improved for one in verdict.languages} == {"de": False, "ja": True}
    assert verdict.language("ja").p_value == pytest.approx(1 / 1000)
    assert not gate(gained(-0.01), CHAMPION, QUICK).language("ja").improved
