"""Times in cron's five fields, read so that every scheduler understands them alike, and the same times for systemd."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from adapterctl.errors import UsageError

HINT = "write minute, hour, day of the month, month and day of the week, such as: --cron '17 3 * * *'"

_SHORT = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
"""Written out, because GitHub does not know them."""
_WEEKDAYS = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat")
_SINGLE_WITH_STEP = re.compile(r"(^|,)\w+/")
_FIRINGS = 40


@dataclass(frozen=True)
class Cron:
    """A time of cron.

    Attributes:
        text: The five fields, upper case, without shorthands, Sunday as 0.
        minutes, hours, days, months, weekdays: The values that fit, sorted; Sunday is 0.
        either: Whether a day counts where the day of the month or the weekday fits; otherwise both must.
    """

    text: str
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: tuple[int, ...]
    months: tuple[int, ...]
    weekdays: tuple[int, ...]
    either: bool

    @property
    def shortest_gap(self) -> timedelta:
        """The shortest time between two of its moments that follow one another."""
        from cronsim import CronSim

        moments = CronSim(self.text, datetime(2026, 1, 1))
        found = [moment for _, moment in zip(range(_FIRINGS), moments, strict=False)]
        return min((later - earlier for earlier, later in pairwise(found)), default=timedelta(days=366))


def parse_cron(text: str) -> Cron:
    """Read a time of cron.

    What cron, Kubernetes, Airflow and GitHub read in different ways, or only some of them at all, is refused.

    Raises:
        UsageError: It is not valid, never comes, or means different things to different schedulers.
    """
    from cronsim import CronSim, CronSimError

    words = _SHORT.get(text.strip().lower(), text).upper().split()
    if len(words) != 5:
        raise UsageError(f"'{text}' has {len(words)} fields, and a time of cron has five", hint=HINT)
    if not all(re.fullmatch(r"[0-9A-Z*,/-]+", word) for word in words):
        raise UsageError(f"'{text}' holds characters that no time of cron has", hint=HINT)
    if any(_SINGLE_WITH_STEP.search(word) for word in words):
        raise UsageError(
            f"'{text}' has a step after a single number, which not every cron reads", hint="write 5-59/15, not 5/15"
        )
    try:
        read = CronSim(" ".join(words), datetime(2026, 1, 1))
    except CronSimError as error:
        raise UsageError(
            f"'{text}' is not a time of cron: {str(error)[:1].lower()}{str(error)[1:]}", hint=HINT
        ) from error
    if min(read.days) < 0 or not all(isinstance(day, int) for day in read.weekdays):
        raise UsageError(f"'{text}' names the last or the nth day, which not every cron reads", hint=HINT)
    weekdays = sorted({day % 7 for day in read.weekdays if isinstance(day, int)})
    stars = ["*" in word and word != "*" for word in (words[2], words[4])]
    if "*" not in (words[2], words[4]) and any(stars):
        raise UsageError(
            f"'{text}': with a step after * in one of the two fields of days, some schedulers ask for both days and "
            "some for either",
            hint="write the days out, such as 1-31/2 for */2",
        )
    if re.search(r"(?<!/)7", words[4]):
        # Kubernetes and GitHub know Sunday as 0 only.
        words[4] = ",".join(map(str, weekdays))
    return Cron(
        text=" ".join(words),
        minutes=tuple(sorted(read.minutes)),
        hours=tuple(sorted(read.hours)),
        days=tuple(sorted(read.days)),
        months=tuple(sorted(read.months)),
        weekdays=tuple(weekdays),
        either="*" not in (words[2], words[4]),
    )


def _runs(values: Iterable[int], width: int) -> str:
    """Return sorted numbers as systemd writes them: ``01,05..07``."""
    runs: list[list[int]] = []
    for value in values:
        if runs and value == runs[-1][-1] + 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    parts: list[str] = []
    for run in runs:
        texts = [f"{value:0{width}d}" for value in run]
        parts += [f"{texts[0]}..{texts[-1]}"] if len(run) > 2 else texts
    return ",".join(parts)


def _field(values: tuple[int, ...], count: int) -> str:
    return "*" if len(values) == count else _runs(values, 2)


def calendar_lines(cron: Cron) -> tuple[str, ...]:
    """Return the same time for systemd's ``OnCalendar=``: two lines where either day will do, for they add up."""
    clock = f"{_field(cron.hours, 24)}:{_field(cron.minutes, 60)}:00"
    months = _field(cron.months, 12)
    day = f"*-{months}-{_field(cron.days, 31)}"
    all_week = len(cron.weekdays) == 7
    week = "" if all_week else ",".join(_WEEKDAYS[day] for day in cron.weekdays) + " "
    if cron.either:
        return f"{day} {clock}", f"{week}*-{months}-* {clock}"
    return (f"{week}{day} {clock}",)
