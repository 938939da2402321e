import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

import adapterctl
from adapterctl.accounting import energy
from adapterctl.accounting import meter as module
from adapterctl.accounting.meter import Meter, process_seconds, process_usage
from adapterctl.accounting.usage import Usage

MIB = 2**20
BURN = "import time\nend = time.process_time() + {seconds}\nwhile time.process_time() < end: pass"


def test_wall_seconds_are_those_that_passed():
    started = time.perf_counter()
    with Meter() as meter:
        time.sleep(0.2)
    assert 0.2 <= meter.usage.wall_seconds <= time.perf_counter() - started
    assert meter.usage.cpu_seconds < 0.15


def test_cpu_seconds_are_those_of_this_process():
    with Meter() as meter:
        exec(BURN.format(seconds=0.22))
    # The kernel counts user and system time in ticks of 10 ms and rounds each down: up to two ticks go missing.
    assert 0.19 <= meter.usage.cpu_seconds < 0.5


def test_cpu_seconds_of_children_count_after_their_end():
    with Meter() as meter:
        subprocess.run([sys.executable, "-c", BURN.format(seconds=0.3)], check=True)
    assert 0.29 <= meter.usage.cpu_seconds < 1.0


def test_cpu_seconds_of_living_children_count_too():
    with Meter() as meter:
        child = subprocess.Popen(
            [sys.executable, "-c", BURN.format(seconds=0.2) + "\nprint(time.process_time(), flush=True)\ninput()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert child.stdout is not None
        burnt = float(child.stdout.readline())
        so_far = meter.usage.cpu_seconds
        child.communicate(b"\n")
    # Its start costs processor time as well, more on a machine with other work; it says itself how much that was.
    assert burnt - 0.02 <= so_far < burnt + 0.3
    assert meter.usage.cpu_seconds >= so_far - 0.02


def test_peak_memory_is_that_of_the_step():
    big = bytearray(120 * MIB)
    big[::4096] = b"x" * len(big[::4096])
    del big
    with Meter() as small:
        held = bytearray(8 * MIB)
        held[::4096] = b"x" * len(held[::4096])
    with Meter() as large:
        more = bytearray(80 * MIB)
        more[::4096] = b"x" * len(more[::4096])
        del more
    difference = large.usage.peak_memory_bytes - small.usage.peak_memory_bytes
    assert 60 * MIB < difference < 90 * MIB
    assert process_usage().peak_memory_bytes >= large.usage.peak_memory_bytes + 25 * MIB


def test_a_meter_inside_another_does_not_hide_the_earlier_peak():
    with Meter() as outer:
        big = bytearray(80 * MIB)
        big[::4096] = b"x" * len(big[::4096])
        del big
        with Meter() as inner:
            pass
    assert outer.usage.peak_memory_bytes - inner.usage.peak_memory_bytes > 60 * MIB


def fail(meter):
    with meter:
        meter.count(tokens=3, flops=2.0)
        meter.count(tokens=4, steps=1)
        raise RuntimeError


def test_a_failed_block_is_measured_too():
    meter = Meter()
    with pytest.raises(RuntimeError):
        fail(meter)
    assert (meter.usage.tokens, meter.usage.steps, meter.usage.flops) == (7, 1, 2.0)
    with Meter() as after:
        pass
    assert after.usage.tokens == 0


def fake_torch(initialized, reserved, allocated=(0, 0)):
    resets = []
    cuda = SimpleNamespace(
        is_available=lambda: True,
        is_initialized=lambda: initialized,
        device_count=lambda: 2,
        memory_reserved=lambda index: reserved[index],
        max_memory_allocated=lambda index: allocated[index],
        reset_peak_memory_stats=resets.append,
        get_device_name=lambda index: "NVIDIA H100",
        get_device_properties=lambda index: SimpleNamespace(uuid=f"uuid-{index}"),
        resets=resets,
    )
    return SimpleNamespace(cuda=cuda)


def test_device_seconds_are_wall_seconds_of_each_gpu_in_use(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", fake_torch(True, [10, 20], [7, 9]))
    with Meter() as meter:
        time.sleep(0.05)
    usage = meter.usage
    assert usage.device_seconds == pytest.approx(2 * usage.wall_seconds)
    assert (list(usage.devices), usage.peak_device_memory_bytes) == (["NVIDIA H100"], 9)
    assert sys.modules["torch"].cuda.resets == [0, 1]


def test_a_gpu_that_this_process_does_not_use_is_free(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", fake_torch(True, [0, 20]))
    with Meter() as meter:
        pass
    assert meter.usage.device_seconds == pytest.approx(meter.usage.wall_seconds)
    monkeypatch.setitem(sys.modules, "torch", fake_torch(False, [10, 20]))
    with Meter() as meter:
        pass
    assert (meter.usage.device_seconds, meter.usage.devices) == (0.0, {})


def test_without_a_resettable_mark_the_mark_of_the_whole_life_is_given(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "_STATUS", tmp_path / "none")
    monkeypatch.setattr(module, "_CLEAR", tmp_path / "none" / "none")
    with Meter() as meter:
        pass
    assert meter.usage.peak_memory_bytes > 10 * MIB


def test_bytes_are_those_that_were_read_and_written(tmp_path):
    path = tmp_path / "some"
    with Meter() as nothing:
        pass
    with Meter() as meter:
        path.write_bytes(b"x" * 3 * MIB)
        assert len(path.read_bytes()) == 3 * MIB
    # Reading the counters themselves reads some files of the kernel.
    assert 3 * MIB <= meter.usage.bytes_written < 3.2 * MIB
    assert 3 * MIB <= meter.usage.bytes_read < 3.2 * MIB
    assert nothing.usage.bytes_written < MIB / 8
    assert process_usage().bytes_written >= 3 * MIB


class FakeNvml:
    """Two accelerators that draw 300 and 100 W from the driver's start on, on a clock of its own."""

    NVMLError = RuntimeError

    def __init__(self):
        self.seconds = 50.0

    def nvmlDeviceGetCount(self):
        return 3

    def nvmlDeviceGetHandleByIndex(self, index):
        return index

    def nvmlDeviceGetUUID(self, handle):
        return f"GPU-uuid-{handle}"

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):
        if handle == 2:
            raise self.NVMLError("not supported by this accelerator")
        return [300_000, 100_000][handle] * self.seconds


def test_energy_is_the_difference_of_the_counters_of_the_devices_held(monkeypatch):
    nvml = FakeNvml()
    clock = SimpleNamespace(perf_counter=lambda: nvml.seconds)
    monkeypatch.setattr(energy, "_nvml", lambda: nvml)
    monkeypatch.setattr(energy, "time", clock)
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setitem(sys.modules, "torch", fake_torch(True, [0, 20]))
    with Meter() as meter:
        nvml.seconds += 4
    usage = meter.usage
    # The second accelerator alone is held: 100 W for 4 s.
    assert (usage.energy_joules, usage.energy_measured) == (400.0, True)
    assert (usage.energy_device_seconds, usage.device_seconds) == (4.0, 4.0)
    assert usage.energy_cpu_seconds == 0.0
    with Meter() as both:
        sys.modules["torch"].cuda.memory_reserved = lambda index: 1
        nvml.seconds += 1
    assert both.usage.energy_joules == 400.0


def test_without_counters_no_energy_is_told(monkeypatch):
    monkeypatch.setattr(energy, "_nvml", lambda: None)
    monkeypatch.setitem(sys.modules, "torch", fake_torch(True, [10, 20]))
    with Meter() as meter:
        pass
    assert (meter.usage.energy_joules, meter.usage.energy_measured, meter.usage.energy_device_seconds) == (0, False, 0)
    assert meter.usage.device_seconds > 0


PROCESS = """
import time
{before}
time.sleep(0.3)
from adapterctl.accounting.meter import process_seconds
import sys
assert "torch" not in sys.modules
print(*process_seconds())
"""


def test_process_seconds_begin_before_the_interpreter():
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", PROCESS.format(before=BURN.format(seconds=0.2))],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(adapterctl.__file__).parents[1])},
    )
    outside = time.perf_counter() - started
    wall, cpu = map(float, done.stdout.split())
    assert 0.5 < wall <= outside + 0.02
    # Starting Python and importing psutil takes some time, and it counts.
    assert wall > 0.53
    assert 0.2 < cpu < wall - 0.28


def test_process_seconds_of_this_process_grow():
    started = time.perf_counter()
    first, _ = process_seconds()
    time.sleep(0.1)
    # The kernel notes a process's creation in ticks of 10 ms.
    assert 0.08 < process_seconds()[0] - first < time.perf_counter() - started + 0.02


def test_a_block_that_did_not_begin_has_used_what_was_counted() -> None:
    meter = Meter()
    meter.count(tokens=3)
    assert meter.usage == Usage(tokens=3)
