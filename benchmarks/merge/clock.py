"""Measuring in a process of its own: wall and CPU seconds, and memory above what the imports took.

    python -m benchmarks.merge.clock JOB.json RESULT.json

A job names a module of this package, a function in it and the function's arguments. The module is imported with
everything it needs, resident memory is read, and only then does the function run: it prepares what it needs and has
its runs timed by the clock that it is given.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def resident(field: str = "VmRSS") -> int:
    """Return bytes of memory: ``VmRSS`` now, ``VmHWM`` at its peak since this program was started."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("memory is read from /proc, which this machine does not have")


def cpu_seconds() -> float:
    """Return the CPU seconds of this process, all threads, and of its children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


class JobFailedError(Exception):
    """A job ended without a result."""


class Clock:
    """Times runs."""

    def __init__(self, after_imports: int) -> None:
        self._after_imports = after_imports

    def measure(
        self,
        run: Callable[[int], Any],
        *,
        repeats: int,
        warm: int = 1,
        seconds: float = float("inf"),
        before: Callable[[int], Any] = lambda number: None,
    ) -> dict[str, Any]:
        """Run ``warm`` times untimed, then up to ``repeats`` times within about ``seconds``; at least once.

        ``before`` is called ahead of each run and is not timed. Runs are numbered from 0, untimed ones included.
        """
        wall, cpu = [], []
        for number in range(warm + repeats):
            before(number)
            started, used = time.perf_counter(), cpu_seconds()
            run(number)
            took, spent = time.perf_counter() - started, cpu_seconds() - used
            if number >= warm:
                wall.append(took)
                cpu.append(spent)
                if sum(wall) + took > seconds:
                    break
        return {
            "runs": len(wall),
            "warm_up_runs": warm,
            "wall_median": statistics.median(wall),
            "wall_min": min(wall),
            "cpu_median": statistics.median(cpu),
            "cpu_min": min(cpu),
            "peak_over_imports": resident("VmHWM") - self._after_imports,
        }


def measured(work: Path, job: str, **arguments: Any) -> dict[str, Any]:
    """Run a job, ``module.function``, in a new process with one BLAS thread and return what it found.

    What the job prints goes to a file in ``work``.

    Raises:
        JobFailedError: With the end of what it printed.
    """
    jobs = work / "jobs"
    jobs.mkdir(parents=True, exist_ok=True)
    number = len(list(jobs.glob("*.job.json")))
    order, result, log = (jobs / f"{number:03}.{kind}" for kind in ("job.json", "result.json", "log"))
    order.write_text(_order(job, arguments), encoding="utf-8")
    paths = [str(ROOT / "src"), str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "HF_HUB_OFFLINE"), "1"),
    }
    with log.open("wb") as handle:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.merge.clock", str(order), str(result)],
            stdout=handle,
            stderr=subprocess.STDOUT,
            env=environment,
            check=False,
        )
    if done.returncode:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        raise JobFailedError(
            "\n".join([*lines[-25:], f"{job} ended with {done.returncode}; all it printed is in {log}"])
        )
    found: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    return found


def performed(work: Path, job: str, **arguments: Any) -> dict[str, Any]:
    """Run a job in this process, which has imported and done other things before; what it prints is not shown."""
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        found: dict[str, Any] = json.loads(_perform(_order(job, arguments)))
    return found


def _order(job: str, arguments: dict[str, Any]) -> str:
    return json.dumps({"job": job, "arguments": arguments}, default=str)


def _perform(order: str) -> str:
    asked = json.loads(order)
    module, function = asked["job"].split(".")
    call = getattr(importlib.import_module(f"benchmarks.merge.{module}"), function)
    return json.dumps(call(Clock(resident()), **asked["arguments"]))


def main() -> None:
    order, result = map(Path, sys.argv[1:])
    result.write_text(_perform(order.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
