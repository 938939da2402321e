"""The table of docs/performance.md, written from the results and from nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.merge.bench import gib, seconds

BEGIN, END = "<!-- merge table: written by benchmarks/merge/run.py table -->", "<!-- end of merge table -->"
NOTHING = "—"
NAMES = ("knots-ties", "truncation", "dense", "into-model", "again", "memory", "workers", "growth", "device")

Results = Mapping[str, Mapping[str, Any]]
Cell = Callable[[Results], str]


def read_results(folder: Path) -> dict[str, dict[str, Any]]:
    """Return every result that is there, by name."""
    found = {}
    for name in NAMES:
        path = folder / f"merge-{name}.json"
        if path.is_file():
            found[name] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _time(*keys: str) -> Cell:
    return lambda results: seconds(_at(results, *keys)["wall_median"])


def _times(*keys: str) -> Cell:
    """A ratio: the lower of the one in wall seconds and the one in CPU seconds."""
    return lambda results: f"{_round(_at(results, *keys)['lower'])}×"


def _nothing(results: Results) -> str:
    return NOTHING


def _at(results: Results, *keys: str) -> Any:
    value: Any = results
    for key in keys:
        value = value[key]
    return value


def _round(value: float) -> str:
    """Two digits and no more: it is a measurement."""
    if value < 10:
        return f"{value:.2g}"
    digits = len(str(int(value)))
    return f"{round(value, 2 - digits):,.0f}"


def _worst(results: Results) -> str:
    methods = _at(results, "memory", "methods")
    method = max(methods, key=lambda name: methods[name]["peak_over_imports"])
    return f"{gib(methods[method]['peak_over_imports'])} ({method})"


ROWS: tuple[tuple[str, str, Cell, Cell, Cell, str], ...] = (
    (
        "knots-ties, 224 modules",
        NOTHING,
        _time("knots-ties", "whole"),
        _nothing,
        _nothing,
        "≤ 2.5 s",
    ),
    (
        "knots-ties, k_proj, in memory",
        "KnOTS reference",
        _time("knots-ties", "k_proj", "in_memory"),
        _time("knots-ties", "k_proj", "peer"),
        _times("knots-ties", "k_proj", "ratio_in_memory"),
        "≥ 800×",
    ),
    (
        "mean, rank 16, 224 modules",
        NOTHING,
        _time("truncation", "whole"),
        _nothing,
        _nothing,
        "≤ 1.85 s",
    ),
    *(
        (
            f"mean, rank 16, {kind}, in memory",
            "PEFT `svd`",
            _time("truncation", kind, "in_memory"),
            _time("truncation", kind, "peer"),
            _times("truncation", kind, "ratio_in_memory"),
            goal,
        )
        for kind, goal in (("k_proj", NOTHING), ("q_proj", "≥ 1,000×"))
    ),
    (
        "ties → rank 16, gate_proj",
        "PEFT `ties_svd`",
        _time("dense", "ties", "to_disk"),
        _time("dense", "ties", "peer"),
        _times("dense", "ties", "ratio_to_disk"),
        "≥ 100×",
    ),
    (
        "the same",
        "PEFT `ties_svd`, `svd_full_matrices=False`",
        _time("dense", "ties", "to_disk"),
        _time("dense", "ties", "peer_thin"),
        _times("dense", "ties", "ratio_thin"),
        NOTHING,
    ),
    (
        "dare-ties → rank 16, gate_proj",
        "PEFT `dare_ties_svd`",
        _time("dense", "dare-ties", "to_disk"),
        _time("dense", "dare-ties", "peer"),
        _times("dense", "dare-ties", "ratio_to_disk"),
        "≥ 130×",
    ),
    (
        "ties, merged model out, 1 layer",
        "mergekit `ties`",
        _time("into-model", "to_disk"),
        _time("into-model", "peer"),
        _times("into-model", "ratio_to_disk"),
        "≥ 25×",
    ),
    *(
        (
            f"{name} again, one of five languages changed",
            "own full merge",
            _time("again", "methods", name, "again"),
            _time("again", "methods", name, "full"),
            _times("again", "methods", name, "ratio"),
            "≥ 2×",
        )
        for name in ("knots-ties", "core-tsv", "linear", "ties")
    ),
    *(
        (
            f"{name}, 224 modules, two workers",
            "own, one worker",
            _time("workers", name, "threads_2"),
            _time("workers", name, "threads_1"),
            lambda results, name=name: f"{_at(results, 'workers', name, 'scaling'):.2f}×",
            "≥ 1.6×",
        )
        for name in ("knots-ties", "linear")
    ),
    ("peak memory, 224 modules, worst exact method", NOTHING, _worst, _nothing, _nothing, "≤ 0.8 GiB"),
)


def markdown(results: Results) -> str:
    """Return the table, with a dash where nothing was measured, and the machine it was measured on."""
    lines = ["| work | peer | ours | peer's time | ratio | goal |", "|---|---|---:|---:|---:|---:|"]
    for work, peer, *cells, goal in ROWS:
        lines.append(f"| {work} | {peer} | {' | '.join(_filled(cell, results) for cell in cells)} | {goal} |")
    notes = [*_same_result(results), *_growth(results), *_machine(results)]
    return "\n".join([*lines, *(line for note in notes for line in ("", note))])


def _filled(cell: Cell, results: Results) -> str:
    try:
        return cell(results)
    except KeyError:
        return NOTHING


def _machine(results: Results) -> list[str]:
    """Say where and when; one line for results of one run."""
    seen = {
        f"{result['processor']}, {result['machine']}; {result['date']}, commit {result['commit']}": None
        for name, result in results.items()
        if name != "device"
    }
    return [f"Measured on: {'; '.join(seen)}."] if seen else []


def _same_result(results: Results) -> list[str]:
    """Say how far our results lie from the peers'."""
    pairs = (
        ("KnOTS k_proj", ("knots-ties", "k_proj")),
        ("PEFT `svd` k_proj", ("truncation", "k_proj")),
        ("PEFT `svd` q_proj", ("truncation", "q_proj")),
        ("PEFT `ties_svd` gate_proj", ("dense", "ties")),
        ("mergekit k_proj", ("into-model",)),
    )
    known = [
        f"{name} {value:.0e}" for name, keys in pairs if (value := _perhaps(results, *keys, "to_disk", "difference"))
    ]
    return [f"‖ours − theirs‖ / ‖theirs‖: {', '.join(known)}."] if known else []


def _growth(results: Results) -> list[str]:
    """Say how time grows with languages and with rank."""
    methods = _perhaps(results, "growth", "methods") or {}
    told = [
        f"{name} as languages^{found['languages']['exponent']:.1f} and rank^{found['rank']['exponent']:.1f}"
        for name, found in methods.items()
    ]
    return [f"Time of one layer grows, over the upper half of the points: {'; '.join(told)}."] if told else []


def _perhaps(results: Results, *keys: str) -> Any:
    try:
        return _at(results, *keys)
    except KeyError:
        return None


def embed(document: str, table: str) -> str:
    """Return the document with what lies between the two marks replaced.

    Raises:
        ValueError: The marks are not there.
    """
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"there is no {BEGIN} … {END} to write the table between")
    return f"{before}{BEGIN}\n{table}\n{END}{after}"
