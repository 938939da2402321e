"""Set-up, update and added language: merged adapters against one combined adapter, in wall time and money.

Two ways to serve T languages. *Merged*: one adapter a language, trained side by side on W workers, then merged.
*Combined*: one adapter on the rows of all languages, trained again whenever any of them changes.

    busy  = Σ jobs + Σ steps                       hours that were worked
    wall  = LPT(jobs, W) + Σ steps                 hours that passed
    money = what was used                          billing busy
          = money of busy hours · W · wall / busy  billing reserved: W workers are paid while the work lasts

Workers that a way cannot use are not reserved for it: W is the number of jobs at most, and 1 for the combined adapter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from adapterctl.accounting.amounts import Amount, added
from adapterctl.accounting.makespan import lpt
from adapterctl.accounting.prices import Billing

Quantity = Literal["wall", "money"]

GROWING = ("merge", "choose scale", "evaluate")
"""Steps that take longer the more languages there are; starting, registering and setting aliases do not."""


@dataclass(frozen=True)
class Job:
    """A piece of work: its busy seconds and the money for them."""

    name: str
    seconds: Amount
    money: Amount

    def times(self, factor: float) -> Job:
        """Return so many times the work."""
        return Job(self.name, self.seconds.times(factor), self.money.times(factor))

    def projected(self) -> Job:
        """Return the same work as a projection."""
        return Job(self.name, self.seconds.projected(), self.money.projected())

    def with_languages(self, factor: float) -> Job:
        """Return what this step takes with so many times the languages, as a projection."""
        return (self.times(factor) if self.name in GROWING else self).projected()


@dataclass(frozen=True)
class Way:
    """How something is done.

    Attributes:
        jobs: Trainings; they can run side by side.
        steps: What follows, one after the other: merging, evaluating, registering.
    """

    jobs: tuple[Job, ...]
    steps: tuple[Job, ...] = ()


@dataclass(frozen=True)
class Cell:
    """What a way takes: wall seconds, busy seconds, money."""

    wall: Amount
    busy: Amount
    money: Amount

    def as_dict(self) -> dict[str, Any]:
        """Return the cell as plain values."""
        return {
            "wall_seconds": self.wall.as_dict(),
            "busy_seconds": self.busy.as_dict(),
            "money": self.money.as_dict(),
        }


def _wall_of_jobs(jobs: Sequence[Job], workers: int) -> Amount:
    times = [job.seconds for job in jobs]
    if not times:
        return Amount(0.0)
    value = lpt([time.value for time in times], workers).wall
    # Jobs that ran one after the other were not seen at work side by side: that is computed.
    measured = all(time.measured for time in times) and (workers == 1 or len(times) == 1)
    if not any(time.has_interval for time in times):
        return Amount(value, measured)
    ends = [lpt([time.least for time in times], workers).wall, lpt([time.most for time in times], workers).wall]
    # Longest-first is a rule of thumb: shorter jobs may, rarely, end later.
    return Amount(value, measured, min(value, *ends), max(value, *ends))


def bill(way: Way, workers: int, billing: Billing) -> Cell:
    """Return what a way takes on ``workers`` machines; see the head of this module."""
    used = max(1, min(workers, len(way.jobs)))
    steps = added([step.seconds for step in way.steps])
    busy = added([job.seconds for job in way.jobs]) + steps
    wall = _wall_of_jobs(way.jobs, used) + steps
    money = added([piece.money for piece in (*way.jobs, *way.steps)])
    if billing == "reserved" and busy.value > 0:
        idle = used * wall.value / busy.value
        reserved = money.times(idle)
        money = Amount(reserved.value, money.measured and wall.measured, reserved.low, reserved.high)
    return Cell(wall, busy, money)


@dataclass(frozen=True)
class Scenario:
    """Something that happens in the life of a release, done in both ways.

    Attributes:
        name: ``set-up``, ``update``, ``add a language``.
        merged, combined: The two ways.
        basis: Where the numbers come from, in words.
    """

    name: str
    merged: Way
    combined: Way
    basis: str = ""


@dataclass(frozen=True)
class ScenarioCosts:
    """A scenario with its times and prices."""

    name: str
    merged: Cell
    combined: Cell
    basis: str = ""

    @property
    def time_saved(self) -> Amount | None:
        """The share of wall time that merging saves; below 0 where it takes longer."""
        return self.merged.wall.saved(self.combined.wall)

    @property
    def money_saved(self) -> Amount | None:
        """The share of money that merging saves; None where nothing has a price."""
        return self.merged.money.saved(self.combined.money)

    def as_dict(self) -> dict[str, Any]:
        """Return the scenario as plain values."""
        time, money = self.time_saved, self.money_saved
        return {
            "name": self.name,
            "merged": self.merged.as_dict(),
            "combined": self.combined.as_dict(),
            "time_saved": time and time.as_dict(),
            "money_saved": money and money.as_dict(),
            "basis": self.basis,
        }


def costs_of(scenario: Scenario, workers: int, billing: Billing) -> ScenarioCosts:
    """Return times and prices of a scenario on so many machines."""
    merged, combined = bill(scenario.merged, workers, billing), bill(scenario.combined, workers, billing)
    return ScenarioCosts(scenario.name, merged, combined, scenario.basis)


@dataclass(frozen=True)
class BreakEven:
    """From which update on merged adapters are cheaper, the set-up included.

    Attributes:
        first: Number of updates; 0 where already the set-up is cheaper; None where never.
        last: The last update up to which they are; None where they stay so.
    """

    first: int | None
    last: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return both as plain values."""
        return {"first": self.first, "last": self.last}


def break_even(merged_start: float, merged_each: float, combined_start: float, combined_each: float) -> BreakEven:
    """Return the updates k with m0 + k·mu < c0 + k·cu."""
    ahead, gain = combined_start - merged_start, combined_each - merged_each
    if ahead > 0:
        if gain >= 0:
            return BreakEven(0)
        # ahead + k·gain > 0 for k < ahead / −gain.
        last = int(ahead / -gain)
        return BreakEven(0, last - 1 if last == ahead / -gain else last)
    return BreakEven(int(-ahead / gain) + 1) if gain > 0 else BreakEven(None)


@dataclass(frozen=True)
class Point:
    """Cumulative cost at one place of an axis: after k updates, or with T languages."""

    at: int
    merged: Amount
    combined: Amount

    def as_dict(self) -> dict[str, Any]:
        """Return the point as plain values."""
        return {"at": self.at, "merged": self.merged.as_dict(), "combined": self.combined.as_dict()}


def over_updates(start: ScenarioCosts, each: ScenarioCosts, updates: int, quantity: Quantity) -> tuple[Point, ...]:
    """Return what was spent after the set-up and after every one of so many updates like ``each``.

    Every update after the first is a projection: that the next one is like the last.
    """
    points = [Point(0, getattr(start.merged, quantity), getattr(start.combined, quantity))]
    for number in range(1, updates + 1):
        one, other = getattr(each.merged, quantity), getattr(each.combined, quantity)
        if number > 1:
            one, other = one.projected(), other.projected()
        points.append(Point(number, points[-1].merged + one, points[-1].combined + other))
    return tuple(points)


def grown(way: Way, before: int, after: int, *, combined: bool) -> Way:
    """Return a way that adds the language number ``before`` as one that adds number ``after``.

    Merging and evaluating grow with the number of languages (``GROWING``), and so does the combined training; the
    training of one language's adapter does not.
    """
    factor = after / before
    if factor == 1:
        return way
    jobs = tuple(job.times(factor) for job in way.jobs) if combined else way.jobs
    return Way(tuple(job.projected() for job in jobs), tuple(step.with_languages(factor) for step in way.steps))


def over_languages(
    start: Scenario, add: Scenario, present: int, languages: int, *, workers: int, billing: Billing, quantity: Quantity
) -> tuple[Point, ...]:
    """Return what was spent once ``present`` languages were set up and others added one by one, up to ``languages``.

    Args:
        start: The set-up of ``present`` languages.
        add: Adding one language to them.
        present: How many the set-up has.
        languages: How many there are to be in the end.
        workers, billing: As in ``bill``.
        quantity: Wall time or money.
    """
    first = costs_of(start, workers, billing)
    points = [Point(present, getattr(first.merged, quantity), getattr(first.combined, quantity))]
    for count in range(present + 1, languages + 1):
        one = bill(grown(add.merged, present + 1, count, combined=False), workers, billing)
        other = bill(grown(add.combined, present + 1, count, combined=True), workers, billing)
        last = points[-1]
        points.append(Point(count, last.merged + getattr(one, quantity), last.combined + getattr(other, quantity)))
    return tuple(points)
