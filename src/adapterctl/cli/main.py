"""The entry point of the command line."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import click

from adapterctl._version import __version__
from adapterctl.cli import signals
from adapterctl.cli.catalogue import SECTIONS
from adapterctl.cli.failures import explain
from adapterctl.cli.group import LazyGroup
from adapterctl.cli.libraries import tame
from adapterctl.cli.state import State, state_of

PROGRAM = "adapterctl"

_OBJECTS_BETWEEN_COLLECTIONS = (50_000, 20, 50)


@click.group(
    cls=LazyGroup,
    sections=SECTIONS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "-C",
    "--workspace",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="A folder in the workspace.  [default: $ADAPTERCTL_WORKSPACE, or the current folder]",
)
@click.option("--quiet", is_flag=True, help="Show no progress; results and errors only.")
@click.option("--debug", is_flag=True, help="Show tracebacks, warnings and log lines of libraries.")
@click.version_option(__version__, prog_name=PROGRAM)
@click.pass_context
def cli(ctx: click.Context, workspace: Path | None, quiet: bool, debug: bool) -> None:
    """Maintain one LoRA adapter a language, and the one adapter merged from all of them.

    \b
    Examples:
      adapterctl init demo
      adapterctl -C demo setup
      adapterctl -C demo update --lang ja
    """
    state = state_of(ctx)
    state.workspace, state.quiet, state.debug = workspace, quiet, debug


def run(args: Sequence[str], *, own_process: bool = False) -> int:
    """Run a command in this process, print what it says, and return its exit code.

    Args:
        args: Of the program.
        own_process: Whether the process is there for the command alone: then SIGTERM ends it in order.
    """
    state = State()
    # Known before the arguments are parsed, so that mistakes in them are told in the form that was asked for.
    state.json, state.debug = "--json" in args, "--debug" in args
    if own_process:
        signals.install(lambda: explain(signals.Terminated(), state, args))
    try:
        code = cli.main(list(args), prog_name=PROGRAM, standalone_mode=False, obj=state)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has seen enough. Python flushes once more on its way out: let it flush into nothing.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (Exception, KeyboardInterrupt, signals.Terminated) as error:
        return explain(error, state, args)
    return code if isinstance(code, int) else 0


def main() -> NoReturn:
    """Be the program ``adapterctl``."""
    tame(debug="--debug" in sys.argv)
    # The libraries make a million objects that live to the end. Looking through them for garbage again and again while
    # they are imported, and once more at the end, takes two seconds of a command that loads a model.
    gc.set_threshold(*_OBJECTS_BETWEEN_COLLECTIONS)
    code = run(sys.argv[1:], own_process=True)
    gc.freeze()
    sys.exit(code)
