"""mergekit's ``run_merge`` on full models, as its own command line calls it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from benchmarks.merge.clock import Clock
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions


def ties(
    clock: Clock, *, base: str, models: dict[str, str], density: float, repeats: int, result: str
) -> dict[str, Any]:
    """Time a TIES merge of full models into ``result``."""
    torch.set_num_threads(1)
    config = MergeConfiguration.model_validate(
        {
            "merge_method": "ties",
            "base_model": base,
            "dtype": "bfloat16",
            "parameters": {"normalize": True},
            "models": [
                {"model": folder, "parameters": {"weight": 1.0, "density": density}}
                for _, folder in sorted(models.items())
            ],
        }
    )
    options = MergeOptions(copy_tokenizer=False, quiet=True, write_model_card=False)
    return clock.measure(
        lambda number: run_merge(config, result, options),
        before=lambda number: shutil.rmtree(Path(result), ignore_errors=True),
        repeats=repeats,
        warm=0,
    )
