"""The registry as one file: to move a workspace between servers, and to keep beside other backups."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapterctl.registry.names import CHAMPION, merged_name
from adapterctl.workflows.session import Session
from adapterctl.workflows.upkeep import alone

if TYPE_CHECKING:
    from adapterctl.registry.exporting import Moved


@dataclass(frozen=True)
class Transfer:
    """What was written into an archive, or brought from one.

    Attributes:
        file: The archive.
        moved: How much it was.
        champion: Version of the champion afterwards.
        complete: Whether everything had been there before, so that nothing was done.
    """

    file: Path
    moved: Moved
    champion: int | None
    complete: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return the result as plain values."""
        told = {"file": str(self.file), "champion": self.champion, "complete": self.complete}
        return told | asdict(self.moved)


def export_registry(session: Session, file: Path) -> Transfer:
    """Write everything that the project has in the registry into one file.

    Raises:
        UsageError: The file is there already.
        RegistryError: The registry cannot be reached, or files in it are gone.
        StorageError: The disk is full, read-only or not permitted.
    """
    from adapterctl.registry import archive, exporting

    with (
        alone(session, "registry export") as registry,
        archive.writing(file, session.project) as writer,
        session.reporter.stage(f"export to {file}") as stage,
    ):
        moved = exporting.export(registry.connection, registry.names(), writer, stage.advance)
        stage.advance(1, 1, _told(moved))
        champion = registry.aliases(merged_name(session.project)).get(CHAMPION)
    return Transfer(file, moved, champion)


def import_registry(session: Session, file: Path) -> Transfer:
    """Bring everything that an archive holds into the registry; what is there already stays as it is.

    Raises:
        UsageError: The registry holds something else under the same names; nothing was written.
        AdapterError: The archive is damaged; nothing was written.
        RegistryError: The registry cannot be reached.
    """
    from adapterctl.registry import archive, importing, intake

    with archive.reading(file) as opened, session.reporter.stage(f"import {file}") as stage:
        contents = intake.read(opened, stage.advance)
        with alone(session, "registry import") as registry:
            there = intake.look(registry.connection, contents)
            complete = there.has_all(contents)
            moved = importing.bring(registry.connection, contents, there, stage.advance)
            stage.advance(1, 1, "everything was there already" if complete else _told(moved))
            champion = registry.aliases(merged_name(session.project)).get(CHAMPION)
    return Transfer(file, moved, champion, complete)


def _told(moved: Moved) -> str:
    return f"{moved.versions} versions, {moved.runs} runs, {moved.files} files, {moved.bytes / 1e6:.1f} MB"
