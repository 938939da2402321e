"""What is resampled: rows, or the groups of rows that belong together, as sufficient statistics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adapterctl.evaluation.catalogue import metric_of
from adapterctl.evaluation.scorecard import ExampleScore
from adapterctl.evaluation.statistics import Measure
from adapterctl.evaluation.sums import from_sums, row_statistics

Array = NDArray[np.float64]


def unit_indices(scores: Sequence[ExampleScore]) -> NDArray[np.int64]:
    """Return the number of each row's unit, from 0: rows of one group share it, a row without group has its own."""
    # The first part keeps a group apart from a row whose id reads the same.
    names = [f"group {score.group}" if score.group else f"row {score.id}" for score in scores]
    return np.unique(names, return_inverse=True)[1].astype(np.int64)


def unit_sums(values: NDArray[Any], units: NDArray[np.int64]) -> Array:
    """Return the sums over every unit's rows: rows × d to units × d."""
    sums = np.zeros((int(units.max()) + 1, *values.shape[1:]))
    np.add.at(sums, units, values)
    return sums


def unit_statistics(metric: str, scores: Sequence[ExampleScore], units: NDArray[np.int64], classes: int = 0) -> Array:
    """Return the sufficient statistics of every unit, of shape units × d.

    Raises:
        DataError: A row lacks what the metric is computed from.
    """
    return unit_sums(row_statistics(metric, scores, classes), units)


def row_values(metric: str, scores: Sequence[ExampleScore]) -> Array:
    """Return what every row contributes: its value where the metric is a mean of such, else its score."""
    if metric_of(metric).family == "mean":
        return row_statistics(metric, scores)[:, 0]
    return np.array([score.score for score in scores])


def right_or_wrong(values: Array) -> bool:
    """Return whether every row is worth 0 or 1, and some 1, so that a mean of n rows moves in steps of 1 / n."""
    return bool(np.isin(values, (0.0, 1.0)).all() and values.any())


def direction(metric: str) -> int:
    """Return 1 where a higher metric is better, −1 where a lower one is."""
    return 1 if metric_of(metric).higher_is_better else -1


def oriented(metric: str) -> Measure:
    """Return the metric of sums of statistics, turned so that higher is better."""
    sign = direction(metric)
    return lambda sums: sign * from_sums(metric, sums)
