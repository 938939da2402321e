"""Everything that can go wrong and be mended by the person at the keyboard.

    AdapterctlError                 1   the root; catch this one
    ├── UsageError                  2   a command that cannot run in this state (no champion, unknown language)
    ├── ConfigError                 2   adapterctl.yaml, adapters/<lang>.yaml, evaluation/suite.yaml
    ├── MergeError                  2   a recipe that cannot be carried out on these adapters
    ├── GateFailed                  3   the candidate is worse than the champion; the champion is untouched
    ├── LockHeld                    4   another adapterctl works on this workspace
    ├── RegistryError               5   MLflow cannot be reached, or answers with an error (worth a retry)
    ├── EndpointError               5   the endpoint that serves a model does not answer as it should (worth a retry)
    ├── DataError                   6   rows of examples that cannot be used
    ├── AdapterError                6   an adapter folder that cannot be used
    ├── BaseModelError              6   a base model that cannot be found or loaded
    └── StorageError                7   the disk: full, read-only, not permitted

The number is the exit code of the command line. ``0`` is success, ``1`` an error nobody foresaw.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, where it is, and what mends it.

    Attributes:
        where: The place a person can open: ``adapterctl.yaml:12`` or ``de.train.jsonl:7``; may be empty.
        message: What is wrong, in one sentence without a final full stop.
        hint: What mends it; empty where the message says so already.
    """

    where: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        mend = f" ({self.hint})" if self.hint else ""
        return f"{place}{self.message}{mend}"


class AdapterctlError(Exception):
    """Root of all errors that adapterctl raises on purpose.

    >>> try:
    ...     raise UsageError("there is no champion yet", hint="run: adapterctl setup")
    ... except AdapterctlError as error:
    ...     error.exit_code, error.hint
    (2, 'run: adapterctl setup')

    Attributes:
        message: What happened, naming the thing and the reason.
        hint: The command or key that mends it; may be empty.
        problems: Every single problem found, where there are several.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "", problems: Sequence[Problem] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.problems = tuple(problems)

    def __str__(self) -> str:
        lines = [self.message, *(f"  {problem}" for problem in self.problems)]
        if self.hint:
            lines.append(f"To mend it: {self.hint}")
        return "\n".join(lines)


class UsageError(AdapterctlError):
    """A command that cannot run in the present state of the workspace."""

    exit_code = 2


class ConfigError(AdapterctlError):
    """A configuration file that is not valid; ``problems`` lists every fault of it."""

    exit_code = 2


class MergeError(AdapterctlError):
    """A merge recipe that cannot be carried out on the given adapters."""

    exit_code = 2


class GateFailed(AdapterctlError):
    """The candidate is worse than the champion by more than the margin allows."""

    exit_code = 3


class LockHeld(AdapterctlError):
    """Another adapterctl process works on the same workspace."""

    exit_code = 4


class RegistryError(AdapterctlError):
    """The MLflow registry cannot be reached or refuses a request."""

    exit_code = 5


class EndpointError(AdapterctlError):
    """The endpoint that serves a model cannot be reached, or does not answer as its protocol says."""

    exit_code = 5


class DataError(AdapterctlError):
    """Rows of examples that cannot be used; ``problems`` names every bad line."""

    exit_code = 6


class AdapterError(AdapterctlError):
    """An adapter folder that cannot be used; ``problems`` lists every fault of it."""

    exit_code = 6


class BaseModelError(AdapterctlError):
    """A base model that cannot be found or loaded."""

    exit_code = 6


class StorageError(AdapterctlError):
    """The disk is full, read-only or not permitted."""

    exit_code = 7
