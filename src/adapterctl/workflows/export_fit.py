"""A release truncated to a smaller rank, or added to its base model: merges of one adapter with itself alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapterctl.workflows.session import Session
from adapterctl.workflows.standalone import carry_out
from adapterctl.workflows.targets import Target

if TYPE_CHECKING:
    from adapterctl.merging.report import MergeReport

_ONE = "merged"


def truncate(session: Session, source: Path, rank: int, out: Path) -> MergeReport:
    """Write the adapter of a folder with at most a rank: the closest there is, module by module.

    Raises:
        AdapterError: The adapter cannot be used.
        StorageError: The disk is full, read-only or not permitted.
    """
    return _merged_alone(session, f"truncate to rank {rank}", source, Target(out), rank=rank)


def fold_in(session: Session, source: Path, base: Path, out: Path) -> MergeReport:
    """Add the adapter of a folder to the weights of its base model, and write the whole model.

    Raises:
        AdapterError: The adapter cannot be used.
        BaseModelError: The base model has no complete safetensors files.
        MergeError: The adapter does not fit the base model.
        StorageError: The disk is full, read-only or not permitted.
    """
    return _merged_alone(session, "add the release to the base model", source, Target(out, to_model=base))


def _merged_alone(session: Session, title: str, source: Path, target: Target, **keys: Any) -> MergeReport:
    from adapterctl.lora.adapter import Adapter
    from adapterctl.merging.recipe import MergeRecipe

    adapter = replace(Adapter.open(source), lang=_ONE)
    kinds = {str(adapter.dtype(name)) for name in adapter.tensor_names}
    stored = "bfloat16" if kinds == {"torch.bfloat16"} else "float32"
    recipe = MergeRecipe.model_validate(
        {"method": "linear", "lambda": 1.0, "weights": {_ONE: 1.0}, "dtype": stored, **keys}
    )
    with session.reporter.stage(title) as stage:
        return carry_out([adapter], recipe, target, progress=stage.advance)
