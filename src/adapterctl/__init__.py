"""Maintenance toolkit for per-language LoRA adapters.

>>> from adapterctl import Workspace
>>> Workspace.open(".").update("ja")  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from adapterctl._version import __version__

if TYPE_CHECKING:
    from adapterctl.api import Workspace, merge
    from adapterctl.errors import (
        AdapterctlError,
        AdapterError,
        BaseModelError,
        ConfigError,
        DataError,
        EndpointError,
        GateFailed,
        LockHeld,
        MergeError,
        Problem,
        RegistryError,
        StorageError,
        UsageError,
    )

__all__ = [
    "AdapterError",
    "AdapterctlError",
    "BaseModelError",
    "ConfigError",
    "DataError",
    "EndpointError",
    "GateFailed",
    "LockHeld",
    "MergeError",
    "Problem",
    "RegistryError",
    "StorageError",
    "UsageError",
    "Workspace",
    "__version__",
    "merge",
]

_HOMES = {"Workspace": "adapterctl.api", "merge": "adapterctl.api"}
"""Where a name lives; the others are errors. All are imported when they are asked for: importing adapterctl is free."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'adapterctl' has no attribute '{name}'")
    value = getattr(import_module(_HOMES.get(name, "adapterctl.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
