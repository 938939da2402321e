"""What a step used: seconds, tokens, operations, memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Usage:
    """What one step, or several steps one after the other, used.

    Attributes:
        wall_seconds: Time that passed.
        cpu_seconds: Time on CPU cores, user and system, of the process and its children.
        device_seconds: Time during which accelerators were held, summed over them.
        device: Name of the accelerators, as the driver gives it; empty without any.
        tokens: Tokens that went through the model; in training, counted once an epoch.
        row_epochs: Rows times epochs that were trained on.
        steps: Optimiser steps.
        flops: Floating-point operations of the model.
        peak_memory_bytes: Most memory the process held at once.
        peak_device_memory_bytes: Most memory held at once on one accelerator.
    """

    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    device_seconds: float = 0.0
    device: str = ""
    tokens: int = 0
    row_epochs: int = 0
    steps: int = 0
    flops: float = 0.0
    peak_memory_bytes: int = 0
    peak_device_memory_bytes: int = 0

    def __add__(self, other: Usage) -> Usage:
        """Return the usage of both, one after the other: times and counts add up, the higher peak stays."""
        devices = sorted({name for usage in (self, other) for name in usage.device.split(" + ") if name})
        return Usage(
            wall_seconds=self.wall_seconds + other.wall_seconds,
            cpu_seconds=self.cpu_seconds + other.cpu_seconds,
            device_seconds=self.device_seconds + other.device_seconds,
            device=" + ".join(devices),
            tokens=self.tokens + other.tokens,
            row_epochs=self.row_epochs + other.row_epochs,
            steps=self.steps + other.steps,
            flops=self.flops + other.flops,
            peak_memory_bytes=max(self.peak_memory_bytes, other.peak_memory_bytes),
            peak_device_memory_bytes=max(self.peak_device_memory_bytes, other.peak_device_memory_bytes),
        )

    def as_dict(self) -> dict[str, Any]:
        """Return every quantity by its name."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Usage:
        """Return the usage that ``as_dict`` described; names of other versions are passed over.

        Raises:
            ValueError: A quantity is not a number of zero or more.
        """
        known: dict[str, Any] = {}
        for field in fields(cls):
            if field.name not in values:
                continue
            value = values[field.name]
            if isinstance(field.default, str):
                good = isinstance(value, str)
            else:
                good = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < float("inf")
            if not good:
                raise ValueError(f"usage '{field.name}' is {value!r}")
            known[field.name] = int(value) if type(field.default) is int else value
        return cls(**known)


def total(usages: Iterable[Usage]) -> Usage:
    """Return the usage of steps that ran one after the other."""
    result = Usage()
    for usage in usages:
        result = result + usage
    return result
