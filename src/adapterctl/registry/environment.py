"""How MLflow is loaded: silent, offline, with waiting times that fit a person at a terminal."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

# Read by MLflow at import or at every call. What the person has set already is kept.
_DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "4",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
}
_FIRST_CONTACT = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "4", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
_NOISY = ("mlflow", "alembic", "sqlalchemy.engine", "urllib3.connectionpool")


def prepare() -> None:
    """Set MLflow's environment: before it is imported and before it is used. Nothing is ever sent to its makers."""
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)


def silence() -> None:
    """Keep MLflow's log lines from the terminal: what matters in them is raised as an error anyway.

    ``MLFLOW_LOGGING_LEVEL`` brings them back.
    """
    if "MLFLOW_LOGGING_LEVEL" not in os.environ:
        for name in _NOISY:
            logging.getLogger(name).setLevel(logging.CRITICAL)


def load() -> None:
    """Import MLflow, prepared and silent. That takes seconds: only what talks to it does so."""
    prepare()
    _load()


@cache
def _load() -> None:
    import mlflow  # noqa: F401

    silence()


@contextmanager
def first_contact() -> Iterator[None]:
    """Wait only seconds inside this block, so that an address where nobody answers is reported at once."""
    before = {name: os.environ.get(name) for name in _FIRST_CONTACT}
    ours = {name: value for name, value in _FIRST_CONTACT.items() if before[name] in (None, _DEFAULTS[name])}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
