"""The ledger: one line for every attempt at a step, and one for every command as a whole; nothing is ever changed."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from adapterctl.accounting.usage import Usage
from adapterctl.errors import StorageError
from adapterctl.files import append_line

PROCESS = "process"
"""The step of the entry that holds a whole command, from the interpreter's start; its steps are parts of it."""

DONE, FAILED = "done", "failed"


@cache
def _this_process() -> str:
    return f"{os.getpid()}@{psutil.Process().create_time():.0f}"


@dataclass(frozen=True)
class Entry:
    """One attempt at one step.

    Attributes:
        id: Unique.
        time: End of the attempt, in ISO 8601 and UTC.
        command: The command it belongs to: ``update``, ``setup``, ...
        subject: What it is about: a language, ``merged`` or ``combined``.
        step: ``train``, ``merge``, ``evaluate``, ...; ``process`` for the command as a whole.
        key: Content hash that names the step's result.
        usage: What was used.
        measured: False for a projection.
        reused: Whether an earlier result was taken.
        update_id: Names what the command does; equal for all attempts at it.
        machine: Name of the machine.
        process: Names the process on its machine; ties steps to their ``process`` entry.
        outcome: ``done`` or ``failed``; a failed attempt was paid for too.
    """

    id: str
    time: str
    command: str
    subject: str
    step: str
    key: str
    usage: Usage
    measured: bool = True
    reused: bool = False
    update_id: str = ""
    machine: str = ""
    process: str = ""
    outcome: str = DONE

    @classmethod
    def now(
        cls,
        *,
        command: str,
        subject: str,
        step: str,
        key: str,
        usage: Usage,
        measured: bool = True,
        reused: bool = False,
        update_id: str = "",
        machine: str = "",
        outcome: str = DONE,
    ) -> Entry:
        """Return an entry of this moment and this process."""
        return cls(
            id=uuid.uuid4().hex[:16],
            time=datetime.now(UTC).isoformat(timespec="milliseconds"),
            command=command,
            subject=subject,
            step=step,
            key=key,
            usage=usage,
            measured=measured,
            reused=reused,
            update_id=update_id,
            machine=machine,
            process=_this_process(),
            outcome=outcome,
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the entry as it stands in the file."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {**values, "usage": self.usage.as_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Entry:
        """Return the entry that ``as_dict`` described; names of other versions are passed over.

        Raises:
            ValueError: Something is missing or of the wrong type.
        """
        known: dict[str, Any] = {}
        for item in fields(cls):
            if item.name == "usage":
                continue
            if item.name not in values:
                if isinstance(item.default, (str, bool)):
                    continue
                raise ValueError(f"'{item.name}' is missing")
            value = values[item.name]
            wanted = bool if item.name in ("measured", "reused") else str
            if not isinstance(value, wanted):
                raise ValueError(f"'{item.name}' is {value!r}")
            known[item.name] = value
        usage = values.get("usage")
        if not isinstance(usage, dict):
            raise ValueError("'usage' is missing")
        return cls(**known, usage=Usage.from_dict(usage))


@dataclass(frozen=True)
class LedgerContents:
    """What a ledger holds.

    Attributes:
        entries: In the order in which they were written.
        notes: One sentence for every line that could not be read.
    """

    entries: tuple[Entry, ...] = ()
    notes: tuple[str, ...] = field(default=())


def _ends_mid_line(path: Path) -> bool:
    try:
        with path.open("rb") as handle:
            if handle.seek(0, os.SEEK_END) == 0:
                return False
            handle.seek(-1, os.SEEK_END)
            return handle.read(1) != b"\n"
    except FileNotFoundError:
        return False


class Ledger:
    """The books of a workspace, in a file of one JSON object a line."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, entry: Entry) -> None:
        """Write one entry at the end.

        Raises:
            StorageError: The disk is full, read-only or not permitted.
        """
        line = json.dumps(entry.as_dict(), ensure_ascii=False, allow_nan=False)
        # After a power cut the last line may be half a line: the new entry must not become its second half.
        append_line(self.path, ("\n" if _ends_mid_line(self.path) else "") + line)

    def read(self) -> LedgerContents:
        """Read everything; a line that is no entry, such as one cut off by a power cut, is passed over with a note.

        Raises:
            StorageError: The file is there but cannot be read.
        """
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return LedgerContents()
        except OSError as error:
            raise StorageError(
                f"cannot read {self.path}: {error.strerror}", hint="change the owner or the mode of the file"
            ) from error
        entries: list[Entry] = []
        notes: list[str] = []
        lines = content.split(b"\n")
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                values = json.loads(line)
                if not isinstance(values, dict):
                    raise ValueError("not an object")
                entries.append(Entry.from_dict(values))
            except (ValueError, RecursionError) as error:
                cut = "is half a line, as a power cut leaves it" if number == len(lines) else f"is no entry: {error}"
                notes.append(f"{self.path.name}:{number} {cut}; it is passed over")
        return LedgerContents(tuple(entries), tuple(notes))

    def entries(self, **wanted: Any) -> list[Entry]:
        """Return the entries whose fields have the wanted values: ``entries(command="update", step="train")``.

        Raises:
            StorageError: The file is there but cannot be read.
        """
        return select(self.read().entries, **wanted)

    def last_update_id(self, command: str, **wanted: Any) -> str | None:
        """Return the ``update_id`` of the latest finished command of a kind, None when there is none.

        A command that found nothing to do has no ``update_id`` and does not count.
        """
        finished = self.entries(command=command, step=PROCESS, outcome=DONE, **wanted)
        return next((entry.update_id for entry in reversed(finished) if entry.update_id), None)


def select(entries: Iterable[Entry], **wanted: Any) -> list[Entry]:
    """Return the entries whose fields have the wanted values."""
    return [entry for entry in entries if all(getattr(entry, name) == value for name, value in wanted.items())]
