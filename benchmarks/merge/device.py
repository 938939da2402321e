"""The same merges on a GPU, and more languages of a higher rank."""

from __future__ import annotations

import torch
from benchmarks.merge.adapters import LANGUAGES
from benchmarks.merge.bench import FIVE, Bench, Figures, ratio
from benchmarks.merge.works import TIES, recipe


def device(bench: Bench) -> None:
    """All modules at rank 16 × 5 languages and at rank 64 × 10 languages, on a GPU and on the CPU."""
    if not torch.cuda.is_available():
        print("  torch finds no CUDA device here: not measured")
        return
    found: Figures = {}
    for name, rank, languages in (("rank16x5", bench.rank, FIVE), ("rank64x10", 4 * bench.rank, LANGUAGES[:10])):
        folders = bench.folders(bench.set_of(rank=rank), languages)
        recipes = {"knots-ties": TIES, "core-tsv": recipe("core-tsv"), "linear": recipe("linear", rank=rank)}
        for method, keys in recipes.items():
            one = {"folders": folders, "recipe": keys, "out": bench.path("merged")}
            gpu = bench.measure(f"{method}, {name}, cuda", "ours.on_device", repeats=3, **one)
            cpu = bench.measure(f"{method}, {name}, cpu", "ours.to_disk", repeats=1, **one)
            found[f"{method} {name}"] = {"cuda": gpu, "cpu": cpu, "ratio": ratio(cpu, gpu)}
    what = "whole merges on a GPU and on one CPU thread of the same machine"
    bench.write("device", what, modules=bench.modules, gpu=torch.cuda.get_device_name(), methods=found)
