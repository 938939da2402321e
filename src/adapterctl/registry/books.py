"""The books in the registry: tags of the runs hold the entries, metrics their sums, for people and charts.

A tag, once written, is never written again: entries that arrive later get a tag of their own. A call that was killed
can therefore be repeated, and two machines that work at one run do not disturb each other.
"""

from __future__ import annotations

import json
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adapterctl.registry.connection import Connection
from adapterctl.registry.names import TAG_BOOKS, TAG_COMMAND
from adapterctl.registry.runs import create, find
from adapterctl.registry.versions import pages

Summary = Callable[[Iterable[Mapping[str, Any]]], Mapping[str, float]]

_PREFIX = f"{TAG_BOOKS}."
_LONGEST_TAG = 4800
"""Characters, all of them ASCII; MLflow keeps 8,000, and services that speak its language 5,000."""
_TAGS_AT_ONCE = 90


@dataclass(frozen=True)
class Page:
    """What belongs to one run; see ``Registry.write_books``."""

    key: str
    name: str
    command: str
    status: str
    started: int
    ended: int
    entries: Sequence[Mapping[str, Any]]
    own: bool


def read(connection: Connection) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the entries of all runs of the project, and one sentence for every tag that holds none."""
    entries: list[dict[str, Any]] = []
    notes: list[str] = []
    found = pages(
        connection.client.search_runs,
        [connection.experiment_id],
        f"tags.`{TAG_BOOKS}` = '1'",
        max_results=1000,
        order_by=["attributes.start_time ASC"],
    )
    for run in found:
        held, odd = _entries_of(run.data.tags)
        entries += held
        notes += [f"the tag {name} of run {run.info.run_id} holds no entries; it is passed over" for name in odd]
    return entries, notes


def _entries_of(tags: Mapping[str, str]) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the entries in a run's tags, and the names of the tags that hold none."""
    entries: list[dict[str, Any]] = []
    odd: list[str] = []
    for name in sorted((name for name in tags if name.startswith(_PREFIX)), key=_place):
        try:
            held = json.loads(tags[name])
        except (ValueError, RecursionError):
            held = None
        if isinstance(held, list) and all(
            isinstance(entry, dict) and isinstance(entry.get("id"), str) for entry in held
        ):
            entries += held
        else:
            odd.append(name)
    return entries, odd


def _place(name: str) -> tuple[str, int]:
    process, _, part = name.rpartition(".")
    return process, int(part) if part.isdecimal() else -1


def write(connection: Connection, page: Page, summary: Summary) -> None:
    """Add entries to a run; see ``Registry.write_books``."""
    from mlflow.entities import Metric, RunTag

    run = find(connection, page.key)
    there = run.data.tags if run else {}
    held, _ = _entries_of(there)
    known = {entry.get("id") for entry in held}
    new = [entry for entry in page.entries if entry["id"] not in known]
    tags = list(_new_tags(there, new))
    made = run is None
    if run is None:
        first, tags = tags[:_TAGS_AT_ONCE], tags[_TAGS_AT_ONCE:]
        noted = {TAG_COMMAND: page.command, TAG_BOOKS: "1", **dict(first)}
        run = create(connection, page.key, page.name, noted, started=page.started)
    for start in range(0, len(tags), _TAGS_AT_ONCE):
        batch = [RunTag(name, text) for name, text in tags[start : start + _TAGS_AT_ONCE]]
        connection.client.log_batch(run.info.run_id, tags=[RunTag(TAG_BOOKS, "1"), *batch])
    # The number of entries is the step: of two machines the one that knows more tells the sum, whatever their clocks.
    now, step, shown = time.time_ns() // 1_000_000, len(held) + len(new), run.data.metrics
    sums = summary([*held, *new])
    metrics = [Metric(name, value, now, step) for name, value in sums.items() if shown.get(name) != value]
    if metrics:
        connection.client.log_batch(run.info.run_id, metrics=metrics)
    if made or page.own:
        connection.client.set_terminated(run.info.run_id, page.status, page.ended)


def _new_tags(there: Mapping[str, str], entries: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """Yield names and texts of the tags that take the entries, ``adapterctl.books.<process>.<part>``."""
    by_process: defaultdict[str, list[str]] = defaultdict(list)
    for entry in entries:
        process = re.sub(r"[^A-Za-z0-9_-]", "-", str(entry["process"])) or "unknown"
        by_process[process].append(json.dumps(entry, separators=(",", ":")))
    for process, texts in by_process.items():
        taken = [part for name in there for owner, part in [_place(name)] if owner == f"{_PREFIX}{process}"]
        part = max(taken, default=-1) + 1
        held: list[str] = []
        for text in texts:
            if held and sum(map(len, held)) + len(held) + len(text) + 2 > _LONGEST_TAG:
                yield f"{_PREFIX}{process}.{part}", f"[{','.join(held)}]"
                part, held = part + 1, []
            held.append(text)
        yield f"{_PREFIX}{process}.{part}", f"[{','.join(held)}]"
