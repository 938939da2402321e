"""Whether what lies in the registry's store is what was published: every file is read and hashed again."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adapterctl.errors import AdapterError, Problem, RegistryError
from adapterctl.fingerprint import file_hash
from adapterctl.lora.adapter import CONFIG_FILE, TENSOR_FILE, Adapter
from adapterctl.registry import aliases, manifest, stored, versions
from adapterctl.registry.connection import Connection
from adapterctl.registry.faults import error_code
from adapterctl.registry.names import TAG_HASH, TAG_MANIFEST
from adapterctl.registry.versions import Version

Progress = Callable[[float, float, str], None]

GONE = ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND")
"""What MLflow says about a thing that is not there."""
_AGAIN = "restore the files from a backup, or make the adapter again and let the aliases point to another version"
_NOTES = (manifest.MANIFEST, manifest.LINEAGE)
# One that differs only in files beside the adapter: what is served is intact, but it is not what was published.
_PARTS = (CONFIG_FILE, TENSOR_FILE)


@dataclass(frozen=True)
class Fault:
    """One thing that is not as it was published.

    Attributes:
        name: The registered model.
        version: The version; None for what belongs to the model, such as an alias.
        kind: ``missing``, ``changed``, ``extra``, ``list``, ``unlisted``, ``unfinished``, ``gone``, ``content``,
            ``alias``.
        message: What is wrong, in one sentence without a final full stop.
        hint: What mends it.
    """

    name: str
    version: int | None
    kind: str
    message: str
    hint: str = _AGAIN

    @property
    def where(self) -> str:
        """The place, as a person writes it."""
        return self.name if self.version is None else f"{self.name} v{self.version}"


@dataclass
class Verification:
    """What came of looking.

    Attributes:
        versions: How many versions were read.
        files: How many files of theirs.
        bytes: How much that was.
        faults: What is wrong.
        foreign: Versions that something else than adapterctl has registered: nothing says what they should be.
    """

    versions: int = 0
    files: int = 0
    bytes: int = 0
    faults: list[Fault] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)


def verify(
    connection: Connection,
    names: Iterable[str],
    *,
    only: Mapping[str, Iterable[int]] | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Read every file of every version again, and look where the aliases point.

    Args:
        connection: The open registry.
        names: The registered models.
        only: The versions to read of each model; all of them when not given.
        progress: Is told how far it is.

    Raises:
        RegistryError: The registry or its store cannot be reached: that says nothing about the files.
    """
    found, wanted = Verification(), []
    for name in names:
        there = versions.every(connection, name)
        found.faults += dangling(name, aliases.every(connection, name), [version.version for version in there])
        chosen = None if only is None else set(only.get(name, ()))
        wanted += [version for version in there if chosen is None or version.version in chosen]
    for done, version in enumerate(wanted):
        if progress is not None:
            progress(done, len(wanted), str(version))
        if TAG_HASH not in version.tags and not version.model_id:
            found.foreign.append(str(version))
            continue
        found.versions += 1
        _check(connection, version, found)
    return found


def dangling(name: str, pointing: Mapping[str, int], there: Iterable[int]) -> list[Fault]:
    """Return the aliases of a registered model that point to versions that it does not have."""
    known = set(there)
    return [
        Fault(
            name,
            None,
            "alias",
            f"the alias {alias} points to version {number}, which is not there",
            "adapterctl doctor --fix removes it",
        )
        for alias, number in sorted(pointing.items())
        if number not in known
    ]


def _check(connection: Connection, version: Version, found: Verification) -> None:
    def fault(kind: str, message: str, hint: str = _AGAIN) -> None:
        found.faults.append(Fault(version.name, version.version, kind, message, hint))

    model = _logged_model(connection, version)
    if model is None:
        fault("gone", "its files are gone: MLflow has no logged model of it any more")
        return
    if str(model.status) != "READY":
        fault("unfinished", f"its logged model is {model.status}: it was registered before all files were there")
    repository = connection.repository(model.artifact_location)
    try:
        sizes = stored.files(repository)
    except RegistryError as error:
        if not _ours(error):
            raise
        fault("list", f"its folder cannot be read: {error.message}")
        return
    listed = _listed(repository, version, sizes, fault)
    if listed is None:
        return
    for name in sorted(set(sizes) - set(listed) - set(_NOTES)):
        fault("extra", f"the file {name!r} was not published with it", "remove it: it is never downloaded")
    with tempfile.TemporaryDirectory(prefix="adapterctl-verify-") as temporary:
        folder = Path(temporary)
        whole = True
        for name, digest in listed.items():
            whole = _file(repository, name, digest, name in sizes, folder, fault, found) and whole
        if whole and set(_PARTS) <= set(listed):
            _content(repository, version, folder, fault)


def _logged_model(connection: Connection, version: Version) -> Any:
    """Return MLflow's logged model of a version; None where it was deleted or never was."""
    if not version.model_id:
        return None
    try:
        return connection.client.get_logged_model(version.model_id)
    except RegistryError as error:
        if error_code(error) in GONE:
            return None
        raise


def _listed(
    repository: Any, version: Version, sizes: Mapping[str, int], fault: Callable[..., None]
) -> Mapping[str, str] | None:
    """Return the hashes that the version's own list names, None where it cannot be trusted."""
    digest = version.tags.get(TAG_MANIFEST, "")
    if not digest:
        fault("unlisted", f"its tag {TAG_MANIFEST} is missing: nothing says which files it should have")
        return None
    if manifest.MANIFEST not in sizes:
        fault("missing", f"the file {manifest.MANIFEST} is missing")
        return None
    with tempfile.TemporaryDirectory(prefix="adapterctl-verify-") as temporary:
        try:
            with stored.copy(repository, manifest.MANIFEST, Path(temporary)) as path:
                return manifest.parse(path.read_bytes().decode("utf-8", "replace"), digest, str(version)).files
        except RegistryError as error:
            if not _ours(error):
                raise
            fault("list", error.message)
            return None


def _ours(error: RegistryError) -> bool:
    """Return whether an error is about what lies in the store, and not about reaching it."""
    links_elsewhere = error_code(error) == "INVALID_PARAMETER_VALUE"
    return error.__cause__ is None or isinstance(error.__cause__, ValueError) or links_elsewhere


def _file(
    repository: Any,
    name: str,
    digest: str,
    there: bool,
    folder: Path,
    fault: Callable[..., None],
    found: Verification,
) -> bool:
    """Read one file; return whether it is the published one."""
    if not there:
        fault("missing", f"the file {name} is missing")
        return False
    try:
        path = manifest.fetch(repository, name, folder)
    except RegistryError as error:
        if not _ours(error):
            raise
        fault("changed", f"the file {name} is a link, or leads out of its folder")
        return False
    found.files += 1
    found.bytes += path.stat().st_size
    same = file_hash(path) == digest
    if not same:
        fault("changed", f"the file {name} is not the one that was published")
    if name not in _PARTS and path.is_relative_to(folder):
        # A model's folder may be large: only what the content hash is made of is read once more.
        path.unlink()
    return same


def _content(repository: Any, version: Version, folder: Path, fault: Callable[..., None]) -> None:
    """Compare the hash of configuration and tensors with the version's tag, by which everything else names it."""
    local = repository.get_local_path(CONFIG_FILE)
    try:
        content = Adapter.open(Path(local).parent if local else folder).content_hash
    except AdapterError as error:
        fault("content", f"its files are no adapter that can be used: {error.message}")
        return
    if content != version.content_hash:
        fault("content", f"it holds another adapter than its tag {TAG_HASH} names")


def require(connection: Connection, version: Version) -> None:
    """Make sure that a version is what was published; see ``Registry.require_whole``."""
    only = {version.name: [version.version]}
    # What lies beside it is never downloaded; aliases are somebody else's question.
    harmless = ("extra", "alias")
    faults = [fault for fault in verify(connection, [version.name], only=only).faults if fault.kind not in harmless]
    if faults:
        raise AdapterError(
            f"{version} is not what was published: nothing may point to it",
            problems=[Problem(fault.where, fault.message, fault.hint) for fault in faults],
            hint="choose another version (adapterctl history); all are checked by: adapterctl registry verify",
        )
