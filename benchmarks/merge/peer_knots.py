"""The KnOTS reference (github.com/gstoica27/KnOTS): its own classes on one module, from factors to a dense ΔW."""

from __future__ import annotations

import sys
from collections import OrderedDict
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import tqdm.auto  # noqa: F401 - the reference imports it: part of its imports, not of its memory
from benchmarks.merge.clock import Clock
from safetensors.torch import save_file

from adapterctl.lora.adapter import Adapter


class Factors(torch.nn.Module):
    """What the reference's LoRAHandler reads of a model: one module's A and B, with the scale in B."""

    def __init__(self, adapter: Adapter, module: str) -> None:
        super().__init__()
        delta = adapter.delta(module)
        self._tensors = {"proj.lora_A.default.weight": delta.A, "proj.lora_B.default.weight": delta.scale * delta.B}

    def state_dict(self) -> OrderedDict[str, torch.Tensor]:  # type: ignore[override]
        return OrderedDict(self._tensors)


def knots_ties(
    clock: Clock, *, checkout: str, folders: dict[str, str], density: float, repeats: int, result: str
) -> dict[str, Any]:
    """Time SVD, mask, merge and reconstruction; the merged ΔW of the last run is left in ``result``."""
    torch.set_num_threads(1)
    # The checkout's own `utils` imports what evaluating vision models takes; the merger asks it for two functions.
    utils: Any = ModuleType("utils")
    sys.path.insert(0, checkout)
    import masking_ops  # type: ignore[import-not-found]
    import merging_functions  # type: ignore[import-not-found]

    utils.get_mask_fn = {"ties": masking_ops.ties_masking, "tv": masking_ops.tv_masking}.__getitem__
    utils.get_merging_fn = {
        "ties": merging_functions.ties_merging,
        "tv": merging_functions.tv_merging,
    }.__getitem__
    sys.modules["utils"] = utils
    import ft_handlers  # type: ignore[import-not-found]
    import task_merger  # type: ignore[import-not-found]

    adapters = [Adapter.open(Path(folder), lang) for lang, folder in sorted(folders.items())]
    (module,) = adapters[0].modules
    models = [Factors(adapter, module) for adapter in adapters]
    merger = task_merger.SVDMerger(models, torch.nn.Module(), ft_handlers.LoRAHandler, device="cpu")
    merged: dict[str, torch.Tensor] = {}

    def run(number: int) -> None:
        deltas = [handler.get_ft_parameters() for handler in merger.ftms_params]
        basis, scales, coordinates, _ = merger.apply_svd(merger.directions_to_matrices(deltas))
        vectors = merger.representation_helper.directions_to_reps(coordinates)
        masks = utils.get_mask_fn("ties")(vectors, topK=density)
        kept = torch.vstack(vectors).clone() * masks
        kept = merger.representation_helper.rep_to_state_dict(kept, coordinates[0])
        kept = torch.stack(merger.representation_helper.directions_to_reps(merger.apply_Ss_on_Vs(kept, scales)))
        mean = masking_ops.masked_merge(merge_func="mean", vectors=kept, weights=merger.scaling_coeffs)
        mean = merger.representation_helper.rep_to_state_dict(mean, coordinates[0])
        merged.update(merger.reconstruct_merged_sd(basis, mean))

    figures = clock.measure(run, repeats=repeats, warm=0)
    (dense,) = merged.values()
    save_file({"dense": dense.detach().contiguous()}, result)
    return figures
