"""From a click context to the workspace and the session that a command works with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from adapterctl.cli.state import state_of

if TYPE_CHECKING:
    from adapterctl.workflows.session import Session
    from adapterctl.workspace.workspace import Workspace


def open_workspace(ctx: click.Context, *, data: bool = True) -> Workspace:
    """Open the workspace that ``--workspace``, the environment or the current folder names.

    Args:
        ctx: The context of the command.
        data: Whether globs that match no rows are a problem too.

    Raises:
        UsageError: There is none.
        ConfigError: Its files are not valid.
    """
    from adapterctl.workspace.workspace import Workspace

    return Workspace.open(state_of(ctx).workspace, data=data)


@contextmanager
def open_session(
    ctx: click.Context,
    command: str,
    subject: str = "",
    *,
    writing: bool = True,
    data: bool = True,
    releasing: bool = False,
    wait: bool = False,
    quick: bool = False,
) -> Iterator[Session]:
    """Open the workspace and give a session in it, with progress on standard error.

    Args:
        ctx: The context of the command.
        command: Its name, as in the ledger.
        subject: What it is about: a language, ``merged`` or ``combined``.
        writing: Whether it changes the workspace: then it is alone in it and on the books.
        data: Whether globs that match no rows are a problem too.
        releasing: Whether it moves what aliases point at: then it is alone in the project, on all machines.
        wait: Whether it waits for others who are at work.
        quick: Whether it only looks things up in the registry, for which MLflow need not always be loaded.

    Raises:
        UsageError: There is no workspace.
        ConfigError: Its files are not valid.
        LockHeld: Another adapterctl works on it.
    """
    from adapterctl.cli.progress import reporter_for
    from adapterctl.workflows.session import reading, working

    workspace = open_workspace(ctx, data=data)
    reporter = reporter_for(state_of(ctx))
    if writing:
        with working(
            workspace, command, subject, reporter, whole_process=True, releasing=releasing, wait=wait
        ) as session:
            yield session
    else:
        yield reading(workspace, command, reporter, quick=quick)
