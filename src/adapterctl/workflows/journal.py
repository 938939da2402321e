"""What has begun and not ended, so that the same command goes on after an interruption as if there had been none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import ValidationError

from adapterctl.files import write_json
from adapterctl.settings import Settings
from adapterctl.workspace.workspace import Workspace


class Pending(Settings):
    """A command that makes a release and has not ended.

    Attributes:
        command: ``update`` or ``remove``.
        lang: Its language.
        update_id: Names what it does: other rows or settings make another one.
        champion: Version of the champion when it began. It may have been replaced before the interruption; the
            candidate is still to be compared with this one.
    """

    command: str
    lang: str
    update_id: str
    champion: int


def read_pending(workspace: Workspace) -> Pending | None:
    """Return what was interrupted, None when nothing was; a damaged journal counts as none."""
    try:
        return Pending.model_validate(json.loads(workspace.paths.journal.read_text(encoding="utf-8")))
    except (OSError, ValueError, ValidationError):
        return None


def forget(workspace: Workspace, command: str, lang: str) -> None:
    """Take the note of an interrupted command away, where what it was about has been undone since."""
    pending = read_pending(workspace)
    if pending and (pending.command, pending.lang) == (command, lang):
        workspace.paths.journal.unlink(missing_ok=True)


@contextmanager
def under_way(workspace: Workspace, pending: Pending) -> Iterator[None]:
    """Note that a command has begun; the note is taken away when it ends well, and stays when it is interrupted."""
    write_json(workspace.paths.journal, pending.model_dump())
    yield
    workspace.paths.journal.unlink(missing_ok=True)
