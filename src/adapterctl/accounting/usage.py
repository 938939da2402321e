"""What a step used: seconds, tokens, operations, memory, energy, bytes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

_PEAKS = ("peak_memory_bytes", "peak_device_memory_bytes")
_UNNAMED = "accelerator"
_MOST = 1e33
"""More than anybody can use; sums and prices of it are still numbers."""
_UNSHOWABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True)
class Usage:
    """What one step, or several steps one after the other, used.

    Attributes:
        wall_seconds: Time that passed.
        cpu_seconds: Time on CPU cores, user and system, of the process and its children.
        devices: Seconds during which accelerators were held, by kind (the name that the driver gives), summed over
            the accelerators of the kind.
        tokens: Tokens that went through the model; in training, counted once an epoch.
        row_epochs: Rows times epochs that were trained on.
        steps: Optimiser steps.
        flops: Floating-point operations of the model.
        peak_memory_bytes: Most memory the process held at once.
        peak_device_memory_bytes: Most memory held at once on one accelerator.
        energy_joules: Energy as far as something told it; see the seconds that it covers.
        energy_measured: Whether all of ``energy_joules`` was read from hardware counters.
        energy_cpu_seconds: The part of ``cpu_seconds`` whose energy is in ``energy_joules``.
        energy_device_seconds: The part of ``device_seconds`` whose energy is in ``energy_joules``.
        bytes_read: Bytes that the process read from files and pipes, the system's cache included.
        bytes_written: Bytes that it wrote to them.
    """

    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    devices: Mapping[str, float] = field(default_factory=dict, hash=False)
    tokens: int = 0
    row_epochs: int = 0
    steps: int = 0
    flops: float = 0.0
    peak_memory_bytes: int = 0
    peak_device_memory_bytes: int = 0
    energy_joules: float = 0.0
    energy_measured: bool = False
    energy_cpu_seconds: float = 0.0
    energy_device_seconds: float = 0.0
    bytes_read: int = 0
    bytes_written: int = 0

    def __post_init__(self) -> None:
        """Keep a copy of ``devices``, in the order of their names."""
        object.__setattr__(self, "devices", dict(sorted(self.devices.items())))

    @property
    def device_seconds(self) -> float:
        """Seconds during which accelerators were held, summed over all of them."""
        return sum(self.devices.values(), 0.0)

    def __add__(self, other: Usage) -> Usage:
        """Return the usage of both, one after the other: times and counts add up, the higher peak stays."""
        both = (self, other)
        told = [usage.energy_measured for usage in both if usage.energy_joules]
        special = {
            "devices": dict(Counter(self.devices) + Counter(other.devices)),
            "energy_measured": bool(told) and all(told),
            **{name: max(getattr(usage, name) for usage in both) for name in _PEAKS},
        }
        names = [item.name for item in fields(self) if item.name not in special]
        return Usage(**special, **{name: getattr(self, name) + getattr(other, name) for name in names})

    def as_dict(self) -> dict[str, Any]:
        """Return every quantity by its name."""
        return {item.name: getattr(self, item.name) for item in fields(self)} | {"devices": dict(self.devices)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Usage:
        """Return the usage that ``as_dict`` described; names of other versions are passed over.

        The form in which all accelerators had one name (``device``, ``device_seconds``) is read as well.

        Raises:
            ValueError: A quantity is not a number of zero or more, or more than anybody can use.
        """
        known: dict[str, Any] = {}
        for item in fields(cls):
            if item.name == "devices" or item.name not in values:
                continue
            value = values[item.name]
            if isinstance(item.default, bool):
                if not isinstance(value, bool):
                    raise ValueError(f"usage '{item.name}' is {value!r}")
                known[item.name] = value
            else:
                number = _number(item.name, value)
                known[item.name] = int(number) if type(item.default) is int else number
        return cls(devices=_devices(values), **known)


def showable(text: str) -> str:
    """Return a text that any terminal and file takes: control characters and halves of characters become ``�``."""
    return _UNSHOWABLE.sub("\ufffd", text)


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= _MOST:
        raise ValueError(f"usage '{name}' is {value!r}"[:200])
    return value


def _devices(values: Mapping[str, Any]) -> dict[str, float]:
    """Return seconds by kind of accelerator, of this form or of the earlier one."""
    if "devices" in values:
        devices = values["devices"]
        if not isinstance(devices, Mapping) or not all(isinstance(name, str) for name in devices):
            raise ValueError(f"usage 'devices' is {devices!r}")
        return {showable(name): _number(f"devices.{name}", seconds) for name, seconds in devices.items()}
    name, seconds = values.get("device", ""), _number("device_seconds", values.get("device_seconds", 0.0))
    if not isinstance(name, str):
        raise ValueError(f"usage 'device' is {name!r}")
    return {showable(name) or _UNNAMED: seconds} if seconds else {}


def total(usages: Iterable[Usage]) -> Usage:
    """Return the usage of steps that ran one after the other."""
    result = Usage()
    for usage in usages:
        result = result + usage
    return result
