"""Workers over modules: each computes with one thread, so that their number changes no result."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TypeVar

import torch

from adapterctl.merging.arena import released

Progress = Callable[[int, int], None]
"""Called with the number of steps done and the number to do."""

Item = TypeVar("Item")
Result = TypeVar("Result")

_MOST = 8


def default_threads() -> int:
    """Return how many workers there are unless asked otherwise: one for each processor at hand, at most eight."""
    return max(1, min(_MOST, len(os.sched_getaffinity(0))))


class Workers:
    """Applies functions to modules, in one thread or in several.

    Args:
        pool: Where the work is done; None does it in the calling thread.
        progress: Told after every step.
        total: How many steps there will be in all; :meth:`expect` adds to it.
    """

    def __init__(self, pool: ThreadPoolExecutor | None, progress: Progress | None, total: int) -> None:
        self._pool, self._progress = pool, progress
        self._done, self._total = 0, total

    def expect(self, more: int) -> None:
        """Announce further steps."""
        self._total += more

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """Return the results in the order of the items; the first failure ends the work that has not begun."""
        if self._pool is None:
            results = []
            for item in items:
                results.append(function(item))
                self._step()
            return results
        futures: list[Future[Result]] = [self._pool.submit(function, item) for item in items]
        try:
            pending = set(futures)
            while pending:
                finished, pending = wait(pending, return_when=FIRST_COMPLETED)
                for future in finished:
                    future.result()
                    self._step()
        except BaseException:
            for future in futures:
                future.cancel()
            wait(futures)
            raise
        return [future.result() for future in futures]

    def _step(self) -> None:
        self._done += 1
        if self._progress:
            self._progress(self._done, self._total)


@contextmanager
def workers(threads: int, progress: Progress | None, total: int) -> Iterator[Workers]:
    """Give workers, each with one thread of arithmetic: sums in another order would give other bytes."""
    with _one_thread_each():
        if threads == 1:
            with released():
                yield Workers(None, progress, total)
        else:
            with ThreadPoolExecutor(threads, "merge", initializer=lambda: torch.set_num_threads(1)) as pool:
                yield Workers(pool, progress, total)


_lock = threading.Lock()
_merging: list[int] = []
"""How many threads torch had before each of the merges that are under way in this process."""


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Let torch compute with one thread until the last of the merges in this process has ended."""
    with _lock:
        _merging.append(_merging[0] if _merging else torch.get_num_threads())
        torch.set_num_threads(1)
    try:
        yield
    finally:
        with _lock:
            before = _merging.pop()
            if not _merging:
                torch.set_num_threads(before)
