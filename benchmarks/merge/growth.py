"""How time grows with languages and with rank: measured points, fitted exponents and the picture."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.merge.adapters import LANGUAGES
from benchmarks.merge.bench import FIVE, KINDS, Bench, Figures
from benchmarks.merge.works import TIES, recipe

from adapterctl.pictures import new_figure, png

COUNTS = (2, 3, 5, 8, 12, 20)
RANKS = (8, 16, 32, 64, 128)
COLOURS = {"knots-ties": "#0072b2", "core-tsv": "#d55e00", "linear": "#009e73"}
MARKERS = {"knots-ties": "o", "core-tsv": "s", "linear": "^"}
GREY = "#555555"


def growth(bench: Bench) -> None:
    """Time one layer's seven modules for 2 to 20 languages and for ranks 8 to 128."""
    counts, ranks = (COUNTS, RANKS) if not bench.quick else ((2, 3, 5), (2, 4, 8))
    by_count = {str(count): bench.folders(bench.set_of(layers=1), LANGUAGES[:count]) for count in counts}
    by_rank = {str(rank): bench.folders(bench.set_of(layers=1, rank=rank), FIVE) for rank in ranks}
    found: Figures = {}
    for method, keys in (
        ("knots-ties", TIES),
        ("core-tsv", recipe("core-tsv")),
        ("linear", recipe("linear", rank=bench.rank)),
    ):
        found[method] = {}
        for axis, points in (("languages", by_count), ("rank", by_rank)):
            timed = bench.measure(
                f"{method}, {axis} {min(map(int, points))} to {max(map(int, points))}",
                "ours.growth",
                points=points,
                recipe=keys,
                out=bench.path("merged"),
                repeats=1 if bench.quick else 5,
            )
            medians = {int(point): figures["wall_median"] for point, figures in timed.items()}
            found[method][axis] = {"wall_median": medians, "exponent": exponent(medians)}
    bench.write(
        "growth",
        f"whole merges of one layer, {len(KINDS)} modules, one thread, folders in and a folder out",
        languages_at_rank=bench.rank,
        ranks_at_languages=len(FIVE),
        methods=found,
    )


def upper_half(points: Mapping[int, float]) -> dict[int, float]:
    """Return the points of the upper half, the middle one included."""
    return dict(sorted(points.items())[len(points) // 2 :])


def exponent(points: Mapping[int, float]) -> float:
    """Return e of time ∝ n^e, by least squares of the logarithms over the upper half of the points."""
    upper = upper_half(points)
    x, y = [math.log(n) for n in upper], [math.log(value) for value in upper.values()]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    spread = sum((a - mean_x) ** 2 for a in x)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / spread


def draw(result: Mapping[str, Any], path: Path) -> None:
    """Draw both axes side by side, both logarithmic, with the fitted slopes, as a PNG."""
    figure = new_figure(10, 4.6)
    left, right = figure.subplots(1, 2, sharey=True)
    rank, languages = result["languages_at_rank"], result["ranks_at_languages"]
    _panel(left, result["methods"], "languages", f"languages, each of rank {rank}")
    _panel(right, result["methods"], "rank", f"rank of each of {languages} languages")
    low, high = left.get_ylim()
    ticks = [digit * 10.0**power for power in range(-4, 4) for digit in (1, 2, 5)]
    ticks = [tick for tick in ticks if low <= tick <= high]
    left.set_yticks(ticks, [f"{tick:g} s" for tick in ticks])
    left.set_ylabel("one merge, one thread")
    figure.suptitle("Merging one layer of Llama-3.1-8B: 7 modules, folders in, a folder out", fontsize=12)
    figure.supxlabel("pale: least squares over the upper half of the points", fontsize=8.5, color=GREY)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(figure))


def _panel(axes: Any, methods: Mapping[str, Any], axis: str, label: str) -> None:
    ends = []
    for method, figures in methods.items():
        points = {int(n): value for n, value in figures[axis]["wall_median"].items()}
        slope = figures[axis]["exponent"]
        colour = COLOURS[method]
        axes.plot(*zip(*sorted(points.items()), strict=True), color=colour, marker=MARKERS[method], linewidth=1.6)
        upper = upper_half(points)
        middle_x = math.exp(sum(map(math.log, upper)) / len(upper))
        middle_y = math.exp(sum(map(math.log, upper.values())) / len(upper))
        fitted = [middle_y * (n / middle_x) ** slope for n in upper]
        axes.plot(list(upper), fitted, color=colour, linewidth=5, alpha=0.2, solid_capstyle="round")
        ends.append((max(points), points[max(points)], rf"{_named(method)}  $\propto n^{{{slope:.1f}}}$", colour))
    _label_ends(axes, ends)
    ticks = sorted({int(n) for figures in methods.values() for n in figures[axis]["wall_median"]})
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(ticks, [str(n) for n in ticks])
    axes.minorticks_off()
    axes.set_xlim(ticks[0] * 0.9, ticks[-1] * (ticks[-1] / ticks[0]) ** 0.62)
    axes.set_xlabel(label)
    axes.grid(axis="y", color="#e5e5e5", linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)


def _named(method: str) -> str:
    return "linear, truncated" if method == "linear" else method


def _label_ends(axes: Any, ends: list[tuple[int, float, str, str]]) -> None:
    """Write every line's name at its end, pushed apart where lines end close together."""
    last = 0.0
    for x, y, text, colour in sorted(ends, key=lambda end: end[1]):
        place = max(y, last * 1.35)
        beside = {"xytext": (9, 0), "textcoords": "offset points", "va": "center"}
        axes.annotate(text, (x, place), color=colour, fontsize=9, **beside)
        last = place
