"""Choosing λ: how strongly the merged ΔW is applied.

Scale matters as much as the method (measured on the pocket model), and it is multiplicative: ΔW(λ) = λ·ΔW(1). Trying
a λ therefore costs one evaluation on the dev split and no new merge.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class ScaleChoice:
    """The λ that did best, and everything that was tried.

    Attributes:
        scale: The chosen λ.
        value: Its value on the dev split.
        tried: Every λ with its value, by λ.
    """

    scale: float
    value: float
    tried: tuple[tuple[float, float], ...]


def choose_scale(
    value_at: Callable[[float], float],
    start: float,
    *,
    step: float = 1.25,
    most: int = 6,
    least_gain: float = 0.0,
) -> ScaleChoice:
    """Walk a multiplicative grid from ``start`` uphill until the value falls.

    Args:
        value_at: The value of a λ on the dev split; called once for every λ tried.
        start: First λ tried; the grid is start·stepⁿ.
        step: Ratio of neighbours on the grid.
        most: The most values of λ that are tried, at least 2.
        least_gain: What another λ than ``start`` must gain over it; below that, ``start`` stays.

    Returns:
        The best λ tried; of equal ones the smaller, which changes the base model less.
    """
    values: dict[int, float] = {}

    def at(index: int) -> float:
        if index not in values:
            values[index] = value_at(_rounded(start * step**index))
        return values[index]

    direction = 1 if at(1) > at(0) else -1
    here = 1 if direction == 1 else 0
    while len(values) < max(most, 2) and at(here + direction) > at(here):
        here += direction
    best = min(values, key=lambda index: (-values[index], index))
    if values[best] - values[0] < least_gain:
        best = 0
    tried = tuple((_rounded(start * step**index), values[index]) for index in sorted(values))
    return ScaleChoice(_rounded(start * step**best), values[best], tried)


def _rounded(scale: float) -> float:
    """Keep four digits: λ stands in keys, file names and reports."""
    return float(f"{scale:.4g}")
