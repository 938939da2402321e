"""Exact order statistics, random bits and masks, without a merge around them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapterctl.merging import kernels
from adapterctl.merging.masks import last_kept, mask_words, place
from adapterctl.merging.selection import SAMPLE, Threshold, kth_largest


def tiles_of(numbers: Any, step: int) -> Iterator[tuple[slice, Any]]:
    for start in range(0, numbers.shape[1], step):
        yield slice(start, start + step), np.ascontiguousarray(numbers[:, start : start + step])


def expected(row: Any, wanted: int) -> Threshold:
    sizes = np.sort(np.abs(row))[::-1]
    value = sizes[wanted - 1]
    return Threshold(float(value), wanted - int((sizes > value).sum()), int((sizes == value).sum()))


def found(numbers: Any, wanted: int, step: int, sample: Any = None) -> list[Threshold]:
    sample = numbers if sample is None else sample
    return kth_largest(lambda: tiles_of(numbers, step), np.ascontiguousarray(sample), numbers.shape[1], wanted)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1e300, 1e300) | st.sampled_from([0.0, -0.0, 1.0, -1.0, 5e-324]), min_size=1), st.data())
def test_the_kth_largest_is_exact(numbers: list[float], data: st.DataObject) -> None:
    wanted = data.draw(st.integers(1, len(numbers)))
    step = data.draw(st.integers(1, len(numbers)))
    rows = np.array([numbers, numbers[::-1]])
    assert found(rows, wanted, step) == [expected(row, wanted) for row in rows]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("share", [0.0001, 0.2, 0.5, 0.97, 1.0])
def test_from_a_sample(dtype: Any, share: float) -> None:
    numbers = np.random.default_rng(3).normal(size=(2, 3 * SAMPLE)).astype(dtype)
    wanted = max(1, int(share * numbers.shape[1]))
    assert found(numbers, wanted, 9999, numbers[:, ::3]) == [expected(row, wanted) for row in numbers]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_from_a_sample_that_misleads(dtype: Any) -> None:
    numbers = np.random.default_rng(4).normal(size=(2, 60_000)).astype(dtype)
    for sample in (numbers[:, :5] * 1000, 0 * numbers[:, :9], np.sort(np.abs(numbers))[:, :4000]):
        for wanted in (1, 20_000, 60_000):
            assert found(numbers, wanted, 7000, sample) == [expected(row, wanted) for row in numbers]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_among_many_equals(dtype: Any) -> None:
    numbers = np.random.default_rng(5).integers(-2, 3, size=(3, 50_000)).astype(dtype)
    for wanted in (1, 5000, 20_000, 30_000, 49_999):
        assert found(numbers, wanted, 4096, numbers[:, ::2]) == [expected(row, wanted) for row in numbers]


def drawn(size: int, density: float, seed: int, *names: str, step: int = 1 << 20) -> Any:
    values = np.ones(size)
    for start in range(0, size, step):
        part = values[start : start + step]
        kernels.drop_at_random(part, *mask_words(seed, *names), place(start), last_kept(density), 1.0)
    return values


def test_a_mask_does_not_depend_on_how_it_is_cut() -> None:
    whole = drawn(10_000, 0.3, 1, "ja", "m")
    assert np.array_equal(whole, drawn(10_000, 0.3, 1, "ja", "m", step=777))


@pytest.mark.parametrize("density", [0.001, 0.3, 0.5, 0.999])
def test_masks_keep_the_share_they_should(density: float) -> None:
    size = 1 << 18
    counts = np.array([drawn(size, density, seed, lang, "q").sum() for seed in range(6) for lang in ("de", "ja")])
    deviations = (counts - size * density) / math.sqrt(size * density * (1 - density))
    assert np.abs(deviations).max() < 4.5
    assert (deviations**2).mean() == pytest.approx(1, abs=4 * math.sqrt(2 / len(counts)))


def test_masks_are_independent_of_one_another_and_of_their_neighbours() -> None:
    size, bound = 1 << 18, 5 / math.sqrt(1 << 18)
    one, other = (2 * drawn(size, 0.5, 0, lang, "q") - 1 for lang in ("de", "ja"))
    assert abs((one * other).mean()) < bound
    for distance in (1, 2, 3, 4, 8, 16, 64, 128, 1024, 4096, 65_536):
        assert abs((one[distance:] * one[:-distance]).mean()) < 2 * bound, distance
    seeds = [2 * drawn(4096, 0.5, seed, "ja", "q") - 1 for seed in range(64)]
    correlations = np.array([(a * b).mean() for i, a in enumerate(seeds) for b in seeds[:i]])
    assert np.abs(correlations).max() < 5.5 / math.sqrt(4096)
    assert (correlations**2).mean() * 4096 == pytest.approx(1, abs=0.15)


def test_nothing_is_dropped_at_density_one() -> None:
    assert drawn(100_000, 1.0, 0, "ja").all()
