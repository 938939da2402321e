"""Reading an sqlite store without MLflow, whose import alone takes longer than most commands.

``LocalClient`` stands for MLflow's client where nothing is changed: the same methods with the same arguments, values
with the same attributes. What it does not know it hands to MLflow's own client, which is imported then. It trusts only
the tables it was written for; a store with any others is reached through MLflow as ever.
"""

from __future__ import annotations

import math
import os
import re
import sqlite3
import threading
import weakref
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote, urlsplit

from adapterctl.registry.connection import Connection, connect, prepare_sqlite
from adapterctl.registry.faults import Guarded, LocalRefusal, translated
from adapterctl.registry.settings import ResolvedRegistry

_SCHEMAS = (["dc11669786a5"],)
"""Revisions of MLflow's tables that are known here: those of MLflow 3.17."""

_SHARED = ("MLFLOW_WORKSPACE", "MLFLOW_ENABLE_WORKSPACES")
"""With these, MLflow's tables belong to more than one owner."""
_SECONDS = 20
_MISSING = "RESOURCE_DOES_NOT_EXIST"
_OURS = "workspace = 'default'"
_CONDITION = re.compile(r"(?:name|tags\.`([^`']+)`) = '([^']+)'")
_VERSION_ORDERS: dict[tuple[str, ...], str] = {
    (): "last_updated_time DESC, name, version DESC",
    ("version_number ASC",): "version, name",
}
_RUN_ORDERS: dict[tuple[str, ...], str] = {("attributes.start_time ASC",): "start_time, run_uuid"}
_VERSION = (
    "name, version, creation_time AS creation_timestamp, last_updated_time AS last_updated_timestamp, description, "
    "source, run_id, status"
)
_RUN = (
    "run_uuid AS run_id, name AS run_name, status, start_time, end_time, lifecycle_stage, artifact_uri, "
    "CAST(experiment_id AS TEXT) AS experiment_id"
)
_MODEL = (
    "model_id, name, artifact_location, creation_timestamp_ms AS creation_timestamp, status, model_type, source_run_id"
)
_MODEL_STATUS = ("UNSPECIFIED", "PENDING", "READY", "FAILED")
_ACTIVE_ONLY = 1
"""MLflow's number for runs that were not deleted."""


class Page(list[Any]):
    """What a search found, and what asks for the rest."""

    def __init__(self, found: Iterable[Any], token: str | None = None) -> None:
        super().__init__(found)
        self.token = token


@dataclass(frozen=True)
class LocalFiles:
    """The files below a folder, as MLflow's access to a place gives them."""

    folder: Path
    connection: Connection
    location: str

    def __getattr__(self, name: str) -> Any:
        return getattr(Connection.repository(self.connection, self.location), name)

    def get_local_path(self, name: str) -> str:
        """Return the path of a stored file.

        Raises:
            LocalRefusal: There is no such file, or its name leads out of the folder.
        """
        path = self.folder / name
        if not path.resolve().is_relative_to(self.folder.resolve()) or not path.exists():
            raise LocalRefusal(f"No such artifact: '{name}'", _MISSING)
        return str(path)


@dataclass(frozen=True)
class LocalConnection(Connection):
    """An open sqlite store that is read without MLflow."""

    def repository(self, location: str) -> Any:
        """Return the access to the files below ``location``; only a folder needs no MLflow."""
        parts = urlsplit(location)
        if parts.scheme != "file" or parts.netloc not in ("", "localhost"):
            return super().repository(location)
        return Guarded(LocalFiles(Path(unquote(parts.path)), self, location), self.resolved)


def connect_local(resolved: ResolvedRegistry, project: str) -> Connection | None:
    """Open an sqlite store for reading; None where MLflow is needed for it.

    Raises:
        RegistryError: The store is damaged, or busy for too long.
        StorageError: Its file cannot be opened.
    """
    database = resolved.database_file
    if database is None or not database.exists() or any(os.environ.get(name) for name in _SHARED):
        return None
    with translated(resolved):
        prepare_sqlite(resolved)
        client = LocalClient(resolved, project)
        experiment = client.experiment_id
    return None if experiment is None else LocalConnection(Guarded(client, resolved), resolved, project, experiment)


def _conditions(text: str) -> list[tuple[str, str]] | None:
    """Return what a search filter asks for, as pairs of a tag (nothing for the name) and its value; None for more."""
    found = [_CONDITION.fullmatch(part.strip()) for part in re.split(r" and ", text, flags=re.IGNORECASE)]
    pairs = [(match[1] or "", match[2]) for match in found if match]
    return pairs if len(pairs) == len(found) else None


def _page(found: list[Any], start: int, most: int) -> Page:
    return Page(found[:most], str(start + most) if len(found) > most else None)


class LocalClient:
    """What MLflow's client answers about an sqlite store.

    Args:
        resolved: The store.
        project: The project, whose experiment holds the runs.
    """

    def __init__(self, resolved: ResolvedRegistry, project: str) -> None:
        assert resolved.database_file is not None
        self._file, self._resolved, self._project = resolved.database_file, resolved, project
        self._store: sqlite3.Connection | None = None
        self._lock = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._mlflow, name)

    @cached_property
    def _mlflow(self) -> Any:
        return connect(self._resolved, self._project).client

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        # Opened once: reading the definitions of MLflow's tables takes longer than most questions. Between two
        # questions no lock is held.
        with self._lock:
            if self._store is None:
                address = f"{self._file.as_uri()}?mode=rw"
                store = sqlite3.connect(address, uri=True, timeout=_SECONDS, check_same_thread=False)
                weakref.finalize(self, store.close)
                store.row_factory = sqlite3.Row
                store.execute("PRAGMA query_only = ON").close()
                self._store = store
            yield self._store

    @cached_property
    def experiment_id(self) -> str | None:
        """MLflow's id of the project's experiment; None where MLflow has to look: unknown tables, none or deleted."""
        query = f"SELECT experiment_id FROM experiments WHERE {_OURS} AND lifecycle_stage = 'active' AND name = ?"
        with self._open() as store:
            if not store.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone():
                return None
            if [row[0] for row in store.execute("SELECT version_num FROM alembic_version")] not in _SCHEMAS:
                return None
            found = store.execute(query, (self._resolved.experiment or self._project,)).fetchone()
        return str(found["experiment_id"]) if found else None

    def get_registered_model(self, name: str) -> Any:
        """Return a registered model with its tags and aliases."""
        where = f"WHERE {_OURS} AND name = ?"
        with self._open() as store:
            found = store.execute(f"SELECT name, description FROM registered_models {where}", (name,)).fetchone()
            if found is None:
                raise LocalRefusal(f"Registered Model with name={name} not found", _MISSING)
            tags = _pairs(store, f"SELECT key, value FROM registered_model_tags {where}", name)
            aliases = _pairs(store, f"SELECT alias, version FROM registered_model_aliases {where}", name)
        return SimpleNamespace(**found, tags=tags, aliases=aliases)

    def get_model_version(self, name: str, version: str) -> Any:
        """Return a version with its tags."""
        with self._open() as store:
            found = _versions(store, "name = ? AND version = ?", [name, int(version)], "version")
        if not found:
            raise LocalRefusal(f"Model Version (name={name}, version={version}) not found", _MISSING)
        return found[0]

    def search_model_versions(
        self,
        filter_string: str,
        max_results: int = 1000,
        order_by: Sequence[str] | None = None,
        page_token: str | None = None,
    ) -> Any:
        """Return the versions whose name and tags have certain values."""
        wanted, order = _conditions(filter_string), _VERSION_ORDERS.get(tuple(order_by or ()))
        if wanted is None or order is None:
            return self._mlflow.search_model_versions(filter_string, max_results, order_by, page_token)
        tagged = (
            f"EXISTS (SELECT 1 FROM model_version_tags t WHERE t.{_OURS} AND t.name = v.name "
            "AND t.version = v.version AND t.key = ? AND t.value = ?)"
        )
        where = " AND ".join(tagged if tag else "name = ?" for tag, _ in wanted)
        values = [text for pair in wanted for text in pair if text]
        start = int(page_token or 0)
        with self._open() as store:
            found = _versions(store, where, values, f"{order} LIMIT {int(max_results) + 1} OFFSET {start}")
        return _page(found, start, max_results)

    def get_logged_model(self, model_id: str) -> Any:
        """Return a logged model that was not deleted."""
        with self._open() as store:
            query = f"SELECT {_MODEL} FROM logged_models WHERE lifecycle_stage != 'deleted' AND model_id = ?"
            found = store.execute(query, (model_id,)).fetchone()
            if found is None:
                raise LocalRefusal(f"Logged model with ID '{model_id}' not found", _MISSING)
            tags = _pairs(store, "SELECT tag_key, tag_value FROM logged_model_tags WHERE model_id = ?", model_id)
        return SimpleNamespace(**{**found, "status": _MODEL_STATUS[found["status"]]}, tags=tags)

    def get_run(self, run_id: str) -> Any:
        """Return a run, also one that was deleted."""
        with self._open() as store:
            found = _runs(store, "run_uuid = ?", [run_id], "run_uuid")
        if not found:
            raise LocalRefusal(f"Run with id={run_id} not found", _MISSING)
        return found[0]

    def search_runs(
        self,
        experiment_ids: Sequence[str],
        filter_string: str = "",
        run_view_type: int = _ACTIVE_ONLY,
        max_results: int = 1000,
        order_by: Sequence[str] | None = None,
        page_token: str | None = None,
    ) -> Any:
        """Return the runs that were not deleted and whose tags have certain values."""
        wanted, order = _conditions(filter_string), _RUN_ORDERS.get(tuple(order_by or ()))
        if not wanted or not all(tag for tag, _ in wanted) or order is None or run_view_type != _ACTIVE_ONLY:
            return self._mlflow.search_runs(
                experiment_ids, filter_string, run_view_type, max_results, order_by, page_token
            )
        tagged = "EXISTS (SELECT 1 FROM tags t WHERE t.run_uuid = r.run_uuid AND t.key = ? AND t.value = ?)"
        places = ", ".join("?" * len(experiment_ids))
        where = " AND ".join(["lifecycle_stage = 'active'", f"experiment_id IN ({places})", *[tagged for _ in wanted]])
        values = [*experiment_ids, *(text for pair in wanted for text in pair)]
        start = int(page_token or 0)
        with self._open() as store:
            found = _runs(store, where, values, f"{order} LIMIT {int(max_results) + 1} OFFSET {start}")
        return _page(found, start, max_results)


def _pairs(store: sqlite3.Connection, query: str, value: str) -> dict[str, Any]:
    return dict(map(tuple, store.execute(query, (value,))))


def _versions(store: sqlite3.Connection, where: str, values: Sequence[Any], order: str) -> list[Any]:
    alive = f"v.{_OURS} AND current_stage != 'Deleted_Internal'"
    found = f"FROM model_versions v WHERE {alive} AND {where} ORDER BY {order}"
    rows = store.execute(f"SELECT {_VERSION} {found}", values).fetchall()
    tags: defaultdict[tuple[str, int], dict[str, str]] = defaultdict(dict)
    query = f"SELECT name, version, key, value FROM model_version_tags WHERE {_OURS} AND (name, version) IN"
    for name, version, key, value in store.execute(f"{query} (SELECT name, version {found})", values):
        tags[name, version][key] = value
    return [SimpleNamespace(**row, tags=tags[row["name"], row["version"]]) for row in rows]


def _runs(store: sqlite3.Connection, where: str, values: Sequence[Any], order: str) -> list[Any]:
    found = f"FROM runs r WHERE {where} ORDER BY {order}"
    rows = store.execute(f"SELECT {_RUN} {found}", values).fetchall()

    def by_run(query: str) -> defaultdict[str, list[sqlite3.Row]]:
        held: defaultdict[str, list[sqlite3.Row]] = defaultdict(list)
        for row in store.execute(f"{query} IN (SELECT run_uuid {found})", values):
            held[row[0]].append(row)
        return held

    tags, params = (by_run(f"SELECT run_uuid, key, value FROM {table} WHERE run_uuid") for table in ("tags", "params"))
    metrics = by_run("SELECT run_uuid, key, value, is_nan FROM latest_metrics WHERE run_uuid")
    datasets = by_run(
        "SELECT destination_id, input_uuid, d.name, digest, dataset_profile AS profile FROM inputs "
        "JOIN datasets d ON source_id = dataset_uuid WHERE destination_type = 'RUN' AND destination_id"
    )
    noted = by_run(
        "SELECT destination_id, input_uuid, t.name, value FROM inputs JOIN input_tags t USING (input_uuid) "
        "WHERE destination_type = 'RUN' AND destination_id"
    )
    taken = by_run("SELECT source_id, destination_id FROM inputs WHERE source_type = 'RUN_INPUT' AND source_id")
    made = by_run("SELECT source_id, destination_id, step FROM inputs WHERE source_type = 'RUN_OUTPUT' AND source_id")
    return [
        SimpleNamespace(
            info=SimpleNamespace(**row),
            data=SimpleNamespace(
                tags={one["key"]: one["value"] for one in tags[row["run_id"]]},
                params={one["key"]: one["value"] for one in params[row["run_id"]]},
                metrics={one["key"]: math.nan if one["is_nan"] else one["value"] for one in metrics[row["run_id"]]},
            ),
            inputs=SimpleNamespace(
                dataset_inputs=[_dataset(one, noted[row["run_id"]]) for one in datasets[row["run_id"]]],
                model_inputs=[SimpleNamespace(model_id=model) for _, model in taken[row["run_id"]]],
            ),
            outputs=SimpleNamespace(
                model_outputs=[SimpleNamespace(model_id=model, step=step) for _, model, step in made[row["run_id"]]]
            ),
        )
        for row in rows
    ]


def _dataset(found: sqlite3.Row, noted: Iterable[sqlite3.Row]) -> Any:
    tags = [SimpleNamespace(key=row["name"], value=row["value"]) for row in noted if row["input_uuid"] == found[1]]
    dataset = SimpleNamespace(name=found["name"], digest=found["digest"], profile=found["profile"])
    return SimpleNamespace(dataset=dataset, tags=tags)
