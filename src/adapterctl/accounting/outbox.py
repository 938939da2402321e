"""Lines that wait to be sent on: durable once written, and taken out once they have arrived."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from adapterctl.errors import StorageError
from adapterctl.files import append_line, disk_errors, write_bytes

T = TypeVar("T")


@dataclass(frozen=True)
class Waiting(Generic[T]):
    """What an outbox holds.

    Attributes:
        items: In the order in which they were written.
        notes: One sentence for every line that could not be read.
    """

    items: tuple[T, ...] = ()
    notes: tuple[str, ...] = ()


def _ends_mid_line(path: Path) -> bool:
    try:
        with path.open("rb") as handle:
            if handle.seek(0, os.SEEK_END) == 0:
                return False
            handle.seek(-1, os.SEEK_END)
            return handle.read(1) != b"\n"
    except FileNotFoundError:
        return False


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        values = json.loads(line)
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    if not isinstance(values, dict):
        raise ValueError("not an object")
    return values


class Outbox(Generic[T]):
    """A file of one JSON object a line, each with an ``id``.

    One process at a time may write to it: whoever holds the workspace's lock.

    Args:
        path: The file; without any lines there is none.
        parse: Makes an item of an object, or raises ``ValueError``.
    """

    def __init__(self, path: Path, parse: Callable[[Mapping[str, Any]], T]) -> None:
        self.path = path
        self._parse = parse

    def append(self, values: Mapping[str, Any]) -> None:
        """Write one object at the end; when this returns the disk has it.

        Raises:
            StorageError: The disk is full, read-only or not permitted.
        """
        line = json.dumps(values, ensure_ascii=False, allow_nan=False)
        # After a power cut the last line may be half a line: the new one must not become its second half.
        append_line(self.path, ("\n" if _ends_mid_line(self.path) else "") + line)

    def read(self) -> Waiting[T]:
        """Read everything; a line that is no item, such as one cut off by a power cut, is passed over with a note.

        Raises:
            StorageError: The file is there but cannot be read.
        """
        items: list[T] = []
        notes: list[str] = []
        lines = self._lines()
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                items.append(self._parse(_parsed(line)))
            except ValueError as error:
                cut = "is half a line, as a power cut leaves it" if number == len(lines) else f"is no entry: {error}"
                notes.append(f"{self.path.name}:{number} {cut}; it is passed over")
        return Waiting(tuple(items), tuple(notes))

    def remove(self, ids: Collection[str]) -> None:
        """Take out the lines with these ids, all of them or, after a kill, none; lines that nobody can read stay.

        Raises:
            StorageError: The disk is full, read-only or not permitted.
        """
        kept = [line for line in self._lines() if line.strip() and _id_of(line) not in ids]
        if kept:
            write_bytes(self.path, b"\n".join(kept) + b"\n")
        else:
            with disk_errors(self.path):
                self.path.unlink(missing_ok=True)

    def _lines(self) -> list[bytes]:
        try:
            return self.path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StorageError(
                f"cannot read {self.path}: {error.strerror}", hint="change the owner or the mode of the file"
            ) from error


def _id_of(line: bytes) -> str | None:
    try:
        found = _parsed(line).get("id")
    except ValueError:
        return None
    return found if isinstance(found, str) else None
