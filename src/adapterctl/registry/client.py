"""The registry as the workflows see it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from adapterctl.registry import aliases, books, publishing, runs, sweeping, versions
from adapterctl.registry.aliases import ANYTHING
from adapterctl.registry.connection import Connection, connect
from adapterctl.registry.lease import Lease, queue
from adapterctl.registry.runs import RunHandle
from adapterctl.registry.settings import ResolvedRegistry
from adapterctl.registry.sweeping import Leftover
from adapterctl.registry.versions import Version

__all__ = ["Leftover", "Registry", "RunHandle", "Version"]


class Registry:
    """The runs, adapters, versions and aliases of one project.

    Every method raises ``RegistryError`` when MLflow cannot be reached or refuses, and ``StorageError`` when the disk
    does.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lease: Lease | None = None
        self.told: Callable[[str], None] | None = None
        """Is told, once each time, whom ``exclusive`` and ``publish`` wait for."""

    @classmethod
    def connect(cls, resolved: ResolvedRegistry, project: str) -> Registry:
        """Open the registry of a project; the embedded store is made where it is missing.

        An address where nobody answers is reported within seconds.

        Raises:
            RegistryError: Nobody answers there, or who answers refuses.
            StorageError: The embedded store cannot be written.
        """
        return cls(connect(resolved, project))

    @classmethod
    def for_reading(cls, resolved: ResolvedRegistry, project: str) -> Registry:
        """Open the registry for a command that changes nothing: where it can be read without MLflow, that is quicker.

        Raises:
            RegistryError: Nobody answers there, or who answers refuses.
            StorageError: The embedded store cannot be written.
        """
        from adapterctl.registry.local import connect_local

        return cls(connect_local(resolved, project) or connect(resolved, project))

    @property
    def connection(self) -> Connection:
        """The open connection, for the registry's own modules."""
        return self._connection

    @property
    def resolved(self) -> ResolvedRegistry:
        """The address."""
        return self._connection.resolved

    @property
    def project(self) -> str:
        """The project's name."""
        return self._connection.project

    @property
    def experiment_id(self) -> str:
        """MLflow's id of the experiment that holds the runs."""
        return self._connection.experiment_id

    @contextmanager
    def exclusive(self, command: str, *, wait: bool = False) -> Iterator[None]:
        """Be the only one, on all machines, who publishes and moves aliases of the project inside this block.

        Who is inside already stays so.

        Args:
            command: What is to be done, for whoever finds the lock held.
            wait: Wait until it is free; ``told`` hears whom we wait for.

        Raises:
            LockHeld: Somebody else holds the lock, and nobody wants to wait.
        """
        if self._lease is not None:
            yield
            return
        lease = Lease(self._connection, command)
        lease.acquire(wait=wait, told=self.told)
        self._lease = lease
        try:
            yield
        finally:
            self._lease = None
            lease.release()

    def locked_by(self) -> list[str]:
        """Return who stands in the queue for ``exclusive``, the holder first, in words."""
        return [place.told for place in queue(self._connection)]

    def _require_lease(self) -> None:
        if self._lease is not None:
            self._lease.require()

    def run(
        self, key: str, name: str, *, parent: RunHandle | None = None, tags: Mapping[str, str] | None = None
    ) -> AbstractContextManager[RunHandle]:
        """Open the run of ``key``: an earlier attempt's is opened again, else one is made.

        A block that ends well leaves it FINISHED, an exception FAILED with the reason as a tag, Ctrl-C KILLED. MLflow's
        global active run is neither used nor changed.

        Args:
            key: What the step is, for example a content hash of everything that goes in.
            name: Its name in the user interface.
            parent: The run below which it is shown.
            tags: More to note.
        """
        return runs.open_run(self._connection, key, name, parent, tags or {})

    def publish(
        self,
        name: str,
        folder: Path,
        *,
        content_hash: str,
        run: RunHandle,
        model_type: str,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, Any] | None = None,
        description: str = "",
        inputs: Sequence[Version] = (),
        metrics: Mapping[str, float] | None = None,
        lineage: Mapping[str, Any] | None = None,
    ) -> Version:
        """Register a PEFT folder as a version, exactly once for a content hash.

        The files are written, read back and compared before anything points to them; a kill at any point leaves a state
        from which the same call finishes. Where the hash is registered already, its version is returned and nothing is
        written.

        Args:
            name: The registered model.
            folder: A PEFT folder; all of its files are stored as they are.
            content_hash: The adapter's hash, by which the version is found again.
            run: The run that made it.
            model_type: ``lora-adapter``, ``merged-adapter``, ...
            params: The settings it was made with.
            tags: Go to the version and to the logged model.
            description: Markdown for the reviewer.
            inputs: The versions that it was made from.
            metrics: Noted on the run and on the logged model.
            lineage: What else it was made from, as plain values: ``base``, ``datasets``, ``recipe``.

        Raises:
            AdapterError: The folder is missing or empty, or holds what cannot be stored.
        """
        wanted = publishing.Publication(
            name,
            folder,
            content_hash,
            model_type,
            params or {},
            tags or {},
            description,
            tuple(inputs),
            metrics or {},
            lineage or {},
        )
        with self.exclusive(f"publish {name}", wait=True):
            return publishing.publish(self._connection, run, wanted)

    def names(self) -> list[str]:
        """Return the registered models of the project, sorted."""
        return versions.models_of_project(self._connection)

    def versions(self, name: str) -> list[Version]:
        """Return all versions of a registered model, oldest first; none where there is no such model."""
        return versions.every(self._connection, name)

    def all_versions(self) -> list[Version]:
        """Return all versions that the project has published, of all its registered models."""
        return versions.of_project(self._connection)

    def version(self, name: str, number: int) -> Version:
        """Return one version.

        Raises:
            UsageError: There is no such version.
        """
        return versions.one(self._connection, name, number)

    def what_is_left(self, version: Version) -> tuple[Any, tuple[str, ...]]:
        """Return MLflow's run of a version, None where it was removed, and what was deleted: ``run``, ``files``."""
        return versions.what_is_left(self._connection, version)

    def version_by_hash(self, name: str, content_hash: str) -> Version | None:
        """Return the version of a content hash, or ``None``."""
        return versions.by_hash(self._connection, name, content_hash)

    def aliases(self, name: str) -> dict[str, int]:
        """Return the aliases of a registered model with their versions."""
        return aliases.every(self._connection, name)

    def set_alias(self, name: str, alias: str, version: Version | int, *, expected: int | None = ANYTHING) -> None:
        """Let ``alias`` point to a version; nothing happens where it does so already.

        MLflow has no compare-and-set: who comes last wins. So this is done inside ``exclusive``, the old value is
        compared right before the move, and the alias is read again after it.

        Args:
            name: The registered model.
            alias: Which.
            version: Where it is to point.
            expected: What it has to point to before, None for nothing.

        Raises:
            UsageError: There is no such version.
            LockHeld: Somebody else moved the alias; nothing was overwritten.
        """
        number = version.version if isinstance(version, Version) else version
        self._require_lease()
        aliases.set_alias(self._connection, name, alias, number, expected)

    def require_alias(self, name: str, alias: str, expected: int | None) -> None:
        """Make sure that an alias points where it is expected to, None for nowhere.

        Raises:
            LockHeld: Somebody else moved it.
        """
        aliases.require(self._connection, name, alias, expected)

    def drop_alias(self, name: str, alias: str) -> None:
        """Remove an alias; nothing happens where it is not set."""
        self._require_lease()
        aliases.drop_alias(self._connection, name, alias)

    def require_whole(self, version: Version) -> None:
        """Read and hash every file of a version again, and make sure that it is what was published.

        Raises:
            AdapterError: It is not.
            RegistryError: The registry cannot be reached.
        """
        # Reads tensors; who only looks at the registry need not wait for torch.
        from adapterctl.registry import verifying

        verifying.require(self._connection, version)

    def set_version_tags(self, version: Version, tags: Mapping[str, Any]) -> None:
        """Set tags of a version; values that are there already are not written again."""
        for key, value in tags.items():
            if version.tags.get(key) != str(value):
                self._connection.client.set_model_version_tag(version.name, str(version.version), key, str(value))

    def set_description(self, version: Version, markdown: str) -> None:
        """Set a version's description, cut to the 5,000 characters that every database takes."""
        text = versions.shortened_description(markdown)
        self._connection.client.update_model_version(version.name, str(version.version), description=text)

    def set_model_description(self, name: str, markdown: str) -> None:
        """Set the description of a registered model: the first thing a reviewer reads there."""
        text = versions.shortened_description(markdown)
        self._connection.client.update_registered_model(name, description=text)

    def download(self, version: Version, destination: Path) -> Path:
        """Bring a version's folder to ``destination``, which appears complete and checked, or not at all.

        Names that the registry gives are not trusted as paths, and every file is compared with the hash noted when it
        was published.

        Raises:
            AdapterError: A file is not the published one, or a name leads out of the folder.
            RegistryError: A file is missing, or the registry cannot be reached.
            StorageError: The disk is full, read-only or not permitted.
        """
        return versions.download(self._connection, version, destination)

    def read_json(self, place: Version | RunHandle | str, path: str) -> Any:
        """Return a JSON file of a version (``adapterctl/lineage.json``) or of a run (a handle or a run id).

        Raises:
            RegistryError: There is no such file, or it is not JSON.
        """
        if isinstance(place, Version):
            repository = versions.files_of(self._connection, place)
        else:
            run_id = place.run_id if isinstance(place, RunHandle) else place
            repository = self._connection.repository(self._connection.client.get_run(run_id).info.artifact_uri)
        return versions.read_json(repository, path)

    def artifacts_of(self, run_id: str) -> str:
        """Return where the files of a run lie: a folder for the embedded store, else an address."""
        uri: str = self._connection.client.get_run(run_id).info.artifact_uri
        return url2pathname(urlsplit(uri).path) if uri.startswith("file:") else uri

    def leftovers(self, older_than: float = 0.0) -> list[Leftover]:
        """Return what killed processes left: runs that say RUNNING, logged models that say PENDING.

        Runs of living processes on this machine are not among them; whether one on another machine lives cannot be
        known, so look at ``host`` and ``age_seconds``.

        Args:
            older_than: Seconds since it was started.
        """
        return sweeping.leftovers(self._connection, older_than)

    def sweep(self, found: Iterable[Leftover]) -> None:
        """Mark the runs among ``found`` as KILLED and the logged models as FAILED and deleted.

        Nothing is lost: the next attempt opens the run again and writes the adapter anew.
        """
        sweeping.sweep(self._connection, found)

    def read_books(self) -> tuple[list[dict[str, Any]], list[str]]:
        """Return the entries of the books in all runs, and one sentence for every tag that holds none."""
        return books.read(self._connection)

    def write_books(
        self,
        *,
        key: str,
        name: str,
        command: str,
        status: str,
        started: int,
        ended: int,
        entries: Sequence[Mapping[str, Any]],
        own: bool,
        summary: Callable[[Iterable[Mapping[str, Any]]], Mapping[str, float]],
    ) -> None:
        """Add entries of the books to the run of ``key``; those that are there already stay as they are.

        A run that is there already keeps its status, unless it is the books' own. The call may be killed at any point
        and repeated.

        Args:
            key: By which the run is found.
            name: Of the run, where it is not there yet.
            command: The command, noted as a tag where the run is not there yet.
            status: Of the run, where it is not there yet or is the books' own.
            started: When the work began, in milliseconds since 1970.
            ended: When it ended.
            entries: Plain values, each with an ``id`` and a ``process``.
            own: Whether the run holds nothing but the books.
            summary: Makes metrics of all entries of the run.
        """
        page = books.Page(key, name, command, status, started, ended, entries, own)
        books.write(self._connection, page, summary)
