"""Everything that a project has in the registry, written into an archive."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapterctl.errors import Problem, RegistryError
from adapterctl.registry import aliases, archive, manifest, stored, versions
from adapterctl.registry.connection import Connection
from adapterctl.registry.faults import error_code
from adapterctl.registry.names import TAG_HASH, TAG_KEY, TAG_MANIFEST
from adapterctl.registry.verifying import GONE
from adapterctl.registry.versions import Version, pages

Progress = Callable[[float, float, str], None]

TAG_IMPORTED = "adapterctl.imported_from"
"""On a run or a logged model: the id that it had in the archive it came from, once it is whole."""
TAG_IMPORTING = "adapterctl.importing"
"""The same, as long as it is not."""
_MEND = "see all that is wrong: adapterctl registry verify; mend it or delete that version in MLflow, then export again"
OF_AN_IMPORT = (TAG_IMPORTED, TAG_IMPORTING)


@dataclass
class Moved:
    """How much was written or read.

    Attributes:
        versions: Versions of registered models.
        runs: Runs.
        files: Files of both.
        bytes: What those take.
        left_out: Versions that have no files of ours, and so nothing to move.
    """

    versions: int = 0
    runs: int = 0
    files: int = 0
    bytes: int = 0
    left_out: tuple[str, ...] = ()


def export(connection: Connection, names: list[str], writer: archive.Writer, progress: Progress | None = None) -> Moved:
    """Write the project's versions, aliases and runs into an archive.

    To be called by whoever holds the project's lock, so that nothing moves meanwhile.

    Raises:
        RegistryError: The registry cannot be reached, or a file in it has a name that cannot be stored.
    """
    moved = Moved()
    found = {name: versions.every(connection, name) for name in names}
    ours = {version.model_id for many in found.values() for version in many if _is_ours(version)}
    runs = sorted(
        (
            run
            for run in pages(connection.client.search_runs, [connection.experiment_id], max_results=1000)
            if TAG_KEY in run.data.tags
        ),
        key=lambda run: run.info.run_id,
    )
    total, done = len(runs) + len(ours), 0
    holders = {version.model_id: version for many in found.values() for version in many if _is_ours(version)}
    for _, version in sorted(holders.items()):
        if progress is not None:
            progress(done, total, str(version))
        _model(connection, version, writer, moved)
        done += 1
    writer.add_json(archive.REGISTRY, _registry(connection, found))
    for run in runs:
        if progress is not None:
            progress(done, total, run.info.run_name)
        _run(connection, run.info.run_id, ours, writer, moved)
        done += 1
    left_out = []
    for name, many in sorted(found.items()):
        for version in many:
            if _is_ours(version):
                writer.add_json(f"versions/{name}/{version.version:09d}.json", _version(version))
                moved.versions += 1
            else:
                left_out.append(str(version))
    moved.left_out = tuple(left_out)
    return moved


def _is_ours(version: Version) -> bool:
    return bool(version.model_id and TAG_HASH in version.tags)


def _registry(connection: Connection, found: Mapping[str, list[Version]]) -> dict[str, Any]:
    models = {}
    for name, many in found.items():
        model = connection.client.get_registered_model(name)
        moving = {version.version for version in many if _is_ours(version)}
        pointing = aliases.every(connection, name)
        models[name] = {
            "description": model.description or "",
            "tags": dict(model.tags),
            "aliases": {alias: number for alias, number in pointing.items() if number in moving},
        }
    return {"project": connection.project, "models": models}


def _version(version: Version) -> dict[str, Any]:
    return {
        "name": version.name,
        "version": version.version,
        "content_hash": version.content_hash,
        "run_id": version.run_id,
        "model_id": version.model_id,
        "tags": dict(version.tags),
        "created": version.created,
        "description": version.description,
    }


def _model(connection: Connection, version: Version, writer: archive.Writer, moved: Moved) -> None:
    model_id = version.model_id
    try:
        model = connection.client.get_logged_model(model_id)
    except RegistryError as error:
        if error_code(error) in GONE:
            raise RegistryError(
                f"the files of {version} are gone: MLflow has no logged model {model_id}", hint=_MEND
            ) from error
        raise
    writer.add_json(
        f"models/{model_id}.json",
        {
            "name": model.name,
            "type": model.model_type or "",
            "status": str(model.status),
            "run_id": model.source_run_id or "",
            "tags": _own(model.tags),
            "params": dict(model.params or {}),
            "metrics": sorted(
                (
                    {
                        "key": metric.key,
                        "value": _number(metric.value),
                        "time": metric.timestamp,
                        "step": metric.step,
                        "run_id": metric.run_id or "",
                    }
                    for metric in model.metrics or ()
                ),
                key=lambda metric: (metric["key"], metric["step"], metric["time"]),
            ),
        },
    )
    repository = connection.repository(model.artifact_location)
    _files(repository, f"models/{model_id}", str(version), writer, moved)
    # What is damaged must not be taken for a backup.
    with tempfile.TemporaryDirectory(prefix="adapterctl-export-") as temporary:
        text = manifest.fetch(repository, manifest.MANIFEST, Path(temporary)).read_bytes().decode("utf-8", "replace")
    files = manifest.parse(text, version.tags.get(TAG_MANIFEST, ""), str(version)).files
    wrong = [name for name, digest in files.items() if writer.digest(f"models/{model_id}/{name}") != digest]
    if wrong:
        raise RegistryError(f"files of {version} are not as they were published: {', '.join(wrong)[:200]}", hint=_MEND)


def _run(connection: Connection, run_id: str, ours: set[str], writer: archive.Writer, moved: Moved) -> None:
    # A search does not tell inputs and outputs.
    run = connection.client.get_run(run_id)
    history = [point for key in sorted(run.data.metrics) for point in connection.client.get_metric_history(run_id, key)]
    inputs, outputs = run.inputs, run.outputs
    writer.add_json(
        f"runs/{run_id}.json",
        {
            "name": run.info.run_name or "",
            "status": run.info.status,
            "started": run.info.start_time,
            "ended": run.info.end_time,
            "tags": _own(run.data.tags),
            "params": dict(run.data.params),
            "metrics": sorted(
                ([point.key, _number(point.value), point.timestamp, point.step] for point in history),
                key=lambda point: (point[0], point[3], point[2], str(point[1])),
            ),
            "datasets": sorted((_dataset(item) for item in (inputs.dataset_inputs if inputs else ())), key=str),
            "inputs": sorted(m.model_id for m in (inputs.model_inputs if inputs else ()) if m.model_id in ours),
            "outputs": sorted(
                [m.model_id, m.step] for m in (outputs.model_outputs if outputs else ()) if m.model_id in ours
            ),
        },
    )
    _files(connection.repository(run.info.artifact_uri), f"runs/{run_id}", f"run {run.info.run_name}", writer, moved)
    moved.runs += 1


def _own(tags: Mapping[str, str]) -> dict[str, str]:
    # What tells where it came from before belongs to this registry, not to what is moved.
    return {name: value for name, value in tags.items() if name not in OF_AN_IMPORT}


def _number(value: float) -> float | str:
    """Return a metric's value as JSON can hold it: NaN and infinities as text."""
    return value if abs(value) < float("inf") else str(value)


def _dataset(item: Any) -> dict[str, Any]:
    return {
        "name": item.dataset.name,
        "digest": item.dataset.digest,
        "source_type": item.dataset.source_type,
        "source": item.dataset.source,
        "schema": item.dataset.schema,
        "profile": item.dataset.profile,
        "tags": {tag.key: tag.value for tag in item.tags},
    }


def _files(repository: Any, prefix: str, place: str, writer: archive.Writer, moved: Moved) -> None:
    sizes = stored.files(repository)
    if problems := [Problem(repr(name[:200]), reason) for name in sizes if (reason := manifest.unsafe(name))]:
        raise RegistryError(
            f"files of {place} have names that cannot be stored", problems=problems, hint="remove them from the store"
        )
    with tempfile.TemporaryDirectory(prefix="adapterctl-export-") as temporary:
        for name in sizes:
            with stored.copy(repository, name, Path(temporary)) as path:
                writer.add_file(f"{prefix}/{name}", path)
                moved.bytes += path.stat().st_size
            moved.files += 1
