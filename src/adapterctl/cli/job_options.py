"""Options that jobs want: waiting for others, spans of time, an exit code of their own for nothing to do."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_LONGEST_DAYS = 36_500


class Span(click.ParamType[timedelta]):
    """A span of time, such as ``30d``, ``12h`` or ``2w``."""

    name = "span"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Return the span that a text means."""
        if isinstance(value, timedelta):
            return value
        found = re.fullmatch(r"([0-9]{1,6})([mhdw])", str(value).strip())
        if found:
            span = timedelta(**{_UNITS[found[2]]: int(found[1])})
            if timedelta(0) < span <= timedelta(days=_LONGEST_DAYS):
                return span
        self.fail(f"{value!r} is no span of time; write 45m, 12h, 30d or 2w", param, ctx)


def wait_option(command: F) -> F:
    """Give a command the option ``--wait``."""
    return click.option(
        "--wait", is_flag=True, help="Wait for another adapterctl that is at work, instead of exiting with code 4."
    )(command)


def skip_option(command: F) -> F:
    """Give a command the option ``--skip-exit-code``."""
    return click.option(
        "--skip-exit-code",
        "skip_code",
        type=click.IntRange(0, 125),
        default=0,
        metavar="N",
        help="Exit with this code where there is nothing to do; Airflow takes 99 for skipped.  [default: 0]",
    )(command)


def reason_option(*, required: bool = False) -> Callable[[F], F]:
    """Give a command the option ``--reason``."""
    told = "Why; it is kept with the release."
    if required:
        return click.option("--reason", metavar="TEXT", required=True, help=told)
    return click.option("--reason", metavar="TEXT", default="", help=told)
