"""Random PEFT folders, written with the safetensors library and nothing of adapterctl."""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

SHAPES: dict[str, tuple[int, int]] = {
    "model.layers.0.self_attn.q_proj": (12, 12),
    "model.layers.0.self_attn.k_proj": (6, 12),
    "model.layers.0.mlp.down_proj": (12, 20),
    "model.layers.1.self_attn.q_proj": (12, 12),
    "model.layers.1.self_attn.k_proj": (6, 12),
    "model.layers.1.mlp.down_proj": (12, 20),
}
"""Modules of a tiny Llama as ``(out, in)``; k_proj is narrow, as with grouped-query attention."""


def shared_folder() -> Path:
    """Return the folder with reference data beside the repository, or where ADAPTERCTL_SHARED says."""
    named = os.environ.get("ADAPTERCTL_SHARED")
    return Path(named) if named else Path(__file__).parents[2].parent / "shared"


def make_adapter(
    folder: Path,
    *,
    seed: int = 0,
    rank: int = 2,
    alpha: float = 3,
    shapes: Mapping[str, tuple[int, int]] = SHAPES,
    ranks: Mapping[str, int] | None = None,
    dtype: torch.dtype = torch.float32,
    base_model: str | None = "tiny-base",
    metadata: Mapping[str, str] | None = None,
    **config: Any,
) -> Path:
    """Write one random adapter as PEFT would; ``alpha`` differs from ``rank`` on purpose.

    Args:
        folder: Where it is written.
        seed: Seed of its numbers.
        rank: ``r`` of the configuration.
        alpha: ``lora_alpha`` of the configuration.
        shapes: ``(out, in)`` of every module.
        ranks: The rank of modules that do not have ``rank``; pass a matching ``rank_pattern`` as well.
        dtype: What the tensors are stored in.
        base_model: What the configuration calls the base model.
        metadata: Text for the header of the tensor file.
        config: Further keys of ``adapter_config.json``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, torch.Tensor] = {}
    for module, (out, width) in shapes.items():
        numbers = torch.Generator().manual_seed(seed * 7919 + zlib.crc32(module.encode()) % 100_003)
        r = (ranks or {}).get(module, rank)
        tensors[f"base_model.model.{module}.lora_A.weight"] = torch.randn(r, width, generator=numbers).to(dtype)
        tensors[f"base_model.model.{module}.lora_B.weight"] = torch.randn(out, r, generator=numbers).to(dtype)
    save_file(tensors, folder / "adapter_model.safetensors", metadata=dict(metadata or {"format": "pt"}))
    write_config(
        folder,
        {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": base_model,
            "r": rank,
            "lora_alpha": alpha,
            "target_modules": sorted({module.rsplit(".", 1)[-1] for module in shapes}),
            "bias": "none",
            **config,
        },
    )
    return folder


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")


def change_config(folder: Path, **changes: Any) -> None:
    """Replace keys of an adapter's configuration."""
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    write_config(folder, {**config, **changes})


def make_family(folder: Path, languages: Iterable[str] = ("de", "ja", "zh"), **options: Any) -> dict[str, Path]:
    """Write one random adapter for each language, each with its own seed and α."""
    return {
        lang: make_adapter(folder / lang, **{"seed": index + 1, "alpha": 3 + index, **options})
        for index, lang in enumerate(sorted(languages))
    }


def dense_deltas(folder: Path, scale: float | None = None) -> dict[str, torch.Tensor]:
    """Return ΔW of every module in float64, read with the safetensors library; ``scale`` defaults to α/r."""
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    factor = config["lora_alpha"] / config["r"] if scale is None else scale
    tensors = load_file(folder / "adapter_model.safetensors")
    return {
        name.removeprefix("base_model.model.").removesuffix(".lora_A.weight"): factor
        * (tensors[name.replace("lora_A", "lora_B")].double() @ tensors[name].double())
        for name in tensors
        if name.endswith("lora_A.weight")
    }


def scale_and_rank(config: Mapping[str, Any], module: str) -> tuple[float, int]:
    """Return the factor on BA and r of a module, by PEFT's rules: the first key that matches the end of its path."""

    def of(pattern: str, default: float) -> float:
        found = [value for key, value in config.get(pattern, {}).items() if re.match(rf"(.*\.)?({key})$", module)]
        return float(found[0]) if found else default

    rank = int(of("rank_pattern", config["r"]))
    alpha = of("alpha_pattern", config["lora_alpha"])
    return alpha / (rank**0.5 if config.get("use_rslora") else rank), rank


def read_factors(folder: Path) -> dict[str, tuple[torch.Tensor, torch.Tensor, float]]:
    """Return B, A (float64) and the scale of every module, read with the safetensors library."""
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    tensors = load_file(folder / "adapter_model.safetensors")
    return {
        (module := name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")): (
            tensors[name.replace("lora_A", "lora_B")].double(),
            tensors[name].double(),
            scale_and_rank(config, module)[0],
        )
        for name in sorted(tensors)
        if name.endswith("lora_A.weight")
    }


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return ‖found - expected‖ / ‖expected‖ in the Frobenius norm, with 0/0 = 0."""
    size = float(torch.linalg.norm(expected))
    error = float(torch.linalg.norm(found.double() - expected.double()))
    return error / size if size else error
