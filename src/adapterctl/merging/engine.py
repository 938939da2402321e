"""The merge engine: PEFT folders in, one PEFT folder out, module by module, without the base model."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from adapterctl.errors import AdapterError, MergeError
from adapterctl.files import staged_folder
from adapterctl.fingerprint import canonical_json, fingerprint
from adapterctl.lora.adapter import Adapter
from adapterctl.lora.compatibility import require_compatible
from adapterctl.lora.write import AdapterWriter
from adapterctl.merging.backend import backend_of
from adapterctl.merging.cache import FactorCache
from adapterctl.merging.card import CARD_FILE, model_card
from adapterctl.merging.entrywise import needs_model_threshold
from adapterctl.merging.factorise import Factored
from adapterctl.merging.grams import Blocks
from adapterctl.merging.passes import Merged, Passes, Write
from adapterctl.merging.plan import ModulePlan, Plan, make_plan
from adapterctl.merging.recipe import MergeRecipe
from adapterctl.merging.report import REPORT_FILE, MergeReport, ModuleReport, served_rank
from adapterctl.merging.spaces import Norms, judges_entries, space_of
from adapterctl.merging.workers import Progress, Workers, default_threads, workers

ENGINE_VERSION = 3
"""Part of the key of every result: raised when the same inputs would give other numbers."""

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_SELECTION_KEYS = ("exclude_modules", "layers_to_transform", "layers_pattern")
_MOST_BLOCK_BYTES = 256 << 20


def merge_key(
    adapters: Sequence[Adapter],
    recipe: MergeRecipe,
    scale: float | None = None,
    *,
    cache: FactorCache | None = None,
    device: str = "cpu",
) -> str:
    """Return the content hash under which the result of a merge may be kept and found again.

    It covers the inputs' content, the base model they name, the recipe with λ as a number, and the engine's version;
    the provenance that ``merge`` is given is not part of it. The kind of device is, unless it is the CPU: on another,
    results differ by rounding.

    Args:
        adapters: One for each language.
        recipe: How to merge.
        scale: λ where the recipe says ``auto``.
        cache: Knows the content hashes of files that have not changed.
        device: Where it is merged.

    Raises:
        AdapterError: The tensors of an adapter cannot be read.
    """
    hashes = hashes_of(adapters, cache)
    return key_of(adapters, recipe.resolved(list(hashes), scale), hashes, device)


def hashes_of(adapters: Sequence[Adapter], cache: FactorCache | None, threads: int = 1) -> dict[str, str]:
    """Return the content hash of every language's adapter, in alphabetical order of the languages.

    Raises:
        AdapterError: The tensors of an adapter cannot be read.
    """
    ordered = sorted(adapters, key=lambda adapter: adapter.lang or "")
    with ThreadPoolExecutor(threads) as pool:
        found = pool.map(lambda one: one.content_hash if cache is None else cache.content_hash(one), ordered)
        return {adapter.lang or "": digest for adapter, digest in zip(ordered, found, strict=True)}


def key_of(adapters: Sequence[Adapter], resolved: Mapping[str, Any], hashes: Mapping[str, str], device: str) -> str:
    """Return what :func:`merge_key` does, from a resolved recipe and content hashes that are known."""
    kind = device.partition(":")[0]
    return fingerprint(
        {
            "engine": ENGINE_VERSION,
            "recipe": dict(resolved),
            "base": sorted({canonical_json([adapter.base_model, adapter.revision]) for adapter in adapters}),
            "adapters": sorted([lang, digest] for lang, digest in hashes.items()),
            **({} if kind == "cpu" else {"device": kind}),
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
    threads: int | None = None,
    device: str = "cpu",
    cache: FactorCache | None = None,
) -> MergeReport:
    """Merge adapters into one and write it as a PEFT folder, all at once, with report and model card in it.

    The tensors depend on the adapters' content, the recipe and the kind of device alone, not on the order of the
    arguments, the number of workers or what a cache holds. Inner products are computed in float64, entries in the
    recipe's precision. In memory are the factors of one module for each worker, and one module as a dense matrix for
    methods on ΔW.

    Args:
        adapters: One for each language, each with its ``lang``.
        recipe: How to merge.
        out: Where the merged adapter appears; an existing folder is replaced.
        scale: λ where the recipe says ``auto``; 1 where it is not given either.
        progress: Called with the number of steps done and the number to do: one a module and pass.
        provenance: Text to record in the report and in the header of the tensor file.
        threads: Workers; by default one for each processor at hand, at most eight.
        device: ``cpu``, ``cuda`` or ``cuda:N``. On a GPU, factors and entries lie in its memory and what is small is
            decomposed on the CPU, by the workers; results equal those of the CPU up to rounding.
        cache: Where inner products and thresholds of earlier merges are found and kept.

    Raises:
        AdapterError: The adapters cannot be used together; with every problem of each.
        MergeError: The recipe cannot be carried out on these adapters, or not on this device.
        StorageError: The disk is full, read-only or not permitted.
    """
    started = time.perf_counter()
    backend = backend_of(device)
    threads = threads or default_threads()
    require_compatible(adapters, missing=recipe.missing, numbers=False)
    plan = make_plan(adapters, recipe, out, scale, backend)
    hashes = hashes_of(adapters, cache, threads)
    key = key_of(adapters, plan.resolved, hashes, device)
    with (
        numbers_checked(adapters, recipe),
        workers(threads, progress, Passes.steps(plan)) as crew,
        staged_folder(out) as staging,
    ):
        shapes = {module.module: (module.out, module.width) for module in plan.modules}
        metadata = {"adapterctl": canonical_json(_summary(plan, key, hashes, provenance or {}))}
        dtype = _DTYPES[recipe.dtype]
        with AdapterWriter(staging, shapes, rank=plan.rank, dtype=dtype, metadata=metadata) as writer:

            def write(module: ModulePlan, factored: Factored) -> None:
                writer.put(module.module, factored.A.cpu(), factored.B.cpu())

            merged, norms, reused = carried_out(plan, hashes, crew, write, cache)
            report = measured(report_of(plan, out, key, hashes, merged, norms), started, threads, device, reused)
            _finish(writer, plan, report, provenance or {})
    return report


def carried_out(
    plan: Plan,
    hashes: Mapping[str, str],
    crew: Workers,
    write: Write,
    cache: FactorCache | None,
    *,
    divided: bool = True,
) -> tuple[list[Merged], Norms, dict[str, int]]:
    """Merge and write every module, with what a cache holds, which is completed.

    Args:
        plan: What to merge.
        hashes: The content hash of every language's adapter.
        crew: Who does the work.
        write: Takes every module's ΔW.
        cache: Where inner products and thresholds of earlier merges are found and kept.
        divided: Whether ΔW is wanted as factors in every case.

    Returns:
        The modules, the norms of the inputs, and how much came from the cache.
    """
    kept, before = _kept_blocks(plan, hashes, cache)
    blocks, norms = Blocks(kept, hashes, plan.backend.mark), Norms()
    ways = _ways_to_trim(plan)
    known = {
        lang: found
        for lang, way in ways.items()
        if cache is not None and (found := cache.thresholds(hashes[lang], way)) is not None
    }
    reused_thresholds = len(known)
    with plan.backend.at_work():
        merged = Passes(plan, space_of(plan, blocks, norms, divided=divided), crew, write, known).run()
    # Hashes were taken before, so that other content must neither be kept under them nor be written.
    for adapter in plan.adapters:
        adapter.require_unchanged()
    if cache is not None:
        cache.keep_blocks(kept or {}, before)
        for lang, way in ways.items():
            if lang in known:
                cache.keep_threshold(hashes[lang], way, known[lang])
        cache.shrink()
    reused = {
        "blocks": blocks.reused,
        "blocks_computed": blocks.computed,
        "thresholds": reused_thresholds,
        "thresholds_computed": len(known) - reused_thresholds,
    }
    return merged, norms, reused


@contextmanager
def numbers_checked(adapters: Sequence[Adapter], recipe: MergeRecipe) -> Iterator[None]:
    """Turn the first number that is not one into the report of all that are not: they are met while computing."""
    try:
        yield
    except (AdapterError, MergeError):
        require_compatible(adapters, missing=recipe.missing)
        raise


def _kept_blocks(
    plan: Plan, hashes: Mapping[str, str], cache: FactorCache | None
) -> tuple[dict[tuple[str, str, str, str], torch.Tensor] | None, dict[tuple[str, str, str, str], torch.Tensor]]:
    """Return the blocks to use and complete, and those that were there before; None where they would be too many."""
    if cache is None or 16 * sum(module.total_rank**2 for module in plan.modules) > _MOST_BLOCK_BYTES:
        return None, {}
    before = cache.blocks(list(hashes.values()))
    return dict(before), before


def _ways_to_trim(plan: Plan) -> dict[str, str]:
    """Return the fingerprint of everything that the model-wide threshold of a language depends on beside its adapter.

    In a joint basis it depends on all languages, so that there is nothing to keep.
    """
    if not (judges_entries(plan.recipe) and needs_model_threshold(plan) and plan.recipe.row.space == "dense"):
        return {}
    dialect, recipe = plan.recipe.dialect, plan.recipe
    ways = {}
    for lang in plan.languages:
        there = [module.module for module in plan.modules if lang in {member.lang for member in module.members}]
        absent = sum(
            module.out * module.width for module in plan.modules if lang in {name for name, _ in module.absent}
        )
        if there:
            way = [ENGINE_VERSION, plan.backend.mark, recipe.precision, recipe.density, dialect.name, there, absent]
            ways[lang] = fingerprint(way)
    return ways


def _summary(plan: Plan, key: str, hashes: Mapping[str, str], provenance: Mapping[str, str]) -> dict[str, object]:
    return {
        "key": key,
        "recipe": plan.resolved,
        "inputs": dict(hashes),
        "provenance": dict(provenance),
    }


def report_of(
    plan: Plan, out: Path, key: str, hashes: Mapping[str, str], merged: Sequence[Merged], norms: Norms
) -> MergeReport:
    """Return what a merge says about itself, but for what was measured."""
    modules = tuple(_module_report(item) for item in merged)
    squared = sum((item.energy - item.lost) * item.plan.factor**2 for item in merged)
    lost = sum(item.lost * item.plan.factor**2 for item in merged)
    input_norms = _input_norms(plan, norms)
    mean = sum(input_norms.values()) / len(input_norms)
    norm = squared**0.5
    entries = {
        lang: [sum(counts) for counts in zip(*rows, strict=True)]
        for lang in plan.languages
        if (rows := [(item.tally.kept[lang], item.tally.lost[lang]) for item in merged if lang in item.tally.kept])
    }
    return MergeReport(
        folder=out,
        key=key,
        method=plan.recipe.method,
        recipe=plan.resolved,
        scale=plan.scale,
        inputs=dict(hashes),
        rank=plan.rank,
        vllm_rank=served_rank(plan.rank),
        energy_kept=_share_kept(squared + lost, lost),
        merged_norm=norm,
        input_norms=input_norms,
        mean_input_norm=mean,
        suggested_scale=mean / norm * abs(plan.scale) if norm else None,
        discard_rate={lang: beaten / held if held else 0.0 for lang, (held, beaten) in entries.items()},
        modules=modules,
    )


def _module_report(item: Merged) -> ModuleReport:
    return ModuleReport(
        module=item.plan.module,
        rank_in={member.lang: member.rank for member in item.plan.members},
        rank_out=item.rank,
        energy_kept=_share_kept(item.energy, item.lost),
        norm=abs(item.plan.factor) * (item.energy - item.lost) ** 0.5,
        discard_rate=item.tally.discard_rate,
        gap=item.gap,
    )


def _share_kept(energy: float, lost: float) -> float:
    return 1.0 - lost / energy if energy else 1.0


def _input_norms(plan: Plan, norms: Norms) -> dict[str, float]:
    """Return ‖ΔW‖_F of every adapter over all modules, also where its weight is zero."""
    found = {}
    for adapter in plan.adapters:
        lang = adapter.lang or ""
        squares = 0.0
        for module in adapter.modules:
            known = norms.of(lang, module)
            squares += adapter.delta(module, torch.float64).norm() ** 2 if known is None else known
        found[lang] = squares**0.5
    return found


def measured(report: MergeReport, started: float, threads: int, device: str, reused: Mapping[str, int]) -> MergeReport:
    """Return a report with what was measured."""
    # Kilobytes on Linux, bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    return replace(
        report,
        seconds=time.perf_counter() - started,
        peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
        threads=threads,
        device=device,
        reused=dict(reused),
    )


def _finish(writer: AdapterWriter, plan: Plan, report: MergeReport, provenance: Mapping[str, str]) -> None:
    first = plan.adapters[0]
    document = report.as_document(provenance)
    writer.finish(
        base_model=first.base_model,
        revision=first.revision,
        target_modules=_shared_targets(plan.adapters),
        task_type=first.config.get("task_type"),
        fan_in_fan_out=bool(first.config.get("fan_in_fan_out")),
        documents={
            REPORT_FILE: json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n",
            CARD_FILE: model_card(report, first.base_model, first.revision),
        },
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
