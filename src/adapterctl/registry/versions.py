"""Versions of registered models: finding, describing and downloading them."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from adapterctl.errors import AdapterError, RegistryError, UsageError
from adapterctl.files import staged_folder
from adapterctl.fingerprint import file_hash
from adapterctl.registry import manifest
from adapterctl.registry.connection import Connection
from adapterctl.registry.faults import error_code, translated
from adapterctl.registry.names import TAG_CREATED, TAG_HASH, TAG_MANIFEST, TAG_MODEL, TAG_PROJECT, quoted_key

# The databases keep 5,000 characters; PostgreSQL refuses more, sqlite does not mind.
_LONGEST_DESCRIPTION = 5000
_PAGE = 1000
MOST_BYTES = 50_000_000
"""The largest JSON file that is read from the registry."""
_NOT_OURS = "adapterctl did not write it; look at it in the store, or choose another version: adapterctl history"


@dataclass(frozen=True)
class Version:
    """One published adapter: a registered model's version, immutable but for its tags and description.

    Attributes:
        name: The registered model, for example ``pocket-ja``.
        version: Its number, from 1.
        content_hash: Hash of the adapter's configuration and tensors; empty where something else registered it.
        run_id: The run that made it.
        model_id: MLflow's logged model that holds the files.
        tags: All tags.
        created: When it was registered first, ISO 8601, UTC.
        description: Markdown.
        source: MLflow's address of the files.
    """

    name: str
    version: int
    content_hash: str
    run_id: str
    model_id: str
    tags: Mapping[str, str]
    created: str
    description: str
    source: str

    def __str__(self) -> str:
        return f"{self.name} v{self.version}"


def iso(milliseconds: int) -> str:
    """Return a time of MLflow as ISO 8601 in UTC, to the second."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds")


def from_mlflow(found: Any) -> Version:
    """Return MLflow's model version as a value."""
    tags = dict(found.tags)
    source = found.source or ""
    model_id = tags.get(TAG_MODEL) or (source.removeprefix("models:/") if source.startswith("models:/m-") else "")
    return Version(
        name=found.name,
        version=int(found.version),
        content_hash=tags.get(TAG_HASH, ""),
        run_id=found.run_id or "",
        model_id=model_id,
        tags=tags,
        created=_created(tags, found.creation_timestamp),
        description=found.description or "",
        source=source,
    )


def _created(tags: Mapping[str, str], registered: int) -> str:
    """Return when a version was registered first: one that came from another registry brings its time as a tag."""
    try:
        first = datetime.fromisoformat(tags[TAG_CREATED])
        return first.astimezone(UTC).isoformat(timespec="seconds")
    except (KeyError, ValueError, OverflowError):
        return iso(registered)


def pages(search: Any, *arguments: Any, **named: Any) -> Iterator[Any]:
    """Yield everything that one of MLflow's searches finds, page by page."""
    token = None
    while True:
        page = search(*arguments, page_token=token, **named)
        yield from page
        token = page.token
        if not token:
            return


def every(connection: Connection, name: str) -> list[Version]:
    """Return all versions of a registered model, oldest first; none where there is no such model."""
    found = pages(connection.client.search_model_versions, f"name = {quoted_key(name)}", max_results=_PAGE)
    return sorted(map(from_mlflow, found), key=lambda version: version.version)


def of_project(connection: Connection) -> list[Version]:
    """Return all versions that the project has published, by name and number."""
    wanted = f"tags.`{TAG_PROJECT}` = {quoted_key(connection.project)}"
    found = pages(connection.client.search_model_versions, wanted, max_results=_PAGE)
    return sorted(map(from_mlflow, found), key=lambda version: (version.name, version.version))


def one(connection: Connection, name: str, number: int) -> Version:
    """Return one version.

    Raises:
        UsageError: There is no such version.
    """
    try:
        return from_mlflow(connection.client.get_model_version(name, str(number)))
    except RegistryError as error:
        if error_code(error) not in ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"):
            raise
    there = ", ".join(str(version.version) for version in every(connection, name)) or "none"
    raise UsageError(f"{name} has no version {number}", hint=f"its versions are: {there}")


def what_is_left(connection: Connection, version: Version) -> tuple[Any, tuple[str, ...]]:
    """Return MLflow's run of a version, None where it was removed, and what was deleted: ``run``, ``files``."""
    run, gone = None, []
    if version.run_id:
        run = _unless_gone(connection.client.get_run, version.run_id)
        if run is None or run.info.lifecycle_stage != "active":
            gone.append("run")
    if version.model_id and _unless_gone(connection.client.get_logged_model, version.model_id) is None:
        gone.append("files")
    return run, tuple(gone)


def _unless_gone(get: Any, key: str) -> Any:
    try:
        return get(key)
    except RegistryError as error:
        # What no run can be called, there is none of.
        if error_code(error) not in ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND", "INVALID_PARAMETER_VALUE"):
            raise
        return None


def by_hash(connection: Connection, name: str, content_hash: str) -> Version | None:
    """Return the oldest version of a content hash, or ``None``."""
    found = connection.client.search_model_versions(
        f"name = {quoted_key(name)} and tags.`{TAG_HASH}` = {quoted_key(content_hash)}",
        order_by=["version_number ASC"],
        max_results=1,
    )
    return from_mlflow(found[0]) if found else None


def models_of_project(connection: Connection) -> list[str]:
    """Return the names of the registered models that this project has published to, sorted."""
    found = pages(
        connection.client.search_registered_models,
        f"tags.`{TAG_PROJECT}` = {quoted_key(connection.project)}",
        max_results=_PAGE,
    )
    return sorted(model.name for model in found)


def shortened_description(markdown: str) -> str:
    """Return a description that every database takes."""
    if len(markdown) <= _LONGEST_DESCRIPTION:
        return markdown
    end = f"\n\n… (cut; the whole text has {len(markdown)} characters)"
    return markdown[: _LONGEST_DESCRIPTION - len(end)] + end


def files_of(connection: Connection, version: Version) -> Any:
    """Return MLflow's access to the files of a version.

    Raises:
        RegistryError: The version has none of adapterctl's.
    """
    if not version.model_id:
        raise RegistryError(
            f"{version} was not registered by adapterctl: it has no list of files to check a download with",
            hint="publish the adapter with adapterctl, or download it with MLflow itself: "
            f"mlflow artifacts download --artifact-uri models:/{version.name}/{version.version}",
        )
    location = connection.client.get_logged_model(version.model_id).artifact_location
    return connection.repository(location)


def download(connection: Connection, version: Version, destination: Path) -> Path:
    """Bring a version's files to ``destination``; see ``Registry.download``."""
    destination = destination.absolute()
    repository = files_of(connection, version)
    with tempfile.TemporaryDirectory() as temporary, staged_folder(destination) as staging:
        listing = manifest.fetch(repository, manifest.MANIFEST, Path(temporary)).read_text("utf-8")
        try:
            files = manifest.parse(listing, version.tags.get(TAG_MANIFEST, ""), str(version)).files
        except RegistryError as error:
            raise AdapterError(error.message, hint=error.hint, problems=error.problems) from error
        for name, digest in files.items():
            target = staging / name
            with translated(connection.resolved):
                local = manifest.fetch(repository, name, staging)
                source = local.open("rb")
            with source:
                if local != target:
                    # Here it is the disk of the destination that may be full, not the store's.
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with target.open("wb") as sink:
                        shutil.copyfileobj(source, sink, 1 << 20)
            if file_hash(target) != digest:
                raise AdapterError(
                    f"the file {name} of {version} is not the one that was published",
                    hint="check the disk or the bucket of the registry, or choose another version",
                )
    return destination


def read_json(repository: Any, path: str) -> Any:
    """Return the value of a stored JSON file.

    Raises:
        RegistryError: There is no such file, it is not JSON, or it is larger than anything of ours.
    """
    _refuse_huge(path, manifest.size(repository, path))
    with tempfile.TemporaryDirectory() as temporary:
        file = manifest.fetch(repository, path, Path(temporary))
        # Where the store did not say it before.
        _refuse_huge(path, file.stat().st_size)
        try:
            return json.loads(file.read_text("utf-8"))
        except RecursionError as error:
            raise RegistryError(f"the stored file {path} is nested too deeply", hint=_NOT_OURS) from error
        except ValueError as error:
            raise RegistryError(f"the stored file {path} is not JSON: {error}", hint=_NOT_OURS) from error


def _refuse_huge(path: str, size: int) -> None:
    if size > MOST_BYTES:
        raise RegistryError(
            f"the stored file {path} has {size / 1e6:.0f} MB; at most {MOST_BYTES / 1e6:.0f} MB are read",
            hint=_NOT_OURS,
        )
