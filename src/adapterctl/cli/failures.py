"""What a person sees when a command does not succeed: one screen, the reason, what mends it, and the exit code."""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from typing import Any

import click

from adapterctl._version import __version__
from adapterctl.cli.output import inert
from adapterctl.cli.signals import TERMINATED, Terminated
from adapterctl.cli.state import State
from adapterctl.errors import AdapterctlError, Problem
from adapterctl.files import storage_error
from adapterctl.masking import mask

MOST_PROBLEMS = 20
"""More do not fit on a screen; ``--json`` gives them all."""

INTERRUPTED = 130
UNFORESEEN = 1


@dataclass(frozen=True)
class Failure:
    """Why a command did not succeed.

    Attributes:
        kind: Name of the error class.
        message: What happened.
        hint: What mends it; may be empty.
        problems: Every single problem found, where there are several.
        exit_code: Of the process.
        usage: The usage line of the command, where it was called wrongly.
    """

    kind: str
    message: str
    exit_code: int
    hint: str = ""
    problems: tuple[Problem, ...] = ()
    usage: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values, in the form that ``--json`` prints."""
        error = {
            "type": self.kind,
            "message": self.message,
            "hint": self.hint,
            "problems": [asdict(problem) for problem in self.problems],
        }
        return {"error": error, "exit_code": self.exit_code}

    def as_text(self) -> str:
        """Return it for people, on one screen."""
        lines = [self.usage] if self.usage else []
        lines.append(f"{click.style('Error:', fg='red', bold=True)} {inert(self.message)}")
        lines += [f"  {inert(str(problem))}" for problem in self.problems[:MOST_PROBLEMS]]
        if len(self.problems) > MOST_PROBLEMS:
            lines.append(f"  ... and {len(self.problems) - MOST_PROBLEMS} more; --json gives them all")
        if self.hint:
            lines.append(f"{click.style('To mend it:', bold=True)} {inert(self.hint)}")
        return "\n".join(lines)


def _of_adapterctl(error: AdapterctlError) -> Failure:
    return Failure(type(error).__name__, error.message, error.exit_code, error.hint, error.problems)


def _of_click(error: click.ClickException) -> Failure:
    ctx = getattr(error, "ctx", None)
    usage = ctx.get_usage() if ctx is not None else ""
    hint = f"see {ctx.command_path} --help" if ctx is not None else ""
    kind = "UsageError" if isinstance(error, click.UsageError) else type(error).__name__
    return Failure(kind, error.format_message(), error.exit_code, hint, usage=usage)


def _save_traceback(error: BaseException, args: Sequence[str]) -> Path | None:
    """Keep what a developer wants to know, and return where; None where the disk does not take it."""
    lines = [
        f"adapterctl {__version__}, Python {platform.python_version()}, {platform.platform()}",
        f"arguments: {list(args)}",
        "",
        *traceback.format_exception(error),
    ]
    text = mask("\n".join(lines))
    try:
        descriptor, name = tempfile.mkstemp(prefix="adapterctl-traceback-", suffix=".txt")
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as handle:
            handle.write(text)
    except OSError:
        return None
    return Path(name)


def _unforeseen(error: BaseException, args: Sequence[str]) -> Failure:
    said = " ".join(mask(str(error)).split())
    told = f": {said}" if len(said) <= 200 else f": {said[:197]}..."
    saved = _save_traceback(error, args)
    where = f"please report it with {saved}" if saved else "run it again as 'adapterctl --debug ...' and report it"
    message = f"sorry, this should not happen: {type(error).__name__}{told if said else ''}; {where}"
    return Failure(type(error).__name__, message, UNFORESEEN)


def failure_of(error: BaseException, args: Sequence[str]) -> Failure:
    """Return what an exception means to a person, without the secrets that it may speak of.

    Args:
        error: What ended the command.
        args: Its arguments, for the saved traceback of an error that nobody foresaw.
    """
    return _masked(_failure_of(error, args))


def _masked(failure: Failure) -> Failure:
    problems = tuple(Problem(*map(mask, astuple(problem))) for problem in failure.problems)
    message, hint, usage = map(mask, (failure.message, failure.hint, failure.usage))
    return replace(failure, message=message, hint=hint, usage=usage, problems=problems)


def _failure_of(error: BaseException, args: Sequence[str]) -> Failure:
    if isinstance(error, AdapterctlError):
        return _of_adapterctl(error)
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return Failure("Interrupted", "interrupted; run the same command again to go on", INTERRUPTED)
    if isinstance(error, Terminated):
        return Failure("Terminated", "terminated; run the same command again to go on", TERMINATED)
    if isinstance(error, click.ClickException):
        return _of_click(error)
    if isinstance(error, OSError) and (disk := storage_error(error)) is not None:
        return _of_adapterctl(disk)
    return _unforeseen(error, args)


def explain(error: BaseException, state: State, args: Sequence[str]) -> int:
    """Print why a command did not succeed, and return its exit code.

    With ``--json`` the failure is the one object on standard output, unless a result has been printed there already.
    """
    failure = failure_of(error, args)
    if state.debug:
        sys.stderr.write(mask("".join(traceback.format_exception(error))))
    try:
        if state.json and not state.emitted:
            click.echo(json.dumps(failure.as_dict(), indent=2))
        else:
            click.echo(failure.as_text(), err=True)
        sys.stdout.flush()
    except OSError:
        # Standard output takes nothing, which may be what went wrong. Python flushes it once more on its way out: let
        # it flush into nothing.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        with suppress(OSError):
            click.echo(failure.as_text(), err=True)
    return failure.exit_code
