"""How long jobs take on several workers: longest processing time first, and the bounds of that rule."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """Jobs on workers.

    Attributes:
        wall: When the last job ends.
        loads: Busy time of every worker.
        worker: The worker of every job, in the order of the jobs.
    """

    wall: float
    loads: tuple[float, ...]
    worker: tuple[int, ...]


def lpt(times: Sequence[float], workers: int) -> Schedule:
    """Give the jobs, longest first, to the worker that is free first (Graham 1969).

    max(t) ≤ wall ≤ Σt, wall ≥ Σt / W, and wall ≤ (4/3 − 1/(3W)) · the best there is. With W = 1 the wall time is Σt,
    with as many workers as jobs max(t).

    Args:
        times: How long each job takes; zero or more.
        workers: W, how many work at the same time.

    Raises:
        ValueError: There is no worker, or a time is negative or no number.
    """
    if workers < 1:
        raise ValueError(f"{workers} workers")
    if not all(0 <= time < float("inf") for time in times):
        raise ValueError(f"times {list(times)}")
    # More workers than jobs stay idle.
    free = [(0.0, worker) for worker in range(max(1, min(workers, len(times))))]
    chosen = [0] * len(times)
    for job in sorted(range(len(times)), key=lambda job: -times[job]):
        busy, worker = free[0]
        chosen[job] = worker
        heapq.heapreplace(free, (busy + times[job], worker))
    loads = tuple(busy for busy, _ in sorted(free, key=lambda pair: pair[1]))
    return Schedule(max(loads), loads, tuple(chosen))
