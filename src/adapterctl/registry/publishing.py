"""Publishing an adapter so that a kill at any point leaves nothing half registered, and a second try doubles nothing.

    find the version by content hash ── there ──▶ done
      │
    find a READY logged model of that hash ─────────────────────────┐
      │                                                             │
    find a PENDING one (its files are removed), or create one       │
      │                                                             │
    write the files · read them back · metrics · lineage · READY ───┤
                                                                    ▼
                                       note the output on the run · register

MLflow registers a PENDING logged model without a word, so the version comes last: where there is a version, all the
rest is there.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapterctl.errors import RegistryError
from adapterctl.registry import manifest, versions
from adapterctl.registry.connection import Connection
from adapterctl.registry.faults import error_code
from adapterctl.registry.names import (
    TAG_HASH,
    TAG_INPUTS,
    TAG_KIND,
    TAG_MANIFEST,
    TAG_MODEL,
    TAG_PROJECT,
    quoted_key,
)
from adapterctl.registry.runs import RunHandle
from adapterctl.registry.settings import ENVIRONMENT_VARIABLE
from adapterctl.registry.versions import Version

VERSION_LINKS = "mlflow.modelVersions"
_global_address = threading.Lock()


@dataclass(frozen=True)
class Publication:
    """What is to be published; see ``Registry.publish``."""

    name: str
    folder: Path
    content_hash: str
    model_type: str
    params: Mapping[str, Any]
    tags: Mapping[str, Any]
    description: str
    inputs: Sequence[Version]
    metrics: Mapping[str, float]
    lineage: Mapping[str, Any]

    def told(self, run: RunHandle, project: str) -> dict[str, Any]:
        """Return where the adapter comes from, as stored beside it."""
        return {
            **self.lineage,
            "project": project,
            "name": self.name,
            "content_hash": self.content_hash,
            "type": self.model_type,
            "run_id": run.run_id,
            "run_key": run.key,
            "params": {key: str(value) for key, value in self.params.items()},
            "inputs": [
                {
                    "name": version.name,
                    "version": version.version,
                    "content_hash": version.content_hash,
                    "model_id": version.model_id,
                }
                for version in self.inputs
            ],
        }


def publish(connection: Connection, run: RunHandle, wanted: Publication) -> Version:
    """Publish an adapter once; see ``Registry.publish``."""
    if (version := versions.by_hash(connection, wanted.name, wanted.content_hash)) is not None:
        return version
    contents = manifest.of_folder(wanted.folder)
    tags = {
        **{key: str(value) for key, value in wanted.tags.items()},
        TAG_PROJECT: connection.project,
        TAG_KIND: wanted.model_type,
        TAG_HASH: wanted.content_hash,
        TAG_MANIFEST: contents.digest,
    }
    if wanted.inputs:
        tags[TAG_INPUTS] = " ".join(f"{version.name}:{version.version}" for version in wanted.inputs)
    model = _ready_model(connection, run, wanted, contents, tags)
    _note_output(connection, run, model.model_id)
    return _register(connection, run, wanted, model, {**tags, TAG_MODEL: model.model_id})


def _ready_model(
    connection: Connection, run: RunHandle, wanted: Publication, contents: manifest.Manifest, tags: Mapping[str, str]
) -> Any:
    """Return a READY logged model that holds the files: one of a killed attempt, or a new one."""
    from mlflow.entities import LoggedModelStatus

    # The digest belongs to the search: equal tensors with other files beside them are another publication.
    found = connection.client.search_logged_models(
        [connection.experiment_id],
        f"name = {quoted_key(wanted.name)} AND tags.`{TAG_HASH}` = {quoted_key(wanted.content_hash)} "
        f"AND tags.`{TAG_MANIFEST}` = {quoted_key(contents.digest)}",
    )
    by_status = {str(model.status): model for model in found}
    if (ready := by_status.get(str(LoggedModelStatus.READY))) is not None:
        return ready
    pending = by_status.get(str(LoggedModelStatus.PENDING))
    model = pending or connection.client.create_logged_model(
        connection.experiment_id,
        name=wanted.name,
        source_run_id=run.run_id,
        tags=dict(tags),
        params={key: str(value) for key, value in wanted.params.items()},
        model_type=wanted.model_type,
    )
    repository = connection.repository(model.artifact_location)
    if pending is not None:
        # Half a file may lie there under a temporary name.
        repository.delete_artifacts()
    lineage = json.dumps(wanted.told(run, connection.project), indent=2, sort_keys=True, ensure_ascii=False)
    manifest.store(repository, wanted.folder, contents, {manifest.LINEAGE: lineage + "\n"})
    _note_metrics(connection, run, wanted.metrics, model)
    _note_inputs(connection, run, wanted.inputs)
    return connection.client.finalize_logged_model(model.model_id, "READY")


def _note_metrics(connection: Connection, run: RunHandle, metrics: Mapping[str, float], model: Any) -> None:
    from mlflow.entities import Metric

    # MLflow drops a point that equals another in everything, the time included: so the time is the model's own.
    points = [
        Metric(name, float(value), model.creation_timestamp, 0, model_id=model.model_id, run_id=run.run_id)
        for name, value in metrics.items()
    ]
    if points:
        connection.client.log_batch(run.run_id, metrics=points)


def _note_inputs(connection: Connection, run: RunHandle, inputs: Sequence[Version]) -> None:
    from mlflow.entities import LoggedModelInput

    if not inputs:
        return
    noted = connection.client.get_run(run.run_id).inputs
    there = {model.model_id for model in noted.model_inputs} if noted else set()
    missing = [version.model_id for version in inputs if version.model_id and version.model_id not in there]
    if missing:
        connection.client.log_inputs(run.run_id, models=[LoggedModelInput(model_id) for model_id in missing])


def _note_output(connection: Connection, run: RunHandle, model_id: str) -> None:
    from mlflow.entities import LoggedModelOutput

    noted = connection.client.get_run(run.run_id).outputs
    if not noted or model_id not in {model.model_id for model in noted.model_outputs}:
        connection.client.log_outputs(run.run_id, [LoggedModelOutput(model_id, 0)])


def _register(
    connection: Connection, run: RunHandle, wanted: Publication, model: Any, tags: Mapping[str, str]
) -> Version:
    try:
        connection.client.create_registered_model(
            wanted.name, tags={TAG_PROJECT: connection.project, TAG_KIND: wanted.model_type}
        )
    except RegistryError as error:
        if error_code(error) != "RESOURCE_ALREADY_EXISTS":
            raise
        claim(connection, wanted.name)
    with addressed(connection):
        registered = connection.client.create_model_version(
            wanted.name,
            source=f"models:/{model.model_id}",
            run_id=run.run_id,
            tags=dict(tags),
            description=versions.shortened_description(wanted.description),
            model_id=model.model_id,
        )
    version = versions.from_mlflow(registered)
    if connection.resolved.is_database:
        # A server does this by itself: the page of the logged model links to its version.
        link = json.dumps([{"name": version.name, "version": version.version}])
        connection.client.set_logged_model_tags(model.model_id, {VERSION_LINKS: link})
    return version


def claim(connection: Connection, name: str) -> None:
    """Make sure that a registered model is this project's: ``a-b`` + ``c`` and ``a`` + ``b-c`` have one name."""
    owner = connection.client.get_registered_model(name).tags.get(TAG_PROJECT)
    if owner is None:
        connection.client.set_registered_model_tag(name, TAG_PROJECT, connection.project)
    elif owner != connection.project:
        raise RegistryError(
            f"the registered model {name} belongs to the project {owner}, not to {connection.project}",
            hint="give one of the two projects another name (project: in adapterctl.yaml)",
        )


@contextmanager
def addressed(connection: Connection) -> Iterator[None]:
    """Let MLflow's global address be ours while a version is registered directly in a database.

    MLflow's database store looks up ``models:/<id>`` with a client of the global address, whatever the address of the
    client that was called. Both the module's and the environment's address are put back.
    """
    import mlflow
    from mlflow.tracking._tracking_service import utils as tracking

    if not connection.resolved.is_database:
        yield
        return
    with _global_address:
        before, exported = tracking._tracking_uri, os.environ.get(ENVIRONMENT_VARIABLE)
        mlflow.set_tracking_uri(connection.resolved.uri)
        try:
            yield
        finally:
            mlflow.set_tracking_uri(before)
            if exported is None:
                os.environ.pop(ENVIRONMENT_VARIABLE, None)
            else:
                os.environ[ENVIRONMENT_VARIABLE] = exported
