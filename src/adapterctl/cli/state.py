"""What the options before the command say, carried to it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click


@dataclass
class State:
    """The ``obj`` of every click context.

    Attributes:
        workspace: A folder in the workspace; None where the environment or the current folder says it.
        debug: Show tracebacks, warnings and log lines of libraries.
        quiet: Show no progress.
        json: Print one JSON object instead of text.
        emitted: Whether a result has been printed already.
    """

    workspace: Path | None = None
    debug: bool = False
    quiet: bool = False
    json: bool = False
    emitted: bool = False


def state_of(ctx: click.Context) -> State:
    """Return the state that belongs to a context."""
    return ctx.ensure_object(State)
