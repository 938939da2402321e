"""Energy, as far as this machine tells it: counters of NVIDIA accelerators, and CodeCarbon where that is asked for.

NVML (``pip install adapterctl[energy]``) gives the joules that an accelerator has drawn since its driver was loaded:
what a step drew is the difference of two readings. Processors and memory have no counter that every user may read;
CodeCarbon (``pip install adapterctl[codecarbon]`` and ``prices.energy.processors: codecarbon``) estimates them.
"""

from __future__ import annotations

import ctypes
import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

from adapterctl.errors import UsageError

Processors = Literal["watts", "codecarbon"]
_JOULES_PER_KWH = 3.6e6


@dataclass(frozen=True)
class Reading:
    """All counters at one moment.

    Attributes:
        seconds: The moment, on the clock of ``time.perf_counter``.
        devices: Joules by the UUID of the accelerator.
        processors: Joules of processors and memory as CodeCarbon estimates them; None where it does not run.
    """

    seconds: float
    devices: Mapping[str, float] = field(default_factory=dict)
    processors: float | None = None


@dataclass(frozen=True)
class Energy:
    """What was drawn between two readings.

    Attributes:
        joules: By accelerators that were held, and by processors.
        measured: Whether all of it was read from counters.
        cpu_share: 1 where the processors are in it, else 0.
        device_seconds: Seconds of accelerators that are in it.
    """

    joules: float = 0.0
    measured: bool = False
    cpu_share: float = 0.0
    device_seconds: float = 0.0


@cache
def _nvml() -> Any:
    """Return the library of NVIDIA's counters where driver and extra are there, else None."""
    try:
        # Without a driver the package need not be imported: that takes twenty milliseconds of every command.
        ctypes.CDLL("libnvidia-ml.so.1")
        import pynvml

        pynvml.nvmlInit()
    except Exception:
        return None
    return pynvml


def _device_joules() -> dict[str, float]:
    nvml = _nvml()
    found: dict[str, float] = {}
    if nvml is None:
        return found
    count = 0
    # A driver that went away tells nothing more, which is no reason to stop the work.
    with suppress(nvml.NVMLError):
        count = nvml.nvmlDeviceGetCount()
    for index in range(count):
        # Accelerators before Volta have no counter.
        with suppress(nvml.NVMLError):
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            uuid = nvml.nvmlDeviceGetUUID(handle)
            found[uuid] = nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000
    return found


class _CodeCarbon:
    """CodeCarbon's tracker, read through an output of ours; it writes no file and asks nobody on the network."""

    def __init__(self) -> None:
        try:
            from codecarbon import OfflineEmissionsTracker
            from codecarbon.output_methods.base_output import BaseOutput
        except ImportError as error:
            raise UsageError(
                "prices.energy.processors is codecarbon, but CodeCarbon is not installed",
                hint="pip install 'adapterctl[codecarbon]', or set prices.energy.processors: watts",
            ) from error

        class Last(BaseOutput):  # type: ignore[misc]
            kwh = 0.0

            def out(self, total: Any, delta: Any) -> None:
                self.kwh = total.cpu_energy + total.ram_energy

        # It speaks before it reads its own log level.
        logging.getLogger("codecarbon").setLevel(logging.CRITICAL)
        self._last = Last()
        self._tracker = OfflineEmissionsTracker(
            # The country decides on grams of CO2 only, which the price sheet knows better.
            country_iso_code="USA",
            tracking_mode="process",
            output_methods=[],
            output_handlers=[self._last],
            allow_multiple_runs=True,
            gpu_ids=[],
            log_level="critical",
        )
        self._tracker.start()
        # It reports no error of its own by an exception; without figures it gives None.
        if self._tracker.flush() is None:
            raise UsageError(
                "CodeCarbon cannot tell the energy of this machine",
                hint="look at what it says with: codecarbon monitor --offline; or set prices.energy.processors: watts",
            )

    def stop(self) -> None:
        """End the tracker and its thread."""
        self._tracker.stop()

    def joules(self) -> float:
        """Return the energy of processors and memory since the start."""
        self._tracker.flush()
        return self._last.kwh * _JOULES_PER_KWH


class Meters:
    """The counters of this machine, read together."""

    def __init__(self) -> None:
        self._tracker: _CodeCarbon | None = None

    def use(self, processors: Processors) -> None:
        """Say who tells the energy of processors; ``codecarbon`` starts its tracker.

        Raises:
            UsageError: CodeCarbon is not installed.
        """
        if processors == "watts":
            if self._tracker is not None:
                self._tracker.stop()
            self._tracker = None
        elif self._tracker is None:
            self._tracker = _CodeCarbon()

    def read(self) -> Reading:
        """Read every counter there is."""
        processors = None if self._tracker is None else self._tracker.joules()
        return Reading(time.perf_counter(), _device_joules(), processors)


METERS = Meters()
"""A process has one: counters are the machine's."""


def between(start: Reading, end: Reading, held: frozenset[str]) -> Energy:
    """Return what accelerators and processors drew between two readings.

    Args:
        start: The earlier reading.
        end: The later one.
        held: UUIDs of the accelerators that were held; the energy of others is not ours.
    """
    both = [uuid for uuid in sorted(held) if uuid in start.devices and uuid in end.devices]
    # A counter that began anew, with the driver, tells nothing about the time in between.
    known = [uuid for uuid in both if end.devices[uuid] >= start.devices[uuid]]
    joules = sum((end.devices[uuid] - start.devices[uuid] for uuid in known), 0.0)
    estimated = None
    if start.processors is not None and end.processors is not None:
        estimated = max(0.0, end.processors - start.processors)
    return Energy(
        joules=joules + (estimated or 0.0),
        measured=joules > 0 and not estimated,
        cpu_share=0.0 if estimated is None else 1.0,
        device_seconds=len(known) * max(0.0, end.seconds - start.seconds),
    )
