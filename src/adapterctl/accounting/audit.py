"""Whether a table of hours and money can have one common hourly rate, and whether its savings follow from it.

A printed number stands for an interval: 3.8 h is anything from 3.75 to 3.85. Hours h ± Δh and money d ± Δd allow the
rates (d − Δd)/(h + Δh) to (d + Δd)/(h − Δh). The rate that most rows allow is the table's; rows that do not allow it
contradict the others, and are told what they should say. Where several largest sets of rows agree, the table alone
does not say which of them is right: rows that only some of the sets allow are disputed, until a rate is given.

Hours of several machines at work together (``wall``) say nothing about the rate, since money pays for busy hours: their
money gives the busy hours instead, which must lie between the wall hours and the wall hours times the machines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal

from adapterctl.accounting.formats import format_amount, format_rounded, format_some
from adapterctl.errors import Problem

Kind = Literal["busy", "wall"]
Status = Literal["ok", "disputed", "contradicts"]


@dataclass(frozen=True)
class Printed:
    """A number as a table prints it.

    Attributes:
        value: The number.
        unit: What it was rounded to: 0.1 for ``3.4``, 1 for ``45``.
    """

    value: float
    unit: float

    @property
    def low(self) -> float:
        """The least number that is printed so."""
        return self.value - self.unit / 2

    @property
    def high(self) -> float:
        """The greatest number that is printed so."""
        return self.value + self.unit / 2

    @property
    def text(self) -> str:
        """The number with the digits that it is printed with."""
        return format_rounded(self.value, self.unit)


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        name: Its name, unique.
        hours: Hours as printed.
        money: Money as printed.
        kind: ``busy`` hours are paid for; ``wall`` hours pass while several machines work.
        against: Name of the row that the savings are measured by; empty without.
        time_saved, money_saved: Savings as printed, in per cent; None where none is printed.
    """

    name: str
    hours: Printed
    money: Printed
    kind: Kind = "busy"
    against: str = ""
    time_saved: Printed | None = None
    money_saved: Printed | None = None


@dataclass(frozen=True)
class Interval:
    """All numbers from ``low`` to ``high``."""

    low: float
    high: float

    @property
    def middle(self) -> float:
        """The number halfway."""
        return (self.low + self.high) / 2

    def holds(self, value: float) -> bool:
        """Tell whether a number is in it, but for rounding of floating-point numbers."""
        return self.low - self._slack <= value <= self.high + self._slack

    def meets(self, other: Interval) -> bool:
        """Tell whether some number is in both."""
        return self.low <= other.high + self._slack and other.low <= self.high + self._slack

    @property
    def text(self) -> str:
        """Both ends as people read them."""
        return f"{format_amount(self.low)} to {format_amount(self.high)}"

    @property
    def _slack(self) -> float:
        return 1e-9 * max(1.0, *(abs(end) for end in (self.low, self.high) if isfinite(end)))


def rates(row: Row) -> Interval:
    """Return the hourly rates that the printed hours and money of a row allow."""
    return Interval(max(0.0, row.money.low) / row.hours.high, row.money.high / row.hours.low)


@dataclass(frozen=True)
class Explanation:
    """A largest set of rows that agree: the rates that all of them allow, and their names."""

    rate: Interval
    rows: tuple[str, ...]


@dataclass(frozen=True)
class RowFinding:
    """What became of a row.

    Attributes:
        row: The row.
        rates: The rates it allows; None for wall hours.
        status: ``ok`` where it agrees with every explanation, ``disputed`` with some, ``contradicts`` with none.
        busy_hours: The hours that its money pays for at the common rate, or at those of all explanations.
        due_money: The money that its hours cost at the same rates; None for wall hours.
        reason: What is wrong; empty where nothing is.
    """

    row: Row
    rates: Interval | None
    status: Status
    busy_hours: Interval
    due_money: Interval | None
    reason: str = ""

    @property
    def consistent(self) -> bool:
        """Whether nothing speaks against the row."""
        return self.status == "ok"


@dataclass(frozen=True)
class Saving:
    """What a row saves against another one.

    Attributes:
        row, against: Names of the two rows.
        quantity: ``time`` or ``money``.
        due: The saving in per cent that follows, hours that were found wrong replaced by those they should be; None
            where there is nothing to save from.
        printed: The saving as printed; None where none is.
        consistent: Whether the printed one can follow from what the rows say.
        reason: What is wrong; empty where nothing is.
    """

    row: str
    against: str
    quantity: Literal["time", "money"]
    due: float | None
    printed: float | None
    consistent: bool
    reason: str = ""


@dataclass(frozen=True)
class Audit:
    """What a table's numbers say about one another.

    Attributes:
        rate: The rates that the consistent rows have in common; None where several explanations are left.
        used: The rate that corrections are made with: the given one, else the middle of ``rate``; None without.
        explanations: The largest sets of rows that agree, by rising rate: one, or several that nothing ranks.
        rows: Every row.
        savings: Every saving that the rows name a counterpart for.
        notes: What was found beyond single rows.
    """

    rate: Interval | None
    used: float | None
    explanations: tuple[Explanation, ...]
    rows: tuple[RowFinding, ...]
    savings: tuple[Saving, ...]
    notes: tuple[str, ...] = ()

    @property
    def consistent(self) -> bool:
        """Whether nothing is wrong."""
        rows, savings = (row.consistent for row in self.rows), (saving.consistent for saving in self.savings)
        return not self.notes and all(rows) and all(savings)

    def as_dict(self) -> dict[str, Any]:
        """Return the audit as plain values."""
        return {
            "consistent": self.consistent,
            "rate": _pair(self.rate),
            "used_rate": self.used,
            "explanations": [{"rate": _pair(one.rate), "rows": list(one.rows)} for one in self.explanations],
            "rows": [
                {"name": one.row.name, "hours": one.row.hours.value, "money": one.row.money.value, "kind": one.row.kind}
                | {"consistent": one.consistent, "status": one.status, "rates": _pair(one.rates)}
                | {"busy_hours": _pair(one.busy_hours), "due_money": _pair(one.due_money), "reason": one.reason}
                for one in self.rows
            ],
            "savings": [
                {"row": one.row, "against": one.against, "quantity": one.quantity, "due_percent": one.due}
                | {"printed_percent": one.printed, "consistent": one.consistent, "reason": one.reason}
                for one in self.savings
            ],
            "notes": list(self.notes),
        }


def _pair(interval: Interval | None) -> list[float | None] | None:
    if interval is None:
        return None
    return [value if isfinite(value) else None for value in (interval.low, interval.high)]


def faults(rows: Sequence[Row]) -> list[Problem]:
    """Return what keeps rows from being audited at all; places are the names of the rows."""
    problems = []
    names = [row.name for row in rows]
    for row in rows:
        if row.hours.value <= 0 or row.money.value < 0:
            problems.append(Problem(row.name, f"{row.hours.text} hours for {row.money.text} are no price"))
        elif row.hours.low <= 0:
            problems.append(
                Problem(
                    row.name, f"{row.hours.value:g} hours, rounded to {row.hours.unit:g}, may be none and tell no rate"
                )
            )
        if names.count(row.name) > 1:
            problems.append(Problem(row.name, "the name stands there more than once"))
        if row.against and row.against not in names:
            problems.append(Problem(row.name, f"'{row.against}', which it is compared with, is no row"))
        if row.against == row.name:
            problems.append(Problem(row.name, "it is compared with itself"))
    if not any(row.kind == "busy" for row in rows):
        problems.append(Problem("", "no row has busy hours, which a rate could be told from"))
    return list(dict.fromkeys(problems))


def explanations(rows: Sequence[Row]) -> tuple[Explanation, ...]:
    """Return the largest sets of rows with busy hours that have a rate in common, by rising rate.

    The set of rows that allow a rate grows at the lower ends of their intervals only, which are all that must be tried.
    """
    allowed = [(row.name, rates(row)) for row in rows if row.kind == "busy"]
    found: dict[tuple[str, ...], Interval] = {}
    for _, start in allowed:
        over = [(name, one) for name, one in allowed if one.holds(start.low)]
        names = tuple(name for name, _ in over)
        found[names] = Interval(max(one.low for _, one in over), min(one.high for _, one in over))
    most = max(len(names) for names in found)
    largest = [Explanation(rate, names) for names, rate in found.items() if len(names) == most]
    return tuple(sorted(largest, key=lambda one: one.rate.low))


def audit(rows: Sequence[Row], *, rate: float | None = None, workers: int | None = None) -> Audit:
    """Return what the numbers of a table say about one another.

    Args:
        rows: The table; ``faults`` must find nothing in it.
        rate: An hourly rate that is known from elsewhere, for corrections.
        workers: How many machines worked together at most, for wall hours; None where that is not known.

    Raises:
        ValueError: ``faults`` finds something.
    """
    if found := faults(rows):
        raise ValueError(str(found[0]))
    largest = explanations(rows)
    # Two largest sets never allow the same rate: together they would be a larger one.
    chosen = tuple(one for one in largest if rate is not None and one.rate.holds(rate))
    left = chosen or largest
    common = left[0].rate if len(left) == 1 else None
    used = rate if rate is not None else common.middle if common else None
    findings = tuple(_finding(row, [one.rate for one in left], used, workers) for row in rows)
    by_name = {one.row.name: one for one in findings}
    savings = [s for one in findings if one.row.against for s in _savings(one, by_name[one.row.against], used)]
    return Audit(common, used, largest, findings, tuple(savings), _notes(largest, chosen, rate))


def _notes(largest: Sequence[Explanation], chosen: Sequence[Explanation], rate: float | None) -> tuple[str, ...]:
    outside = rate is not None and not chosen
    if len(largest) == 1:
        among = f"among the rates that most rows allow, {largest[0].rate.text}"
        return (f"the given rate of {rate:g} is not {among}",) if outside else ()
    size = len(largest[0].rows)
    many = f"{len(largest)} sets of {size} rows agree, none larger" if size > 1 else "no two rows agree"
    sets = format_some([f"{one.rate.text} an hour ({format_some(one.rows, ', ')})" for one in largest], "; ")
    if chosen:
        end = f"the given rate of {rate:g} decides for {chosen[0].rate.text}"
    elif outside:
        end = f"the given rate of {rate:g} is in none of them"
    else:
        end = "the table does not say which is right; the hourly rate, given with --rate, decides"
    return (f"{many}: {sets}; {end}",)


def _finding(row: Row, explained: Sequence[Interval], used: float | None, workers: int | None) -> RowFinding:
    all_rates = Interval(min(one.low for one in explained), max(one.high for one in explained))
    busy = _paid_hours(row, all_rates)
    if row.kind == "wall":
        reasons = [_wall_reason(row, _paid_hours(row, one), used, workers) for one in explained]
        status, reason = _status([not one for one in reasons]), next((one for one in reasons if one), "")
        return RowFinding(row, None, status, busy, None, reason)
    own = rates(row)
    due = Interval(max(0.0, row.hours.low) * all_rates.low, row.hours.high * all_rates.high)
    agrees = [own.meets(one) for one in explained]
    status = _status(agrees)
    reason = f"{row.money.text} for {row.hours.text} h is {format_amount(row.money.value / row.hours.value)} an hour"
    if status == "disputed":
        reason += f", which {sum(agrees)} of {len(agrees)} explanations allow"
    elif used is None:
        reason += ", which no explanation allows"
    else:
        reason += (
            f"; at {format_amount(used)} either the hours are {format_rounded(row.money.value / used, row.hours.unit)} "
            f"or the money is {format_rounded(row.hours.value * used, row.money.unit)}"
        )
    return RowFinding(row, own, status, busy, due, "" if status == "ok" else reason)


def _status(agrees: Sequence[bool]) -> Status:
    return "ok" if all(agrees) else "disputed" if any(agrees) else "contradicts"


def _paid_hours(row: Row, rate: Interval) -> Interval:
    # Where most rows cost nothing, money pays for any number of hours.
    most = row.money.high / rate.low if rate.low > 0 else float("inf")
    return Interval(max(0.0, row.money.low) / rate.high, most)


def _wall_reason(row: Row, busy: Interval, used: float | None, workers: int | None) -> str:
    paid = busy.text if used is None else format_amount(row.money.value / used)
    if busy.high < row.hours.low:
        return f"its money pays for {paid} busy hours, fewer than the {row.hours.text} h that passed"
    if workers is not None and busy.low > workers * row.hours.high:
        return f"its money pays for {paid} busy hours, more than {workers} machines work in {row.hours.text} h"
    return ""


def _savings(one: RowFinding, other: RowFinding, used: float | None) -> list[Saving]:
    found = []
    hours, reference = one.row.hours, other.row.hours
    own, others = _hours(one, used), _hours(other, used)
    due, spread = _due(own.middle, others.middle), _spread(own, others)
    claimed = one.row.time_saved
    plain = _spread(Interval(hours.low, hours.high), Interval(reference.low, reference.high))
    inherited = (
        f"; {claimed.text} % follows from the {reference.text} h, which are wrong"
        if claimed and other.status == "contradicts" and plain.meets(Interval(claimed.low, claimed.high))
        else ""
    )
    found.append(_saving(one, other, "time", due, spread, claimed, inherited))
    money = Interval(one.row.money.low, one.row.money.high), Interval(other.row.money.low, other.row.money.high)
    due = _due(one.row.money.value, other.row.money.value)
    found.append(_saving(one, other, "money", due, _spread(*money), one.row.money_saved, ""))
    return found


def _due(value: float, reference: float) -> float | None:
    """Return the saving in per cent; None where there is nothing to save from."""
    return 100 * (1 - value / reference) if reference > 0 else None


def _hours(one: RowFinding, used: float | None) -> Interval:
    """Return the printed hours, or, where they are wrong, those that the money pays for."""
    row = one.row
    if one.status != "contradicts" or row.kind == "wall" or used is None or not isfinite(row.money.value / used):
        return Interval(row.hours.low, row.hours.high)
    corrected = float(format_rounded(row.money.value / used, row.hours.unit))
    return Interval(corrected - row.hours.unit / 2, corrected + row.hours.unit / 2)


def _spread(one: Interval, other: Interval) -> Interval:
    """Return the savings in per cent that are possible within rounding."""
    if other.low <= 0:
        return Interval(float("-inf"), 100.0)
    return Interval(100 * (1 - one.high / other.low), 100 * (1 - one.low / other.high))


def _saving(
    one: RowFinding,
    other: RowFinding,
    quantity: Literal["time", "money"],
    due: float | None,
    possible: Interval,
    claimed: Printed | None,
    why: str,
) -> Saving:
    good = claimed is None or possible.meets(Interval(claimed.low, claimed.high))
    follows = "there is nothing to save from" if due is None else f"{due:.1f} % follows"
    reason = "" if good or claimed is None else f"{claimed.text} % is printed, {follows}{why}"
    return Saving(one.row.name, other.row.name, quantity, due, None if claimed is None else claimed.value, good, reason)
