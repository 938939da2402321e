from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapterctl.merging.scale import choose_scale


class Counted:
    """A function of λ that notes every call."""

    def __init__(self, values: dict[float, float] | None = None, peak: float = 1.0) -> None:
        self.values, self.peak = values, peak
        self.calls: list[float] = []

    def __call__(self, scale: float) -> float:
        self.calls.append(scale)
        return self.values[scale] if self.values is not None else -abs(math.log(scale / self.peak))


@settings(deadline=None)
@given(st.integers(-3, 3), st.floats(-0.45, 0.45), st.sampled_from([1.1, 1.25, 2.0]), st.sampled_from([0.3, 1.0, 4.0]))
def test_the_walk_ends_on_the_top_of_a_function_with_one_peak(n: int, off: float, step: float, start: float) -> None:
    value = Counted(peak=start * step ** (n + off))
    chosen = choose_scale(value, start, step=step, most=6)
    assert chosen.scale == pytest.approx(start * step**n, rel=1e-3)


def test_uphill_to_larger_and_to_smaller() -> None:
    up = Counted({1.0: 0.1, 2.0: 0.2, 4.0: 0.5, 8.0: 0.4})
    chosen = choose_scale(up, 1.0, step=2.0)
    assert (chosen.scale, chosen.value) == (4.0, 0.5)
    assert chosen.tried == ((1.0, 0.1), (2.0, 0.2), (4.0, 0.5), (8.0, 0.4))
    down = Counted({2.0: 0.1, 1.0: 0.3, 0.5: 0.4, 0.25: 0.35})
    chosen = choose_scale(down, 1.0, step=2.0)
    assert (chosen.scale, chosen.value) == (0.5, 0.4)
    assert [scale for scale, _ in chosen.tried] == [0.25, 0.5, 1.0, 2.0]


@settings(deadline=None)
@given(st.integers(0, 9), st.floats(0.01, 100.0))
def test_no_more_values_than_allowed_and_none_twice(most: int, peak: float) -> None:
    value = Counted(peak=peak)
    chosen = choose_scale(value, 1.0, most=most)
    assert len(value.calls) == len(set(value.calls)) == len(chosen.tried) <= max(most, 2)
    assert sorted(value.calls) == [scale for scale, _ in chosen.tried]
    assert chosen.value == max(found for _, found in chosen.tried)


def test_an_endless_slope_is_followed_as_far_as_allowed() -> None:
    chosen = choose_scale(lambda scale: scale, 1.0, step=2.0, most=5)
    assert chosen.tried == ((1.0, 1.0), (2.0, 2.0), (4.0, 4.0), (8.0, 8.0), (16.0, 16.0))
    assert chosen.scale == 16.0


@pytest.mark.parametrize(("least_gain", "scale"), [(0.0, 2.0), (0.25, 2.0), (0.26, 1.0)])
def test_less_than_the_least_gain_moves_nothing(least_gain: float, scale: float) -> None:
    chosen = choose_scale(Counted({1.0: 0.5, 2.0: 0.75, 4.0: 0.5}), 1.0, step=2.0, least_gain=least_gain)
    assert (chosen.scale, chosen.value) == (scale, {1.0: 0.5, 2.0: 0.75}[scale])
    assert len(chosen.tried) == 3


def test_of_equal_ones_the_smaller_is_taken() -> None:
    assert choose_scale(lambda scale: 0.5, 1.0).scale == 0.8
    assert choose_scale(Counted({1.0: 0.2, 2.0: 0.5, 4.0: 0.5}), 1.0, step=2.0).scale == 2.0
    assert choose_scale(lambda scale: 0.5, 1.0, least_gain=0.01).scale == 1.0


def test_scales_have_four_digits() -> None:
    value = Counted(peak=1.0)
    choose_scale(value, 1 / 3, step=1.1)
    assert value.calls
    assert all(scale == float(f"{scale:.4g}") for scale in value.calls)
    assert value.calls[0] == 0.3667
