"""Every metric as a function of sums over rows, so that rows can be resampled without being judged again.

A row gives a few numbers, its sufficient statistics; those of several rows add up, and the metric of the rows follows
from the sum. The families are those of ``catalogue.Metric``:

========  ======================================================  ============================================
family    statistics of a row                                     metric
========  ======================================================  ============================================
mean      value, 1                                                Σ value / Σ 1
rate      nats, bytes or tokens                                   bits a byte Σ nats / (ln 2 · Σ bytes);
                                                                  perplexity exp(Σ nats / Σ tokens)
classes   by class: right, named, answers                         mean over classes of precision right / named,
                                                                  recall right / answers,
                                                                  F1 2 · right / (named + answers); 0 where 0 / 0
chrf      by length 1 to 6 of n-grams of characters: those of     chrF2 (Popović 2015), from 0 to 1
          the prediction, of the reference, matches
bleu      lengths of prediction and reference; by length 1 to 4   BLEU (Papineni et al. 2002), smoothed "exp" as in
          of n-grams: matches, those of the prediction            mteval-v13a, from 0 to 1
========  ======================================================  ============================================
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adapterctl.errors import DataError
from adapterctl.evaluation.catalogue import Family, metric_of
from adapterctl.evaluation.scorecard import ExampleScore

Array = NDArray[np.float64]

CHRF_STATISTICS = 18
BLEU_STATISTICS = 10

CHOSEN_BY = {"accuracy": "chosen", "accuracy_norm": "chosen_norm"}
"""The detail that an accuracy compares with the right answer."""

_CHRF_BETA = 2.0


def class_count(scores: Sequence[ExampleScore]) -> int:
    """Return how many classes the rows choose from: the labels, or the most choices a row offers; 0 for other rows."""
    return max((len(score.details.get("log_likelihoods", ())) for score in scores), default=0)


def row_statistics(metric: str, scores: Sequence[ExampleScore], classes: int = 0) -> Array:
    """Return the sufficient statistics of every row, of shape rows x d.

    Args:
        metric: Name of a metric of the rows' task.
        scores: The rows.
        classes: How many classes there are, for a metric of the family ``classes``; ``class_count`` when 0.

    Raises:
        DataError: A row lacks what the metric is computed from.
    """
    family = metric_of(metric).family
    if family == "classes":
        for score in scores:
            detail(metric, score, "log_likelihoods")
        return _class_statistics(metric, scores, classes or class_count(scores))
    rows = [_statistics(metric, family, score) for score in scores]
    return np.array(rows, dtype=np.float64).reshape(len(rows), _WIDTH[family])


def from_sums(metric: str, sums: Array) -> Array:
    """Return the metric of rows whose statistics add up to ``sums``.

    Args:
        metric: Its name.
        sums: Of shape (..., d), d as ``row_statistics`` gives it for the metric.

    Returns:
        Of shape (...); NaN where there is nothing to divide by.
    """
    return _VALUES[metric_of(metric).family](metric, np.asarray(sums, dtype=np.float64))


def detail(metric: str, score: ExampleScore, name: str) -> Any:
    """Return one of the numbers a metric is computed from.

    Raises:
        DataError: The row does not have it.
    """
    if name not in score.details:
        raise DataError(
            f"row '{score.id}' ({score.lang}, {score.task}) has no '{name}', which metric '{metric}' is computed from",
            hint="evaluate again with: adapterctl evaluate",
        )
    return score.details[name]


def _statistics(metric: str, family: Family, score: ExampleScore) -> Sequence[float]:
    if family in ("chrf", "bleu"):
        counts: Sequence[float] = detail(metric, score, f"{family}_stats")
        return counts
    known = metric_of(metric)
    if family == "rate":
        return detail(metric, score, known.of), detail(metric, score, known.per)
    if known.of in CHOSEN_BY:
        return float(detail(metric, score, CHOSEN_BY[known.of]) == detail(metric, score, "answer")), 1.0
    return detail(metric, score, known.of), 1.0


def _class_statistics(metric: str, scores: Sequence[ExampleScore], classes: int) -> Array:
    counts = np.zeros((len(scores), 3, classes))
    for row, score in zip(counts, scores, strict=True):
        chosen, answer = detail(metric, score, "chosen"), detail(metric, score, "answer")
        row[0, answer] = chosen == answer
        row[1, chosen] = row[2, answer] = 1
    return counts.reshape(len(scores), 3 * classes)


def _ratio(above: Array, below: Array, otherwise: float) -> Array:
    """Return ``above / below``, and ``otherwise`` where ``below`` is 0."""
    result = np.full(np.broadcast_shapes(above.shape, below.shape), otherwise)
    np.divide(above, below, out=result, where=below != 0)
    return result


def _mean(metric: str, sums: Array) -> Array:
    return _ratio(sums[..., 0], sums[..., 1], math.nan)


def _rate(metric: str, sums: Array) -> Array:
    rate = _ratio(sums[..., 0], sums[..., 1], math.nan)
    if metric == "bits_per_byte":
        return rate / math.log(2)
    with np.errstate(over="ignore"):
        return np.exp(rate)


def _classes(metric: str, sums: Array) -> Array:
    right, named, answers = np.moveaxis(sums.reshape(*sums.shape[:-1], 3, -1), -2, 0)
    if metric == "macro_precision":
        by_class = _ratio(right, named, 0.0)
    elif metric == "macro_recall":
        by_class = _ratio(right, answers, 0.0)
    else:
        by_class = _ratio(2 * right, named + answers, 0.0)
    return np.asarray(by_class.mean(axis=-1))


def _chrf(metric: str, sums: Array) -> Array:
    named, wanted, matches = np.moveaxis(sums.reshape(*sums.shape[:-1], CHRF_STATISTICS // 3, 3), -1, 0)
    # Lengths of which one side has no n-gram are left out of the means, as sacrebleu does (effective order).
    counts = (named > 0) & (wanted > 0)
    order = counts.sum(axis=-1).astype(np.float64)
    precision = _ratio(np.where(counts, _ratio(matches, named, 0.0), 0.0).sum(axis=-1), order, 0.0)
    recall = _ratio(np.where(counts, _ratio(matches, wanted, 0.0), 0.0).sum(axis=-1), order, 0.0)
    weight = _CHRF_BETA**2
    return _ratio((1 + weight) * precision * recall, weight * precision + recall, 0.0)


def _bleu(metric: str, sums: Array) -> Array:
    said, wanted = sums[..., 0], sums[..., 1]
    matches, named = sums[..., 2:6], sums[..., 6:10]
    # The k-th length without any match counts as 1 / 2**k of a match.
    missed = (matches == 0) & (named > 0)
    smoothed = np.where(missed, 0.5 ** np.cumsum(missed, axis=-1), matches)
    precisions = _ratio(smoothed, named, 0.0)
    defined = (precisions > 0).all(axis=-1) & (matches > 0).any(axis=-1)
    logs = np.log(precisions, out=np.zeros_like(precisions), where=precisions > 0)
    brevity = np.exp(np.minimum(0.0, 1 - _ratio(wanted, said, math.inf)))
    return np.where(defined, brevity * np.exp(logs.mean(axis=-1)), 0.0)


_WIDTH: dict[Family, int] = {"mean": 2, "rate": 2, "chrf": CHRF_STATISTICS, "bleu": BLEU_STATISTICS}
_VALUES: dict[Family, Callable[[str, Array], Array]] = {
    "mean": _mean,
    "rate": _rate,
    "classes": _classes,
    "chrf": _chrf,
    "bleu": _bleu,
}
