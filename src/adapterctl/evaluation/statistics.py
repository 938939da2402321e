"""The bootstrap of paired comparisons, and what a comparison of so many rows could have found.

A resample of n rows with replacement is a multinomial draw of how often each distinct row comes: accuracy has three
distinct differences (−1, 0, 1), macro-F1 of K labels at most K³ distinct (answer, champion, candidate). So a comparison
is counts of distinct rows and a statistic of counts, for all resamples at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adapterctl.randomness import generator

Array = NDArray[Any]
Statistic = Callable[[Array], Array]
"""From counts of distinct rows, ``resamples × rows``, to one value each."""

_NORMAL = NormalDist()
_MOST_CELLS = 2_000_000
_WORST_SD = 0.5


@dataclass(frozen=True)
class Bootstrap:
    """A statistic and how it varies from resample to resample.

    Attributes:
        value: The statistic of the rows themselves.
        replicates: The statistic of every resample.
        bias: z₀ of the BCa interval: how far, in standard deviations of a normal distribution, the value lies from the
            replicates' median; None where the interval is the percentile interval.
        acceleration: a of the BCa interval: how the spread changes with the value.
    """

    value: float
    replicates: Array
    bias: float | None
    acceleration: float

    def bound(self, probability: float) -> float:
        """Return the value that the true one is below with ``probability``.

        Bias-corrected and accelerated (Efron 1987, "Better bootstrap confidence intervals"): the quantile of the
        replicates at Φ(z₀ + (z₀ + z_p) / (1 − a·(z₀ + z_p))); at p itself where BCa is not defined; the value itself
        where all replicates agree.
        """
        if np.ptp(self.replicates) == 0:
            return self.value
        if self.bias is not None:
            shifted = self.bias + _NORMAL.inv_cdf(probability)
            probability = _NORMAL.cdf(self.bias + shifted / (1 - self.acceleration * shifted))
        return float(np.quantile(self.replicates, probability))

    def interval(self, confidence: float) -> tuple[float, float]:
        """Return the two-sided interval."""
        return self.bound((1 - confidence) / 2), self.bound((1 + confidence) / 2)

    @property
    def standard_error(self) -> float:
        """The replicates' standard deviation."""
        return float(np.std(self.replicates, ddof=1))


def bootstrap(counts: Array, statistic: Statistic, *, resamples: int, names: tuple[str | int, ...]) -> Bootstrap:
    """Resample rows that are given as counts of distinct rows.

    Args:
        counts: How often each distinct row comes.
        statistic: Of counts.
        resamples: How many.
        names: What the random numbers belong to.

    Raises:
        ValueError: There are no rows.
    """
    rows = int(counts.sum())
    if rows == 0:
        raise ValueError("nothing can be said about no rows")
    random = generator("bootstrap", *names)
    at_once = max(1, _MOST_CELLS // len(counts))
    parts = [
        statistic(random.multinomial(rows, counts / rows, size=min(at_once, resamples - start)))
        for start in range(0, resamples, at_once)
    ]
    replicates = np.concatenate(parts)
    value = float(statistic(counts[None, :])[0])
    below = (np.mean(replicates < value) + np.mean(replicates <= value)) / 2
    bias = _NORMAL.inv_cdf(float(below)) if 0 < below < 1 else None
    return Bootstrap(value, replicates, bias, _acceleration(counts, statistic) if rows > 1 else 0.0)


def _acceleration(counts: Array, statistic: Statistic) -> float:
    """Return Σd³ / (6 (Σd²)^{3/2}), d the jackknife values' distances from their mean; 0 where they all agree."""
    size = len(counts)
    at_once = max(1, _MOST_CELLS // size)
    without_one = (
        statistic(counts[None, :] - np.eye(min(at_once, size - start), size, k=start, dtype=counts.dtype))
        for start in range(0, size, at_once)
    )
    values = np.concatenate(list(without_one))
    distances = np.average(values, weights=counts) - values
    squares = float((counts * distances**2).sum())
    return float((counts * distances**3).sum()) / (6 * squares**1.5) if squares > 1e-24 else 0.0


def bootstrap_mean(values: Sequence[float], *, resamples: int, names: tuple[str | int, ...]) -> Bootstrap:
    """Resample the mean of values; their order does not matter.

    Raises:
        ValueError: There are no values.
    """
    distinct, counts = np.unique(np.asarray(values, dtype=np.float64), return_counts=True)
    # Relative to one of them, so that the mean of equal values is that value, exactly.
    middle = distinct[len(distinct) // 2] if len(distinct) else 0.0
    return bootstrap(
        counts,
        lambda drawn: middle + drawn @ (distinct - middle) / drawn.sum(axis=1),
        resamples=resamples,
        names=names,
    )


def macro_f1_of_counts(answers: Array, predictions: Array, classes: int, counts: Array) -> Array:
    """Return the macro-F1 of counted rows: mean over classes of 2·TP / (support + predicted), 0 where both are 0.

    Args:
        answers: Right class of each distinct row.
        predictions: Predicted class of each distinct row.
        classes: How many classes there are.
        counts: How often each distinct row comes, ``resamples × rows``.
    """
    every = np.arange(classes)
    is_answer, is_prediction = answers[:, None] == every, predictions[:, None] == every
    hits = counts @ (is_answer & is_prediction).astype(np.int64)
    named = counts @ (is_answer.astype(np.int64) + is_prediction)
    means: Array = (2 * hits / np.maximum(named, 1)).mean(axis=1)
    return means


def macro_f1(answers: Sequence[int], predictions: Sequence[int], classes: int) -> float:
    """Return the macro-F1 of predictions, as ``macro_f1_of_counts`` defines it."""
    distinct, counts = _distinct(answers, predictions)
    return float(macro_f1_of_counts(distinct[:, 0], distinct[:, 1], classes, counts[None, :])[0])


def bootstrap_macro_f1(
    answers: Sequence[int],
    predictions: Sequence[int],
    *,
    classes: int,
    resamples: int,
    names: tuple[str | int, ...],
) -> Bootstrap:
    """Resample the macro-F1 of one model's predictions.

    Raises:
        ValueError: There are no rows.
    """
    distinct, counts = _distinct(answers, predictions)
    return bootstrap(
        counts,
        lambda drawn: macro_f1_of_counts(distinct[:, 0], distinct[:, 1], classes, drawn),
        resamples=resamples,
        names=names,
    )


def bootstrap_macro_f1_difference(
    answers: Sequence[int],
    champion: Sequence[int],
    candidate: Sequence[int],
    *,
    classes: int,
    resamples: int,
    names: tuple[str | int, ...],
) -> Bootstrap:
    """Resample macro-F1 of the candidate minus that of the champion, both on the same resampled rows.

    Macro-F1 is no mean of scores per row, so the metric itself is computed anew on every resample.

    Raises:
        ValueError: There are no rows.
    """
    distinct, counts = _distinct(answers, champion, candidate)
    right, before, after = distinct.T

    def difference(drawn: Array) -> Array:
        return macro_f1_of_counts(right, after, classes, drawn) - macro_f1_of_counts(right, before, classes, drawn)

    return bootstrap(counts, difference, resamples=resamples, names=names)


def _distinct(*columns: Sequence[int]) -> tuple[Array, Array]:
    rows = np.stack([np.asarray(column, dtype=np.int64) for column in columns], axis=1)
    return np.unique(rows, axis=0, return_counts=True)


def lower_bound(
    differences: Sequence[float], *, confidence: float, resamples: int, names: tuple[str | int, ...]
) -> float:
    """Return the one-sided lower confidence bound of the mean of paired differences.

    Raises:
        ValueError: There are no differences.
    """
    return bootstrap_mean(differences, resamples=resamples, names=names).bound(1 - confidence)


def interval_of_mean(
    values: Sequence[float], *, confidence: float, resamples: int, names: tuple[str | int, ...]
) -> tuple[float, float]:
    """Return the two-sided confidence interval of a mean.

    Raises:
        ValueError: There are no values.
    """
    return bootstrap_mean(values, resamples=resamples, names=names).interval(confidence)


def detectable_difference(n: int, sd: float, *, confidence: float = 0.95, power: float = 0.8) -> float:
    """Return the smallest true loss that n paired rows show with probability ``power``.

    ``(z_confidence + z_power) · sd / √n``: the loss at which a one-sided test of "no loss" at this confidence finds it
    with that probability. Equally the smallest margin at which a candidate that is truly as good as the champion passes
    the gate with that probability: with a smaller margin the gate mostly refuses for want of rows.

    Args:
        n: Number of rows.
        sd: Standard deviation of one row's difference; see ``expected_sd`` before there are any.
        confidence: Of the one-sided bound.
        power: The probability.
    """
    return float((_NORMAL.inv_cdf(confidence) + _NORMAL.inv_cdf(power)) * sd / np.sqrt(n))


def expected_sd(champion_sd: float | None = None, *, correlation: float = 0.5) -> float:
    """Return the standard deviation of a row's difference to expect before a candidate exists.

    Two models whose scores of a row vary by the same sd and correlate by ρ differ by ``sd · √(2 (1 − ρ))``.

    Args:
        champion_sd: Standard deviation of the champion's scores over rows; None or 0 (nothing known) means 0.5, the
            worst that scores from 0 to 1 can do.
        correlation: ρ. The default is cautious for two releases of one base model; 0 is the worst case.
    """
    return float((champion_sd or _WORST_SD) * np.sqrt(2 * (1 - correlation)))
