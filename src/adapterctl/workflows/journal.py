"""What has begun and not ended, so that the same command goes on after an interruption as if there had been none."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from pydantic import ValidationError

from adapterctl.files import write_json
from adapterctl.settings import Settings
from adapterctl.workspace.workspace import Workspace


class Pending(Settings):
    """A command that makes a release and has not ended.

    Attributes:
        command: ``update``, ``remove`` or ``pin``.
        langs: Its languages, sorted.
        update_id: Names what it does: other rows or settings make another one.
        champion: Version of the champion when it began. It may have been replaced before the interruption; the
            candidate is still to be compared with this one.
    """

    command: str
    langs: tuple[str, ...]
    update_id: str
    champion: int

    @property
    def told(self) -> str:
        """What was interrupted, for a person: ``update of 'ja'``."""
        return f"{self.command} of {', '.join(repr(lang) for lang in self.langs)}"

    @property
    def again(self) -> str:
        """The command that goes on with it."""
        alone = len(self.langs) == 1
        return f"adapterctl {self.command} --lang {self.langs[0]}" if alone else "adapterctl update --continue"


def read_pending(workspace: Workspace) -> Pending | None:
    """Return what was interrupted, None when nothing was; a damaged journal counts as none."""
    try:
        return Pending.model_validate(json.loads(workspace.paths.journal.read_text(encoding="utf-8")))
    except (OSError, ValueError, ValidationError):
        return None


def forget(workspace: Workspace, command: str, langs: Iterable[str] | None = None) -> None:
    """Take the note of an interrupted command away, where what it was about has been undone since.

    Args:
        workspace: The workspace.
        command: The command.
        langs: Its languages; None for any.
    """
    pending = read_pending(workspace)
    if pending and pending.command == command and (langs is None or pending.langs == tuple(sorted(langs))):
        workspace.paths.journal.unlink(missing_ok=True)


@contextmanager
def under_way(workspace: Workspace, pending: Pending) -> Iterator[None]:
    """Note that a command has begun; the note is taken away when it ends well, and stays when it is interrupted."""
    write_json(workspace.paths.journal, pending.model_dump())
    yield
    workspace.paths.journal.unlink(missing_ok=True)
