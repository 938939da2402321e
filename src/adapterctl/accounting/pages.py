"""How the books are laid out in the registry: which run an entry belongs to, and what the run shows of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from adapterctl.accounting.entries import FAILED, PROCESS, Entry
from adapterctl.accounting.usage import Usage, total

OF_A_PROCESS = "books:"
"""How the keys of runs begin that hold nothing but what one process booked."""

SHOWN = ("wall_seconds", "cpu_seconds", "device_seconds", "tokens", "flops", "energy_joules", "peak_memory_bytes")
"""The quantities that a run shows as metrics ``usage.<step>.<quantity>``, where they are not zero."""

_LONGEST_KEY = 240
_LONGEST_NAME = 80
_LONGEST_TEXT = 300


@dataclass(frozen=True)
class Page:
    """What belongs to one run.

    Attributes:
        key: By which the run is found.
        name: Of the run, where it is not there yet.
        command: The command.
        status: MLflow's status of the run, where it is not there yet or is an own one: ``FINISHED``, ``FAILED`` or
            ``KILLED``.
        started: When the work began, in milliseconds since 1970.
        ended: When it ended.
        entries: Plain values, in the order in which they were written.
        own: Whether the run holds nothing but what one process booked.
    """

    key: str
    name: str
    command: str
    status: str
    started: int
    ended: int
    entries: tuple[Mapping[str, Any], ...]
    own: bool


class Store(Protocol):
    """Where the books are kept."""

    def read_books(self) -> tuple[list[dict[str, Any]], list[str]]:
        """Return all entries as plain values, and one sentence for everything that is none."""

    def write_books(
        self,
        *,
        key: str,
        name: str,
        command: str,
        status: str,
        started: int,
        ended: int,
        entries: Sequence[Mapping[str, Any]],
        own: bool,
        summary: Callable[[Iterable[Mapping[str, Any]]], Mapping[str, float]],
    ) -> None:
        """Add the entries that are not there yet to the run of ``key``; ``summary`` of all of its entries is shown.

        Nothing happens to entries that are there already, so that the same call may be repeated after a kill.
        """


def run_key(entry: Entry) -> str:
    """Return the key of the run that an entry belongs to: that of what was done, else one of its process."""
    key = f"{entry.command}:{entry.update_id}" if entry.update_id else f"{OF_A_PROCESS}{entry.machine}:{entry.process}"
    return re.sub(r"[^A-Za-z0-9._:/@+=,-]", "-", key)[:_LONGEST_KEY]


def pages(entries: Iterable[Entry]) -> list[Page]:
    """Return what belongs together, in the order of the first entry of each."""
    by_key: dict[str, list[Entry]] = {}
    for entry in entries:
        by_key.setdefault(run_key(entry), []).append(entry)
    return [_page(key, together) for key, together in by_key.items()]


def _page(key: str, entries: Sequence[Entry]) -> Page:
    command = entries[0].command
    wholes = [entry for entry in entries if entry.step == PROCESS]
    # A process that was killed has written no entry of the whole.
    status = "KILLED" if not wholes else "FAILED" if wholes[-1].outcome == FAILED else "FINISHED"
    own = key.startswith(OF_A_PROCESS)
    subject = wholes[-1].subject if wholes and not own else ""
    begins = [max(0.0, entry.moment.timestamp() - entry.usage.wall_seconds) for entry in entries]
    return Page(
        key=key,
        name=f"{command} {subject}".strip()[:_LONGEST_NAME],
        command=command,
        status=status,
        started=round(1000 * min(begins)),
        ended=round(1000 * max(entry.moment.timestamp() for entry in entries)),
        entries=tuple(map(compact, entries)),
        own=own,
    )


def compact(entry: Entry) -> dict[str, Any]:
    """Return an entry as plain values, without the quantities of which nothing was used; it fits into a tag."""
    texts = {name: value for name, value in vars(entry).items() if isinstance(value, str)}
    nothing = Usage().as_dict()
    return {
        **entry.as_dict(),
        **{name: text[:_LONGEST_TEXT] for name, text in texts.items()},
        "usage": {name: value for name, value in entry.usage.as_dict().items() if value != nothing[name]},
    }


def summary(entries: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Return the metrics of a run: what each step used in all of its attempts, and the highest of its peaks."""
    by_step: dict[str, list[Usage]] = {}
    for values in entries:
        try:
            entry = Entry.from_dict(values)
        except ValueError:
            # Of a later version; reading tells about it.
            continue
        by_step.setdefault(re.sub(r"[^A-Za-z0-9_.-]+", "_", entry.step), []).append(entry.usage)
    metrics: dict[str, float] = {}
    for step, usages in by_step.items():
        used = total(usages)
        metrics |= {f"usage.{step}.{name}": float(getattr(used, name)) for name in SHOWN}
    return {name: value for name, value in metrics.items() if value}
