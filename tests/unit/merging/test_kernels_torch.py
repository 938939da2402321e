"""The kernels for devices against the compiled ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from adapterctl.merging import kernels, kernels_torch
from adapterctl.merging.backend import Backend
from adapterctl.merging.masks import last_kept, mask_words, place
from adapterctl.merging.selection import kth_largest

TORCH = Backend(torch.device("cpu"), compiled=False)
DTYPES = [np.float32, np.float64]


def normal(*shape: int, dtype: Any = np.float32, seed: int = 0) -> Any:
    """Numbers of which some are zero, some equal, and some as large with the other sign."""
    numbers = np.random.default_rng(seed)
    x = numbers.normal(size=shape)
    x = np.where(numbers.random(shape) < 0.3, np.round(x), x)
    return x.astype(dtype)


def both(x: Any) -> tuple[Any, torch.Tensor]:
    return x.copy(), torch.from_numpy(x.copy())


class TestKernels:
    """Masks, counts and everything that is judged have the same bits; sums in another order are close."""

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("start", [0, 12345, (1 << 32) - 500, (1 << 33) + 7])
    @pytest.mark.parametrize("density", [1e-9, 0.3, 0.999, 1.0])
    def test_random_masks(self, dtype: Any, start: int, density: float) -> None:
        for lang in ("de", "ja"):
            one, other = both(normal(1000, dtype=dtype) + dtype(9))
            words, factor = mask_words(3, lang, "m"), dtype(1 / 0.3)
            kernels.drop_at_random(one, *words, place(start), last_kept(density), factor)
            kernels_torch.drop_at_random(other, *words, place(start), last_kept(density), factor)
            assert np.array_equal(one, other.numpy())
            for rescale in (True, False):
                one, other = both(normal(1000, dtype=dtype) + dtype(9))
                chances = np.linspace(density / 2, density, 1000)
                kernels.drop_by_chance(one, *words, place(start), chances, rescale)
                kernels_torch.drop_by_chance(other, *words, place(start), torch.from_numpy(chances), rescale)
                assert np.array_equal(one, other.numpy())

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_order_statistics(self, dtype: Any) -> None:
        x = np.concatenate([normal(3, 5000, dtype=dtype), np.round(normal(3, 5000, dtype=dtype))], axis=1)
        sample = np.ascontiguousarray(x[:, ::7])

        def cut(numbers: Any) -> Any:
            return lambda: ((slice(i, i + 777), numbers[:, i : i + 777]) for i in range(0, 10_000, 777))

        for wanted in (1, 50, 3000, 6000, 9999, 10_000):
            for given in (sample, 0 * sample):
                expected = kth_largest(cut(np.asfortranarray(x).copy()), given, 10_000, wanted)
                assert kth_largest(cut(torch.from_numpy(x)), given, 10_000, wanted) == expected

    def test_a_band_that_does_not_fit(self) -> None:
        bits = torch.from_numpy(normal(100)).view(torch.int32)
        found = np.zeros(5, np.uint32)
        assert kernels_torch.count_band(bits, 0x7FFFFFFF, 0, 0x7FFFFFFF, found, 0) == (0, -1)

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("divisor", [0, 1, 2])
    def test_elections(self, dtype: Any, divisor: int) -> None:
        x = normal(4, 3000, dtype=dtype)
        x[1, ::5] = -x[0, ::5]
        x[2:, ::5] = 0
        low, high = np.array([0.2, 0, 0.5, 0], dtype), np.array([3, 9, 9, 1], dtype)
        for factors, votes in (([0.3, 1.1, -0.7, 2], [0.3, 1.1, -0.7, 2]), ([0.3, 0.3, 1, 1], [1, 1, 1, 1])):
            for lean in ([0, 0, 0, 0], [0, 0.4, 0, 0]):
                numbers = [np.array(row, dtype) for row in (factors, votes, lean)]
                outcomes = []
                for module, entries in zip((kernels, kernels_torch), both(x), strict=True):
                    kept, lost = np.ones(4, np.int64), np.ones(4, np.int64)
                    out = np.full(3000, 7, dtype)
                    into = out if module is kernels else torch.from_numpy(out)
                    balanced, net = module.elect(entries, low, high, *numbers, divisor, dtype(-1), into, kept, lost)
                    outcomes.append((balanced, net, kept.tolist(), lost.tolist(), np.asarray(entries).tolist(), out))
                assert outcomes[0][:-1] == outcomes[1][:-1]
                np.testing.assert_allclose(outcomes[1][-1], outcomes[0][-1], rtol=1e-6, atol=1e-6)
                assert outcomes[0][0] > 100 or any(lean) or factors[0] != factors[1]

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_the_others(self, dtype: Any) -> None:
        x = normal(3, 2000, dtype=dtype)
        x[:, 100:300] = x[:1, 100:300]
        threshold = dtype(1)
        for allowed in (0, 3, 10_000):
            one, other = both(x[0])
            left = kernels.drop_surplus(one, threshold, allowed)
            assert kernels_torch.drop_surplus(other, threshold, allowed) == left
            assert np.array_equal(one, other.numpy())
        one, other = both(x)
        assert kernels_torch.absolute_sum(other[0]) == pytest.approx(kernels.absolute_sum(one[0]), rel=1e-12)
        expected = kernels.band_total(one[0], dtype(0), dtype(1))
        assert kernels_torch.band_total(other[0], dtype(0), dtype(1)) == pytest.approx(expected, rel=1e-12)
        low, high, weights = np.array([0, 1, 0.5], dtype), np.array([9, 2, 9], dtype), np.array([1, -2, 0.3], dtype)
        sums = both(np.ones(2000, dtype))
        kernels.band_sum(one, low, high, weights, sums[0])
        kernels_torch.band_sum(other, low, high, weights, sums[1])
        np.testing.assert_allclose(sums[1].numpy(), sums[0], rtol=1e-6, atol=1e-6)
        for absent in (0, 2):
            spread = both(np.ones(2000, dtype))
            kernels.variance(one, absent, spread[0])
            kernels_torch.variance(other, absent, spread[1])
            assert np.array_equal(spread[0], spread[1].numpy())
        judged = np.round(np.abs(x[1]))
        for allowed in (0, 4, 10_000):
            pair = both(x)
            left = kernels.keep_where(pair[0], judged, dtype(1), allowed)
            assert kernels_torch.keep_where(pair[1], torch.from_numpy(judged), dtype(1), allowed) == left
            assert np.array_equal(pair[0], pair[1].numpy())
        totals = np.ones(3), np.ones(3)
        kernels.energies(one, totals[0])
        kernels_torch.energies(other, totals[1])
        np.testing.assert_allclose(totals[1], totals[0], rtol=1e-12)

    def test_ranks_and_the_nth_largest(self) -> None:
        x = torch.tensor([[3.0, -1.0, 1.0, 0.0, -3.0]])
        assert kernels_torch.ranks(x).tolist() == [[3, 1, 2, 0, 4]]
        assert [kernels_torch.nth_largest(x[0], n) for n in (1, 2, 3, 5)] == [3.0, 1.0, 0.0, -3.0]
