"""What stands in the books: one entry for every attempt at a step, and one for every command as a whole."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from functools import cache
from typing import Any

import psutil

from adapterctl.accounting.usage import Usage, showable

PROCESS = "process"
"""The step of the entry that holds a whole command, from the interpreter's start; its steps are parts of it."""

DONE, FAILED = "done", "failed"

_LONGEST_SUBJECT = 300
"""An evaluation may be about any number of models; the books need to tell them apart, not to list them."""


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
        subject = showable(subject)
        return cls(
            id=uuid.uuid4().hex[:16],
            time=datetime.now(UTC).isoformat(timespec="milliseconds"),
            command=command,
            subject=subject if len(subject) <= _LONGEST_SUBJECT else f"{subject[: _LONGEST_SUBJECT - 1]}…",
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

    @property
    def moment(self) -> datetime:
        """``time`` as a point in time."""
        return datetime.fromisoformat(self.time)

    def as_dict(self) -> dict[str, Any]:
        """Return the entry as plain values."""
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
            known[item.name] = showable(value) if isinstance(value, str) else value
        if datetime.fromisoformat(known["time"]).tzinfo is None:
            raise ValueError(f"'time' is {known['time']!r}, without a time zone")
        usage = values.get("usage")
        if not isinstance(usage, dict):
            raise ValueError("'usage' is missing")
        return cls(**known, usage=Usage.from_dict(usage))


def attempts(entries: Iterable[Entry], update_id: str) -> list[Entry]:
    """Return the entries of all attempts at a piece of work, in their order, up to the one that finished it.

    Who runs a finished command once more pays for that, but the work had been done: it has not become dearer.
    """
    found: list[Entry] = []
    for entry in select(entries, update_id=update_id):
        found.append(entry)
        if entry.step == PROCESS and entry.outcome == DONE:
            break
    return found


def select(entries: Iterable[Entry], **wanted: Any) -> list[Entry]:
    """Return the entries whose fields have the wanted values."""
    return [entry for entry in entries if all(getattr(entry, name) == value for name, value in wanted.items())]
