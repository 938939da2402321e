"""What an archive holds, beside what the registry holds already: everything is looked at before anything is written."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapterctl.errors import AdapterError, Problem, UsageError
from adapterctl.lora.adapter import CONFIG_FILE, TENSOR_FILE, Adapter
from adapterctl.registry import aliases, archive, manifest, versions
from adapterctl.registry.archive import Archive, damaged
from adapterctl.registry.connection import Connection
from adapterctl.registry.exporting import TAG_IMPORTED, TAG_IMPORTING
from adapterctl.registry.names import TAG_HASH, TAG_KEY, TAG_MANIFEST, TAG_PROJECT
from adapterctl.registry.records import LoggedModel, RegistryRecord, RunRecord, VersionRecord, parsed
from adapterctl.registry.versions import Version, pages

Progress = Callable[[float, float, str], None]

TAG_BLANK = "adapterctl.import_blank"
"""On a version that is being made; one that keeps it fills a gap in the numbers, and goes."""


@dataclass(frozen=True)
class Contents:
    """What an archive holds, read and checked.

    Attributes:
        archive: Where the files are.
        registry: The project, its registered models and aliases.
        runs: By the id that they had.
        models: Logged models by the id that they had.
        versions: By registered model and number.
    """

    archive: Archive
    registry: RegistryRecord
    runs: Mapping[str, RunRecord]
    models: Mapping[str, LoggedModel]
    versions: Mapping[tuple[str, int], VersionRecord]


@dataclass(frozen=True)
class There:
    """What the registry holds already of an archive.

    Attributes:
        runs: New id by old one, of the runs that are whole.
        begun: The same for runs that an interrupted import has begun.
        models: New id by old one, of the logged models that are whole.
        begun_models: The same for logged models that an interrupted import has begun.
        versions: The versions by registered model and number; those that an interrupted import has begun too.
        going_on: Whether an import was interrupted.
    """

    runs: Mapping[str, str]
    begun: Mapping[str, str]
    models: Mapping[str, str]
    begun_models: Mapping[str, str]
    versions: Mapping[tuple[str, int], Version]
    going_on: bool

    def has_all(self, contents: Contents) -> bool:
        """Return whether nothing is left to be done."""
        finished = not self.going_on and not self.begun and not self.begun_models
        return finished and set(contents.runs) <= set(self.runs) and set(contents.versions) <= set(self.versions)


def read(opened: Archive, progress: Progress | None = None) -> Contents:
    """Return what an archive holds.

    Raises:
        AdapterError: It does not hold together, or a version in it is not the adapter that it says.
    """
    registry = parsed(opened, archive.REGISTRY, RegistryRecord)
    runs = {name: parsed(opened, path, RunRecord) for name, path in _ids(opened, "runs")}
    models = {name: parsed(opened, path, LoggedModel) for name, path in _ids(opened, "models")}
    many = [parsed(opened, path, VersionRecord) for path in opened.names("versions/", ".json") if path.count("/") == 2]
    found = {(version.name, version.version): version for version in many}
    contents = Contents(opened, registry, runs, models, found)
    problems = list(_loose(contents))
    if registry.project != opened.project or len(found) != len(many):
        problems.append(Problem(archive.REGISTRY, "does not belong to the manifest, or a version is there twice"))
    if problems:
        raise damaged("it does not hold together", tuple(problems[:20]))
    for done, version in enumerate(found.values()):
        if progress is not None:
            progress(done, len(found), f"check {version}")
        _check_content(contents, version)
    return contents


def _ids(opened: Archive, kind: str) -> list[tuple[str, str]]:
    found = [(path.removeprefix(f"{kind}/").removesuffix(".json"), path) for path in opened.names(f"{kind}/", ".json")]
    return [(name, path) for name, path in found if "/" not in name]


def _loose(contents: Contents) -> Iterator[Problem]:
    """Yield what points to something that the archive does not have."""
    registry, project = contents.registry, contents.registry.project
    for (name, number), version in contents.versions.items():
        tags = version.tags
        if name not in registry.models or not name.startswith(f"{project}-"):
            yield Problem(str(version), "belongs to no registered model of the project")
        if version.model_id not in contents.models:
            yield Problem(str(version), "has no files")
        elif tags.get(TAG_HASH) != version.content_hash or tags.get(TAG_PROJECT) != project:
            yield Problem(str(version), "has other tags than its content")
        elif contents.models[version.model_id].tags.get(TAG_MANIFEST) != tags.get(TAG_MANIFEST):
            yield Problem(str(version), "is not the publication that its files are")
        if number != version.version:
            yield Problem(str(version), "has two numbers")
    for name, model in registry.models.items():
        for alias, number in model.aliases.items():
            if (name, number) not in contents.versions:
                yield Problem(name, f"the alias {alias} points to version {number}, which is not in the archive")
        if model.tags.get(TAG_PROJECT) not in (project, None):
            yield Problem(name, "belongs to another project")
    for run_id, run in contents.runs.items():
        if TAG_KEY not in run.tags:
            yield Problem(f"run {run_id}", "has no key")
        if missing := [found for found in (*run.inputs, *(o[0] for o in run.outputs)) if found not in contents.models]:
            yield Problem(f"run {run_id}", f"names models that are not in the archive: {', '.join(missing)[:200]}")


def _check_content(contents: Contents, version: VersionRecord) -> None:
    """Make sure that a version's files are those of its list, and the adapter that its content hash names."""
    opened, prefix = contents.archive, f"models/{version.model_id}/"
    with tempfile.TemporaryDirectory(prefix="adapterctl-import-") as temporary:
        folder = Path(temporary)
        listing = folder / "list"
        if f"{prefix}{manifest.MANIFEST}" not in opened.members:
            raise damaged(f"{version} has no list of files")
        opened.copy(f"{prefix}{manifest.MANIFEST}", listing)
        text, digest = listing.read_bytes().decode("utf-8", "replace"), version.tags.get(TAG_MANIFEST, "")
        listing.unlink()
        try:
            files = manifest.parse(text, digest, str(version)).files
        except Exception as error:
            raise damaged(str(error)) from error
        if missing := [name for name, sha in files.items() if opened.hashes.get(f"{prefix}{name}") != sha]:
            raise damaged(f"files of {version} are not those that were published: {', '.join(missing)[:200]}")
        for name in (CONFIG_FILE, TENSOR_FILE):
            if name not in files:
                raise damaged(f"{version} is no adapter: it has no {name}")
            opened.copy(f"{prefix}{name}", folder / name)
        try:
            content = Adapter.open(folder).content_hash
        except AdapterError as error:
            raise damaged(f"{version} is no adapter that can be used: {error.message}") from error
        if content != version.content_hash:
            raise damaged(f"{version} is another adapter than its content hash names")


def look(connection: Connection, contents: Contents) -> There:
    """Return what the registry holds already, and make sure that the rest fits to it.

    Raises:
        UsageError: The registry holds something else under the same names; nothing was written.
    """
    if contents.registry.project != connection.project:
        raise UsageError(
            f"the archive holds the project '{contents.registry.project}', and this workspace is "
            f"'{connection.project}'",
            hint="import it in a workspace of that project (project: in adapterctl.yaml)",
        )
    runs, begun, problems = _runs(connection, contents)
    models, begun_models = _models(connection, contents)
    found = {
        (name, version.version): version
        for name in contents.registry.models
        for version in versions.every(connection, name)
    }
    problems += [*_versions(contents, found), *_aliases(connection, contents)]
    if problems:
        raise UsageError(
            f"the registry {connection.resolved.shown} holds the project '{connection.project}' already, with other "
            "content; nothing was written",
            problems=problems[:20],
            hint="import into an empty registry: name another in registry.uri",
        )
    tags = connection.client.get_experiment(connection.experiment_id).tags
    return There(runs, begun, models, begun_models, found, TAG_IMPORTING in tags)


def _runs(connection: Connection, contents: Contents) -> tuple[dict[str, str], dict[str, str], list[Problem]]:
    whole: dict[str, str] = {}
    begun: dict[str, str] = {}
    problems: list[Problem] = []
    keys = {run.tags[TAG_KEY] for run in contents.runs.values()}
    for run in pages(connection.client.search_runs, [connection.experiment_id], max_results=1000):
        run_id, tags = run.info.run_id, run.data.tags
        old, unfinished = _origin(run_id, tags, contents.runs)
        if old is None:
            if tags.get(TAG_KEY) in keys:
                problems.append(Problem(f"run {run.info.run_name}", "was made here too, by the same step"))
        elif unfinished:
            begun[old] = run_id
        else:
            whole[old] = run_id
    return whole, begun, problems


def _origin(own: str, tags: Mapping[str, str], known: Mapping[str, Any]) -> tuple[str | None, bool]:
    """Return the id that a run or a logged model had in the archive, and whether it is not whole yet."""
    for old, unfinished in ((tags.get(TAG_IMPORTING), True), (tags.get(TAG_IMPORTED), False), (own, False)):
        if old in known:
            return old, unfinished
    return None, False


def _models(connection: Connection, contents: Contents) -> tuple[dict[str, str], dict[str, str]]:
    whole: dict[str, str] = {}
    begun: dict[str, str] = {}
    for model in pages(connection.client.search_logged_models, [connection.experiment_id], max_results=1000):
        old, unfinished = _origin(model.model_id, model.tags, contents.models)
        if old is not None and str(model.status) != "FAILED":
            (begun if unfinished else whole)[old] = model.model_id
    return whole, begun


def _versions(contents: Contents, found: Mapping[tuple[str, int], Version]) -> Iterator[Problem]:
    for (name, number), wanted in sorted(contents.versions.items()):
        there = found.get((name, number))
        later = [
            other
            for (model, other), version in found.items()
            if model == name and other > number and TAG_BLANK not in version.tags
        ]
        if there is not None and there.content_hash != wanted.content_hash and TAG_BLANK not in there.tags:
            yield Problem(str(wanted), "is another adapter here")
        elif there is None and later:
            yield Problem(str(wanted), f"is not here, and {name} has version {min(later)} already")


def _aliases(connection: Connection, contents: Contents) -> Iterator[Problem]:
    for name, model in contents.registry.models.items():
        pointing = aliases.every(connection, name)
        for alias, number in sorted(model.aliases.items()):
            if pointing.get(alias, number) != number:
                yield Problem(name, f"{alias} is version {pointing[alias]} here, and version {number} in the archive")
