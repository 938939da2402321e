"""Opening and merging adapters in tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from adapterctl.lora.adapter import Adapter
from adapterctl.merging.engine import merge
from adapterctl.merging.recipe import MergeRecipe
from tests.support.adapters import dense_deltas


def opened(folders: dict[str, Path]) -> list[Adapter]:
    return [Adapter.open(folder, lang) for lang, folder in folders.items()]


def run(adapters: list[Adapter], out: Path, *, scale: float | None = None, **keys: Any) -> dict[str, torch.Tensor]:
    """Merge at full rank and return ΔW of every module."""
    merge(adapters, MergeRecipe.model_validate({"rank": "full", **keys}), out, scale=scale)
    return dense_deltas(out)
