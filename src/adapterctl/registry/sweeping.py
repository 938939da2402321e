"""What killed processes leave behind in the registry, and how it is cleared up.

Whether a process on another machine lives cannot be known from here: what it left RUNNING is touched after a day only.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from adapterctl.registry import stored
from adapterctl.registry.connection import Connection
from adapterctl.registry.names import TAG_ERROR, TAG_HOST, TAG_KEY, TAG_PROCESS
from adapterctl.registry.processes import is_alive
from adapterctl.registry.versions import iso, pages

DAY = 86400.0
"""Seconds after which a run of another machine that still says RUNNING is taken to be nobody's."""
TAG_COLLECTED = "adapterctl.collected"
"""On a logged model: its version is being removed, or is removed already."""
_PARENT = "mlflow.parentRunId"


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
        abandoned: Whether nobody can be at work on it: its process, of this machine, has ended; its run has ended; or
            it ran elsewhere and is older than a day.
    """

    kind: Literal["run", "model"]
    id: str
    name: str
    key: str
    started: str
    age_seconds: float
    host: str
    abandoned: bool


def _lives(tags: Mapping[str, str]) -> bool:
    return tags.get(TAG_HOST) == platform.node() and is_alive(tags.get(TAG_PROCESS, ""))


def leftovers(connection: Connection, older_than: float = 0.0) -> list[Leftover]:
    """Return the stale runs and logged models of the project; see ``Registry.leftovers``."""
    running, now = _running(connection), time.time()
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
            tags, began = (source.data.tags if source else {}), model.creation_timestamp
            found.append(_leftover("model", model.model_id, model.name, tags, began, now, ended=source is None))
    return [leftover for leftover in found if leftover.age_seconds >= older_than]


def _running(connection: Connection) -> list[Any]:
    return list(
        pages(
            connection.client.search_runs,
            [connection.experiment_id],
            "attributes.status = 'RUNNING'",
            max_results=1000,
            order_by=["attributes.start_time ASC"],
        )
    )


def living_runs(connection: Connection) -> dict[str, str]:
    """Return the runs that somebody may be at work on, and the runs below them, with who that is."""
    now = time.time()
    found = {}
    for run in _running(connection):
        young = now - run.info.start_time / 1000 < DAY
        if _lives(run.data.tags) or (run.data.tags.get(TAG_HOST) != platform.node() and young):
            found[run.info.run_id] = f"the run '{run.info.run_name}' on {run.data.tags.get(TAG_HOST) or 'some machine'}"
    for parent, who in list(found.items()):
        below = pages(
            connection.client.search_runs,
            [connection.experiment_id],
            f"tags.`{_PARENT}` = '{parent}'",
            max_results=1000,
        )
        found |= {run.info.run_id: who for run in below}
    return found


def _leftover(
    kind: Literal["run", "model"],
    id: str,
    name: str,
    tags: Mapping[str, str],
    started: int,
    now: float,
    *,
    ended: bool = False,
) -> Leftover:
    age, host = max(0.0, now - started / 1000), tags.get(TAG_HOST, "")
    # Those of this machine whose process lives are not asked about.
    abandoned = ended or host == platform.node() or age > DAY
    return Leftover(kind, id, name, tags.get(TAG_KEY, ""), iso(started), age, host, abandoned)


def sweep(connection: Connection, found: Iterable[Leftover]) -> None:
    """Mark stale runs as KILLED, and remove stale logged models with their files; see ``Registry.sweep``."""
    for leftover in found:
        if leftover.kind == "run":
            connection.client.set_tag(leftover.id, TAG_ERROR, "the process was killed")
            connection.client.set_terminated(leftover.id, "KILLED")
        else:
            remove_model(connection, leftover.id)


def remove_model(connection: Connection, model_id: str) -> None:
    """Delete a logged model that no version holds, its files first; may be killed and repeated."""
    model = connection.client.finalize_logged_model(model_id, "FAILED")
    stored.delete(connection.repository(model.artifact_location))
    connection.client.delete_logged_model(model_id)
