"""Measuring a step: wall clock, CPU and bytes of the process and its children, peak memory, accelerators, energy.

Peak memory. ``getrusage`` knows the highest mark of the whole life of the process only, so every step after a big one
would report the big one's. Linux lets a process reset that mark (``/proc/self/clear_refs``, 5) and read it
(``VmHWM``): exact and free, where sampling from a thread misses short peaks and takes the interpreter's lock. Meters
that run inside one another share the mark through ``_running``. Where the kernel does not offer it (macOS), the mark of
the whole life is given: an upper bound. Memory of child processes is not in it.

Accelerators. A GPU is paid for while a process holds it, busy or not; so its seconds are the wall seconds of the step,
for each GPU on which the process has reserved memory by the end of the step. Their energy is what their counters say
between the two ends of the step (see ``energy``).

Bytes are those of the system calls ``read`` and ``write``, of ended children too; files that are mapped into memory,
as weights are, do not count.
"""

from __future__ import annotations

import os
import re
import resource
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import psutil

from adapterctl.accounting.energy import METERS, Energy, Reading, between
from adapterctl.accounting.usage import Usage

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_HIGH_WATER = re.compile(rb"VmHWM:\s*(\d+) kB")


@dataclass(frozen=True)
class _Counts:
    """What the kernel counts for this process and all its descendants, living and waited for."""

    cpu_seconds: float
    bytes_read: int
    bytes_written: int


def _counts() -> _Counts:
    me = psutil.Process()
    seconds, read, written = 0.0, 0, 0
    for process in (me, *me.children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.Error:
            # It ended in between; its parent's children_* hold its time now or from the next reading on.
            continue
        seconds += times.user + times.system + times.children_user + times.children_system
        # Not counted on macOS; not readable, or without some fields, in some containers.
        with suppress(psutil.Error, AttributeError, OSError, RuntimeError, ValueError):
            counters = process.io_counters()
            read += getattr(counters, "read_chars", counters.read_bytes)
            written += getattr(counters, "write_chars", counters.write_bytes)
    return _Counts(seconds, read, written)


def _peak_memory() -> int:
    """Return the high-water mark of resident memory in bytes, since it was reset last."""
    try:
        found = _HIGH_WATER.search(_STATUS.read_bytes())
    except OSError:
        found = None
    if found:
        return int(found[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _reset_peak_memory() -> None:
    try:
        _CLEAR.write_bytes(b"5")
    except OSError:
        return


def _cuda() -> Any:
    """Return ``torch.cuda`` where this process uses it already, else None; never imports torch."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return None
    return torch.cuda


def _device_peaks() -> dict[int, int]:
    """Return peak bytes for each GPU on which this process holds memory."""
    cuda = _cuda()
    if cuda is None:
        return {}
    return {
        index: int(cuda.max_memory_allocated(index))
        for index in range(cuda.device_count())
        if cuda.memory_reserved(index) > 0
    }


def _held(indices: list[int], seconds: float) -> tuple[dict[str, float], frozenset[str]]:
    """Return the seconds by kind of accelerators that are held for ``seconds`` each, and their UUIDs."""
    cuda = _cuda()
    kinds: Counter[str] = Counter()
    uuids = set()
    for index in indices if cuda else ():
        kinds[str(cuda.get_device_name(index))] += 1
        # NVML counts every accelerator of the machine, torch those that the process may see: the UUID joins them.
        uuid = getattr(cuda.get_device_properties(index), "uuid", None)
        uuids.add(f"GPU-{uuid}")
    return {kind: count * seconds for kind, count in kinds.items()}, frozenset(uuids)


def _drawn(energy: Energy, cpu_seconds: float) -> dict[str, Any]:
    return {
        "energy_joules": energy.joules,
        "energy_measured": energy.measured,
        "energy_cpu_seconds": energy.cpu_share * cpu_seconds,
        "energy_device_seconds": energy.device_seconds,
    }


def _reset_device_peaks() -> None:
    cuda = _cuda()
    for index in _device_peaks():
        cuda.reset_peak_memory_stats(index)


class Meter:
    """Measure what the block below it uses.

    >>> with Meter() as meter:
    ...     meter.count(tokens=12)
    >>> meter.usage.tokens
    12

    ``usage`` can be read inside the block too, for what was used so far, and after a block that failed.
    """

    _lock = threading.Lock()
    # The kernel keeps one mark a process, so its users must know one another.
    _running: ClassVar[list[Meter]] = []
    _highest: ClassVar[int] = 0
    _first: ClassVar[Reading | None] = None

    def __init__(self) -> None:
        self._counts = Usage()
        self._peak = 0
        self._device_peak = 0
        # A block that was interrupted before it began has used nothing.
        self._final: Usage | None = Usage()

    def count(self, *, tokens: int = 0, row_epochs: int = 0, steps: int = 0, flops: float = 0.0) -> None:
        """Add what only the step itself knows."""
        self._counts += Usage(tokens=tokens, row_epochs=row_epochs, steps=steps, flops=flops)

    def __enter__(self) -> Meter:
        with self._lock:
            self._fold_peaks()
            _reset_peak_memory()
            _reset_device_peaks()
            self._running.append(self)
        self._energy = METERS.read()
        Meter._first = Meter._first or self._energy
        self._wall = time.perf_counter()
        self._before = _counts()
        self._final = None
        return self

    def __exit__(self, *exc: object) -> None:
        self._final = self._measured()
        with self._lock:
            self._running.remove(self)

    @classmethod
    def _fold_peaks(cls) -> dict[int, int]:
        """Give the marks reached so far to every meter that runs, before somebody resets them."""
        memory, devices = _peak_memory(), _device_peaks()
        Meter._highest = max(Meter._highest, memory)
        for meter in cls._running:
            meter._peak = max(meter._peak, memory)
            meter._device_peak = max(meter._device_peak, *devices.values(), 0)
        return devices

    def _measured(self) -> Usage:
        wall, counts = time.perf_counter() - self._wall, _counts()
        cpu = max(0.0, counts.cpu_seconds - self._before.cpu_seconds)
        with self._lock:
            held = sorted(self._fold_peaks())
        devices, uuids = _held(held, wall)
        return Usage(
            wall_seconds=wall,
            cpu_seconds=cpu,
            devices=devices,
            peak_memory_bytes=self._peak,
            peak_device_memory_bytes=self._device_peak,
            # A child that ended without being waited for takes its counts with it.
            bytes_read=max(0, counts.bytes_read - self._before.bytes_read),
            bytes_written=max(0, counts.bytes_written - self._before.bytes_written),
            **_drawn(between(self._energy, METERS.read(), uuids), cpu),
        )

    @classmethod
    def first_reading(cls) -> Reading | None:
        """Return the energy counters as the first meter of this process found them; None before it."""
        return cls._first

    @classmethod
    def highest_peak(cls) -> int:
        """Return the most memory this process ever held, in bytes, whichever meters reset the mark since."""
        with cls._lock:
            cls._fold_peaks()
            return cls._highest

    @property
    def usage(self) -> Usage:
        """What the block used; so far, while it runs; nothing before it runs."""
        measured = self._measured() if self._final is None else self._final
        counted = self._counts
        return replace(
            measured,
            tokens=counted.tokens,
            row_epochs=counted.row_epochs,
            steps=counted.steps,
            flops=counted.flops,
        )


def _seconds_since_creation() -> float:
    """Return how long ago this process was created.

    The kernel notes the creation in clock ticks (10 ms) since boot; ``psutil.create_time`` adds the boot time in whole
    seconds, which a metered command of two seconds would notice.
    """
    try:
        fields = Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, IndexError, ValueError):
        age = -1.0
    return age if age >= 0 else max(0.0, time.time() - psutil.Process().create_time())


def process_usage() -> Usage:
    """Return what this process used since its creation, the interpreter's start and all imports included."""
    wall, counts = _seconds_since_creation(), _counts()
    devices, uuids = _held(sorted(_device_peaks()), wall)
    first, last = Meter.first_reading(), METERS.read()
    return Usage(
        wall_seconds=wall,
        cpu_seconds=counts.cpu_seconds,
        devices=devices,
        peak_memory_bytes=Meter.highest_peak(),
        bytes_read=counts.bytes_read,
        bytes_written=counts.bytes_written,
        **_drawn(between(first or last, last, uuids), counts.cpu_seconds),
    )


def process_seconds() -> tuple[float, float]:
    """Return wall and CPU seconds since the creation of this process, the interpreter's start included."""
    usage = process_usage()
    return usage.wall_seconds, usage.cpu_seconds
