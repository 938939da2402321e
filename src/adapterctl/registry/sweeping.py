"""What killed processes leave behind in the registry, and how it is cleared up."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from adapterctl.registry.connection import Connection
from adapterctl.registry.names import TAG_ERROR, TAG_HOST, TAG_KEY, TAG_PROCESS
from adapterctl.registry.processes import is_alive
from adapterctl.registry.versions import iso, pages


@dataclass(frozen=True)
class Leftover:
    """A run or a logged model that nobody works on any more but that looks as if somebody did.

    Attributes:
        kind: ``run`` (still RUNNING) or ``model`` (still PENDING: its files are not complete).
        id: MLflow's id.
        name: Its name in the user interface.
        key: The key of the run, or of the model's run.
        started: ISO 8601, UTC.
        age_seconds: How long ago that was.
        host: The machine that it ran on.
    """

    kind: Literal["run", "model"]
    id: str
    name: str
    key: str
    started: str
    age_seconds: float
    host: str


def _lives(tags: Mapping[str, str]) -> bool:
    return tags.get(TAG_HOST) == platform.node() and is_alive(tags.get(TAG_PROCESS, ""))


def leftovers(connection: Connection, older_than: float = 0.0) -> list[Leftover]:
    """Return the stale runs and logged models of the project; see ``Registry.leftovers``."""
    running = list(
        pages(
            connection.client.search_runs,
            [connection.experiment_id],
            "attributes.status = 'RUNNING'",
            max_results=1000,
            order_by=["attributes.start_time ASC"],
        )
    )
    now = time.time()
    living = {run.info.run_id for run in running if _lives(run.data.tags)}
    by_id = {run.info.run_id: run for run in running}
    found = [
        _leftover("run", run.info.run_id, run.info.run_name, run.data.tags, run.info.start_time, now)
        for run in running
        if run.info.run_id not in living and TAG_KEY in run.data.tags
    ]
    models = pages(connection.client.search_logged_models, [connection.experiment_id], max_results=1000)
    for model in models:
        if str(model.status) == "PENDING" and model.source_run_id not in living:
            source: Any = by_id.get(model.source_run_id)
            tags = source.data.tags if source else {}
            found.append(_leftover("model", model.model_id, model.name, tags, model.creation_timestamp, now))
    return [leftover for leftover in found if leftover.age_seconds >= older_than]


def _leftover(
    kind: Literal["run", "model"], id: str, name: str, tags: Mapping[str, str], started: int, now: float
) -> Leftover:
    age = max(0.0, now - started / 1000)
    return Leftover(kind, id, name, tags.get(TAG_KEY, ""), iso(started), age, tags.get(TAG_HOST, ""))


def sweep(connection: Connection, found: Iterable[Leftover]) -> None:
    """Mark stale runs as KILLED, and stale logged models as FAILED and deleted; see ``Registry.sweep``."""
    for leftover in found:
        if leftover.kind == "run":
            connection.client.set_tag(leftover.id, TAG_ERROR, "the process was killed")
            connection.client.set_terminated(leftover.id, "KILLED")
        else:
            connection.client.finalize_logged_model(leftover.id, "FAILED")
            connection.client.delete_logged_model(leftover.id)
