"""Writing deltas as a standard PEFT folder."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from adapterctl.errors import AdapterError
from adapterctl.files import disk_errors, staged_folder, write_json, write_text
from adapterctl.fingerprint import canonical_json
from adapterctl.lora.adapter import CONFIG_FILE, PEFT_PREFIX, TENSOR_FILE
from adapterctl.lora.delta import LowRankDelta, raw_bytes

_STORED = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}

Factors = LowRankDelta | tuple[torch.Tensor, torch.Tensor]
"""A delta, or its ``(A, B)`` with scale 1."""


def write_adapter(
    folder: Path,
    deltas: Mapping[str, Factors],
    *,
    base_model: str | None,
    revision: str | None = None,
    dtype: torch.dtype = torch.float32,
    rank: int = 1,
    metadata: Mapping[str, str] | None = None,
    target_modules: Sequence[str] | None = None,
    task_type: str | None = "CAUSAL_LM",
    fan_in_fan_out: bool = False,
    documents: Mapping[str, str] | None = None,
) -> None:
    """Write deltas as a plain LoRA adapter with α = r, which PEFT and vLLM load as it is.

    The scale is folded into B. All modules get the rank of the largest one, the others filled up with zeros: that
    is exact, and right also for programs that do not know ``rank_pattern``. Same arguments, same bytes.

    Args:
        folder: Where the adapter appears, all at once; an existing folder is replaced.
        deltas: ΔW of every module by its path.
        base_model: The base model's path or hub id.
        revision: The base model's revision.
        dtype: What the tensors are stored in.
        rank: The least r of the adapter; it grows to the largest rank among the deltas.
        metadata: Text for the header of the tensor file.
        target_modules: How the configuration names the modules; by default their full paths.
        task_type: PEFT's task type.
        fan_in_fan_out: Whether the base model's layers store their weights transposed.
        documents: Further text files of the folder, by name.

    Raises:
        AdapterError: There is no delta, a delta holds NaN or an infinity, or ``dtype`` cannot be stored.
        StorageError: The disk is full, read-only or not permitted.
    """
    if not deltas:
        raise AdapterError("an adapter without any module cannot be written")
    if dtype not in _STORED:
        raise AdapterError(f"adapters are stored in float32, bfloat16 or float16, not {dtype}")
    factors = {module: _scaled(deltas[module]) for module in sorted(deltas)}
    rank = max(1, rank, *(a.shape[0] for a, _ in factors.values()))
    tensors: dict[str, torch.Tensor] = {}
    for module, (a, b) in factors.items():
        tensors[f"{PEFT_PREFIX}{module}.lora_A.weight"] = _padded(a, (rank, a.shape[1])).to(dtype).contiguous()
        tensors[f"{PEFT_PREFIX}{module}.lora_B.weight"] = _padded(b, (b.shape[0], rank)).to(dtype).contiguous()
    if broken := [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]:
        raise AdapterError(f"{broken[0]} holds NaN or infinite numbers ({len(broken)} tensors in all); nothing written")
    config: dict[str, object] = {
        "peft_type": "LORA",
        "task_type": task_type,
        "base_model_name_or_path": base_model,
        "revision": revision,
        "r": rank,
        "lora_alpha": rank,
        "target_modules": sorted(target_modules if target_modules is not None else factors),
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
    with staged_folder(folder) as staging:
        write_tensors(staging / TENSOR_FILE, tensors, {"format": "pt", **(metadata or {})})
        write_json(staging / CONFIG_FILE, config)
        for name, text in (documents or {}).items():
            write_text(staging / name, text)


def _scaled(delta: Factors) -> tuple[torch.Tensor, torch.Tensor]:
    return delta.scaled_factors() if isinstance(delta, LowRankDelta) else delta


def _padded(tensor: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    if tuple(tensor.shape) == shape:
        return tensor
    padded = tensor.new_zeros(shape)
    padded[: tensor.shape[0], : tensor.shape[1]] = tensor
    return padded


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file whose bytes depend on its content alone.

    The library's own writer puts the metadata in the order of a hash table, which differs from run to run. The
    format: length of the header in 8 bytes (little endian), header in JSON, tensors one after another.

    Raises:
        StorageError: The disk is full, read-only or not permitted.
    """
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    offset = 0
    for name in sorted(tensors):
        tensor = tensors[name]
        end = offset + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _STORED[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = canonical_json(header).encode("utf-8")
    text += b" " * (-len(text) % 8)
    with disk_errors(path), path.open("wb") as handle:
        handle.write(len(text).to_bytes(8, "little"))
        handle.write(text)
        for name in sorted(tensors):
            handle.write(raw_bytes(tensors[name]))


def copy_adapter(folder: Path, out: Path) -> None:
    """Copy an adapter's folder, all at once.

    Raises:
        StorageError: The disk is full, read-only or not permitted.
    """
    with staged_folder(out) as staging:
        for path in sorted(folder.iterdir()):
            shutil.copyfile(path, staging / path.name)
