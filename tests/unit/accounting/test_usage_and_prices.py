import datetime
import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from adapterctl.accounting.prices import EnergyPrices, PriceSheet, cost
from adapterctl.accounting.usage import Usage, total

H100 = "NVIDIA H100"
ONE = Usage(
    wall_seconds=10, cpu_seconds=15, devices={H100: 20.0}, tokens=100, row_epochs=8, steps=2, flops=1e9,
    peak_memory_bytes=500, peak_device_memory_bytes=70, bytes_read=1000, bytes_written=30,
)  # fmt: skip


def test_times_and_counts_add_up_and_the_higher_peak_stays():
    other = Usage(
        wall_seconds=1, cpu_seconds=2, devices={H100: 3.0}, tokens=4, steps=5, flops=6, peak_memory_bytes=900,
        bytes_read=1, bytes_written=2,
    )  # fmt: skip
    assert ONE + other == Usage(
        wall_seconds=11,
        cpu_seconds=17,
        devices={H100: 23.0},
        tokens=104,
        row_epochs=8,
        steps=7,
        flops=1e9 + 6,
        peak_memory_bytes=900,
        peak_device_memory_bytes=70,
        bytes_read=1001,
        bytes_written=32,
    )


def test_seconds_of_different_devices_stay_apart():
    a100 = replace(ONE, devices={"NVIDIA A100": 5.0})
    both = total([ONE, a100, ONE])
    assert both.devices == {"NVIDIA A100": 5.0, H100: 40.0}
    assert both.device_seconds == 45.0


def test_energy_is_measured_where_all_of_it_is():
    read = Usage(cpu_seconds=1, energy_joules=50, energy_measured=True)
    guessed = Usage(cpu_seconds=1, energy_joules=20)
    # One without any energy takes nothing away from what was measured.
    assert (read + ONE).energy_measured
    assert (Usage() + read).energy_measured
    assert not (read + guessed).energy_measured
    assert not (ONE + ONE).energy_measured
    assert (read + guessed).energy_joules == 70


def test_nothing_used_is_zero():
    assert total([]) == Usage()


usages = st.builds(
    Usage,
    wall_seconds=st.floats(0, 1e9),
    tokens=st.integers(0, 10**15),
    flops=st.floats(0, 1e25),
    devices=st.dictionaries(st.sampled_from(["A", "B"]), st.floats(0.1, 1e6)),
    energy_joules=st.floats(0, 1e9),
    energy_measured=st.booleans(),
    bytes_read=st.integers(0, 10**15),
)


@given(usages)
def test_usage_survives_its_dictionary(usage):
    assert Usage.from_dict(usage.as_dict()) == usage


@given(st.lists(usages, min_size=3, max_size=3))
def test_the_order_of_a_sum_does_not_matter(parts):
    sums = [total(order).as_dict() for order in itertools.permutations(parts)]
    for one in sums[1:]:
        assert one.pop("devices") == pytest.approx(sums[0]["devices"])
        assert one == pytest.approx({name: value for name, value in sums[0].items() if name != "devices"})


@pytest.mark.parametrize("bad", ["3", None, -1, float("nan"), float("inf"), True, [1]])
def test_usage_that_is_no_number_is_refused(bad):
    with pytest.raises(ValueError, match="tokens"):
        Usage.from_dict({"tokens": bad})
    with pytest.raises(ValueError, match=r"devices\.A"):
        Usage.from_dict({"devices": {"A": bad}})


@pytest.mark.parametrize("bad", [{"devices": 3}, {"energy_measured": 1}, {"device": 3, "device_seconds": 1}])
def test_usage_of_a_wrong_shape_is_refused(bad):
    with pytest.raises(ValueError, match="usage"):
        Usage.from_dict(bad)


def test_names_of_a_later_version_are_passed_over():
    assert Usage.from_dict({"tokens": 3, "photons": "many"}) == Usage(tokens=3)


@pytest.mark.parametrize(
    ("old", "devices"),
    [
        ({"device": "NVIDIA A100 + NVIDIA H100", "device_seconds": 4}, {"NVIDIA A100 + NVIDIA H100": 4}),
        ({"device": "", "device_seconds": 0.0}, {}),
        ({"device_seconds": 2.5}, {"accelerator": 2.5}),
    ],
)
def test_books_of_before_devices_had_kinds_are_read(old, devices):
    assert Usage.from_dict({"wall_seconds": 3.0, **old}) == Usage(wall_seconds=3.0, devices=devices)


def test_cost_is_hours_times_price():
    sheet = PriceSheet(currency="EUR", cpu_core_hour=0.72, machine_hour=3.6, device_hour=1.8)
    result = cost(ONE, sheet)
    # 10 s of 3.60/h, 15 s of 0.72/h, 20 s of 1.80/h
    assert result.breakdown == pytest.approx({"machine": 0.01, "cpu": 0.003, "device": 0.01})
    assert result.amount == pytest.approx(0.023)
    assert result.currency == "EUR"


def test_every_kind_of_device_has_its_own_price():
    sheet = PriceSheet(cpu_core_hour=0, device_hour={"default": 0.0, "H100": 3.6, "A100": 1.8})
    both = replace(ONE, devices={H100: 10.0, "NVIDIA A100": 20.0, "Tesla T4": 99.0})
    assert cost(both, sheet).amount == pytest.approx(10 * 0.001 + 20 * 0.0005)


def test_spot_machines_cost_a_share_and_electricity_costs_all():
    energy = EnergyPrices(kwh=0.36, watts_per_core=20, watts_per_device=100)
    sheet = PriceSheet(cpu_core_hour=0.72, device_hour=1.8, energy=energy)
    full, spot = cost(ONE, sheet).breakdown, cost(ONE, sheet.model_copy(update={"spot_factor": 0.3})).breakdown
    assert spot["cpu"] == pytest.approx(0.3 * full["cpu"])
    assert spot["device"] == pytest.approx(0.3 * full["device"])
    assert spot["energy"] == full["energy"]


def test_energy_is_watts_times_seconds():
    energy = EnergyPrices(kwh=0.36, watts_per_core=20, watts_per_device=100, co2_per_kwh=0.5)
    sheet = PriceSheet(cpu_core_hour=0, device_hour=0, energy=energy)
    # (15 s * 20 W + 20 s * 100 W) = 2300 J = 2300 / 3.6e6 kWh
    found = cost(ONE, sheet)
    assert found.breakdown == pytest.approx({"energy": 2300 / 3.6e6 * 0.36})
    assert (found.kwh, found.measured_kwh) == (pytest.approx(2300 / 3.6e6), 0.0)
    assert found.co2_kg == pytest.approx(2300 / 3.6e6 * 0.5)


def test_what_a_meter_read_is_not_computed_again():
    energy = EnergyPrices(watts_per_core=20, watts_per_device=100)
    metered = replace(ONE, energy_joules=5000.0, energy_measured=True, energy_device_seconds=12.0)
    found = cost(metered, PriceSheet(energy=energy))
    # 5000 J were read over 12 of 20 s; 8 s at 100 W and 15 s at 20 W are left.
    assert found.kwh == pytest.approx((5000 + 800 + 300) / 3.6e6)
    assert found.measured_kwh == pytest.approx(5000 / 3.6e6)
    estimated = cost(replace(metered, energy_measured=False, energy_cpu_seconds=15.0), PriceSheet(energy=energy))
    assert (estimated.kwh, estimated.measured_kwh) == (pytest.approx(5800 / 3.6e6), 0.0)


@pytest.mark.parametrize(
    ("device", "price"),
    [("NVIDIA H100 80GB", 3.0), ("NVIDIA H100 NVL", 4.0), ("Tesla T4", 2.5), ("", 2.5)],
)
def test_the_longest_part_of_the_device_name_decides(device, price):
    sheet = PriceSheet(device_hour={"default": 2.5, "h100": 3.0, "H100 NVL": 4.0})
    assert sheet.device_price(device) == price


def test_a_device_without_price_costs_nothing():
    assert PriceSheet(device_hour={"H100": 3.0}).device_price("Tesla T4") == 0.0


def test_a_sheet_has_a_day():
    assert PriceSheet.model_validate({"as_of": "2026-11-20"}).as_of == datetime.date(2026, 11, 20)
    assert PriceSheet(as_of=datetime.date(2026, 11, 20)).as_of == datetime.date(2026, 11, 20)


@pytest.mark.parametrize(
    "wrong",
    [
        {"as_of": "last week"}, {"as_of": 20261120}, {"spot_factor": 0}, {"spot_factor": 1.5}, {"billing": "yearly"},
        {"workers": 0}, {"cpu_core_hour": -1}, {"device_hour": -1}, {"device_hour": {"H100": -2}},
        {"energy": {"processors": "guess"}}, {"energy": {"co2_per_kwh": -1}}, {"price": 3},
    ],
)  # fmt: skip
def test_a_sheet_that_cannot_be_meant_is_refused(wrong):
    with pytest.raises(ValidationError):
        PriceSheet.model_validate(wrong)
