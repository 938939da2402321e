"""The gate: is the candidate, in every language and task, not worse than the champion by more than the margin?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from adapterctl.errors import DataError, Problem
from adapterctl.evaluation.catalogue import metric_of
from adapterctl.evaluation.policy import GateSettings
from adapterctl.evaluation.power import champion_sd
from adapterctl.evaluation.scorecard import Cell, ExampleScore, Scorecard
from adapterctl.evaluation.statistics import (
    Bootstrap,
    detectable_difference,
    expected_sd,
    mean_of,
    p_value,
    paired_bootstrap,
    randomised_differences,
    unseen_share,
)
from adapterctl.evaluation.sums import class_count
from adapterctl.evaluation.units import (
    direction,
    oriented,
    right_or_wrong,
    row_values,
    unit_indices,
    unit_statistics,
    unit_sums,
)
from adapterctl.evaluation.verdict import CellVerdict, GainVerdict, LanguageVerdict, Outcome, Verdict, worst

__all__ = ["CellVerdict", "GainVerdict", "LanguageVerdict", "Verdict", "gate"]

_LEAST_UNITS_TO_SHOW_A_LOSS = 2
_ROUNDING = 1e-12


@dataclass(frozen=True)
class _Comparison:
    """One cell's verdict with what the language's mean is made of."""

    verdict: CellVerdict
    result: Bootstrap
    randomised: NDArray[np.float64]


_WORST_FIRST: tuple[Outcome, ...] = ("fail", "inconclusive", "pass")


def gate(candidate: Scorecard, champion: Scorecard, settings: GateSettings, *, updated: Sequence[str] = ()) -> Verdict:
    """Compare two scorecards, row by row.

    A cell passes when it has ``min_examples`` rows and the one-sided lower confidence bound of candidate − champion
    lies above −margin (a test of non-inferiority): many rows are needed to pass, not to fail. Where the rows exclude
    neither the margin nor its opposite and are too few for it, the cell is inconclusive. All cells must pass. To
    compare some languages only, give ``Scorecard.only`` of both.

    Args:
        candidate: Of the candidate.
        champion: Of the champion, on the same suite.
        settings: Margins, confidence and policy.
        updated: The languages that were trained anew, of each of which ``settings.required_gain`` is required.

    Raises:
        DataError: A cell is missing on one side, has no row in common, or is measured by another metric, library
            version, tokenizer or engine.
    """
    _require_comparable(candidate, champion)
    compared = [_compare(cell, champion.cell(cell.lang, cell.task), settings) for cell in candidate.cells]
    by_language = {lang: [one for one in compared if one.verdict.lang == lang] for lang in candidate.languages}
    languages = [_language(lang, found, settings.confidence) for lang, found in by_language.items()]
    gains = []
    if settings.required_gain is not None:
        trained = [lang for lang in updated if lang in by_language]
        gains = [_gain(lang, by_language[lang], settings.required_gain, settings) for lang in trained]
    return Verdict(
        candidate=candidate.model,
        champion=champion.model,
        cells=tuple(one.verdict for one in compared),
        languages=_with_improvements(languages, settings.false_discovery_rate),
        confidence=settings.confidence,
        inconclusive=settings.inconclusive,
        # The one that is furthest from what is required speaks for all.
        gain=min(gains, key=lambda one: (_WORST_FIRST.index(one.outcome), one.lower_bound), default=None),
    )


def _require_comparable(candidate: Scorecard, champion: Scorecard) -> None:
    problems = []
    places = {(cell.lang, cell.task): cell for card in (candidate, champion) for cell in card.cells}
    for lang, task in sorted(places):
        ours, theirs = candidate.find(lang, task), champion.find(lang, task)
        if ours is None or theirs is None:
            problems.append(Problem(f"{lang}/{task}", f"the {'candidate' if ours is None else 'champion'} has no rows"))
        elif ours.primary != theirs.primary:
            problems.append(Problem(f"{lang}/{task}", f"metrics differ: {ours.primary} and {theirs.primary}"))
        elif (mine := ours.signatures.get(ours.primary)) != (other := theirs.signatures.get(ours.primary)):
            told = f"{mine or 'none'} and {other or 'none'}"
            problems.append(Problem(f"{lang}/{task}", f"{ours.primary} was computed in two ways: {told}"))
        elif not _pairs(ours, theirs):
            problems.append(Problem(f"{lang}/{task}", "candidate and champion have no row in common"))
    if not places:
        problems.append(Problem("", "both scorecards are empty"))
    if problems:
        raise DataError(
            f"{candidate.model} cannot be compared with {champion.model}",
            problems=problems,
            hint="evaluate both with the same suite, engine and libraries: adapterctl evaluate",
        )


def _pairs(candidate: Cell, champion: Cell) -> list[tuple[ExampleScore, ExampleScore]]:
    known = {(score.id, score.row): score for score in champion.scores}
    return [(known[key], score) for score in candidate.scores if (key := (score.id, score.row)) in known]


def _compare(candidate: Cell, champion: Cell, settings: GateSettings) -> _Comparison:
    pairs = _pairs(candidate, champion)
    before, after = [old for old, _ in pairs], [new for _, new in pairs]
    paired = {(score.id, score.row) for score in after}
    unpaired = {score.id for score in (*candidate.scores, *champion.scores) if (score.id, score.row) not in paired}
    metric, names = candidate.primary, (settings.seed, candidate.lang, candidate.task)
    measure, sign = oriented(metric), direction(metric)
    units, classes = unit_indices(after), class_count([*before, *after])
    old, new = (unit_statistics(metric, rows, units, classes) for rows in (before, after))
    result = paired_bootstrap(old, new, measure, resamples=settings.resamples, names=names)
    low, high = result.interval(settings.confidence)
    champion_value = sign * float(measure(old.sum(axis=0)))
    worth = [row_values(metric, rows) for rows in (before, after)]
    discrete = right_or_wrong(np.concatenate(worth))
    verdict = CellVerdict(
        lang=candidate.lang,
        task=candidate.task,
        metric=metric,
        n=len(after),
        champion=champion_value,
        candidate=sign * float(measure(new.sum(axis=0))),
        difference=result.value,
        lower_bound=result.bound(1 - settings.confidence),
        low=low,
        high=high,
        margin=settings.margin_for(candidate.task, metric, champion_value),
        outcome="pass",
        # Where no row differs the rows tell nothing about how rows differ; what the champion's scores let expect does.
        detectable=detectable_difference(
            result.units,
            result.unit_sd or expected_sd(champion_sd(champion)),
            confidence=settings.confidence,
            step=1 / result.units if discrete and metric_of(metric).family == "mean" else 0.0,
        ),
        units=result.units,
        unseen=_unseen(before, after, unit_sums(worth[1] - worth[0], units), settings.confidence) if discrete else 0.0,
        unpaired=tuple(sorted(unpaired)),
    )
    upper_bound, weight = result.bound(settings.confidence), _weight(metric, after, classes)
    verdict = replace(verdict, outcome=_outcome(verdict, upper_bound, settings.min_examples, weight))
    exchanged = randomised_differences(old, new, measure, resamples=settings.resamples, names=names)
    return _Comparison(verdict, result, exchanged)


def _unseen(
    before: Sequence[ExampleScore], after: Sequence[ExampleScore], gains: NDArray[np.float64], confidence: float
) -> float:
    """Return the share of rows that may lose although none of these does; for answers that are right or wrong.

    Resampling rows of which none loses never shows a loss, however few they are: without this, thirty rows would let
    half of all candidates pass that lose one answer in fifty. Where every answer is the same, to the last digit of its
    log-likelihoods, the two are one model, and nothing is unseen.

    Args:
        before, after: The rows of champion and candidate.
        gains: What every unit gained.
        confidence: With which the share is not larger.
    """
    if gains.min() < -_ROUNDING:
        return 0.0
    same = [(row.prediction, row.details) for row in before] == [(row.prediction, row.details) for row in after]
    return 0.0 if same else unseen_share(len(gains), confidence)


def _weight(metric: str, rows: Sequence[ExampleScore], classes: int) -> float:
    """Return what a share of rows that are lost costs at most, as a multiple of the share.

    1 for a mean of right and wrong answers. In a mean over K classes the lost rows may all be of the smallest class:
    of a share p of the rows, whose recall falls by 1 / p of what is lost, and the mean by 1 / (K · p) of it.
    """
    if metric_of(metric).family != "classes":
        return 1.0
    smallest = min(Counter(row.details["answer"] for row in rows).values())
    return max(1.0, len(rows) / (classes * smallest))


def _outcome(cell: CellVerdict, upper_bound: float, min_examples: int, weight: float) -> Outcome:
    limit = _ROUNDING - cell.margin
    enough = cell.units >= min_examples
    # The rows that are unseen may all be lost.
    lost = min(1.0, weight * cell.unseen)
    if enough and (1 - lost) * cell.lower_bound - lost > limit:
        return "pass"
    loss_shown = upper_bound <= limit and cell.units >= _LEAST_UNITS_TO_SHOW_A_LOSS
    too_few = not enough or cell.detectable > cell.margin or cell.lower_bound > limit
    return "inconclusive" if too_few and not loss_shown else "fail"


def _language(lang: str, compared: Sequence[_Comparison], confidence: float) -> LanguageVerdict:
    counted = _counted(compared)
    cells = [one.verdict for one in counted]
    mean = mean_of([one.result for one in counted])
    low, high = mean.interval(confidence)
    return LanguageVerdict(
        lang=lang,
        champion=float(np.mean([cell.champion for cell in cells])),
        candidate=float(np.mean([cell.candidate for cell in cells])),
        difference=mean.value,
        low=low,
        high=high,
        outcome=worst(one.verdict.outcome for one in compared),
        p_value=p_value(mean.value, np.mean([one.randomised for one in counted], axis=0)),
    )


def _counted(compared: Sequence[_Comparison]) -> Sequence[_Comparison]:
    """Return the comparisons whose metrics go from 0 to 1 and can be averaged; all where there are no such."""
    return [one for one in compared if _from_0_to_1(one.verdict)] or compared


def _from_0_to_1(cell: CellVerdict) -> bool:
    # An external command may give any numbers.
    return metric_of(cell.metric).averaged and all(0 <= value <= 1 for value in (cell.champion, cell.candidate))


def _with_improvements(languages: Sequence[LanguageVerdict], rate: float) -> tuple[LanguageVerdict, ...]:
    """Correct the p-values for the number of languages, and say which languages are better."""
    values = [one.p_value for one in languages]
    if min(values) == 1:
        return tuple(languages)
    from scipy.stats import false_discovery_control

    return tuple(
        replace(one, adjusted=float(adjusted), improved=bool(adjusted <= rate and one.difference > 0))
        for one, adjusted in zip(languages, false_discovery_control(values, method="bh"), strict=True)
    )


def _gain(lang: str, compared: Sequence[_Comparison], required: float, settings: GateSettings) -> GainVerdict:
    mean = mean_of([one.result for one in _counted(compared)])
    bound = mean.bound(1 - settings.confidence)
    shown = bound > required and mean.units >= settings.min_examples
    outcome: Outcome = "pass" if shown else "inconclusive" if mean.value > required else "fail"
    return GainVerdict(lang, required, mean.value, bound, outcome)
