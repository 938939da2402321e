"""What was not measured, from what was: a training of so much work, with the spread of the measured speeds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Literal

from adapterctl.accounting.amounts import Amount
from adapterctl.accounting.comparison import Line, Side
from adapterctl.accounting.prices import PriceSheet, cost
from adapterctl.accounting.usage import Usage
from adapterctl.errors import UsageError

Unit = Literal["tokens", "row_epochs"]
Pace = Literal["fastest", "slowest"]

NOTHING_MEASURED = "there is no measured training to project from"
TRAIN_FIRST = "train something first: adapterctl setup"


def project_training(trained: Iterable[Usage], *, work: float, unit: Unit = "tokens", pace: Pace = "fastest") -> Usage:
    """Return the projected usage of a training of ``work`` units.

    seconds = work / max_i(units_i / wall_seconds_i); everything else is that of the fastest training i, times
    work / units_i. The fastest throughput is taken, not the mean: short trainings pay for loading the model on few
    tokens, and a projection must not make retraining everything look dearer than it is. The slowest gives the other
    end of the interval.

    Args:
        trained: Usages of measured trainings.
        work: Tokens (each epoch counts) or rows times epochs to train on.
        unit: Which of the two.
        pace: Whose throughput is taken.

    Raises:
        UsageError: No training was measured.
    """
    usable = [usage for usage in trained if getattr(usage, unit) > 0 and usage.wall_seconds > 0]
    if not usable:
        raise UsageError(NOTHING_MEASURED, hint=TRAIN_FIRST)
    best = max if pace == "fastest" else min
    chosen = best(usable, key=lambda usage: getattr(usage, unit) / usage.wall_seconds)
    return scaled(chosen, work / getattr(chosen, unit))


def scaled(usage: Usage, factor: float) -> Usage:
    """Return the usage of ``factor`` times the work; peaks of memory stay."""
    return replace(
        usage,
        wall_seconds=usage.wall_seconds * factor,
        cpu_seconds=usage.cpu_seconds * factor,
        devices={kind: seconds * factor for kind, seconds in usage.devices.items()},
        tokens=round(usage.tokens * factor),
        row_epochs=round(usage.row_epochs * factor),
        steps=round(usage.steps * factor),
        flops=usage.flops * factor,
        energy_joules=usage.energy_joules * factor,
        # Nobody read a meter in the future.
        energy_measured=False,
        energy_cpu_seconds=usage.energy_cpu_seconds * factor,
        energy_device_seconds=usage.energy_device_seconds * factor,
        bytes_read=round(usage.bytes_read * factor),
        bytes_written=round(usage.bytes_written * factor),
    )


def spread(value: float, values: Sequence[float]) -> Amount:
    """Return a projection whose interval reaches over ``values``; without an interval where they are all alike."""
    low, high = min([value, *values]), max([value, *values])
    return Amount(value, False, low, high) if low < high else Amount(value, False)


def projected_side(
    name: str, training: Usage, sheet: PriceSheet, alike: Iterable[Line] = (), slowest: Usage | None = None
) -> Side:
    """Return a projected side: a training, and the steps that would be alike (evaluating, registering, starting).

    Args:
        name: Its name.
        training: What ``project_training`` returned.
        sheet: The prices.
        alike: Lines of a measured side whose steps would take as long here; they become projections.
        slowest: The same training at the slowest measured speed, for the interval.
    """
    ends = [training, *([slowest] if slowest else [])]
    train = Line(
        "train",
        spread(training.wall_seconds, [usage.wall_seconds for usage in ends]),
        spread(cost(training, sheet).amount, [cost(usage, sheet).amount for usage in ends]),
    )
    others = [replace(line, seconds=line.seconds.projected(), money=line.money.projected()) for line in alike]
    return Side(name, (train, *others), sheet.currency)
