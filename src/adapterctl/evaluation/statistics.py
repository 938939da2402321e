"""The bootstrap of paired comparisons, the randomisation test, and what a comparison of so many rows could have found.

Everything here works on sufficient statistics: a unit (a row, or a group of rows that belong together) is a few numbers
whose sums over units give the metric. A resample of n units with replacement is a multinomial draw of how often each
distinct unit comes: accuracy has three distinct pairs of champion and candidate, macro-F1 of K labels at most K³. So a
comparison is counts of distinct units and a function of sums, for all resamples at once, and every metric (a mean,
macro-F1, corpus chrF or BLEU) is computed anew on every resample.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adapterctl.randomness import generator

Array = NDArray[Any]
Measure = Callable[[Array], Array]
"""From sums of statistics, ``(..., d)``, to the metric, ``(...)``."""
Names = tuple[str | int, ...]
"""What random numbers belong to."""

_NORMAL = NormalDist()
_MOST_CELLS = 2_000_000
_WORST_SD = 0.5
_HALF = 0.5
_ROUNDING = 1e-12
"""Values nearer than this are the same: metrics go from 0 to 1, and sums of doubles differ by less."""


@dataclass(frozen=True)
class Bootstrap:
    """A statistic and how it varies from resample to resample.

    Attributes:
        value: The statistic of the units themselves.
        replicates: The statistic of every resample.
        units: How many units there are.
        squares, cubes: Σd² and Σd³, d the jackknife values' distances from their mean: leaving one unit out each time.
    """

    value: float
    replicates: Array
    units: int
    squares: float
    cubes: float

    @cached_property
    def constant(self) -> bool:
        """Whether all resamples agree, so that nothing is known about how the statistic varies."""
        return bool(np.ptp(self.replicates) <= _ROUNDING)

    @cached_property
    def bias(self) -> float | None:
        """z₀ of the BCa interval: how far, in standard deviations of a normal distribution, the value lies from the
        replicates' median; None where the value lies beyond all replicates, so that BCa is not defined.
        """
        below = np.mean(self.replicates < self.value - _ROUNDING)
        share = float(below + np.mean(self.replicates <= self.value + _ROUNDING)) / 2
        return _NORMAL.inv_cdf(share) if 0 < share < 1 else None

    @cached_property
    def acceleration(self) -> float:
        """The a of the BCa interval, Σd³ / (6 (Σd²)^{3/2}): how the spread changes with the value."""
        return self.cubes / (6 * self.squares**1.5) if self.squares > _ROUNDING**2 else 0.0

    def bound(self, probability: float) -> float:
        """Return the value that the true one is below with ``probability``.

        Bias-corrected and accelerated (Efron 1987, "Better bootstrap confidence intervals"): the quantile of the
        replicates at Φ(z₀ + (z₀ + z) / (1 − a·(z₀ + z))); at Φ(z) where BCa is not defined; the value itself where all
        replicates agree. z is √(n / (n − 1)) times Student's quantile for n units rather than the normal one
        (Hesterberg 2015, "What teachers should know about the bootstrap", expanded percentiles): a resample varies by
        n − 1 where the units vary by n, and their spread is estimated. Where the replicates lie on a grid, as shares of
        right answers do, the bound is half a step further out: the continuity correction of a discrete distribution.
        """
        if self.constant or self.units < 2:
            return self.value
        found = float(np.quantile(self.replicates, self._adjusted(self._quantile(probability))))
        return (found + self._neighbour(found, below=probability < _HALF)) / 2

    def _neighbour(self, value: float, *, below: bool) -> float:
        """Return the nearest replicate beyond ``value``; the value itself where it is the outermost."""
        beyond = self.replicates < value - _ROUNDING if below else self.replicates > value + _ROUNDING
        if not beyond.any():
            return value
        return float(self.replicates[beyond].max() if below else self.replicates[beyond].min())

    def _quantile(self, probability: float) -> float:
        from scipy.special import stdtrit

        return float(stdtrit(self.units - 1, probability) * np.sqrt(self.units / (self.units - 1)))

    def _adjusted(self, z: float) -> float:
        if self.bias is None:
            return _NORMAL.cdf(z)
        shifted = self.bias + z
        rest = 1 - self.acceleration * shifted
        if rest <= 0:  # so skewed that the formula leaves its range: the outermost replicate
            return float(shifted > 0)
        return _NORMAL.cdf(self.bias + shifted / rest)

    def interval(self, confidence: float) -> tuple[float, float]:
        """Return the two-sided interval."""
        return self.bound((1 - confidence) / 2), self.bound((1 + confidence) / 2)

    @property
    def unit_sd(self) -> float:
        """How much one unit contributes to the spread; see ``jackknife_sd``."""
        return _unit_sd(self.squares, self.units)


def bootstrap(statistics: Array, measure: Measure, *, resamples: int, names: Names) -> Bootstrap:
    """Resample units and measure every resample.

    The order of the units changes nothing.

    Args:
        statistics: Sufficient statistics, units × d.
        measure: The metric of sums of statistics.
        resamples: How many.
        names: What the random numbers belong to.

    Raises:
        ValueError: There are no units.
    """
    distinct, counts = _distinct(statistics)
    units = int(counts.sum())
    random = generator("bootstrap", *names)
    replicates = [
        measure(random.multinomial(units, counts / units, size=size) @ distinct)
        for size in _portions(resamples, len(counts))
    ]
    total = counts @ distinct
    squares, cubes = _jackknife(total, distinct, counts, measure)
    return Bootstrap(float(measure(total)), np.concatenate(replicates), units, squares, cubes)


def paired_bootstrap(champion: Array, candidate: Array, measure: Measure, *, resamples: int, names: Names) -> Bootstrap:
    """Resample the metric of the candidate minus that of the champion, both on the same resampled units.

    Exactly 0, without a resample, where all statistics are equal.

    Args:
        champion, candidate: Sufficient statistics of the same units, units × d.
        measure: The metric of sums of statistics.
        resamples: How many.
        names: What the random numbers belong to.

    Raises:
        ValueError: There are no units.
    """
    if len(champion) and np.array_equal(champion, candidate):
        return Bootstrap(0.0, np.zeros(resamples), len(champion), 0.0, 0.0)
    both = np.concatenate([champion, candidate], axis=1)
    return bootstrap(both, _difference(measure), resamples=resamples, names=names)


def _difference(measure: Measure) -> Measure:
    def difference(sums: Array) -> Array:
        before, after = np.split(sums, 2, axis=-1)
        return measure(after) - measure(before)

    return difference


def _distinct(statistics: Array) -> tuple[Array, Array]:
    if len(statistics) == 0:
        raise ValueError("nothing can be said about no rows")
    rows, counts = np.unique(np.asarray(statistics, dtype=np.float64), axis=0, return_counts=True)
    return rows, counts


def _portions(wanted: int, width: int) -> Sequence[int]:
    """Return how many rows of ``width`` numbers to hold at once, ``wanted`` in all."""
    at_once = max(1, _MOST_CELLS // width)
    return [min(at_once, wanted - start) for start in range(0, wanted, at_once)]


def _jackknife(total: Array, distinct: Array, counts: Array, measure: Measure) -> tuple[float, float]:
    if counts.sum() < 2:
        return 0.0, 0.0
    values = measure(total - distinct)
    distances = np.average(values, weights=counts) - values
    distances[np.abs(distances) <= _ROUNDING] = 0.0
    return float((counts * distances**2).sum()), float((counts * distances**3).sum())


def _unit_sd(squares: float, units: int) -> float:
    return float(np.sqrt(squares / units) * (units - 1))


def jackknife_sd(statistics: Array, measure: Measure) -> float:
    """Return how much one unit contributes to the spread of a metric, without any random number.

    √(Σd² / n) · (n − 1), d the jackknife values' distances from their mean: for a mean, the standard deviation of the
    units' values; for every other metric, √n times its standard error (Efron 1982).

    Raises:
        ValueError: There are no units.
    """
    distinct, counts = _distinct(statistics)
    units = int(counts.sum())
    squares, _ = _jackknife(counts @ distinct, distinct, counts, measure)
    return _unit_sd(squares, units)


def mean_of(parts: Sequence[Bootstrap]) -> Bootstrap:
    """Return the bootstrap of the mean of statistics that were resampled independently, with equally many resamples.

    Raises:
        ValueError: There are none.
    """
    if not parts:
        raise ValueError("nothing can be said about no tasks")
    share = 1 / len(parts)
    return Bootstrap(
        value=float(np.mean([part.value for part in parts])),
        replicates=np.mean([part.replicates for part in parts], axis=0),
        # Cautious: as few degrees of freedom as the part with the fewest units has.
        units=min(part.units for part in parts),
        squares=share**2 * sum(part.squares for part in parts),
        cubes=share**3 * sum(part.cubes for part in parts),
    )


def randomised_differences(
    champion: Array, candidate: Array, measure: Measure, *, resamples: int, names: Names
) -> Array:
    """Return candidate − champion as it comes out when chance decides, unit by unit, which of the two is which.

    The paired randomisation test (Noreen 1989, "Computer-intensive methods for testing hypotheses"): where both are
    equally good, a unit's two results could as well be exchanged.

    Args:
        champion, candidate: Sufficient statistics of the same units, units × d.
        measure: The metric of sums of statistics.
        resamples: How many times to exchange.
        names: What the random numbers belong to.

    Returns:
        The differences, of shape (resamples,).
    """
    width = champion.shape[1]
    distinct, counts = _distinct(np.concatenate([champion, candidate], axis=1))
    gains = distinct[:, width:] - distinct[:, :width]
    # Where both did the same there is nothing to exchange.
    moving = np.any(gains != 0, axis=1)
    gains, moved = gains[moving], counts[moving]
    before, after = np.split(counts @ distinct, 2)
    random = generator("randomisation", *names)
    found = []
    for size in _portions(resamples, max(1, len(moved))):
        exchanged = random.binomial(moved, 0.5, size=(size, len(moved))) @ gains
        found.append(measure(after - exchanged) - measure(before + exchanged))
    differences: Array = np.concatenate(found)
    return differences


def p_value(observed: float, randomised: Array) -> float:
    """Return how often chance alone gives a difference as large as the observed one; never 0.

    (1 + number of randomised differences ≥ observed) / (1 + number of randomised differences) (Phipson and Smyth 2010).
    """
    return float((1 + np.sum(randomised >= observed - _ROUNDING)) / (1 + len(randomised)))


def unseen_share(units: int, confidence: float) -> float:
    """Return the share of units of a kind that may exist although none of ``units`` is of it.

    1 − (1 − confidence)^(1/n), about 3 / n at 95 % (Hanley and Lippman-Hand 1983, "If nothing goes wrong, is everything
    all right?"): a rarer kind is missed with more than 1 − confidence.
    """
    return float(1 - (1 - confidence) ** (1 / units))


def detectable_difference(
    n: int, sd: float, *, confidence: float = 0.95, power: float = 0.8, step: float = 0.0
) -> float:
    """Return the smallest true loss that n paired units show with probability ``power``.

    ``(z_confidence + z_power) · sd / √n + step / 2``: the loss at which a one-sided test of "no loss" at this
    confidence finds it with that probability. Equally the smallest margin at which a candidate that is truly as good
    as the champion passes the gate with that probability: with a smaller margin the gate mostly refuses for want of
    rows.

    Args:
        n: Number of units.
        sd: Standard deviation of one unit's difference; see ``expected_sd`` before there are any.
        confidence: Of the one-sided bound.
        power: The probability.
        step: Distance of the values that the mean can take, 1 / n where an answer is right or wrong: the bound lies
            half a step further out there.
    """
    return float((_NORMAL.inv_cdf(confidence) + _NORMAL.inv_cdf(power)) * sd / np.sqrt(n) + step / 2)


def expected_sd(champion_sd: float | None = None, *, correlation: float = 0.5) -> float:
    """Return the standard deviation of a unit's difference to expect before a candidate exists.

    Two models whose scores of a unit vary by the same sd and correlate by ρ differ by ``sd · √(2 (1 − ρ))``.

    Args:
        champion_sd: Standard deviation of the champion's scores over units; None or 0 (nothing known) means 0.5, the
            worst that scores from 0 to 1 can do.
        correlation: ρ. The default is cautious for two releases of one base model; 0 is the worst case.
    """
    return float((champion_sd or _WORST_SD) * np.sqrt(2 * (1 - correlation)))
