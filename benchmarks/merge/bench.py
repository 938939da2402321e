"""What the parts of the benchmark share: where things lie, how large they are, how results are written."""

from __future__ import annotations

import importlib.util
import os
import shutil
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.merge.adapters import ATTENTION, LANGUAGES, LLAMA_8B, MLP, SMALL, AdapterSet
from benchmarks.merge.clock import measured, performed
from benchmarks.record import write_result

FIVE = LANGUAGES[:5]
KINDS = ATTENTION + MLP
Figures = dict[str, Any]


@dataclass(frozen=True)
class Bench:
    """One run of the benchmark.

    Attributes:
        work: Where adapters, models and merged folders are made; adapters and models are used again.
        results: Where results are written.
        quick: Small shapes, to see that everything runs.
        knots: A checkout of the KnOTS reference, where there is one.
    """

    work: Path
    results: Path
    quick: bool = False
    knots: Path | None = None

    @property
    def rank(self) -> int:
        return 4 if self.quick else 16

    @property
    def layers(self) -> int:
        return 2 if self.quick else 32

    @property
    def modules(self) -> int:
        return self.layers * len(KINDS)

    def set_of(self, **changes: Any) -> AdapterSet:
        """Return the set of the whole model's adapters, with some parameters changed."""
        usual: dict[str, Any] = {"layers": self.layers, "rank": self.rank}
        return AdapterSet(SMALL if self.quick else LLAMA_8B, **{**usual, **changes})

    def folders(self, adapters: AdapterSet, languages: tuple[str, ...] = FIVE) -> dict[str, str]:
        return {lang: str(folder) for lang, folder in adapters.make(self.work, languages).items()}

    def path(self, name: str) -> str:
        return str(self.work / name)

    def measure(self, label: str, job: str, **arguments: Any) -> Figures:
        """Run a job in a process of its own, or in this one where it is quick, and say what it took."""
        print(f"  {label}: ", end="", flush=True)
        figures = (performed if self.quick else measured)(self.work, job, **arguments)
        timed = {"": figures} if "wall_median" in figures else figures
        shown = [
            (f"{name}: " if name else "")
            + f"{seconds(one['wall_median'])} ({one['runs']} runs, {seconds(one['cpu_median'])} CPU, "
            + f"{gib(one['peak_over_imports'])})"
            for name, one in timed.items()
            if isinstance(one, dict) and "wall_median" in one
        ]
        print("; ".join(shown) or "done", flush=True)
        return figures

    def write(self, name: str, what: str, **figures: Any) -> None:
        shape = {"quick": True} if self.quick else {}
        write_result(
            self.results / f"merge-{name}.json",
            what,
            processor=_processor(),
            versions={package: version(package) for package in ("torch", "numba", "numpy")},
            **shape,
            **figures,
        )

    def forget(self, *names: str) -> None:
        for name in names:
            path = self.work / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def installed(package: str) -> Figures | None:
    """Return the peer's name and version, or None and say so."""
    if importlib.util.find_spec(package) is None:
        print(f"  {package} is not installed: not compared")
        return None
    return {"peer": package, "version": version(package)}


def ratio(peer: Figures, ours: Figures) -> Figures:
    """Return how many times the peer's median our median fits into, in wall and in CPU seconds."""
    both = {kind: peer[f"{kind}_median"] / ours[f"{kind}_median"] for kind in ("wall", "cpu")}
    return {**both, "lower": min(both.values())}


def seconds(value: float) -> str:
    return f"{value * 1000:.3g} ms" if value < 0.1 else f"{value:.3g} s"


def gib(size: float) -> str:
    return f"{size / 2**30:.2f} GiB"


def quiet() -> float:
    """Return the load of the last minute, before anything of ours ran."""
    return os.getloadavg()[0]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
