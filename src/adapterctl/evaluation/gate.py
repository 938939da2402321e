"""The gate: is the candidate, in every language and task, not worse than the champion by more than the margin?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from adapterctl.errors import DataError, Problem
from adapterctl.evaluation.metrics import class_count
from adapterctl.evaluation.power import champion_sd
from adapterctl.evaluation.scorecard import Cell, ExampleScore, Scorecard
from adapterctl.evaluation.statistics import (
    Bootstrap,
    bootstrap_macro_f1_difference,
    bootstrap_mean,
    detectable_difference,
    expected_sd,
    macro_f1,
)
from adapterctl.evaluation.suite import GateSettings
from adapterctl.evaluation.verdict import CellVerdict, LanguageVerdict, Verdict

__all__ = ["CellVerdict", "LanguageVerdict", "Verdict", "gate"]

Pair = tuple[ExampleScore, ExampleScore]
"""What champion and candidate made of one row."""


def gate(candidate: Scorecard, champion: Scorecard, settings: GateSettings) -> Verdict:
    """Compare two scorecards, row by row.

    A cell passes when the one-sided lower confidence bound of candidate − champion lies above −margin (a test of
    non-inferiority): many rows are needed to pass, not to fail. All cells must pass. To compare some languages only,
    give ``Scorecard.only`` of both.

    Raises:
        DataError: A cell is missing on one side, has no row in common, is measured by another metric, or ROUGE was
            computed with another tokenizer.
    """
    _require_comparable(candidate, champion)
    compared = [_compare(cell, champion.cell(cell.lang, cell.task), settings) for cell in candidate.cells]
    cells = tuple(cell for cell, _ in compared)
    languages = tuple(
        _language(lang, [pair for pair in compared if pair[0].lang == lang], settings.confidence)
        for lang in candidate.languages
    )
    passed = all(cell.passed for cell in cells)
    return Verdict(passed, candidate.model, champion.model, cells, languages, settings.confidence)


def _require_comparable(candidate: Scorecard, champion: Scorecard) -> None:
    problems = []
    if candidate.tokenizer != champion.tokenizer:
        problems.append(Problem("", f"ROUGE tokenizers differ: {candidate.tokenizer} and {champion.tokenizer}"))
    places = {(cell.lang, cell.task): cell for card in (candidate, champion) for cell in card.cells}
    for lang, task in sorted(places):
        ours, theirs = candidate.find(lang, task), champion.find(lang, task)
        if ours is None or theirs is None:
            problems.append(Problem(f"{lang}/{task}", f"the {'candidate' if ours is None else 'champion'} has no rows"))
        elif ours.primary != theirs.primary:
            problems.append(Problem(f"{lang}/{task}", f"metrics differ: {ours.primary} and {theirs.primary}"))
        elif not _pairs(ours, theirs):
            problems.append(Problem(f"{lang}/{task}", "candidate and champion have no row in common"))
    if not places:
        problems.append(Problem("", "both scorecards are empty"))
    if problems:
        raise DataError(
            f"{candidate.model} cannot be compared with {champion.model}",
            problems=problems,
            hint="evaluate both on the same suite: adapterctl evaluate",
        )


def _pairs(candidate: Cell, champion: Cell) -> list[Pair]:
    known = {(score.id, score.row): score for score in champion.scores}
    return [(known[key], score) for score in candidate.scores if (key := (score.id, score.row)) in known]


def _compare(candidate: Cell, champion: Cell, settings: GateSettings) -> tuple[CellVerdict, Bootstrap]:
    pairs = _pairs(candidate, champion)
    paired = {(score.id, score.row) for _, score in pairs}
    unpaired = {score.id for score in (*candidate.scores, *champion.scores) if (score.id, score.row) not in paired}
    names = (settings.seed, candidate.lang, candidate.task)
    values, result = _resample(pairs, candidate.primary, settings.resamples, names)
    bound, margin = result.bound(1 - settings.confidence), settings.margin_for(candidate.task)
    low, high = result.interval(settings.confidence)
    # Where no row differs the rows tell nothing about how rows differ; what the champion's own scores let expect does.
    sd = result.standard_error * np.sqrt(len(pairs)) or expected_sd(champion_sd(champion, settings))
    verdict = CellVerdict(
        lang=candidate.lang,
        task=candidate.task,
        metric=candidate.primary,
        n=len(pairs),
        champion=values[0],
        candidate=values[1],
        difference=result.value,
        lower_bound=bound,
        low=low,
        high=high,
        margin=margin,
        passed=bound > -margin,
        detectable=detectable_difference(len(pairs), float(sd), confidence=settings.confidence),
        unpaired=tuple(sorted(unpaired)),
    )
    return verdict, result


def _resample(
    pairs: Sequence[Pair], metric: str, resamples: int, names: tuple[str | int, ...]
) -> tuple[tuple[float, float], Bootstrap]:
    """Return the metric of champion and candidate, and their resampled difference."""
    if metric != "macro_f1":
        old, new = ([pair[side].score for pair in pairs] for side in (0, 1))
        differences = [after - before for before, after in zip(old, new, strict=True)]
        means = (sum(old) / len(pairs), sum(new) / len(pairs))
        return means, bootstrap_mean(differences, resamples=resamples, names=names)
    answers = [old.details["answer"] for old, _ in pairs]
    before, after = ([pair[side].details["chosen"] for pair in pairs] for side in (0, 1))
    classes = max(class_count([pair[side] for pair in pairs]) for side in (0, 1))
    result = bootstrap_macro_f1_difference(answers, before, after, classes=classes, resamples=resamples, names=names)
    return (macro_f1(answers, before, classes), macro_f1(answers, after, classes)), result


def _language(lang: str, compared: Sequence[tuple[CellVerdict, Bootstrap]], confidence: float) -> LanguageVerdict:
    cells = [cell for cell, _ in compared]
    replicates = np.mean([result.replicates for _, result in compared], axis=0)
    low, high = np.quantile(replicates, [(1 - confidence) / 2, (1 + confidence) / 2])
    return LanguageVerdict(
        lang=lang,
        champion=float(np.mean([cell.champion for cell in cells])),
        candidate=float(np.mean([cell.candidate for cell in cells])),
        difference=float(np.mean([cell.difference for cell in cells])),
        low=float(low),
        high=float(high),
        passed=all(cell.passed for cell in cells),
    )
