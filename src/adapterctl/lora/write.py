"""Writing deltas as a standard PEFT folder."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch

from adapterctl.errors import AdapterError
from adapterctl.files import disk_errors, staged_folder, write_json, write_text
from adapterctl.fingerprint import canonical_json
from adapterctl.lora.adapter import CONFIG_FILE, PEFT_PREFIX, TENSOR_FILE
from adapterctl.lora.delta import all_finite, raw_bytes

_STORED = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.float64: "F64"}


class AdapterWriter:
    """Writes the factors of a PEFT folder module by module, in any order and from several threads.

    The file has its full size from the beginning, and what is not written is zero: a disk that is too small is known
    before the work. The bytes depend on the content alone: tensors in the order of their names, no padding, no time.

    Args:
        folder: An existing folder, such as one of ``files.staged_folder``; the caller makes it final.
        shapes: ``(out, in)`` of every module by its path.
        rank: r of the adapter; smaller factors are filled up with zeros, which is exact, and right also for programs
            that do not know ``rank_pattern``.
        dtype: What the tensors are stored in.
        metadata: Text for the header of the tensor file.

    Raises:
        AdapterError: There is no module, or ``dtype`` cannot be stored.
        StorageError: The disk is full, read-only or not permitted.
    """

    def __init__(
        self,
        folder: Path,
        shapes: Mapping[str, tuple[int, int]],
        *,
        rank: int,
        dtype: torch.dtype = torch.float32,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        if not shapes:
            raise AdapterError("an adapter without any module cannot be written")
        if dtype not in _STORED:
            raise AdapterError(f"adapters are stored in float64, float32, bfloat16 or float16, not {dtype}")
        self.folder, self.rank, self.dtype = folder, rank, dtype
        self._modules = tuple(sorted(shapes))
        specs = {}
        for module, (out, width) in shapes.items():
            specs[_name(module, "A")] = dtype, (rank, width)
            specs[_name(module, "B")] = dtype, (out, rank)
        header, self._places, size = _layout(specs, {"format": "pt", **(metadata or {})})
        self._path = folder / TENSOR_FILE
        with disk_errors(self._path):
            self._descriptor = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_TRUNC, 0o644)
            try:
                reserve(self._descriptor, size)
                write_at(self._descriptor, memoryview(header), 0)
            except BaseException:
                os.close(self._descriptor)
                raise

    def __enter__(self) -> AdapterWriter:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def put(self, module: str, a: torch.Tensor, b: torch.Tensor) -> None:
        """Write the factors of one module: ``a`` is ``q × in``, ``b`` is ``out × q``, q at most the rank.

        Raises:
            AdapterError: A factor holds NaN or an infinity in the stored type.
            StorageError: The disk is full.
        """
        if b.shape[1] < self.rank:
            wide = b.new_zeros(b.shape[0], self.rank)
            wide[:, : b.shape[1]] = b
            b = wide
        for factor, tensor in (("A", a), ("B", b)):
            stored = tensor.to(self.dtype).contiguous()
            if not all_finite(stored):
                raise AdapterError(f"{module}: lora_{factor} would hold NaN or infinite numbers; nothing written")
            with disk_errors(self._path):
                write_at(self._descriptor, raw_bytes(stored), self._places[_name(module, factor)])

    def finish(
        self,
        *,
        base_model: str | None,
        revision: str | None = None,
        target_modules: Sequence[str] | None = None,
        task_type: str | None = "CAUSAL_LM",
        fan_in_fan_out: bool = False,
        documents: Mapping[str, str] | None = None,
    ) -> None:
        """Write what belongs beside the tensors.

        Args:
            base_model: The base model's path or hub id.
            revision: The base model's revision.
            target_modules: How the configuration names the modules; by default their full paths.
            task_type: PEFT's task type.
            fan_in_fan_out: Whether the base model's layers store their weights transposed.
            documents: Further text files of the folder, by name.

        Raises:
            StorageError: The disk is full, read-only or not permitted.
        """
        config: dict[str, object] = {
            "peft_type": "LORA",
            "task_type": task_type,
            "base_model_name_or_path": base_model,
            "revision": revision,
            "r": self.rank,
            "lora_alpha": self.rank,
            "target_modules": sorted(target_modules if target_modules is not None else self._modules),
            "rank_pattern": {},
            "alpha_pattern": {},
            "lora_dropout": 0.0,
            "bias": "none",
            "fan_in_fan_out": fan_in_fan_out,
            "inference_mode": True,
            "init_lora_weights": True,
            "modules_to_save": None,
            "use_dora": False,
            "use_rslora": False,
        }
        write_json(self.folder / CONFIG_FILE, config)
        for name, text in (documents or {}).items():
            write_text(self.folder / name, text)


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file whose bytes depend on its content alone.

    Raises:
        StorageError: The disk is full, read-only or not permitted.
    """
    with disk_errors(path), path.open("wb") as handle:
        handle.writelines(_pieces(tensors, metadata))


def tensor_bytes(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> bytes:
    """Return the bytes of a safetensors file that depend on its content alone."""
    return b"".join(_pieces(tensors, metadata))


def _pieces(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> Iterator[bytes | memoryview]:
    head, _, _ = _layout({name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}, metadata)
    yield head
    for name in sorted(tensors):
        yield raw_bytes(tensors[name])


def _name(module: str, factor: str) -> str:
    return f"{PEFT_PREFIX}{module}.lora_{factor}.weight"


def _layout(
    specs: Mapping[str, tuple[torch.dtype, tuple[int, ...]]], metadata: Mapping[str, str]
) -> tuple[bytes, dict[str, int], int]:
    """Return the head of a safetensors file, where every tensor begins in it, and its size.

    The library's own writer puts the metadata in the order of a hash table, which differs from run to run. The
    format: length of the header in 8 bytes (little endian), header in JSON, tensors one after another.
    """
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    offsets = {}
    end = 0
    for name in sorted(specs):
        dtype, shape = specs[name]
        start, end = end, end + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": _STORED[dtype], "shape": list(shape), "data_offsets": [start, end]}
        offsets[name] = start
    text = canonical_json(header).encode("utf-8")
    text += b" " * (-len(text) % 8)
    head = len(text).to_bytes(8, "little") + text
    return head, {name: len(head) + offset for name, offset in offsets.items()}, len(head) + end


def reserve(descriptor: int, size: int) -> None:
    """Give a file its full size; where the system can, with the space for it."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
    else:
        os.ftruncate(descriptor, size)


def write_at(descriptor: int, content: memoryview, position: int) -> None:
    """Write all of ``content`` from a position of an open file on."""
    done = 0
    while done < len(content):
        done += os.pwrite(descriptor, content[done:], position + done)


def copy_adapter(folder: Path, out: Path) -> None:
    """Copy an adapter's folder, all at once.

    Raises:
        StorageError: The disk is full, read-only or not permitted.
    """
    with staged_folder(out) as staging:
        for path in sorted(folder.iterdir()):
            shutil.copyfile(path, staging / path.name)
