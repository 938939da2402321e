"""Aliases: the names candidate, champion and previous that point to a version each."""

from __future__ import annotations

import random
import time

from adapterctl.errors import LockHeld, RegistryError, UsageError
from adapterctl.registry.connection import Connection
from adapterctl.registry.faults import error_code

_ATTEMPTS = 6
# MLflow answers these when two processes set an alias for the first time at once; the second attempt finds it there.
_RACES = ("BAD_REQUEST", "TEMPORARILY_UNAVAILABLE", "INTERNAL_ERROR")


def every(connection: Connection, name: str) -> dict[str, int]:
    """Return the aliases of a registered model; none where there is no such model."""
    try:
        found = connection.client.get_registered_model(name)
    except RegistryError as error:
        if error_code(error) in ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"):
            return {}
        raise
    # A server gives the numbers as text, a database as integers.
    return {str(alias): int(version) for alias, version in sorted(found.aliases.items())}


ANYTHING = -1
"""What an alias is expected to point at by who does not mind."""


def set_alias(connection: Connection, name: str, alias: str, version: int, expected: int | None = ANYTHING) -> None:
    """Let ``alias`` point to ``version``; see ``Registry.set_alias``."""
    for attempt in range(_ATTEMPTS):
        before = every(connection, name).get(alias)
        if before == version:
            return
        if expected != ANYTHING:
            _compare(name, alias, before, expected)
        try:
            connection.client.set_registered_model_alias(name, alias, str(version))
            break
        except RegistryError as error:
            if error_code(error) in ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"):
                raise UsageError(f"{name} has no version {version}", hint="run: adapterctl history") from error
            if error_code(error) not in _RACES or attempt == _ATTEMPTS - 1:
                raise
            # Only how long to wait: no result depends on it.
            time.sleep(random.uniform(0.02, 0.1) * 2**attempt)
    now = every(connection, name).get(alias)
    if now != version:
        raise _lost(name, alias, now, f"to be moved to version {version}")


def _named(version: int | None) -> str:
    return "nothing" if version is None else f"version {version}"


def _lost(name: str, alias: str, now: int | None, wanted: str) -> LockHeld:
    return LockHeld(
        f"somebody else moved {alias} of {name}: it points to {_named(now)} and was expected {wanted}; nothing was "
        "overwritten",
        hint="look at it with: adapterctl status; then decide, and run the command again",
    )


def require(connection: Connection, name: str, alias: str, expected: int | None) -> None:
    """Make sure that ``alias`` points to ``expected``; see ``Registry.require_alias``."""
    _compare(name, alias, every(connection, name).get(alias), expected)


def _compare(name: str, alias: str, now: int | None, expected: int | None) -> None:
    if now != expected:
        raise _lost(name, alias, now, f"to point to {_named(expected)}")


def drop_alias(connection: Connection, name: str, alias: str) -> None:
    """Remove an alias; nothing happens where it is not set."""
    if alias in every(connection, name):
        connection.client.delete_registered_model_alias(name, alias)
