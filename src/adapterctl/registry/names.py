"""What things are called in the registry: registered models, aliases and tags."""

from __future__ import annotations

import re

from adapterctl.errors import ConfigError

CANDIDATE = "candidate"
"""The version that waits for the gate or for a person."""
CHAMPION = "champion"
"""The version that is served."""
PREVIOUS = "previous"
"""The version that was served before; what a rollback returns to."""
ALIASES = (CANDIDATE, CHAMPION, PREVIOUS)
PINNED = "pinned"
"""The version of a language's adapter that every merge takes, until somebody takes the alias away."""

TAG_KEY = "adapterctl.key"
TAG_PROJECT = "adapterctl.project"
TAG_KIND = "adapterctl.kind"
TAG_HASH = "adapterctl.content_hash"
TAG_MANIFEST = "adapterctl.manifest_sha256"
TAG_MODEL = "adapterctl.model_id"
TAG_INPUTS = "adapterctl.inputs"
TAG_ERROR = "adapterctl.error"
TAG_CREATED = "adapterctl.created"
TAG_HOST = "adapterctl.host"
TAG_PROCESS = "adapterctl.process"
TAG_COMMAND = "adapterctl.command"
TAG_BOOKS = "adapterctl.books"

# MLflow forbids "/" and ":" in names of registered models; a quote would end the string of a search filter.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_KEY = re.compile(r"[A-Za-z0-9._:/@+=,-]{1,240}")


def model_name(project: str, suffix: str) -> str:
    """Return the registered model's name ``<project>-<suffix>``.

    Raises:
        ConfigError: A part holds anything but letters, digits, ``.``, ``_`` and ``-``.
    """
    for what, part in (("project", project), ("language", suffix)):
        if not _NAME.fullmatch(part):
            raise ConfigError(
                f"the {what} {part!r} cannot be a part of a name in the registry",
                hint="use letters, digits, '.', '_' and '-' only, beginning with a letter or a digit",
            )
    return f"{project}-{suffix}"


def adapter_name(project: str, lang: str) -> str:
    """Return the registered model that holds one language's adapters."""
    return model_name(project, lang)


def merged_name(project: str) -> str:
    """Return the registered model that holds the merged adapters."""
    return model_name(project, "merged")


def combined_name(project: str) -> str:
    """Return the registered model that holds the combined retrain-all adapters (COMB)."""
    return model_name(project, "combined")


def quoted_key(value: str) -> str:
    """Return ``value`` as a string of MLflow's search filter.

    Raises:
        ValueError: It holds a character that is not allowed in the key of a run or in a content hash.
    """
    if not _KEY.fullmatch(value):
        raise ValueError(f"{value!r} cannot be a key: use letters, digits and . _ : / @ + = , -")
    return f"'{value}'"
