"""Reaching MLflow: the workspace's own store is made when it is first needed, others are probed before use."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from filelock import FileLock, Timeout

from adapterctl.errors import RegistryError
from adapterctl.files import TEMPORARY_PREFIX, disk_errors
from adapterctl.registry import environment
from adapterctl.registry.faults import Guarded, error_code, translated
from adapterctl.registry.names import TAG_PROJECT
from adapterctl.registry.relocation import relocate
from adapterctl.registry.settings import ResolvedRegistry

_LOCK_SECONDS = 60
_PROBE_SECONDS = 4


@dataclass(frozen=True)
class Connection:
    """An open registry: where it is, the project, and the MLflow experiment of its runs.

    Attributes:
        client: The guarded ``MlflowClient``.
        resolved: The address.
        project: Name of the project; registered models carry it as a tag.
        experiment_id: MLflow's id of the experiment.
    """

    client: Any
    resolved: ResolvedRegistry
    project: str
    experiment_id: str

    def repository(self, location: str) -> Any:
        """Return MLflow's access to the files below ``location``."""
        environment.load()
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        with translated(self.resolved):
            return Guarded(get_artifact_repository(location, tracking_uri=self.resolved.uri), self.resolved)


def connect(resolved: ResolvedRegistry, project: str) -> Connection:
    """Open the registry and make the project's experiment where it is missing.

    Raises:
        RegistryError: Nobody answers, or refuses (login, permission, host name, damaged or outdated store).
        StorageError: The embedded store cannot be written.
    """
    environment.load()
    from mlflow import MlflowClient

    with translated(resolved):
        prepare_sqlite(resolved)
        if resolved.is_database and resolved.database_file is None:
            _probe_database(resolved)
        with environment.first_contact():
            # The registry address is given too: MLFLOW_REGISTRY_URI must not send the versions elsewhere.
            client = Guarded(MlflowClient(resolved.uri, registry_uri=resolved.uri), resolved)
            experiment = _experiment(client, resolved, project)
    return Connection(client, resolved, project, experiment.experiment_id)


def _experiment(client: Any, resolved: ResolvedRegistry, project: str) -> Any:
    name = resolved.experiment or project
    location = f"{resolved.artifact_root}/{quote(name, safe='')}" if resolved.artifact_root else None
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            client.create_experiment(name, artifact_location=location, tags={TAG_PROJECT: project})
        except RegistryError as error:
            if error_code(error) != "RESOURCE_ALREADY_EXISTS":
                raise
        experiment = client.get_experiment_by_name(name)
    if experiment.lifecycle_stage != "active":
        raise RegistryError(
            f"the experiment {name!r} in {resolved.shown} has been deleted",
            hint=f"bring it back: MLFLOW_TRACKING_URI={resolved.shown} mlflow experiments restore "
            f"--experiment-id {experiment.experiment_id}; or name another in registry.experiment",
        )
    return experiment


@contextmanager
def _lock(database: Path) -> Iterator[None]:
    lock = FileLock(database.with_name(f"{database.name}.lock"), timeout=_LOCK_SECONDS)
    try:
        lock.acquire()
    except Timeout as error:
        raise RegistryError(
            f"another process has been preparing {database} for {_LOCK_SECONDS} seconds",
            hint=f"wait for it, or end it and remove {lock.lock_file}",
        ) from error
    try:
        yield
    finally:
        lock.release()


def prepare_sqlite(resolved: ResolvedRegistry) -> None:
    """Make the tables of an sqlite store where the file is missing, and follow a workspace that was moved.

    MLflow's first migration neither bears company nor a kill: it is done under a lock, on a file beside that gets its
    name only when it is complete.
    """
    database = resolved.database_file
    if database is None:
        return
    with disk_errors(database):
        database.parent.mkdir(parents=True, exist_ok=True)
        with _lock(database):
            for left in database.parent.glob(f"{_unfinished_prefix(database)}*"):
                shutil.rmtree(left, ignore_errors=True)
            if not database.exists():
                _make_sqlite(database, resolved.artifact_root or "")
            # MLflow tries ten times, for 100 seconds, to open what cannot be opened.
            with closing(sqlite3.connect(f"{database.as_uri()}?mode=rw", uri=True, timeout=_PROBE_SECONDS)) as probe:
                probe.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if resolved.embedded and resolved.artifact_root:
                relocate(database, resolved.artifact_root)


def _unfinished_prefix(database: Path) -> str:
    """Return how the folders are called in which this database is made: others may be made beside it."""
    return f"{TEMPORARY_PREFIX}{database.name}-"


def _make_sqlite(database: Path, artifact_root: str) -> None:
    environment.load()
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    def hurry(connection: Any, _: Any) -> None:
        # Hundreds of statements, none of which needs to be on the disk before the file is complete.
        connection.execute("PRAGMA synchronous = OFF")

    with tempfile.TemporaryDirectory(prefix=_unfinished_prefix(database), dir=database.parent) as folder:
        unfinished = Path(folder) / database.name
        event.listen(Engine, "connect", hurry)
        try:
            store = SqlAlchemyStore(f"sqlite:///{unfinished}", artifact_root)
        finally:
            event.remove(Engine, "connect", hurry)
        store.engine.dispose()
        with unfinished.open("rb+") as file:
            os.fsync(file.fileno())
        unfinished.replace(database)


def _probe_database(resolved: ResolvedRegistry) -> None:
    """Connect once: MLflow would try ten times, for 100 seconds, before it says that nobody answers."""
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    parts = urlsplit(resolved.uri)
    if parts.hostname and parts.port:
        socket.create_connection((parts.hostname, parts.port), timeout=_PROBE_SECONDS).close()
    engine = create_engine(resolved.uri, poolclass=NullPool)
    engine.connect().close()
    engine.dispose()
