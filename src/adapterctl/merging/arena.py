"""Memory that is used again: filling fresh pages costs more than most of the arithmetic of a merge."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from adapterctl.merging.backend import CPU
from adapterctl.merging.plan import ModulePlan

_LARGE = 1 << 22
_ALIGNED = 64
"""Bytes: libraries may add up in another order where memory is not aligned alike."""


class Arena:
    """Named buffers of one thread, each as large as its largest use so far."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, torch.dtype, torch.device], torch.Tensor] = {}

    def take(
        self, name: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device = CPU.device
    ) -> torch.Tensor:
        """Return the buffer of a name in a shape; what it holds is whatever was last written to it."""
        size = math.prod(shape)
        buffer = self._held.get((name, dtype, device))
        if buffer is None or buffer.numel() < size:
            buffer = self._held[name, dtype, device] = _fresh(size, dtype, device)
        return buffer[:size].view(shape)


def _fresh(size: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Return new memory: large pieces from numpy, which asks the system for large pages, as torch does not."""
    needed = size * dtype.itemsize
    if device.type != "cpu" or needed < _LARGE:
        return torch.empty(size, dtype=dtype, device=device)
    memory = torch.from_numpy(np.empty(needed + _ALIGNED, np.uint8))
    start = -memory.data_ptr() % _ALIGNED
    return memory[start : start + needed].view(dtype)


_local = threading.local()


def arena() -> Arena:
    """Return the calling thread's arena."""
    if not hasattr(_local, "arena"):
        _local.arena = Arena()
    found: Arena = _local.arena
    return found


@contextmanager
def released() -> Iterator[None]:
    """Give the calling thread's buffers back at the end."""
    try:
        yield
    finally:
        if hasattr(_local, "arena"):
            del _local.arena


@dataclass(frozen=True, eq=False)
class Stack:
    """The factors of one module, members side by side, without their scales.

    Attributes:
        plan: The module.
        A: ``R × in``, the members' A one below the other.
        B: ``out × R``, the members' B side by side.
    """

    plan: ModulePlan
    A: torch.Tensor
    B: torch.Tensor

    @property
    def parts_of_A(self) -> list[torch.Tensor]:
        """Each member's A, ``r × in``."""
        return [self.A[columns] for columns in self.plan.columns]

    @property
    def parts_of_B(self) -> list[torch.Tensor]:
        """Each member's B, ``out × r``."""
        return [self.B[:, columns] for columns in self.plan.columns]

    @property
    def scales(self) -> torch.Tensor:
        """The scale s of every column of B, ``R``, in float64."""
        return torch.cat(
            [torch.full((member.rank,), member.scale, dtype=torch.float64) for member in self.plan.members]
        )


def load_a(plan: ModulePlan, dtype: torch.dtype, device: torch.device = CPU.device) -> torch.Tensor:
    """Read the stacked A of a module, ``R × in``, into the thread's buffer; the next call overwrites it."""
    a = arena().take("A", (plan.total_rank, plan.width), dtype, device)
    for member, columns in zip(plan.members, plan.columns, strict=True):
        member.adapter.read_into(plan.module, "A", a[columns])
    return a


def load_b(plan: ModulePlan, dtype: torch.dtype, device: torch.device = CPU.device) -> torch.Tensor:
    """Read the stacked B of a module, ``out × R``, into the thread's buffer; the next call overwrites it."""
    b = arena().take("B", (plan.out, plan.total_rank), dtype, device)
    for member, columns in zip(plan.members, plan.columns, strict=True):
        member.adapter.read_into(plan.module, "B", b[:, columns])
    return b


def load(plan: ModulePlan, dtype: torch.dtype, device: torch.device = CPU.device) -> Stack:
    """Read the factors of a module's members into the thread's buffers; the next call overwrites them."""
    return Stack(plan, load_a(plan, dtype, device), load_b(plan, dtype, device))
