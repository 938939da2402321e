"""Base models of a few small tensors, written with the safetensors library, and merging into them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from adapterctl.merging.into_model import merge_into_model
from adapterctl.merging.recipe import MergeRecipe
from adapterctl.merging.report import MergeReport
from tests.support.adapters import SHAPES
from tests.support.merging import opened

METADATA = {"format": "pt", "note": "written by nobody"}


def others() -> dict[str, torch.Tensor]:
    """Return tensors that no adapter changes, with bits that arithmetic would not keep."""
    odd = torch.tensor([-0.0, float("nan"), float("inf"), 1e-42, 3.0])
    return {
        "model.embed_tokens.weight": torch.arange(36, dtype=torch.float32).reshape(3, 12).bfloat16(),
        "model.layers.0.input_layernorm.weight": odd,
        "model.layers.0.self_attn.q_proj.bias": torch.ones(12, dtype=torch.float16),
        "model.rotary.positions": torch.arange(5),
        "nothing": torch.zeros(0, 4),
        "one": torch.tensor(7, dtype=torch.uint8),
    }


def weights(
    shapes: Mapping[str, tuple[int, int]] = SHAPES, dtype: torch.dtype = torch.float32, seed: int = 11
) -> dict[str, torch.Tensor]:
    """Return a random weight for every module."""
    numbers = torch.Generator().manual_seed(seed)
    return {
        f"{module}.weight": torch.randn(out, width, generator=numbers, dtype=torch.float64).to(dtype)
        for module, (out, width) in shapes.items()
    }


def write_base(folder: Path, tensors: Mapping[str, torch.Tensor], *, shards: int = 1, **config: Any) -> Path:
    """Write a model: one file, or several of which each holds every n-th tensor, and their index."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", **config}), encoding="utf-8")
    names = list(tensors)
    if shards == 1:
        save_file(dict(tensors), folder / "model.safetensors", metadata=METADATA)
        return folder
    where = {}
    for number in range(shards):
        file = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        held = names[number::shards]
        save_file({name: tensors[name] for name in held}, folder / file, metadata=METADATA)
        where |= dict.fromkeys(held, file)
    index = {"metadata": {"total_size": 0}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return folder


def read_model(folder: Path) -> dict[str, torch.Tensor]:
    """Return every tensor of a model's files."""
    tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            tensors |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return tensors


def raw(tensor: torch.Tensor) -> bytes:
    """Return the bytes of a tensor."""
    return bytes(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())


def header(path: Path) -> bytes:
    """Return the header of a safetensors file, and the length before it."""
    content = path.read_bytes()
    return content[: 8 + int.from_bytes(content[:8], "little")]


def merged(
    folders: dict[str, Path], base: Path, out: Path, *, threads: int = 1, scale: float | None = None, **keys: Any
) -> MergeReport:
    """Merge adapters into a model."""
    recipe = MergeRecipe.model_validate(keys)
    return merge_into_model(opened(folders), recipe, base, out, threads=threads, scale=scale)
