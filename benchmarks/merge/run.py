"""The merge benchmark: every line of the table in docs/performance.md, each with its peer in the same run.

    python benchmarks/merge/run.py all --knots CHECKOUT --work build/merge
    python benchmarks/merge/run.py knots truncation --quick
    python benchmarks/merge/run.py table

Adapters of Llama-3.1-8B's shapes are made from a seed (0.6 GB; 3.5 GB with the models for mergekit) and used again.
Every measurement is a process of its own with one BLAS thread. A peer that is not installed is left out. CHECKOUT is a
checkout of github.com/gstoica27/KnOTS. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from benchmarks.merge import device, growth, table, works  # noqa: E402
from benchmarks.merge.bench import Bench, quiet  # noqa: E402
from benchmarks.merge.clock import JobFailedError  # noqa: E402

PARTS: dict[str, Callable[[Bench], None]] = {
    "knots": works.knots,
    "truncation": works.truncation,
    "dense": works.dense,
    "model": works.model,
    "remerge": works.remerge,
    "memory": works.memory,
    "workers": works.workers,
    "growth": growth.growth,
    "device": device.device,
}


def write_documents(results: Path, documents: Path) -> None:
    """Write the table into performance.md and the picture beside it."""
    found = table.read_results(results)
    page = documents / "performance.md"
    page.write_text(table.embed(page.read_text(encoding="utf-8"), table.markdown(found)), encoding="utf-8")
    if "growth" in found:
        growth.draw(found["growth"], documents / "images/merge-growth.png")


def measure(bench: Bench, parts: Sequence[str]) -> list[str]:
    """Measure one part after another and return those that failed."""
    failed = []
    if (load := quiet()) > 0.7:
        print(f"the load of the last minute is {load:.2f}: times on a busy machine are not worth keeping")
    works.prepare(bench)
    for part in parts:
        started = time.monotonic()
        print(f"{part}: {PARTS[part].__doc__}", flush=True)
        try:
            PARTS[part](bench)
        except JobFailedError as error:
            print(error)
            failed.append(part)
        print(f"  {part} took {time.monotonic() - started:.0f} s", flush=True)
    return failed


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=[*PARTS, "all", "table"], metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--work", type=Path, help="folder for adapters and models; a temporary one by default")
    parser.add_argument("--results", type=Path, help="benchmarks/results by default; with --quick the work folder")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="folder whose performance.md is written")
    parser.add_argument("--knots", type=Path, help="checkout of the KnOTS reference")
    parser.add_argument(
        "--quick", action="store_true", help="small shapes, to see that everything runs; writes no docs"
    )
    given = parser.parse_args(arguments)
    parts = list(PARTS) if "all" in given.parts else [part for part in given.parts if part != "table"]
    with tempfile.TemporaryDirectory() as temporary:
        work = (given.work or Path(temporary)).resolve()
        results = given.results or (work if given.quick else ROOT / "benchmarks/results")
        knots = given.knots.resolve() if given.knots else None
        failed = measure(Bench(work, results, given.quick, knots), parts) if parts else []
    if not given.quick:
        write_documents(results, given.docs)
        print(table.markdown(table.read_results(results)))
    if failed:
        sys.exit(f"failed, and left as they were: {', '.join(failed)}")


if __name__ == "__main__":
    main()
