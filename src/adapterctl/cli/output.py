"""Results: one JSON object or a text for people, on standard output and nothing else there."""

from __future__ import annotations

import json
import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

from adapterctl.cli.state import state_of

if TYPE_CHECKING:
    from rich.console import Console

F = TypeVar("F", bound=Callable[..., Any])

_WIDTH_OF_A_FILE = 120
_COMMANDING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""What a terminal obeys instead of showing it: control characters, and those that turn the direction of writing."""


def json_option(command: F) -> F:
    """Give a command the option ``--json``, which ``emit`` follows."""

    def remember(ctx: click.Context, _: click.Parameter, value: bool) -> None:
        state = state_of(ctx)
        state.json = state.json or value

    option = click.option(
        "--json",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=remember,
        help="Print one JSON object on standard output.",
    )
    return option(command)


def plain(value: Any) -> Any:
    """Return a value as JSON can hold it.

    Objects give their ``as_dict()``, settings their ``model_dump()``; NaN and infinities, unknown to JSON, become null.

    Raises:
        TypeError: There is something in it that JSON cannot hold.
    """
    if hasattr(value, "as_dict"):
        return plain(value.as_dict())
    if hasattr(value, "model_dump"):
        return plain(value.model_dump(mode="json", by_alias=True))
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Iterable):
        return [plain(inner) for inner in value]
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def console() -> Console:
    """Return the console of standard output: as wide as the terminal, and wide enough in a file."""
    from rich.console import Console

    measured = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(highlight=False, width=None if measured else _WIDTH_OF_A_FILE)


def inert(text: str) -> str:
    """Return a text that does nothing to a terminal: names and reasons may have been written by anybody."""
    return _COMMANDING.sub("\ufffd", text)


def say(out: Console, text: str) -> None:
    """Write a line as it is: markup is not read, and a path or a command in it is not broken by a line end."""
    out.print(inert(text), markup=False, soft_wrap=True)


def emit(ctx: click.Context, value: Any, render: Callable[[Console], None]) -> None:
    """Print a result: as JSON where ``--json`` was given, else as ``render`` writes it.

    Args:
        ctx: The context of the command.
        value: The result: something with ``as_dict()``, settings, or a mapping of such things.
        render: Writes it for people.
    """
    state = state_of(ctx)
    if state.json:
        # Escaped where the reader may not take UTF-8, so that it stays the same JSON.
        escaped = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
        text = json.dumps(plain(value), indent=2, ensure_ascii=escaped, allow_nan=False)
        click.echo(_COMMANDING.sub(lambda found: f"\\u{ord(found[0]):04x}", text))
    else:
        render(console())
    state.emitted = True
