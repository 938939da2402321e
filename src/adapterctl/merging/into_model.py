"""Merging into the base model: PEFT folders and a full model in, a full model out, one tensor at a time."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from adapterctl.errors import BaseModelError, MergeError, Problem
from adapterctl.files import staged_folder, write_json, write_text
from adapterctl.fingerprint import fingerprint
from adapterctl.lora.adapter import Adapter
from adapterctl.lora.compatibility import require_compatible
from adapterctl.lora.delta import all_finite, raw_bytes
from adapterctl.merging.arena import arena
from adapterctl.merging.backend import backend_of
from adapterctl.merging.cache import FactorCache
from adapterctl.merging.card import CARD_FILE, model_card
from adapterctl.merging.engine import carried_out, hashes_of, key_of, measured, numbers_checked, report_of
from adapterctl.merging.factorise import Factored
from adapterctl.merging.model_writer import ModelWriter
from adapterctl.merging.passes import Passes
from adapterctl.merging.plan import ModulePlan, Plan, make_plan, overlap
from adapterctl.merging.recipe import MergeRecipe
from adapterctl.merging.report import REPORT_FILE, MergeReport
from adapterctl.merging.shards import FullModel
from adapterctl.merging.targets import find_targets
from adapterctl.merging.workers import Progress, default_threads, workers

_TILE = 1 << 17
"""Entries that are added at once: a tile of weights and one of ΔW fit in the second-level cache."""


def merge_into_model(
    adapters: Sequence[Adapter],
    recipe: MergeRecipe,
    base: Path,
    out: Path,
    *,
    scale: float | None = None,
    progress: Progress | None = None,
    threads: int | None = None,
    device: str = "cpu",
    cache: FactorCache | None = None,
) -> MergeReport:
    """Merge adapters into their base model and write the full model, all at once, with report and model card in it.

    Every ``<module>.weight`` becomes W + ΔW, added in the recipe's precision and rounded once to the type that W is
    stored in; ΔW has its full rank whatever the method. All other tensors, the headers, the order and the division
    into files stay as they are, byte for byte. Nothing is unpickled or run. In memory are, for each worker, tiles of
    one tensor, and ΔW of one module for methods that judge its entries; the model never is.

    Args:
        adapters: One for each language, each with its ``lang``.
        recipe: How to merge. Its ``rank`` and ``dtype`` are those of an adapter and do not matter here; a rank that is
            a number is refused.
        base: Folder of the base model with safetensors files, in full precision.
        out: Where the merged model appears; an existing folder is replaced.
        scale: λ where the recipe says ``auto``; 1 where it is not given either.
        progress: Called with the number of steps done and the number to do: one a module and pass, one a copied piece.
        threads: Workers; by default one for each processor at hand, at most eight.
        device: ``cpu``, ``cuda`` or ``cuda:N``, where ΔW is computed; it is added on the CPU.
        cache: Where inner products and thresholds of earlier merges are found and kept.

    Raises:
        AdapterError: The adapters cannot be used together; with every problem of each.
        BaseModelError: The base model cannot be read, or has no complete safetensors files.
        MergeError: The recipe cannot be carried out on these adapters, or the base model does not fit them.
        StorageError: The disk is full, read-only or not permitted.
    """
    started = time.perf_counter()
    backend = backend_of(device)
    threads = threads or default_threads()
    require_compatible(adapters, missing=recipe.missing, numbers=False)
    plan = make_plan(adapters, recipe, out, scale, backend)
    _require_sense(recipe, base, out)
    model = FullModel.open(base)
    turned = bool(adapters[0].config.get("fan_in_fan_out"))
    targets = find_targets(plan, model, turned=turned)
    hashes = hashes_of(adapters, cache, threads)
    key = fingerprint({"merge": key_of(adapters, plan.resolved, hashes, device), "base": model.identity})
    with (
        numbers_checked(adapters, recipe),
        staged_folder(out) as staging,
        ModelWriter(model, staging, targets.values()) as writer,
    ):
        pieces = writer.untouched
        with workers(threads, progress, Passes.steps(plan) + len(pieces)) as crew:
            adding = _Adding(writer, model, targets, turned=turned)
            merged, norms, reused = carried_out(plan, hashes, crew, adding.write, cache, divided=False)
            crew.map(writer.copy, pieces)
        model.require_unchanged()
        model.copy_documents(staging)
        report = report_of(plan, out, key, hashes, merged, norms)
        rank = max(module.rank_out for module in report.modules)
        report = measured(replace(report, rank=rank, vllm_rank=None), started, threads, device, reused)
        write_json(staging / REPORT_FILE, report.as_document({"base_model": model.identity}))
        write_text(staging / CARD_FILE, _card(plan, report))
    return report


def _require_sense(recipe: MergeRecipe, base: Path, out: Path) -> None:
    problems = []
    if overlap(out, base):
        message = "the result would replace the base model, or lie inside it"
        problems.append(Problem(str(out), message, "choose another folder"))
    if isinstance(recipe.rank, int):
        message = f"rank {recipe.rank} is one of an adapter; ΔW is added to a model at its full rank"
        problems.append(Problem("rank", message, "leave rank out, or merge into an adapter"))
    if problems:
        raise MergeError("the merge into the model cannot be carried out", problems=problems)


def _card(plan: Plan, report: MergeReport) -> str:
    first = plan.adapters[0]
    return model_card(report, first.base_model, first.revision, full_model=True)


class _Adding:
    """Adds ΔW to weights, tile by tile; W is read from the base whenever it is, so that a module may come twice."""

    def __init__(self, writer: ModelWriter, model: FullModel, targets: Mapping[str, str], *, turned: bool) -> None:
        self._writer, self._model, self._targets, self._turned = writer, model, targets, turned

    def write(self, module: ModulePlan, factored: Factored) -> None:
        """Write W + ΔW of one module."""
        name = self._targets[module.module]
        if not factored.rank or not module.factor:
            self._writer.copy_tensor(name)
            return
        entry = self._model.entry(name)
        delta = _Delta(factored, turned=self._turned)
        exact = torch.promote_types(entry.dtype, delta.dtype)
        count, width = entry.shape
        step = max(1, _TILE // width)
        for first in range(0, count, step):
            rows = slice(first, min(first + step, count))
            shape, begin = (rows.stop - first, width), first * width * entry.dtype.itemsize
            stored = arena().take("stored weights", shape, entry.dtype)
            self._writer.read(name, begin, raw_bytes(stored))
            total = stored
            if entry.dtype != exact:
                total = arena().take("weights", shape, exact)
                total.copy_(stored)
            total += delta.rows(rows)
            if entry.dtype != exact:
                stored.copy_(total)
            if not all_finite(stored):
                raise self._not_finite(name, module)
            self._writer.write(name, begin, raw_bytes(stored))

    def _not_finite(self, name: str, module: ModulePlan) -> BaseModelError | MergeError:
        shard = self._model.shards[self._model.where[name]]
        if bad := shard.count_not_finite(name):
            return BaseModelError(f"{shard.path}: {name} holds {bad} NaN or infinite numbers", hint="use another base")
        return MergeError(
            f"{module.module}: W + ΔW holds numbers that {self._model.entry(name).dtype} does not; nothing written",
            hint="choose a smaller λ, or a base model in bfloat16 or float32",
        )


class _Delta:
    """ΔW as the weight of a layer is stored: ``out × in``, or transposed."""

    def __init__(self, factored: Factored, *, turned: bool) -> None:
        self._whole = factored.whole
        if self._whole is None:
            self._left, self._right = factored.B, factored.A
            if turned:
                self._left, self._right = factored.A.T, factored.B.T
        elif turned:
            self._whole = self._whole.T

    @property
    def dtype(self) -> torch.dtype:
        return self._left.dtype if self._whole is None else self._whole.dtype

    def rows(self, rows: slice) -> torch.Tensor:
        """Return some rows, in the memory of the CPU; the next call may overwrite them."""
        if self._whole is not None:
            return self._whole[rows].cpu()
        left, shape = self._left, (rows.stop - rows.start, self._right.shape[1])
        out = arena().take("delta rows", shape, left.dtype, left.device)
        return torch.mm(left[rows], self._right, out=out).cpu()
