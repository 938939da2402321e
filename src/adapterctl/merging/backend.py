"""Where a merge computes: compiled loops on the CPU, or torch on a device.

On a device lie the stacked factors, tiles of entries and dense matrices, and every product with them; what is at most
R × R stays on the CPU in float64, where LAPACK decomposes matrices of a few hundred rows at least as fast and in the
same way for all. Results of two backends differ by rounding; each repeats its own bit for bit.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch

from adapterctl.errors import MergeError
from adapterctl.merging import kernels, kernels_torch

_DEVICE = re.compile(r"cuda(?::(\d{1,3}))?", re.ASCII)


@dataclass(frozen=True)
class Backend:
    """A device and the loops over entries for it.

    Attributes:
        device: Where factors and entries lie, with its number.
        compiled: Whether entries are numpy arrays for the compiled kernels; otherwise they are tensors.
    """

    device: torch.device
    compiled: bool

    @property
    def kernels(self) -> ModuleType:
        """The loops over entries."""
        return kernels if self.compiled else kernels_torch

    @property
    def mark(self) -> str:
        """What tells its bits from those of other backends; empty for the CPU's."""
        if self.compiled:
            return ""
        return f"torch {torch.cuda.get_device_name(self.device) if self.device.type == 'cuda' else self.device.type}"

    def entries(self, tensor: torch.Tensor) -> Any:
        """Return a tensor as its kernels take it; the memory is shared."""
        return tensor.numpy() if self.compiled else tensor

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Let products have all digits of float32, and report a lack of memory on the device.

        Raises:
            MergeError: The device has too little free memory.
        """
        if self.compiled:
            yield
            return
        # TF32 keeps 10 bits of an entry: too few to know on which side of a threshold it lies.
        matmul = torch.backends.cuda.matmul
        before = matmul.fp32_precision
        matmul.fp32_precision = "ieee"
        try:
            yield
        except RuntimeError as error:
            # Libraries of the device report it in their own words.
            if not isinstance(error, torch.OutOfMemoryError) and "ALLOC_FAILED" not in str(error):
                raise
            raise MergeError(
                f"{self.device} has too little free memory for this merge: {str(error).partition('. GPU')[0]}",
                hint="merge with fewer --threads, with --device cpu, or when nothing else uses the device",
            ) from error
        finally:
            matmul.fp32_precision = before


CPU = Backend(torch.device("cpu"), compiled=True)
"""Compiled loops on the CPU."""


def backend_of(device: str) -> Backend:
    """Return the backend for ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        MergeError: There is no such device, or torch cannot use it.
    """
    if device == "cpu":
        return CPU
    match = _DEVICE.fullmatch(device)
    if not match:
        raise MergeError(f"there is no device {device!r} to merge on", hint="give --device cpu or --device cuda")
    if not torch.cuda.is_available():
        built = torch.version.cuda or getattr(torch.version, "hip", None)
        reason = "finds no GPU it can use here" if built else "was built without CUDA"
        mend = "mend its driver: nvidia-smi or rocm-smi has to show one" if built else "install a CUDA build of torch"
        raise MergeError(
            f"cannot merge on {device}: torch {torch.__version__} {reason}", hint=f"give --device cpu, or {mend}"
        )
    number = torch.cuda.current_device() if match[1] is None else int(match[1])
    if number >= torch.cuda.device_count():
        raise MergeError(
            f"cannot merge on {device}: torch finds {torch.cuda.device_count()} GPU here, and counts from 0",
            hint="give --device cuda",
        )
    return Backend(torch.device("cuda", number), compiled=False)
