"""An update against retraining everything: seconds and money by step, and which of the numbers were measured."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from adapterctl.accounting.amounts import Amount as Amount
from adapterctl.accounting.amounts import added
from adapterctl.accounting.formats import format_money as format_money
from adapterctl.accounting.formats import format_seconds as format_seconds
from adapterctl.accounting.ledger import PROCESS, Entry
from adapterctl.accounting.prices import PriceSheet, cost

REMAINDER = "start and rest"
"""What a command used outside its steps: interpreter, imports, bookkeeping."""


@dataclass(frozen=True)
class Line:
    """One step of one side.

    Attributes:
        step: Its name.
        seconds: Wall seconds, of all attempts.
        money: Its cost.
        attempts: How often it was begun.
        reused: Whether every attempt took an earlier result.
    """

    step: str
    seconds: Amount
    money: Amount
    attempts: int = 1
    reused: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return the line as plain values."""
        return {
            "step": self.step,
            "seconds": self.seconds.as_dict(),
            "money": self.money.as_dict(),
            "attempts": self.attempts,
            "reused": self.reused,
        }


@dataclass(frozen=True)
class Side:
    """An update, or a retrain-all, by step."""

    name: str
    lines: tuple[Line, ...]
    currency: str

    @property
    def seconds(self) -> Amount:
        """All wall seconds."""
        return added([line.seconds for line in self.lines])

    @property
    def money(self) -> Amount:
        """All money."""
        return added([line.money for line in self.lines])

    def line(self, step: str) -> Line | None:
        """Return the line of a step, None where this side has none."""
        return next((line for line in self.lines if line.step == step), None)

    def as_dict(self) -> dict[str, Any]:
        """Return the side as plain values."""
        return {
            "name": self.name,
            "currency": self.currency,
            "seconds": self.seconds.as_dict(),
            "money": self.money.as_dict(),
            "steps": [line.as_dict() for line in self.lines],
        }


def _line(step: str, entries: Sequence[Entry], sheet: PriceSheet) -> Line:
    measured = all(entry.measured for entry in entries)
    return Line(
        step,
        Amount(sum(entry.usage.wall_seconds for entry in entries), measured),
        # Priced one by one: entries of one step may come from machines with different accelerators.
        Amount(sum(cost(entry.usage, sheet).amount for entry in entries), measured),
        attempts=len(entries),
        reused=all(entry.reused for entry in entries),
    )


def _remainder(steps: Sequence[Entry], processes: Sequence[Entry], sheet: PriceSheet) -> Line | None:
    """Return what whole commands used beyond their steps; a killed command has no whole, so its steps stand alone."""
    if not processes:
        return None
    known = {(entry.machine, entry.process) for entry in processes}
    inside = [entry for entry in steps if (entry.machine, entry.process) in known]
    whole, parts = _line(REMAINDER, processes, sheet), _line(REMAINDER, inside, sheet)
    seconds, money = whole.seconds - parts.seconds, whole.money - parts.money
    return replace(
        whole,
        seconds=replace(seconds, value=max(0.0, seconds.value)),
        money=replace(money, value=max(0.0, money.value)),
    )


def side(name: str, entries: Iterable[Entry], sheet: PriceSheet, *, without: Collection[str] = ()) -> Side:
    """Return the totals by step of the entries of one update or retrain-all, in the order of the steps.

    Steps must not run inside one another; ``process`` entries give the remainder: whole commands less their steps.
    Steps about the subjects in ``without`` are left out, of the remainder too.
    """
    entries = list(entries)
    processes = [entry for entry in entries if entry.step == PROCESS]
    steps = [entry for entry in entries if entry.step != PROCESS]
    by_step: dict[str, list[Entry]] = {}
    for entry in steps:
        if entry.subject not in without:
            by_step.setdefault(entry.step, []).append(entry)
    lines = [_line(step, found, sheet) for step, found in by_step.items()]
    rest = _remainder(steps, processes, sheet)
    return Side(name, tuple([*lines, rest] if rest else lines), sheet.currency)


@dataclass(frozen=True)
class Comparison:
    """An update against retraining everything."""

    update: Side
    retrain: Side

    @property
    def time_ratio(self) -> Amount | None:
        """Seconds of the update over seconds of the retrain-all."""
        return self.update.seconds.over(self.retrain.seconds)

    @property
    def money_ratio(self) -> Amount | None:
        """Cost of the update over cost of the retrain-all; None where nothing has a price."""
        return self.update.money.over(self.retrain.money)

    @property
    def measured(self) -> bool:
        """Whether every number in it was measured."""
        return all(part.measured for side in (self.update, self.retrain) for part in (side.seconds, side.money))

    @property
    def steps(self) -> tuple[str, ...]:
        """The steps of either side, in order, the remainder last."""
        names = dict.fromkeys(line.step for side in (self.update, self.retrain) for line in side.lines)
        return tuple(sorted(names, key=lambda step: step == REMAINDER))

    def as_dict(self) -> dict[str, Any]:
        """Return the comparison as plain values."""
        time, money = self.time_ratio, self.money_ratio
        return {
            "measured": self.measured,
            "update": self.update.as_dict(),
            "retrain": self.retrain.as_dict(),
            "time_ratio": None if time is None else time.as_dict(),
            "money_ratio": None if money is None else money.as_dict(),
        }

    def markdown(self) -> str:
        """Return a table by step, with the ratios below; every projected number says so."""
        rows = [
            f"| step | {self.update.name}: time | cost | {self.retrain.name}: time | cost |",
            "|---|---:|---:|---:|---:|",
        ]
        for step in self.steps:
            cells = [_cells(side.line(step), side) for side in (self.update, self.retrain)]
            rows.append(f"| {step} | {cells[0]} | {cells[1]} |")
        totals = [
            _cells(Line("total", side.seconds, side.money), side, bold=True) for side in (self.update, self.retrain)
        ]
        rows.append(f"| **total** | {totals[0]} | {totals[1]} |")
        for what, ratio in (("time", self.time_ratio), ("cost", self.money_ratio)):
            if ratio is not None:
                share = ratio.shown(lambda value: f"{value * 100:.1f} %")
                rows += ["", f"{self.update.name} takes {share} of the {what} of {self.retrain.name}."]
        if not self.measured:
            rows += [
                "",
                "Numbers with ~ are projected from measured throughput, not measured; [ … ] is the range of the ",
            ]
            rows[-1] += "measured speeds."
        return "\n".join(rows) + "\n"


def _cells(line: Line | None, of: Side, *, bold: bool = False) -> str:
    if line is None:
        return "– | –"
    if line.reused:
        return "reused | " + line.money.shown(partial(format_money, currency=of.currency))
    cells = line.seconds.shown(format_seconds), line.money.shown(partial(format_money, currency=of.currency))
    return " | ".join(f"**{cell}**" if bold else cell for cell in cells)
