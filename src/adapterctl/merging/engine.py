"""The merge engine: PEFT folders in, one PEFT folder out, module by module, without the base model."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from adapterctl.fingerprint import canonical_json, fingerprint
from adapterctl.lora.adapter import Adapter
from adapterctl.lora.compatibility import require_compatible
from adapterctl.lora.write import write_adapter
from adapterctl.merging import operators, spaces
from adapterctl.merging.plan import Plan, make_plan
from adapterctl.merging.recipe import MergeRecipe
from adapterctl.merging.report import REPORT_FILE, MergeReport, ModuleReport

ENGINE_VERSION = 1
"""Part of the key of every result: raised when the same inputs would give other numbers."""

_SPACES = {"knots": spaces.knots, "core": spaces.core, "dense": spaces.dense}
_WHOLE_MODULE = {"sum": operators.weighted_sum, "tsv": operators.tsv, "iso": operators.isotropic}
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_SELECTION_KEYS = ("exclude_modules", "layers_to_transform", "layers_pattern")

Progress = Callable[[int, int], None]


def merge_key(adapters: Sequence[Adapter], recipe: MergeRecipe, scale: float | None = None) -> str:
    """Return the content hash under which the result of a merge may be kept and found again.

    It covers the inputs' content, the base model they name, the recipe with λ as a number, and the engine's version;
    the provenance that ``merge`` is given is not part of it.

    Raises:
        AdapterError: The tensors of an adapter cannot be read.
    """
    languages = [adapter.lang or "" for adapter in adapters]
    return fingerprint(
        {
            "engine": ENGINE_VERSION,
            "recipe": recipe.resolved(languages, scale),
            "base": sorted({canonical_json([adapter.base_model, adapter.revision]) for adapter in adapters}),
            "adapters": sorted([adapter.lang or "", adapter.content_hash] for adapter in adapters),
        }
    )


def merge(
    adapters: Sequence[Adapter],
    recipe: MergeRecipe,
    out: Path,
    *,
    scale: float | None = None,
    progress: Progress | None = None,
    provenance: Mapping[str, str] | None = None,
) -> MergeReport:
    """Merge adapters into one and write it as a PEFT folder, all at once, with ``merge_report.json`` in it.

    The result depends on the adapters' content and the recipe alone, not on the order of the arguments. It is
    computed in float64, and at most one module is in memory as a dense matrix.

    Args:
        adapters: One for each language, each with its ``lang``.
        recipe: How to merge.
        out: Where the merged adapter appears; an existing folder is replaced.
        scale: λ where the recipe says ``auto``; 1 where it is not given either.
        progress: Called with the number of modules done and the number to do, over all passes.
        provenance: Text to record in the report and in the header of the tensor file.

    Raises:
        AdapterError: The adapters cannot be used together; with every problem of each.
        MergeError: The recipe cannot be carried out on these adapters.
        StorageError: The disk is full, read-only or not permitted.
    """
    started = time.perf_counter()
    plan = make_plan(adapters, recipe, out, scale)
    require_compatible(adapters)
    with _one_thread():
        return _carry_out(plan, adapters, out, progress, provenance or {}, started)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute in one thread: sums in another order would give other last digits, and so other bytes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _carry_out(
    plan: Plan,
    adapters: Sequence[Adapter],
    out: Path,
    progress: Progress | None,
    provenance: Mapping[str, str],
    started: float,
) -> MergeReport:
    """Compute every module, then write folder and report."""
    dtype = _DTYPES[plan.recipe.dtype]
    stored: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    modules = []
    energy = lost = 0.0
    for module, factored in _merged_modules(plan, progress):
        stored[module] = factored.A.to(dtype), (plan.scale * factored.B).to(dtype)
        energy, lost = energy + factored.energy, lost + factored.lost
        modules.append(
            ModuleReport(
                module,
                {
                    lang: adapter.shape(module)[0][0]
                    for lang, adapter in zip(plan.languages, plan.adapters, strict=True)
                },
                factored.A.shape[0],
                _share_kept(factored.energy, factored.lost),
                abs(plan.scale) * (factored.energy - factored.lost) ** 0.5,
            )
        )
    ordered = sorted(adapters, key=lambda adapter: adapter.lang or "")
    norms = {adapter.lang or "": _norm(adapter) for adapter in ordered}
    unscaled, mean = (energy - lost) ** 0.5, sum(norms.values()) / len(norms)
    report = MergeReport(
        folder=out,
        key=merge_key(adapters, plan.recipe, plan.scale),
        method=plan.recipe.method,
        recipe=plan.recipe.resolved(list(norms), plan.scale),
        scale=plan.scale,
        inputs={adapter.lang or "": adapter.content_hash for adapter in ordered},
        rank=max(plan.rank(module) for module in plan.modules),
        energy_kept=_share_kept(energy, lost),
        merged_norm=abs(plan.scale) * unscaled,
        input_norms=norms,
        mean_input_norm=mean,
        suggested_scale=mean / unscaled if unscaled else None,
        modules=tuple(modules),
        seconds=time.perf_counter() - started,
    )
    _write(report, stored, plan, provenance)
    return report


def _merged_modules(plan: Plan, progress: Progress | None) -> Iterator[tuple[str, spaces.Factored]]:
    """Give every module merged, with λ still to be applied."""
    row, modules = plan.recipe.row, plan.modules
    entrywise = plan.entrywise
    judges_entries = row.sparsify != "none" or row.combine == "elect"
    total = len(modules) * (entrywise.passes if judges_entries else 1)
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        if progress:
            progress(done, total)

    def coordinates(module: str) -> spaces.Coordinates:
        return entrywise.dropped(module, _SPACES[row.space](plan.deltas(module)))

    def model_blocks() -> Iterator[spaces.Parts]:
        for module in modules:
            yield from coordinates(module).blocks()
            tick()

    thresholds, zero_sign = None, 1.0
    if judges_entries:
        if entrywise.needs_model_threshold:
            thresholds = entrywise.thresholds(model_blocks)
        if entrywise.needs_majority:
            zero_sign = entrywise.majority(model_blocks(), thresholds)
    for module in modules:
        rank = plan.rank(module)
        if row.space == "factors":
            yield module, spaces.linear_sum(plan.deltas(module), plan.weights, rank)
        else:
            space = coordinates(module)
            if judges_entries:
                merged = entrywise.merged(space, thresholds, zero_sign)
            else:
                (parts,) = space.blocks()
                merged = _WHOLE_MODULE[row.combine](parts, plan.weights)
            yield module, spaces.factorise(space, merged, rank)
        tick()


def _norm(adapter: Adapter) -> float:
    return math.sqrt(sum(adapter.delta(module, torch.float64).norm() ** 2 for module in adapter.modules))


def _share_kept(energy: float, lost: float) -> float:
    return 1.0 - lost / energy if energy else 1.0


def _write(
    report: MergeReport,
    stored: Mapping[str, tuple[torch.Tensor, torch.Tensor]],
    plan: Plan,
    provenance: Mapping[str, str],
) -> None:
    first = plan.adapters[0]
    document = report.as_document(provenance)
    summary = {key: document[key] for key in ("key", "recipe", "inputs", "provenance")}
    write_adapter(
        report.folder,
        stored,
        base_model=first.base_model,
        revision=first.revision,
        dtype=_DTYPES[plan.recipe.dtype],
        rank=report.rank,
        metadata={"adapterctl": canonical_json(summary)},
        target_modules=_shared_targets(plan.adapters),
        task_type=first.config.get("task_type"),
        fan_in_fan_out=bool(first.config.get("fan_in_fan_out")),
        documents={REPORT_FILE: json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"},
    )


def _shared_targets(adapters: Sequence[Adapter]) -> list[str] | None:
    """Return how all adapters name their modules, if that alone says which they are; None asks for full paths."""
    first = adapters[0].config.get("target_modules")
    if not isinstance(first, list) or not all(isinstance(name, str) for name in first):
        return None
    for adapter in adapters:
        named = adapter.config.get("target_modules")
        if not isinstance(named, list) or {*map(str, named)} != set(first):
            return None
        if any(adapter.config.get(key) for key in _SELECTION_KEYS):
            return None
    ends = tuple(f".{name}" for name in first)
    return first if all(f".{module}".endswith(ends) for module in adapters[0].modules) else None
