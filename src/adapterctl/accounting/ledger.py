"""The ledger: what every attempt at a step and every command as a whole used; nothing is ever changed.

Its place is the registry: metrics and tags of the MLflow run that the work belongs to. An entry goes into an outbox
first, which takes it whether or not the registry answers, and is delivered when a command talks to the registry anyway.
A kill may leave an entry in both; it has an id, and counts once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapterctl.accounting.entries import DONE, FAILED, PROCESS, Entry, attempts, select
from adapterctl.accounting.outbox import Outbox
from adapterctl.accounting.pages import Store, pages, summary

__all__ = ["DONE", "FAILED", "PROCESS", "Entry", "Ledger", "LedgerContents", "attempts", "select"]


@dataclass(frozen=True)
class LedgerContents:
    """What a ledger holds.

    Attributes:
        entries: In the order of their times.
        notes: One sentence for everything that could not be read.
    """

    entries: tuple[Entry, ...] = ()
    notes: tuple[str, ...] = ()


def _nowhere() -> None:
    return None


class Ledger:
    """The books of a project.

    Args:
        path: The outbox, a file. Whoever appends or delivers holds the workspace's lock.
        store: Reaches the registry; None while there is none yet.
    """

    def __init__(self, path: Path, store: Callable[[], Store | None] = _nowhere) -> None:
        self.outbox = Outbox(path, Entry.from_dict)
        self._store = store
        self._delivered: LedgerContents | None = None

    def append(self, entry: Entry) -> None:
        """Write one entry; the registry is not needed.

        Raises:
            StorageError: The disk is full, read-only or not permitted.
        """
        self.outbox.append(entry.as_dict())

    def deliver(self, store: Store) -> int:
        """Bring what waits in the outbox into the registry, and return how many entries that were.

        May be killed at any point and called again: no entry is lost, none is there twice.

        Raises:
            RegistryError: The registry cannot be reached, or refuses; what has not been delivered waits on.
            StorageError: The disk is full, read-only or not permitted.
        """
        delivered: set[str] = set()
        try:
            for page in pages(self.outbox.read().items):
                store.write_books(**vars(page), summary=summary)
                delivered |= {str(values["id"]) for values in page.entries}
        finally:
            if delivered:
                self._delivered = None
                self.outbox.remove(delivered)
        return len(delivered)

    def read(self) -> LedgerContents:
        """Read everything; what is no entry is passed over with a note. The registry is read once.

        Raises:
            RegistryError: The registry cannot be reached.
            StorageError: The outbox is there but cannot be read.
        """
        # The outbox comes first: what is delivered in between is then seen twice, not never.
        waiting = self.outbox.read()
        if self._delivered is None:
            self._delivered = _read_store(self._store())
        known = self._delivered
        entries = {entry.id: entry for entry in (*known.entries, *waiting.items)}
        return LedgerContents(
            tuple(sorted(entries.values(), key=lambda entry: entry.moment)), (*known.notes, *waiting.notes)
        )

    def entries(self, **wanted: Any) -> list[Entry]:
        """Return the entries whose fields have the wanted values: ``entries(command="update", step="train")``.

        Raises:
            RegistryError: The registry cannot be reached.
            StorageError: The outbox is there but cannot be read.
        """
        return select(self.read().entries, **wanted)

    def last_update_id(self, command: str, **wanted: Any) -> str | None:
        """Return the ``update_id`` of the latest finished command of a kind, None when there is none.

        A command that found nothing to do has no ``update_id`` and does not count.

        Raises:
            RegistryError: The registry cannot be reached.
            StorageError: The outbox is there but cannot be read.
        """
        finished = self.entries(command=command, step=PROCESS, outcome=DONE, **wanted)
        return next((entry.update_id for entry in reversed(finished) if entry.update_id), None)


def _read_store(store: Store | None) -> LedgerContents:
    if store is None:
        return LedgerContents()
    found, notes = store.read_books()
    entries: list[Entry] = []
    for values in found:
        try:
            entries.append(Entry.from_dict(values))
        except ValueError as error:
            notes.append(f"what the registry holds as entry {values.get('id')!r} is none: {error}; it is passed over")
    return LedgerContents(tuple(entries), tuple(notes))
