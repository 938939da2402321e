import sys
import time

import pytest

from adapterctl.accounting import energy
from adapterctl.accounting.energy import Energy, Meters, Reading, between
from adapterctl.errors import UsageError


def test_only_what_was_held_counts():
    start = Reading(10.0, {"a": 100.0, "b": 50.0})
    end = Reading(14.0, {"a": 160.0, "b": 90.0})
    assert between(start, end, frozenset()) == Energy()
    assert between(start, end, frozenset("b")) == Energy(40.0, True, 0.0, 4.0)
    # An accelerator without a counter is held too, but its energy is not told.
    assert between(start, end, frozenset("abc")) == Energy(100.0, True, 0.0, 8.0)


def test_a_counter_that_began_anew_gives_nothing_below_zero():
    found = between(Reading(0.0, {"a": 900.0}), Reading(1.0, {"a": 5.0}), frozenset("a"))
    assert (found.joules, found.measured) == (0.0, False)


def test_what_codecarbon_tells_is_an_estimate_of_all_processors():
    start, end = Reading(0.0, {"a": 0.0}, 5.0), Reading(2.0, {"a": 30.0}, 25.0)
    assert between(start, end, frozenset("a")) == Energy(50.0, False, 1.0, 2.0)
    assert between(Reading(0.0), end, frozenset()) == Energy()


def test_codecarbon_that_is_missing_is_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "codecarbon", None)
    with pytest.raises(UsageError, match="CodeCarbon is not installed") as caught:
        Meters().use("codecarbon")
    assert "adapterctl[codecarbon]" in caught.value.hint


def test_watts_need_nothing():
    meters = Meters()
    meters.use("watts")
    assert meters.read().processors is None


def test_codecarbon_tells_the_energy_of_a_busy_core_and_writes_no_file(tmp_path, monkeypatch):
    pytest.importorskip("codecarbon", reason="the extra codecarbon is not installed")
    monkeypatch.chdir(tmp_path)
    meters = Meters()
    meters.use("codecarbon")
    start, end = meters.read(), time.process_time() + 0.4
    while time.process_time() < end:
        pass
    drawn = between(start, meters.read(), frozenset())
    meters.use("watts")
    # Some watts at least, and less than the hottest machine there is.
    assert 0.1 < drawn.joules < 2000
    assert (drawn.measured, drawn.cpu_share) == (False, 1.0)
    assert list(tmp_path.iterdir()) == []


def test_a_counter_that_began_anew_leaves_its_seconds_to_be_computed():
    start, end = Reading(0.0, {"a": 900.0, "b": 1.0}), Reading(4.0, {"a": 5.0, "b": 21.0})
    assert between(start, end, frozenset("ab")) == Energy(20.0, True, 0.0, 4.0)


def test_a_driver_that_goes_away_stops_nothing(monkeypatch):
    class Lost(Exception):
        pass

    class Nvml:
        NVMLError = Lost

        def nvmlDeviceGetCount(self):
            raise Lost("GPU is lost")

    monkeypatch.setattr(energy, "_nvml", Nvml)
    assert Meters().read().devices == {}
