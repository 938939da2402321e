"""Numbers that know whether they were measured, and how far off a projection may be; imports nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Amount:
    """A number that knows whether it was measured; whatever is computed from a projection is a projection.

    Attributes:
        value: The number.
        measured: False for a projection.
        low, high: Between which numbers a projection lies; None where nothing tells (one measurement has no spread).
    """

    value: float
    measured: bool = True
    low: float | None = None
    high: float | None = None

    @property
    def least(self) -> float:
        """The lower end of the interval; the number itself where there is none."""
        return self.value if self.low is None else self.low

    @property
    def most(self) -> float:
        """The upper end of the interval; the number itself where there is none."""
        return self.value if self.high is None else self.high

    @property
    def has_interval(self) -> bool:
        """Whether there is an interval that is more than a point."""
        return self.least < self.most

    def _with(self, other: Amount, value: float, ends: tuple[float, float]) -> Amount:
        measured = self.measured and other.measured
        if not (self.has_interval or other.has_interval):
            return Amount(value, measured)
        return Amount(value, measured, min(value, *ends), max(value, *ends))

    def __add__(self, other: Amount) -> Amount:
        """Return the sum; intervals add up end by end, as those of one cause do."""
        ends = self.least + other.least, self.most + other.most
        return self._with(other, self.value + other.value, ends)

    def __sub__(self, other: Amount) -> Amount:
        """Return the difference, as uncertain as both together."""
        ends = self.least - other.most, self.most - other.least
        return self._with(other, self.value - other.value, ends)

    def times(self, factor: float) -> Amount:
        """Return the number times a factor of zero or more."""
        ends = (self.least * factor, self.most * factor) if self.has_interval else (None, None)
        return Amount(self.value * factor, self.measured, *ends)

    def over(self, other: Amount) -> Amount | None:
        """Return the ratio of the two, None where the divisor is zero."""
        if other.value == 0:
            return None
        least = self.least / other.most if other.most else 0.0
        most = self.most / other.least if other.least > 0 else float("inf")
        return self._with(other, self.value / other.value, (least, most))

    def saved(self, other: Amount) -> Amount | None:
        """Return what this saves against the other, as a share: 1 − this/other; None where the other is zero."""
        ratio = self.over(other)
        return None if ratio is None else Amount(1.0) - ratio

    def projected(self) -> Amount:
        """Return the same number as a projection."""
        return Amount(self.value, False, self.low, self.high)

    def as_dict(self) -> dict[str, Any]:
        """Return value and flag, which never part, and the interval of a projection that has one."""
        plain: dict[str, Any] = {"value": self.value, "measured": self.measured}
        return plain | ({"low": self.least, "high": self.most} if self.has_interval else {})

    def text(self, number: str) -> str:
        """Return the formatted number, marked where it is projected."""
        return number if self.measured else f"~{number} (projected)"

    def shown(self, form: Callable[[float], str]) -> str:
        """Return the number as ``form`` writes it, ``~`` before a projection, its interval in brackets behind it."""
        about = "" if self.measured else "~"
        return f"{about}{form(self.value)}{self._interval(form)}"

    def _interval(self, form: Callable[[float], str]) -> str:
        if not self.has_interval:
            return ""
        least, most = form(self.least), form(self.most)
        number, _, unit = least.rpartition(" ")
        # The unit once is enough where both ends have the same.
        return f" [{number if number and most.endswith(f' {unit}') else least} … {most}]"


def added(amounts: list[Amount]) -> Amount:
    """Return the sum of any number of amounts."""
    result = Amount(0.0)
    for amount in amounts:
        result = result + amount
    return result
