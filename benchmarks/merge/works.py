"""The parts of the benchmark, each with its peer in the same run; the table in docs/performance.md comes from them."""

from __future__ import annotations

from typing import Any

from benchmarks.merge.adapters import ModelSet
from benchmarks.merge.bench import FIVE, KINDS, Bench, Figures, installed, ratio

KEPT = 0.2
"""Density of what trims."""

DRAWN = 0.5
"""Density of what drops at random."""

EXACT = (
    *("linear", "knots-linear", "knots-ties", "knots-dare-ties", "core-ta", "core-ties", "core-dare-ties"),
    *("core-tsv", "core-iso-c", "svc", "pico"),
)
"""The methods whose result is an adapter without loss; regmean, which also reads Gram matrices, is left out."""


def recipe(method: str, **keys: Any) -> Figures:
    return {"method": method, "dtype": "bfloat16", **keys}


TIES = recipe("knots-ties", density=KEPT)


def prepare(bench: Bench) -> None:
    """Have every loop compiled and kept on disk before anything is measured."""
    tiny = Bench(bench.work, bench.results, quick=True)
    recipes = [recipe(method, rank=4) for method in ("ties", "dare-ties", "linear")]
    recipes += [recipe("ties", rank=4, semantics=semantics) for semantics in ("peft", "mergekit")]
    recipes += [recipe("dare-ties", rank=4, semantics="peft")]
    recipes += [recipe(method) for method in EXACT]
    arguments = {"folders": tiny.folders(tiny.set_of()), "recipes": recipes, "out": bench.path("compiled")}
    bench.measure("compile", "ours.every_kernel", **arguments)


def knots(bench: Bench) -> None:
    """knots-ties over the whole model; one k_proj in memory against the reference."""
    whole = {"folders": bench.folders(bench.set_of()), "recipe": TIES, "out": bench.path("merged")}
    found: Figures = {
        "modules": bench.modules,
        "density": KEPT,
        "whole": bench.measure(f"knots-ties, {bench.modules} modules", "ours.to_disk", repeats=4, **whole),
        "whole_without_hash_and_sync": bench.measure(
            "  the same without hashing and fsync", "ours.without_hash_and_sync", repeats=3, **whole
        ),
    }
    folders = bench.folders(bench.set_of(layers=1, kinds=("k_proj",)))
    one = {"folders": folders, "recipe": {**TIES, "dtype": "float32"}}
    memory = {**one, "repeats": 30}
    found["k_proj"] = _against(
        bench,
        "knots-ties, k_proj",
        peer=_knots_peer(bench, folders),
        ours=("ours.in_memory", memory),
        disk=one,
    )
    bench.write("knots-ties", "knots-ties at density 0.2, folders in and a folder out; k_proj alone in memory", **found)


def _knots_peer(bench: Bench, folders: Figures) -> tuple[str, Figures] | None:
    if bench.knots is None:
        print("  no checkout of the KnOTS reference (--knots): not compared")
        return None
    return "peer_knots.knots_ties", {"checkout": str(bench.knots), "folders": folders, "density": KEPT, "repeats": 2}


def truncation(bench: Bench) -> None:
    """The linear sum truncated to one adapter's rank; k_proj and q_proj against PEFT's ``svd``."""
    sums = recipe("linear", rank=bench.rank)
    whole = {"folders": bench.folders(bench.set_of()), "recipe": sums, "out": bench.path("merged")}
    found: Figures = {
        "modules": bench.modules,
        "rank": bench.rank,
        "whole": bench.measure(f"rank {bench.rank}, {bench.modules} modules", "ours.to_disk", repeats=4, **whole),
        "whole_without_hash_and_sync": bench.measure(
            "  the same without hashing and fsync", "ours.without_hash_and_sync", repeats=3, **whole
        ),
    }
    peer = installed("peft")
    for kind, repeats in (("k_proj", 2), ("q_proj", 1)):
        folders = bench.folders(bench.set_of(layers=1, kinds=(kind,)))
        one = {"folders": folders, "recipe": {**sums, "dtype": "float32"}}
        found[kind] = _against(
            bench,
            f"rank {bench.rank}, {kind}",
            peer=peer and _peft(folders, "svd", 1 / len(FIVE), bench.rank, repeats),
            ours=("ours.in_memory", {**one, "repeats": 30}),
            disk=one,
        )
    bench.write("truncation", "mean of the deltas, truncated to the rank of one adapter", peft=peer, **found)


def _peft(folders: Figures, kind: str, weight: float, rank: int, repeats: int = 1, **keys: Any) -> tuple[str, Figures]:
    usual: Figures = {"folders": folders, "kind": kind, "weight": weight, "rank": rank, "density": None}
    return "peer_peft.weighted", {**usual, "repeats": repeats, **keys}


def dense(bench: Bench) -> None:
    """TIES and DARE-TIES on the dense gate_proj, projected to one adapter's rank, against PEFT."""
    folders = bench.folders(bench.set_of(layers=1, kinds=("gate_proj",)))
    peer = installed("peft")
    found: Figures = {"rank": bench.rank}
    for method, density in (("ties", KEPT), ("dare-ties", DRAWN)):
        same = {"method": method, "density": density, "semantics": "peft", "rank": bench.rank, "dtype": "float32"}
        kind = f"{method.replace('-', '_')}_svd"
        found[method] = _against(
            bench,
            f"{method} to rank {bench.rank}, gate_proj",
            peer=peer and _peft(folders, kind, 1.0, bench.rank, density=density),
            ours=None,
            disk={"folders": folders, "recipe": same},
        )
    if peer:
        job, arguments = _peft(folders, "ties_svd", 1.0, bench.rank, density=KEPT, full_matrices=False)
        thin = bench.measure("  PEFT with svd_full_matrices=False", job, **arguments, result=bench.path("thin"))
        found["ties"]["peer_thin"] = thin
        found["ties"]["ratio_thin"] = ratio(thin, found["ties"]["to_disk"])
        bench.forget("thin")
    bench.write("dense", "entrywise methods on dense deltas of one gate_proj, projected to rank 16", peft=peer, **found)


def _against(
    bench: Bench,
    label: str,
    *,
    peer: tuple[str, Figures] | None,
    ours: tuple[str, Figures] | None,
    disk: Figures,
) -> Figures:
    """Measure the peer on one module, then ours: in memory where ``ours`` says so, and from folders to a folder."""
    found: Figures = {}
    theirs = bench.path("peer.safetensors")
    against = None
    if peer:
        job, arguments = peer
        found["peer"] = bench.measure(f"{label}, the peer", job, **arguments, result=theirs)
        against = theirs
    if ours:
        job, arguments = ours
        found["in_memory"] = bench.measure(f"{label}, in memory", job, **arguments)
    found["to_disk"] = bench.measure(
        f"{label}, folders to folder", "ours.to_disk", repeats=7, out=bench.path("one"), against=against, **disk
    )
    if peer:
        found["ratio_to_disk"] = ratio(found["peer"], found["to_disk"])
        if ours:
            found["ratio_in_memory"] = ratio(found["peer"], found["in_memory"])
        bench.forget("peer.safetensors")
    bench.forget("one")
    return found


def model(bench: Bench) -> None:
    """TIES into a full model of real-shape layers, against mergekit on full models."""
    layers = 1
    adapters = bench.set_of(layers=layers)
    folders = bench.folders(adapters)
    same = {"method": "ties", "density": KEPT, "semantics": "mergekit", "dtype": "bfloat16"}
    peer = installed("mergekit")
    base, models = ModelSet(adapters).make(bench.work, FIVE if peer else ())
    found: Figures = {"layers": layers, "modules": layers * len(KINDS), "mergekit": peer}
    if peer:
        found["peer"] = bench.measure(
            f"ties into {layers} layer, mergekit",
            "peer_mergekit.ties",
            base=base,
            models=models,
            density=KEPT,
            repeats=1,
            result=bench.path("mergekit"),
        )
    found["to_disk"] = bench.measure(
        f"ties into {layers} layer",
        "ours.into_model",
        folders=folders,
        recipe=same,
        base=base,
        out=bench.path("model"),
        repeats=3,
        against=bench.path("mergekit") if peer else None,
    )
    if peer:
        found["ratio_to_disk"] = ratio(found["peer"], found["to_disk"])
    bench.forget("mergekit", "model")
    bench.write("into-model", "ties at density 0.2, adapters in and a full bf16 model out", **found)


def remerge(bench: Bench) -> None:
    """Merging again after one language changed, against merging everything."""
    found: Figures = {}
    exact = [("knots-ties", TIES), ("core-tsv", recipe("core-tsv")), ("linear", recipe("linear", rank=bench.rank))]
    works = [(name, bench.set_of(), keys) for name, keys in exact]
    works.append(("ties", bench.set_of(layers=1, kinds=("k_proj", "q_proj")), recipe("ties", rank=bench.rank)))
    for name, adapters, keys in works:
        folders = bench.folders(adapters)
        changed = list(bench.folders(adapters, ("ja@1", "ja@2", "ja@3")).values())
        timed = bench.measure(
            f"{name}, {len(adapters.modules)} modules",
            "ours.again",
            folders=folders,
            changed=changed,
            recipe=keys,
            out=bench.path("merged"),
            cache=bench.path("factors"),
        )
        found[name] = {"modules": len(adapters.modules), **timed, "ratio": ratio(timed["full"], timed["again"])}
        bench.forget("factors")
    bench.write("again", "merging again with one of five languages changed, other languages cached", methods=found)


def memory(bench: Bench) -> None:
    """Peak memory of every exact method over the whole model, and of a dense one over a layer."""
    folders = bench.folders(bench.set_of())
    layer = bench.folders(bench.set_of(layers=1))
    found: Figures = {}
    for method in EXACT:
        one = {"folders": folders, "recipe": recipe(method), "out": bench.path("merged")}
        found[method] = bench.measure(f"{method}, {bench.modules} modules", "ours.peak", **one)
    one = {"folders": layer, "recipe": recipe("ties", rank=bench.rank), "out": bench.path("merged")}
    dense_one = bench.measure(f"ties to rank {bench.rank}, {len(KINDS)} modules", "ours.peak", **one)
    bench.write(
        "memory",
        "peak resident memory over what the imports took, mapped input files included, one merge per process",
        modules=bench.modules,
        methods=found,
        dense_layer=dense_one,
    )


def workers(bench: Bench) -> None:
    """Two workers against one; only quiet cores give an answer."""
    folders = bench.folders(bench.set_of())
    found: Figures = {}
    for name, keys in (("knots-ties", TIES), ("linear", recipe("linear", rank=bench.rank))):
        one = {"folders": folders, "recipe": keys, "out": bench.path("merged"), "repeats": 3}
        both = {
            f"threads_{threads}": bench.measure(f"{name}, {threads} workers", "ours.to_disk", threads=threads, **one)
            for threads in (1, 2)
        }
        scaling = both["threads_1"]["wall_median"] / both["threads_2"]["wall_median"]
        found[name] = {**both, "scaling": scaling}
    bench.write("workers", "whole merges with one and with two workers, wall seconds", modules=bench.modules, **found)
