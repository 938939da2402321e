"""adapterctl's side: merges as a user starts them, folders in and a folder out, and one module in memory."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from benchmarks.merge.clock import Clock
from safetensors.torch import load_file

from adapterctl.fingerprint import file_hash
from adapterctl.lora.adapter import Adapter
from adapterctl.merging.cache import FactorCache
from adapterctl.merging.engine import merge
from adapterctl.merging.grams import Blocks
from adapterctl.merging.into_model import merge_into_model
from adapterctl.merging.passes import Passes
from adapterctl.merging.plan import make_plan
from adapterctl.merging.recipe import MergeRecipe
from adapterctl.merging.spaces import Norms, space_of
from adapterctl.merging.workers import workers

TENSORS = "adapter_model.safetensors"


def opened(folders: Mapping[str, str]) -> list[Adapter]:
    """Open adapters; ``ja@2`` is an adapter of ``ja``."""
    return [Adapter.open(Path(folder), lang.split("@")[0]) for lang, folder in sorted(folders.items())]


def _emptied(folder: str) -> Callable[[int], None]:
    return lambda number: shutil.rmtree(folder, ignore_errors=True)


def every_kernel(clock: Clock, *, folders: dict[str, str], recipes: list[dict[str, Any]], out: str) -> dict[str, Any]:
    """Merge once with every recipe, so that compiled code lies on disk before anything is measured."""
    for recipe in recipes:
        merge(opened(folders), MergeRecipe(**recipe), Path(out))
    return {}


def to_disk(
    clock: Clock,
    *,
    folders: dict[str, str],
    recipe: dict[str, Any],
    out: str,
    repeats: int,
    seconds: float = 30.0,
    threads: int = 1,
    device: str = "cpu",
    against: str | None = None,
) -> dict[str, Any]:
    """Time a whole merge: reading, checks, hashes, computing, writing, fsync, report."""
    torch.set_num_threads(1)
    made = MergeRecipe(**recipe)

    def run(number: int) -> None:
        merge(opened(folders), made, Path(out), threads=threads, device=device)

    figures = clock.measure(run, before=_emptied(out), repeats=repeats, seconds=seconds)
    return {**figures, **(compared(Path(out), against) if against else {})}


def without_hash_and_sync(
    clock: Clock, *, folders: dict[str, str], recipe: dict[str, Any], out: str, repeats: int
) -> dict[str, Any]:
    """Time the same merge where inputs were hashed before and nothing waits for the disk."""
    torch.set_num_threads(1)
    made, adapters = MergeRecipe(**recipe), opened(folders)
    with patch.object(os, "fsync", lambda descriptor: None):
        return clock.measure(
            lambda number: merge(adapters, made, Path(out), threads=1), before=_emptied(out), repeats=repeats
        )


def in_memory(clock: Clock, *, folders: dict[str, str], recipe: dict[str, Any], repeats: int) -> dict[str, Any]:
    """Time the engine's passes alone: from factors in memory, as they are stored, to factors in memory."""
    made, adapters = MergeRecipe(**recipe), opened(folders)
    plan = make_plan(adapters, made, None, None)
    held = {
        (adapter.lang, module, factor): adapter.tensor(name)
        for adapter in adapters
        for module, names in adapter.factors.items()
        for factor, name in names.items()
    }

    def read_into(adapter: Adapter, module: str, factor: str, out: torch.Tensor) -> None:
        out.copy_(held[adapter.lang, module, factor])

    hashes = {str(adapter.lang): str(adapter.lang) for adapter in adapters}
    with patch.object(Adapter, "read_into", read_into), workers(1, None, 0) as crew:

        def run(number: int) -> None:
            Passes(plan, space_of(plan, Blocks(None, hashes), Norms()), crew, lambda module, factored: None).run()

        return clock.measure(run, warm=2, repeats=repeats)


def peak(clock: Clock, *, folders: dict[str, str], recipe: dict[str, Any], out: str) -> dict[str, Any]:
    """Merge once, in a process that did nothing before, for its peak memory."""
    torch.set_num_threads(1)
    made = MergeRecipe(**recipe)
    return clock.measure(lambda number: merge(opened(folders), made, Path(out), threads=1), warm=0, repeats=1)


def again(
    clock: Clock, *, folders: dict[str, str], changed: list[str], recipe: dict[str, Any], out: str, cache: str
) -> dict[str, Any]:
    """Time merges after one language changed, with the other languages' factors in the cache, and without a cache.

    Every run with the cache has an adapter that the cache has never seen. The last results are compared.
    """
    torch.set_num_threads(1)
    made, factors = MergeRecipe(**recipe), FactorCache(Path(cache))
    merge(opened(folders), made, Path(out), threads=1, cache=factors)
    lang = Path(changed[0]).name.split("@")[0]
    reused: dict[str, int] = {}

    def run(number: int) -> None:
        adapters = opened({**folders, lang: changed[number]})
        reused.update(merge(adapters, made, Path(out), threads=1, cache=factors).reused)

    def without(number: int) -> None:
        merge(opened({**folders, lang: changed[-1]}), made, Path(out), threads=1)

    timed = clock.measure(run, before=_emptied(out), repeats=len(changed) - 1)
    again_hash = file_hash(Path(out) / TENSORS)
    full = clock.measure(without, before=_emptied(out), repeats=len(changed) - 1, warm=0)
    equal = again_hash == file_hash(Path(out) / TENSORS)
    return {"again": timed, "full": full, "reused": reused, "equals_full_merge": equal}


def into_model(
    clock: Clock,
    *,
    folders: dict[str, str],
    recipe: dict[str, Any],
    base: str,
    out: str,
    repeats: int,
    against: str | None = None,
) -> dict[str, Any]:
    """Time a merge into the base model, folders in and a folder with a full model out."""
    torch.set_num_threads(1)
    made = MergeRecipe(**recipe)
    figures = clock.measure(
        lambda number: merge_into_model(opened(folders), made, Path(base), Path(out), threads=1),
        before=_emptied(out),
        repeats=repeats,
    )
    return {**figures, **(_compared_models(Path(base), Path(out), Path(against)) if against else {})}


def growth(
    clock: Clock, *, points: dict[str, dict[str, str]], recipe: dict[str, Any], out: str, repeats: int
) -> dict[str, Any]:
    """Time whole merges of one set of adapters after another."""
    torch.set_num_threads(1)
    made = MergeRecipe(**recipe)
    times = {}
    for point, folders in points.items():

        def run(number: int, folders: dict[str, str] = folders) -> None:
            merge(opened(folders), made, Path(out), threads=1)

        times[point] = clock.measure(run, before=_emptied(out), repeats=repeats, seconds=1.5)
    return times


def on_device(
    clock: Clock, *, folders: dict[str, str], recipe: dict[str, Any], out: str, repeats: int
) -> dict[str, Any]:
    """Time whole merges on the GPU, and say how much of its memory they took."""
    figures = to_disk(clock, folders=folders, recipe=recipe, out=out, repeats=repeats, device="cuda")
    return {**figures, "device_peak": torch.cuda.max_memory_allocated()}


def compared(out: Path, against: str) -> dict[str, float]:
    """Return how far our one module lies from the peer's: ‖ours - theirs‖ / ‖theirs‖, and the quotient of the norms."""
    adapter = Adapter.open(out)
    (module,) = adapter.modules
    ours, theirs = adapter.delta(module).dense(), _dense(load_file(against))
    return _distance(ours, theirs)


def _dense(parts: Mapping[str, torch.Tensor]) -> torch.Tensor:
    return parts["dense"] if "dense" in parts else parts["B"] @ parts["A"]


def _distance(ours: torch.Tensor, theirs: torch.Tensor) -> dict[str, float]:
    size = theirs.norm()
    return {"difference": float((ours - theirs).norm() / size), "norm_over_peer": float(ours.norm() / size)}


def _compared_models(base: Path, ours: Path, theirs: Path) -> dict[str, float]:
    """The same for what was added to the first k_proj of a model."""
    name = "model.layers.0.self_attn.k_proj.weight"
    start, mine, peer = (_weight(folder, name).float() for folder in (base, ours, theirs))
    return _distance(mine - start, peer - start)


def _weight(folder: Path, name: str) -> torch.Tensor:
    for path in sorted(folder.glob("*.safetensors")):
        tensors = load_file(path)
        if name in tensors:
            return tensors[name]
    raise SystemExit(f"{folder} has no {name}")
