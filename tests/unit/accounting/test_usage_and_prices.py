from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapterctl.accounting.prices import EnergyPrices, PriceSheet, cost
from adapterctl.accounting.usage import Usage, total

ONE = Usage(
    wall_seconds=10, cpu_seconds=15, device_seconds=20, device="NVIDIA H100", tokens=100, row_epochs=8, steps=2,
    flops=1e9, peak_memory_bytes=500, peak_device_memory_bytes=70,
)  # fmt: skip


def test_times_and_counts_add_up_and_the_higher_peak_stays():
    other = Usage(wall_seconds=1, cpu_seconds=2, device_seconds=3, tokens=4, steps=5, flops=6, peak_memory_bytes=900)
    assert ONE + other == Usage(
        wall_seconds=11,
        cpu_seconds=17,
        device_seconds=23,
        device="NVIDIA H100",
        tokens=104,
        row_epochs=8,
        steps=7,
        flops=1e9 + 6,
        peak_memory_bytes=900,
        peak_device_memory_bytes=70,
    )


def test_different_devices_are_both_named_once():
    a100 = replace(ONE, device="NVIDIA A100")
    assert total([ONE, a100, ONE]).device == "NVIDIA A100 + NVIDIA H100"


def test_nothing_used_is_zero():
    assert total([]) == Usage()


@given(
    wall=st.floats(0, 1e9), tokens=st.integers(0, 10**15), flops=st.floats(0, 1e25), device=st.sampled_from(["", "A"])
)
def test_usage_survives_its_dictionary(wall, tokens, flops, device):
    usage = Usage(wall_seconds=wall, tokens=tokens, flops=flops, device=device)
    assert Usage.from_dict(usage.as_dict()) == usage


@pytest.mark.parametrize("bad", ["3", None, -1, float("nan"), float("inf"), True, [1]])
def test_usage_that_is_no_number_is_refused(bad):
    with pytest.raises(ValueError, match="tokens"):
        Usage.from_dict({"tokens": bad})


def test_names_of_a_later_version_are_passed_over():
    assert Usage.from_dict({"tokens": 3, "photons": "many"}) == Usage(tokens=3)


def test_cost_is_hours_times_price():
    sheet = PriceSheet(currency="EUR", cpu_core_hour=0.72, machine_hour=3.6, device_hour=1.8)
    result = cost(ONE, sheet)
    # 10 s of 3.60/h, 15 s of 0.72/h, 20 s of 1.80/h
    assert result.breakdown == pytest.approx({"machine": 0.01, "cpu": 0.003, "device": 0.01})
    assert result.amount == pytest.approx(0.023)
    assert result.currency == "EUR"


def test_energy_is_watts_times_seconds():
    energy = EnergyPrices(kwh=0.36, watts_per_core=20, watts_per_device=100)
    sheet = PriceSheet(cpu_core_hour=0, device_hour=0, energy=energy)
    # (15 s * 20 W + 20 s * 100 W) = 2300 J = 2300 / 3.6e6 kWh
    assert cost(ONE, sheet).breakdown == pytest.approx({"energy": 2300 / 3.6e6 * 0.36})


@pytest.mark.parametrize(
    ("device", "price"),
    [("NVIDIA H100 80GB", 3.0), ("NVIDIA H100 NVL", 4.0), ("Tesla T4", 2.5), ("", 2.5)],
)
def test_the_longest_part_of_the_device_name_decides(device, price):
    sheet = PriceSheet(device_hour={"default": 2.5, "h100": 3.0, "H100 NVL": 4.0})
    assert sheet.device_price(device) == price


def test_a_device_without_price_costs_nothing():
    assert PriceSheet(device_hour={"H100": 3.0}).device_price("Tesla T4") == 0.0
