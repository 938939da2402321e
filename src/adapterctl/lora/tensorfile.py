"""A safetensors file that is read piece by piece, and never mapped into memory.

A mapped file counts as memory of the process as soon as it has been looked at, and a mapped file that somebody
shortens ends the process. Reading at a position does neither, and needs no lock between threads.
"""

from __future__ import annotations

import os
import re
import threading
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from adapterctl.errors import AdapterError
from adapterctl.lora.untrusted import identity_of, open_regular, parse_json, shown

LARGEST_HEADER = 1 << 25
"""Bytes of a header that are still read: 32 MiB hold the names of more than a hundred thousand tensors."""

_PIECE = 1 << 20
_TOO_MANY = 1 << 62
_PICKLE = re.compile(rb"\x80[\x02-\x05]|PK\x03\x04")
"""How a pickle of protocol 2 to 5 begins, or the archive that torch puts one into."""
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
NUMBERS = frozenset({torch.float64, torch.float32, torch.float16, torch.bfloat16})
"""What the numbers of an adapter may be stored in."""

_buffers = threading.local()


@dataclass(frozen=True)
class Entry:
    """Where one tensor lies.

    Attributes:
        dtype: What its numbers are stored in.
        shape: Its shape.
        begin: Its first byte in the file.
        size: How many bytes it has.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    size: int


class TensorFile:
    """A safetensors file: names, types and shapes at once, numbers when they are asked for.

    The file may be reached through a symbolic link, as those of a hub cache are. Its header is checked twice: by the
    safetensors library and here, since the library takes the last of two entries of one name. It may be read by
    several threads at once, and is closed when the object goes.

    Args:
        path: The file.

    Raises:
        FileNotFoundError: There is none.
        AdapterError: It is not a file, cannot be read, or is not a complete safetensors file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._descriptor, status = open_regular(path)
        except FileNotFoundError:
            raise
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise AdapterError(f"cannot read {path}: {reason}", hint="copy or train the adapter again") from None
        weakref.finalize(self, os.close, self._descriptor)
        self.identity = identity_of(status)
        try:
            self.entries, self.metadata = self._header(status.st_size)
            with safe_open(path, framework="np"):
                pass
        except (SafetensorError, ValueError, RecursionError, OverflowError) as error:
            raise self._not_safetensors(error) from None
        except OSError as error:
            raise AdapterError(f"cannot read {path}: {error.strerror or error}") from error

    def _not_safetensors(self, error: Exception) -> AdapterError:
        # Only now: the length that a safetensors file begins with can look like the start of a pickle.
        if _PICKLE.match(os.pread(self._descriptor, 4, 0)):
            return AdapterError(
                f"{self.path} is a pickle with another name; it is never loaded, because a pickle can run code",
                hint="save the adapter again with safe_serialization=True",
            )
        return AdapterError(
            f"{self.path} is not a complete safetensors file: {shown(str(error))}",
            hint="copy or train the adapter again",
        )

    def _header(self, size: int) -> tuple[dict[str, Entry], dict[str, str]]:
        start = os.pread(self._descriptor, 8, 0)
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > size - 8:
            raise ValueError(f"it has {size} bytes, fewer than its header is said to have")
        if length > LARGEST_HEADER:
            raise ValueError(f"its header has {length} bytes, more than the {LARGEST_HEADER} that are read")
        header = parse_json(os.pread(self._descriptor, length, 8))
        if not isinstance(header, dict):
            raise ValueError("its header is not a JSON object")
        metadata = header.pop("__metadata__", None) or {}
        if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
            raise ValueError("the metadata in its header are not text")
        entries = {name: _entry(name, fields, 8 + length) for name, fields in header.items()}
        end = 8 + length
        for name, entry in sorted(entries.items(), key=lambda item: (item[1].begin, item[1].size)):
            if entry.begin != end:
                raise ValueError(f"{name} does not begin where the tensor before it ends")
            end += entry.size
        if end != size:
            raise ValueError(f"its tensors end at byte {end}, the file at byte {size}")
        return entries, metadata

    def read(self, name: str) -> torch.Tensor:
        """Return one tensor as it is stored.

        Raises:
            AdapterError: There is no such tensor, or the file cannot be read.
        """
        entry = self.entry(name)
        tensor = torch.empty(entry.shape, dtype=entry.dtype)
        if entry.size:
            self.fill(_bytes_of(tensor), entry.begin)
        return tensor

    def read_into(self, name: str, out: torch.Tensor) -> None:
        """Read one tensor into ``out``, whose type its numbers take; no other memory grows with the tensor.

        Args:
            name: Of float64, float32, float16 or bfloat16 numbers.
            out: Of the same shape, on any device, contiguous or not.

        Raises:
            AdapterError: There is no such tensor of numbers, or the file cannot be read.
            ValueError: ``out`` has another shape.
        """
        entry = self.entry(name)
        if entry.dtype not in NUMBERS:
            raise AdapterError(f"{self.path}: {shown(name)} holds {entry.dtype}, not floating-point numbers")
        if tuple(out.shape) != entry.shape:
            raise ValueError(f"{name} has the shape {entry.shape}, not {tuple(out.shape)}")
        if not entry.size:
            return
        out = out.detach()
        if out.dtype == entry.dtype and out.is_contiguous() and out.device.type == "cpu":
            self.fill(_bytes_of(out), entry.begin)
            return
        rows = out if out.ndim else out.reshape(1)
        width = entry.size // rows.shape[0]
        step = max(1, _PIECE // width)
        for first in range(0, rows.shape[0], step):
            piece = rows[first : first + step]
            raw = _buffer(piece.shape[0] * width)
            self.fill(_bytes_of(raw), entry.begin + first * width)
            piece.copy_(raw.view(entry.dtype).view(piece.shape))

    def pieces(self, name: str) -> Iterator[memoryview]:
        """Give the bytes of one tensor, a piece at a time, each overwritten by the next read of the same thread.

        Raises:
            AdapterError: There is no such tensor, or the file cannot be read.
        """
        entry = self.entry(name)
        for first in range(0, entry.size, _PIECE):
            piece = _bytes_of(_buffer(min(_PIECE, entry.size - first)))
            self.fill(piece, entry.begin + first)
            yield piece

    def count_not_finite(self, name: str) -> int:
        """Return how many of a tensor's floating-point numbers are NaN or infinite; it is read piece by piece.

        Raises:
            AdapterError: There is no such tensor, or the file cannot be read.
        """
        dtype = self.entry(name).dtype
        return sum(_not_finite(torch.frombuffer(piece, dtype=dtype)) for piece in self.pieces(name))

    def changed(self) -> bool:
        """Tell whether the file has been written to since it was opened."""
        _, _, size, modified, _ = identity_of(os.fstat(self._descriptor))
        return (size, modified) != (self.identity[2], self.identity[3])

    def entry(self, name: str) -> Entry:
        """Return where a tensor lies, and its type and shape.

        Raises:
            AdapterError: There is no such tensor.
        """
        try:
            return self.entries[name]
        except KeyError:
            raise AdapterError(f"{self.path} has no tensor {shown(name)}") from None

    def fileno(self) -> int:
        """Return the file's descriptor, for those who let the kernel copy from it."""
        return self._descriptor

    def fill(self, target: memoryview, position: int) -> None:
        """Read as many bytes as ``target`` has, from a position of the file on.

        Raises:
            AdapterError: The file cannot be read, or ends before.
        """
        done = 0
        try:
            while done < len(target):
                got = os.preadv(self._descriptor, [target[done:]], position + done)
                if not got:
                    raise AdapterError(f"{self.path} has become shorter", hint="copy the adapter again")
                done += got
        except OSError as error:
            raise AdapterError(f"cannot read {self.path}: {error.strerror or error}") from error


def _not_finite(piece: torch.Tensor) -> int:
    # One pass without a copy: NaN wins over every number, and an infinity is the least or the largest.
    low, high = torch.aminmax(piece)
    if torch.isfinite(low) and torch.isfinite(high):
        return 0
    return int(piece.numel() - torch.isfinite(piece).sum().item())


def _entry(name: str, fields: Any, start: int) -> Entry:
    """Return what a header says about one tensor; the numbers of the file begin at byte ``start``."""
    if not isinstance(fields, dict) or set(fields) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{name} is not described by dtype, shape and data_offsets")
    shape, offsets = fields["shape"], fields["data_offsets"]
    if fields["dtype"] not in _DTYPES:
        raise ValueError(f"{name} is stored in {fields['dtype']!r}, which is not known")
    if not _whole_numbers(shape) or not _whole_numbers(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ValueError(f"{name} has the shape {shape!r} and the offsets {offsets!r}")
    dtype = _DTYPES[fields["dtype"]]
    size = dtype.itemsize
    for dimension in shape:
        size *= max(dimension, 1)
        if size >= _TOO_MANY:
            raise ValueError(f"{name} has the shape {shape!r}, which no memory holds")
    size = 0 if 0 in shape else size
    if size != offsets[1] - offsets[0]:
        raise ValueError(f"{name} of shape {shape!r} does not have {offsets[1] - offsets[0]} bytes")
    return Entry(dtype, tuple(shape), start + offsets[0], size)


def _whole_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _bytes_of(tensor: torch.Tensor) -> memoryview:
    flat: Any = tensor.reshape(-1).view(torch.uint8).numpy()
    return memoryview(flat)


def _buffer(size: int) -> torch.Tensor:
    """Return the first ``size`` bytes of this thread's buffer, which the next call overwrites."""
    held: torch.Tensor | None = getattr(_buffers, "bytes", None)
    if held is None or held.numel() < size:
        held = _buffers.bytes = torch.empty(max(size, _PIECE), dtype=torch.uint8)
    return held[:size]
