"""Where the registry is: the ``registry`` block of ``adapterctl.yaml``, and how it becomes an address."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field

from adapterctl.errors import RegistryError
from adapterctl.masking import mask as mask
from adapterctl.settings import Settings

ENVIRONMENT_VARIABLE = "MLFLOW_TRACKING_URI"
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")


@dataclass(frozen=True)
class ResolvedRegistry:
    """The address of the registry and where it comes from.

    Attributes:
        uri: MLflow's tracking URI; may hold a password, so show ``shown`` instead.
        artifact_root: URI of the folder for files where no server decides about it, else ``None``.
        origin: Who said so, in words for a person.
        experiment: Name of the MLflow experiment; ``None`` is the project's name.
        embedded: Whether this is the workspace's own store.
    """

    uri: str = field(repr=False)
    artifact_root: str | None
    origin: str
    experiment: str | None = None
    embedded: bool = False

    @property
    def shown(self) -> str:
        """The address without secrets."""
        return mask(self.uri)

    @property
    def scheme(self) -> str:
        """``http``, ``https``, ``sqlite``, ``postgresql``, ...; without the driver."""
        return urlsplit(self.uri).scheme.partition("+")[0]

    @property
    def is_server(self) -> bool:
        """Whether an MLflow server answers there."""
        return self.scheme in ("http", "https")

    @property
    def is_database(self) -> bool:
        """Whether MLflow's tables are reached directly, without a server."""
        return self.scheme in _DATABASES

    @property
    def database_file(self) -> Path | None:
        """The file of an sqlite store."""
        return Path(self.uri.removeprefix("sqlite:///")) if self.scheme == "sqlite" else None


class RegistrySettings(Settings):
    """Which MLflow holds the runs, the adapters and their versions."""

    uri: str = Field(
        default="",
        description="MLflow tracking URI. Empty: MLFLOW_TRACKING_URI where set, else a store inside the workspace.",
    )
    experiment: str | None = Field(
        default=None, description="MLflow experiment of the runs. Empty: the project's name."
    )
    artifacts: str | None = Field(
        default=None,
        description="Folder or URI for files where `uri` is a database; a server decides about it by itself.",
    )
    log_examples: bool = Field(
        default=False,
        description="Whether rows (prompts, references, answers) may be stored in the registry for reviewers. Without "
        "it only ids, hashes and scores of rows leave the workspace.",
    )

    def resolve(self, root: Path) -> ResolvedRegistry:
        """Return the address that these settings mean in the workspace at ``root``.

        Raises:
            RegistryError: The address is a folder (MLflow's file store), or one that cannot be used.
        """
        root = root.absolute()
        uri, origin, embedded = self.uri.strip(), "adapterctl.yaml: registry.uri", False
        if not uri and (uri := os.environ.get(ENVIRONMENT_VARIABLE, "").strip()):
            origin = f"environment variable {ENVIRONMENT_VARIABLE}"
        if not uri:
            uri, origin, embedded = f"sqlite:///{root}/registry/mlflow.db", "the workspace's own store", True
        _refuse_file_store(uri, origin)
        if urlsplit(uri).scheme.startswith("sqlite"):
            uri = _absolute_sqlite(uri, root, origin)
        resolved = ResolvedRegistry(uri, None, origin, self.experiment, embedded)
        if not resolved.is_database:
            return resolved
        return ResolvedRegistry(uri, self._artifact_root(root), origin, self.experiment, embedded)

    def _artifact_root(self, root: Path) -> str:
        if self.artifacts and urlsplit(self.artifacts).scheme:
            return self.artifacts.rstrip("/")
        return (root / (self.artifacts or "registry/artifacts")).as_uri()


def _refuse_file_store(uri: str, origin: str) -> None:
    scheme = urlsplit(uri).scheme
    if scheme == "file" or (not scheme and uri != "databricks"):
        raise RegistryError(
            f"the registry {mask(uri)!r} ({origin}) is a folder: MLflow's file store has no model registry",
            hint="leave registry.uri empty, or name a server (http://host:5000) or a database (sqlite:///mlflow.db); "
            "to keep old runs: mlflow migrate-filestore --source FOLDER --target sqlite:///mlflow.db",
        )


def _absolute_sqlite(uri: str, root: Path, origin: str) -> str:
    if not uri.startswith("sqlite:///") or uri.removeprefix("sqlite:///") in ("", ":memory:"):
        raise RegistryError(
            f"the registry {uri!r} ({origin}) names no file",
            hint="write sqlite:///relative/path.db or sqlite:////absolute/path.db",
        )
    path = root / uri.removeprefix("sqlite:///")
    if unusable := sorted(set(str(path)) & set("%?")):
        # SQLAlchemy decodes %41 and starts a query at "?"; MLflow makes the folder from the text as it is.
        raise RegistryError(
            f"the path {path} holds {' and '.join(unusable)}, which the address of an sqlite file cannot hold",
            hint="rename the folder, or name another file: registry.uri: sqlite:////absolute/path.db",
        )
    return f"sqlite:///{path}"
