"""An archive brought into a registry: every step may be the last before a kill, and the same call goes on.

    note on the experiment ── runs, empty ── logged models: files, read back, READY ── runs: what they hold ──
    versions, in the order of their numbers ── descriptions ── aliases ── the note goes

Ids are MLflow's own and new. What is made carries the id that it had, first in ``adapterctl.importing``, and once it is
whole in ``adapterctl.imported_from``; ids in tags, in ``release.json`` and in ``lineage.json`` follow.
"""

from __future__ import annotations

import os
import platform
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adapterctl.errors import RegistryError, StorageError
from adapterctl.fingerprint import file_hash
from adapterctl.registry import aliases, manifest, publishing, versions
from adapterctl.registry.connection import Connection
from adapterctl.registry.exporting import TAG_IMPORTED, TAG_IMPORTING, Moved
from adapterctl.registry.faults import error_code
from adapterctl.registry.intake import TAG_BLANK, Contents, Progress, There
from adapterctl.registry.names import TAG_CREATED, TAG_ERROR, TAG_HOST, TAG_INPUTS, TAG_KIND, TAG_PROCESS, TAG_PROJECT
from adapterctl.registry.processes import process_token
from adapterctl.registry.records import LoggedModel, RunRecord, VersionRecord

_ID = re.compile(r'"((?:m-)?[0-9a-f]{32})"')
_TELL_IDS = ("release.json", "lineage.json")
_LARGEST_REWRITTEN = 1 << 26
_OWNER = (TAG_HOST, TAG_PROCESS)
_BATCH = 90
_AGAIN = "run the same command again: it goes on where it was"


@dataclass
class _Import:
    """One import under way.

    Attributes:
        ids: New id by old one, of runs and logged models.
    """

    connection: Connection
    contents: Contents
    there: There
    progress: Progress | None
    moved: Moved = field(default_factory=Moved)
    ids: dict[str, str] = field(default_factory=dict)
    done: int = 0

    @property
    def client(self) -> Any:
        return self.connection.client

    def tell(self, what: str) -> None:
        if self.progress is not None:
            self.progress(self.done, len(self.contents.runs) + len(self.contents.models), what)
        self.done += 1


def bring(connection: Connection, contents: Contents, there: There, progress: Progress | None = None) -> Moved:
    """Make everything of an archive that is not there yet.

    To be called by whoever holds the project's lock.

    Raises:
        RegistryError: The registry cannot be reached, or somebody else writes at the same time.
        StorageError: The store gives back something else than was written.
    """
    work = _Import(connection, contents, there, progress)
    if there.has_all(contents):
        return work.moved
    work.client.set_experiment_tag(connection.experiment_id, TAG_IMPORTING, "1")
    work.ids |= {**there.runs, **there.begun, **there.models, **there.begun_models}
    _make_runs(work)
    _make_models(work)
    # What others are made of first: their lineage.json names it by an id that must not change any more.
    for old, model in sorted(contents.models.items(), key=lambda item: TAG_INPUTS in item[1].tags):
        if old not in there.models:
            work.tell(model.name)
            _fill_model(work, old, model)
    for old, run in contents.runs.items():
        if old not in there.runs:
            work.tell(run.name)
            _fill_run(work, old, run)
            work.moved.runs += 1
    _make_versions(work)
    for name, registered in contents.registry.models.items():
        for alias, number in sorted(registered.aliases.items()):
            aliases.set_alias(connection, name, alias, number)
    work.client.delete_experiment_tag(connection.experiment_id, TAG_IMPORTING)
    return work.moved


def _make_runs(work: _Import) -> None:
    owner = {TAG_HOST: platform.node(), TAG_PROCESS: process_token(os.getpid())}
    for old, run in work.contents.runs.items():
        if old not in work.ids:
            # It says RUNNING and whose it is until it is whole: a killed import is found like any other killed command.
            tags = {**_tags(work, run.tags), **owner, TAG_IMPORTING: old}
            first = dict(sorted(tags.items(), key=lambda tag: tag[0] not in (*_OWNER, TAG_IMPORTING))[:_BATCH])
            made = work.client.create_run(
                work.connection.experiment_id, start_time=run.started, tags=first, run_name=run.name
            )
            work.ids[old] = made.info.run_id


def _make_models(work: _Import) -> None:
    for old, model in work.contents.models.items():
        if old not in work.ids:
            made = work.client.create_logged_model(
                work.connection.experiment_id,
                name=model.name,
                source_run_id=work.ids.get(model.run_id),
                tags={**model.tags, TAG_IMPORTING: old},
                params=model.params,
                model_type=model.type or None,
            )
            work.ids[old] = made.model_id


def _tags(work: _Import, tags: Mapping[str, str]) -> dict[str, str]:
    """Return tags of which those that are the id of something name what it is called now."""
    return {name: work.ids.get(value, value) for name, value in tags.items()}


def _fill_model(work: _Import, old: str, model: LoggedModel) -> None:
    from mlflow.entities import Metric

    new = work.ids[old]
    location = work.client.get_logged_model(new).artifact_location
    _store(work, f"models/{old}/", work.connection.repository(location))
    for metric in model.metrics:
        run_id = work.ids.get(metric.run_id) or work.ids.get(model.run_id)
        if run_id is not None:
            point = Metric(metric.key, float(metric.value), metric.time, metric.step, model_id=new, run_id=run_id)
            work.client.log_batch(run_id, metrics=[point])
    tags = _tags(work, model.tags) | {TAG_IMPORTED: old}
    if work.connection.resolved.is_server:
        # The server notes the link to the version by itself.
        tags.pop(publishing.VERSION_LINKS, None)
    work.client.set_logged_model_tags(new, tags)
    work.client.finalize_logged_model(new, "READY")
    work.client.delete_logged_model_tag(new, TAG_IMPORTING)


def _fill_run(work: _Import, old: str, run: RunRecord) -> None:
    from mlflow.entities import Metric, Param, RunTag

    new, client = work.ids[old], work.client
    for params in _batches([Param(name, value) for name, value in run.params.items()]):
        client.log_batch(new, params=params)
    points = [Metric(key, float(value), time, step) for key, value, time, step in run.metrics]
    for metrics in _batches(points, 900):
        client.log_batch(new, metrics=metrics)
    _note_lineage(work, new, run)
    _store(work, f"runs/{old}/", work.connection.repository(client.get_run(new).info.artifact_uri))
    tags = _tags(work, run.tags) | {TAG_IMPORTED: old}
    if run.status in ("RUNNING", "SCHEDULED"):
        tags[TAG_ERROR] = "it was still running when the registry was exported"
    for batch in _batches([RunTag(name, value) for name, value in tags.items()]):
        client.log_batch(new, tags=batch)
    there = client.get_run(new).data.tags
    for name in (*_OWNER, TAG_ERROR):
        # The last one is what a sweep after a kill has noted.
        if name in there and name not in tags:
            client.delete_tag(new, name)
    ended = run.status if run.status not in ("RUNNING", "SCHEDULED") else "KILLED"
    client.set_terminated(new, ended, run.ended or run.started)
    client.delete_tag(new, TAG_IMPORTING)


def _note_lineage(work: _Import, new: str, run: RunRecord) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelInput, LoggedModelOutput

    datasets = [
        DatasetInput(
            Dataset(item.name, item.digest, item.source_type, item.source, schema=item.schema_, profile=item.profile),
            [InputTag(name, value) for name, value in item.tags.items()],
        )
        for item in run.datasets
    ]
    noted = work.client.get_run(new)
    inputs = {model.model_id for model in (noted.inputs.model_inputs if noted.inputs else ())}
    outputs = {model.model_id for model in (noted.outputs.model_outputs if noted.outputs else ())}
    models = [LoggedModelInput(work.ids[old]) for old in run.inputs if work.ids[old] not in inputs]
    if datasets or models:
        work.client.log_inputs(new, models=models or None, datasets=datasets or None)
    made = [LoggedModelOutput(work.ids[old], step) for old, step in run.outputs if work.ids[old] not in outputs]
    if made:
        work.client.log_outputs(new, made)


def _store(work: _Import, prefix: str, repository: Any) -> None:
    """Write the files of a run or a model, and read each of them back."""
    opened = work.contents.archive
    for member in opened.names(prefix):
        name = member.removeprefix(prefix)
        parent, _, base = name.rpartition("/")
        with tempfile.TemporaryDirectory(prefix="adapterctl-import-") as temporary:
            path = Path(temporary) / base
            opened.copy(member, path)
            if base in _TELL_IDS and path.stat().st_size <= _LARGEST_REWRITTEN:
                _rewrite(path, work.ids)
            repository.log_artifact(str(path), parent or None)
            (Path(temporary) / "back").mkdir()
            if file_hash(manifest.fetch(repository, name, Path(temporary) / "back")) != file_hash(path):
                raise StorageError(
                    f"the registry's store gives back another {name} than was written",
                    hint=f"check the disk or the bucket of the registry; then {_AGAIN}",
                )
            work.moved.bytes += path.stat().st_size
        work.moved.files += 1


def _rewrite(path: Path, ids: Mapping[str, str]) -> None:
    text = path.read_bytes().decode("utf-8", "surrogateescape")
    text = _ID.sub(lambda match: f'"{ids.get(match[1], match[1])}"', text)
    path.write_bytes(text.encode("utf-8", "surrogateescape"))


def _make_versions(work: _Import) -> None:
    for (name, number), found in work.there.versions.items():
        if TAG_BLANK in found.tags and (name, number) not in work.contents.versions:
            work.client.delete_model_version(name, str(number))
    for name, registered in sorted(work.contents.registry.models.items()):
        tags = registered.tags | {TAG_PROJECT: work.connection.project}
        try:
            work.client.create_registered_model(name, tags=tags)
        except RegistryError as error:
            if error_code(error) != "RESOURCE_ALREADY_EXISTS":
                raise
            publishing.claim(work.connection, name)
            if TAG_KIND in tags:
                work.client.set_registered_model_tag(name, TAG_KIND, tags[TAG_KIND])
        wanted = [version for (model, _), version in sorted(work.contents.versions.items()) if model == name]
        for version in wanted:
            if _finish_begun(work, version):
                continue
            _make_version(work, version)
            work.moved.versions += 1
        if registered.description:
            text = versions.shortened_description(registered.description)
            work.client.update_registered_model(name, description=text)


def _finish_begun(work: _Import, wanted: VersionRecord) -> bool:
    """Return whether a version is there; one that an interrupted import has begun is finished, or removed."""
    there = work.there.versions.get((wanted.name, wanted.version))
    if there is None:
        return False
    if TAG_BLANK not in there.tags:
        return True
    if there.content_hash == wanted.content_hash and there.source == f"models:/{work.ids[wanted.model_id]}":
        work.client.delete_model_version_tag(wanted.name, str(wanted.version), TAG_BLANK)
        return True
    raise RegistryError(
        f"{wanted} was begun by the import of another archive",
        hint="finish that import first, or import into an empty registry",
    )


def _make_version(work: _Import, wanted: VersionRecord) -> None:
    """Make a version of the number that it had; versions that were deleted there leave the same gap here."""
    model_id = work.ids[wanted.model_id]
    tags = _tags(work, wanted.tags) | {TAG_CREATED: wanted.created}
    while True:
        with publishing.addressed(work.connection):
            made = work.client.create_model_version(
                wanted.name,
                source=f"models:/{model_id}",
                run_id=work.ids.get(wanted.run_id),
                tags={**tags, TAG_BLANK: "1"},
                description=versions.shortened_description(wanted.description),
                model_id=model_id,
            )
        number = int(made.version)
        if number == wanted.version:
            work.client.delete_model_version_tag(wanted.name, str(number), TAG_BLANK)
            return
        work.client.delete_model_version(wanted.name, str(number))
        if number > wanted.version:
            raise RegistryError(
                f"{wanted.name} had a version {number} in this registry once: {wanted} cannot have its number here",
                hint="import into an empty registry: name another in registry.uri",
            )


def _batches(values: Sequence[Any], size: int = _BATCH) -> Iterator[Sequence[Any]]:
    for start in range(0, len(values), size):
        yield values[start : start + size]
