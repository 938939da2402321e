"""What MLflow, its database and the network say when something fails, in words that name the mend."""

from __future__ import annotations

import re
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from adapterctl.errors import AdapterctlError, RegistryError, StorageError
from adapterctl.files import disk_errors
from adapterctl.registry.settings import ResolvedRegistry, mask

_AWAY = (
    r"Max retries exceeded|Connection refused|NewConnectionError|NameResolutionError|[Tt]imed? ?out|timeout"
    r"|Connection aborted|RemoteDisconnected|could not connect|could not translate host|Connection reset"
    r"|server closed the connection|Can't connect to|No route to host|Network is unreachable|error code 50[234]"
)
# In this order: an SSL failure, for one, also speaks of retries. {at} is the masked address, {host} its host and port.
_SAYINGS: tuple[tuple[str, type[AdapterctlError], str, str], ...] = (
    (
        r"Invalid Host header",
        RegistryError,
        "the MLflow server at {at} refuses the host name {host} (its protection against DNS rebinding)",
        "start it with: mlflow server --allowed-hosts {host}",
    ),
    (
        r"error code 401|401 Client Error|UNAUTHENTICATED|CUSTOMER_UNAUTHORIZED|not authenticated",
        RegistryError,
        "the MLflow server at {at} asks who you are",
        "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN",
    ),
    (
        r"error code 403|403 Client Error|PERMISSION_DENIED|permission denied for",
        RegistryError,
        "the MLflow at {at} does not permit this",
        "ask its owner for the permission to write to this experiment and these models",
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED|SSLError|SSLCertVerificationError|WRONG_VERSION_NUMBER",
        RegistryError,
        "the certificate of {at} cannot be verified",
        "name the authority's file in REQUESTS_CA_BUNDLE, or check http against https in registry.uri",
    ),
    (
        r"password authentication failed|Access denied for user|no password supplied",
        RegistryError,
        "the database at {at} refuses the user name or the password",
        "check both in registry.uri",
    ),
    (
        r"database \"[^\"]*\" does not exist|Unknown database",
        RegistryError,
        "the database server at {host} has no such database as in {at}",
        "create it first (createdb NAME), or check its name in registry.uri",
    ),
    (
        r"No module named '?(psycopg|psycopg2|pymysql|MySQLdb|pyodbc|pymssql)|Can't load plugin: sqlalchemy\.dialects",
        RegistryError,
        "Python has no driver for the database of {at}",
        "install it: pip install 'psycopg[binary]' (PostgreSQL) or pip install PyMySQL (mysql+pymysql://)",
    ),
    (
        r"No module named '?(boto3|google|azure)",
        RegistryError,
        "Python has no library for the place where {at} keeps its files",
        "install it: pip install boto3 (S3), google-cloud-storage (GCS) or azure-storage-blob (Azure)",
    ),
    (
        r"unsupported URI",
        RegistryError,
        "MLflow knows no registry of the kind of {at}",
        "set registry.uri to http(s)://..., sqlite:///..., postgresql://... or mysql://..., or leave it empty",
    ),
    (
        r"database or disk is full|No space left on device",
        StorageError,
        "cannot write to the registry {at}: the disk is full",
        "free some space there, then run the same command again",
    ),
    (
        r"attempt to write a readonly database|unable to open database file|readonly database",
        StorageError,
        "cannot open the registry {at} for writing",
        "change the owner or the mode of the file and of its folder",
    ),
    (
        r"file is not a database|database disk image is malformed|file is encrypted",
        RegistryError,
        "the file of the registry {at} is damaged or not a database",
        "bring it back from a backup, or move it away to begin an empty registry",
    ),
    (
        r"database is locked|lock timeout|deadlock detected",
        RegistryError,
        "the registry {at} is kept busy by another process",
        "run the same command again",
    ),
    (
        r"out-of-date database schema",
        RegistryError,
        "the registry {at} was made by an older MLflow",
        "make a backup, then: mlflow db upgrade {at}",
    ),
    (
        r"Can't locate revision",
        RegistryError,
        "the registry {at} was made by a newer MLflow",
        "update it here: pip install --upgrade mlflow",
    ),
    (
        _AWAY,
        RegistryError,
        "no MLflow answers at {at}",
        "start it, or correct registry.uri; with registry.uri empty and MLFLOW_TRACKING_URI unset the workspace's own "
        "store is used",
    ),
    (
        r"not in a valid JSON format|error code 404|error code 405|ENDPOINT_NOT_FOUND|not a valid JSON",
        RegistryError,
        "what answers at {at} is not an MLflow server, or its path is another one",
        "check registry.uri: open it in a browser; it must show MLflow",
    ),
)


def error_code(error: BaseException) -> str:
    """Return MLflow's own code behind a translated error, or the empty text."""
    cause = error.__cause__ if isinstance(error, AdapterctlError) else error
    return str(getattr(cause, "error_code", "")) if isinstance(cause, (LocalRefusal, *_foreign("mlflow"))) else ""


class LocalRefusal(Exception):
    """What MLflow would refuse, where its tables are read without it.

    Attributes:
        error_code: MLflow's own code for it.
    """

    def __init__(self, message: str, error_code: str) -> None:
        super().__init__(message)
        self.error_code = error_code


def _foreign(*libraries: str) -> tuple[type[BaseException], ...]:
    """Return the errors of libraries; what nobody has imported has raised none."""
    errors = {"mlflow": ("mlflow.exceptions", "MlflowException"), "sqlalchemy": ("sqlalchemy.exc", "SQLAlchemyError")}
    places = [(sys.modules.get(errors[library][0]), errors[library][1]) for library in libraries]
    return tuple(getattr(module, name) for module, name in places if module is not None)


def is_away(error: BaseException) -> bool:
    """Return whether a translated error means that nobody answered, so that nothing is known about what was asked."""
    return error.__cause__ is not None and re.search(_AWAY, str(error.__cause__)) is not None


def explained(error: BaseException, resolved: ResolvedRegistry) -> AdapterctlError:
    """Return the error a person can act on for one that MLflow or a library below it raised."""
    said = mask(str(error), also=[resolved.uri]).strip()
    parts = urlsplit(resolved.uri)
    host = parts.hostname or ""
    if parts.port:
        host = f"{host}:{parts.port}"
    for pattern, kind, message, hint in _SAYINGS:
        if re.search(pattern, f"{error_code(error)} {said}"):
            known = {"at": resolved.shown, "host": host}
            return kind(message.format(**known) + f" ({resolved.origin})", hint=hint.format(**known))
    first_line = said.splitlines()[0] if said else type(error).__name__
    return RegistryError(
        f"MLflow at {resolved.shown} refuses: {first_line[:400]}",
        hint="run: adapterctl doctor; MLFLOW_LOGGING_LEVEL=DEBUG shows what MLflow says",
    )


@contextmanager
def translated(resolved: ResolvedRegistry) -> Iterator[None]:
    """Turn every failure of MLflow inside this block into a ``RegistryError`` or a ``StorageError``."""
    try:
        with disk_errors(_local_folder(resolved)):
            yield
    except AdapterctlError:
        raise
    # SQLAlchemy's are also those of a missing driver; requests' errors are OSErrors.
    except Exception as error:
        own = (LocalRefusal, sqlite3.Error, ImportError, OSError)
        if not isinstance(error, (*own, *_foreign("mlflow", "sqlalchemy"))):
            raise
        raise explained(error, resolved) from error


def _local_folder(resolved: ResolvedRegistry) -> Path:
    """Return what a person would look at when the disk refuses to write."""
    if resolved.artifact_root and resolved.artifact_root.startswith("file:"):
        return Path(unquote(urlsplit(resolved.artifact_root).path))
    return Path(resolved.shown)


class Guarded:
    """An MLflow client whose every failure is translated.

    Stands for ``mlflow.MlflowClient``: the same methods with the same arguments.
    """

    def __init__(self, client: Any, resolved: ResolvedRegistry) -> None:
        self._client = client
        self._resolved = resolved

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def call(*arguments: Any, **named: Any) -> Any:
            with translated(self._resolved):
                return method(*arguments, **named)

        return call
