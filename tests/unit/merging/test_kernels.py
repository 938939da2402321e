"""The compiled loops against the same in plain numpy, and the tiles they work on."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from adapterctl.merging import kernels, tiles
from adapterctl.merging.masks import last_kept, mask_words, place
from adapterctl.merging.tiles import Tiles

DTYPES = [np.float32, np.float64]
UNSIGNED = {np.float32: (np.uint32, 0x7FFFFFFF), np.float64: (np.uint64, 0x7FFFFFFFFFFFFFFF)}

quarters = st.integers(-12, 12).map(lambda number: number / 4)
"""Numbers of which many are equal, opposite or zero, and whose sums are exact."""

dtypes = st.sampled_from(DTYPES)


@st.composite
def tables(draw: st.DrawFn, rows: int | None = None) -> Any:
    shape = draw(st.integers(1, 4)) if rows is None else rows, draw(st.integers(1, 40) | st.integers(500, 1100))
    return draw(arrays(draw(dtypes), shape, elements=quarters, fill=quarters))


def magnitude_bits(x: Any) -> tuple[Any, Any, Any]:
    kind, mask = UNSIGNED[x.dtype.type]
    return x.view(kind), kind(mask), kind


@settings(max_examples=60, deadline=None)
@given(tables(rows=1), quarters, quarters, st.integers(0, 3))
def test_counting_and_collecting_a_band(x: Any, one: float, other: float, start: int) -> None:
    bits, mask, kind = magnitude_bits(x[0])
    low, high = (x.dtype.type(value).view(kind) for value in sorted((abs(one), abs(other))))
    sizes = np.abs(x[0])
    inside = sizes[(sizes >= min(abs(one), abs(other))) & (sizes < max(abs(one), abs(other)))]
    found = np.zeros(start + inside.size, kind)
    above, end = kernels.count_band(bits, mask, low, high, found, start)
    assert above == (sizes >= max(abs(one), abs(other))).sum()
    assert end == start + inside.size
    assert np.array_equal(found[start:].view(x.dtype), inside)
    if inside.size:
        assert kernels.count_band(bits, mask, low, high, found[:-1].copy(), start)[1] == -1


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_band_among_many(dtype: Any) -> None:
    x = np.random.default_rng(1).normal(size=13_001).astype(dtype)
    bits, mask, kind = magnitude_bits(x)
    low, high = dtype(0.9), dtype(1.1)
    found = np.zeros(13_001, kind)
    above, end = kernels.count_band(bits, mask, low.view(kind), high.view(kind), found, 0)
    sizes = np.abs(x)
    assert above == (sizes >= high).sum()
    assert np.array_equal(found[:end].view(dtype), sizes[(sizes >= low) & (sizes < high)])
    counts = np.zeros(1 << 8, np.int64)
    shift = 8 * x.itemsize - 1 - 8
    kernels.histogram(bits, mask, kind(shift), counts)
    assert counts.tolist() == np.bincount((bits & mask) >> kind(shift), minlength=1 << 8).tolist()


@settings(max_examples=50, deadline=None)
@given(tables(rows=1), quarters, st.integers(0, 30))
def test_only_so_many_equals_stay(x: Any, size: float, allowed: int) -> None:
    values = x[0].copy()
    places = np.flatnonzero(np.abs(values) == abs(size))
    left = kernels.drop_surplus(values, x.dtype.type(abs(size)), allowed)
    expected = x[0].copy()
    expected[places[allowed:]] = 0
    assert np.array_equal(values, expected)
    assert left == max(0, allowed - len(places))


def finalizer(h: int) -> int:
    """What MurmurHash3 ends with."""
    h = (h ^ (h >> 16)) * 0x85EBCA6B % 2**32
    h = (h ^ (h >> 13)) * 0xC2B2AE35 % 2**32
    return h ^ (h >> 16)


def random_bits(index: int, first: int, second: int) -> int:
    h = (finalizer(index * 0x9E3779B1 % 2**32 ^ first) + second) % 2**32
    h = (h ^ (h >> 15)) * 0x2C1B3C6D % 2**32
    h = (h ^ (h >> 12)) * 0x297A2D39 % 2**32
    return h ^ (h >> 15)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("start", [0, 1 << 20, (1 << 32) - 100, (1 << 34) + 5])
def test_random_masks_are_the_hash_of_place_and_key(dtype: Any, start: int) -> None:
    assert finalizer(1) == 0x514E28B7
    first, second = mask_words(17, "ja", "m")
    drawn = [random_bits((start + i) % 2**32, int(first), int(second)) for i in range(300)]
    x = np.arange(1, 301).astype(dtype)
    for density in (0.1, 0.5, 1.0):
        values = x.copy()
        kernels.drop_at_random(values, first, second, place(start), last_kept(density), dtype(2))
        kept = [h < density * 2**32 for h in drawn]
        assert np.array_equal(values, np.where(kept, 2 * x, 0))
    chances = np.linspace(0, 1, 300)
    kept = [h < chance * 2**32 for h, chance in zip(drawn, chances, strict=True)]
    for rescale in (True, False):
        values = x.copy()
        kernels.drop_by_chance(values, first, second, place(start), chances, rescale)
        expected = np.where(kept, x / np.where(chances, chances, 1) if rescale else x, 0).astype(dtype)
        assert np.array_equal(values, expected)


def test_masks_of_modules_are_independent() -> None:
    size = 1 << 16
    masks = []
    for module in ("model.layers.0.q", "model.layers.1.q", "model.layers.10.q", "model.layers.0.k"):
        values = np.ones(size)
        kernels.drop_at_random(values, *mask_words(0, "de", module), place(0), last_kept(0.5), 1.0)
        masks.append(2 * values - 1)
    products = [abs((a * b).mean()) for i, a in enumerate(masks) for b in masks[:i]]
    assert max(products) < 4.5 / math.sqrt(size)


@settings(max_examples=50, deadline=None)
@given(tables(), quarters, quarters, st.data())
def test_sums(x: Any, one: float, other: float, data: st.DataObject) -> None:
    dtype, sizes = x.dtype.type, np.abs(x)
    low, high = sorted((abs(one), abs(other)))
    assert kernels.absolute_sum(x[0]) == sizes[0].sum(dtype=np.float64)
    inside = sizes[0][(sizes[0] >= low) & (sizes[0] < high) & (sizes[0] > 0)]
    assert kernels.band_total(x[0], dtype(low), dtype(high)) == (inside.sum(dtype=np.float64), inside.size)
    weights = np.array(data.draw(st.lists(quarters, min_size=len(x), max_size=len(x))), dtype)
    lows, highs = np.full(len(x), low, dtype), np.full(len(x), high, dtype)
    lows[0] = 0
    out = np.full(x.shape[1], 9, dtype)
    kernels.band_sum(x, lows, highs, weights, out)
    kept = np.where((sizes >= lows[:, None]) & (sizes < highs[:, None]), x, 0)
    assert np.array_equal(out, (weights[:, None] * kept).sum(axis=0))
    totals = np.ones(len(x))
    kernels.energies(x, totals)
    assert np.array_equal(totals, 1 + (x.astype(np.float64) ** 2).sum(axis=1))


@settings(max_examples=50, deadline=None)
@given(tables(), st.integers(0, 3), st.integers(0, 50), st.data())
def test_variances_and_what_they_keep(x: Any, absent: int, allowed: int, data: st.DataObject) -> None:
    out = np.full(x.shape[1], 9, x.dtype)
    kernels.variance(x, absent, out)
    whole = np.concatenate([x.astype(np.float64), np.zeros((absent, x.shape[1]))])
    np.testing.assert_allclose(out, whole.var(axis=0), rtol=1e-6, atol=1e-12)
    assert not out[(whole == whole[0]).all(axis=0)].any()
    judged, threshold = np.round(out), np.round(data.draw(st.sampled_from(out.tolist())))
    expected, left = x.copy(), allowed
    for place_of, value in enumerate(judged):
        if value == threshold and left > 0:
            left -= 1
        elif value <= threshold:
            expected[:, place_of] = 0
    found = x.copy()
    assert kernels.keep_where(found, judged, x.dtype.type(threshold), allowed) == left
    assert np.array_equal(found, expected)


@settings(max_examples=80, deadline=None)
@given(tables(), st.sampled_from([0, 1, 2]), st.sampled_from([-1.0, 1.0]), st.booleans(), st.data())
def test_elections(x: Any, divisor: int, zero_sign: float, weighted: bool, data: st.DataObject) -> None:
    dtype, count = x.dtype.type, len(x)

    def drawn(elements: Any) -> Any:
        return np.array(data.draw(st.lists(elements, min_size=count, max_size=count)), dtype)

    weights, low, high = drawn(quarters), drawn(st.sampled_from([0, 0.5, 1])), drawn(st.sampled_from([2, 3, 9]))
    lean = drawn(st.sampled_from([0, 0.25, 1]))
    votes = weights if weighted else np.ones(count, dtype)
    sizes = np.abs(x)
    stays = (sizes >= low[:, None]) & (sizes < high[:, None]) & (sizes > 0)
    kept_x = np.where(stays, x, 0)
    ballot = (votes[:, None] * kept_x + lean[:, None] * np.sign(kept_x)).sum(axis=0)
    elected = np.where(ballot == 0, zero_sign, np.sign(ballot))
    opinion = np.where(votes >= 0, 1, -1)[:, None] * np.sign(kept_x)
    agrees = opinion == elected
    total = np.where(agrees, weights[:, None] * kept_x, 0).sum(axis=0, dtype=np.float64)
    share = {0: 0 * agrees, 1: agrees, 2: agrees * weights[:, None]}[divisor].sum(axis=0)
    expected = total / np.where(share == 0, 1, share)

    out, kept, lost = np.full(x.shape[1], 9, dtype), np.full(count, 5), np.full(count, 7)
    entries = x.copy()
    balanced, net = kernels.elect(
        entries, low, high, weights, votes, lean, divisor, dtype(zero_sign), out, kept, lost
    )  # fmt: skip
    assert np.array_equal(entries, kept_x)
    np.testing.assert_allclose(out, expected, rtol=1e-6)
    assert kept.tolist() == (5 + stays.sum(axis=1)).tolist()
    assert lost.tolist() == (7 + (opinion == -elected).sum(axis=1)).tolist()
    assert balanced == ((ballot == 0) & stays.any(axis=0)).sum()
    assert net == np.sign(ballot).sum()


class TestTiles:
    """Coordinates of a module, a few rows at a time."""

    def made(self, dtype: torch.dtype = torch.float32) -> tuple[Tiles, Any]:
        numbers = torch.Generator().manual_seed(0)
        lefts = [torch.randn(23, rank, generator=numbers, dtype=dtype) for rank in (2, 3)]
        rights = [torch.randn(rank, 11, generator=numbers, dtype=dtype) for rank in (2, 3)]
        whole = np.stack([(left @ right).numpy() for left, right in zip(lefts, rights, strict=True)])
        return Tiles(("de", "ja"), lefts, rights), whole

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("entries", [1, 11, 50, 120, 253, 1 << 17])
    def test_they_are_the_whole_whatever_their_size(
        self, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, entries: int
    ) -> None:
        made, whole = self.made(dtype)
        monkeypatch.setattr(tiles, "TILE_ENTRIES", entries)
        assert (made.rows, made.width, made.size) == (23, 11, 253)
        assert made.dtype == whole.dtype
        end = 0
        for rows, x in made.blocks():
            assert rows.start == end
            assert x.flags.c_contiguous
            assert x.shape[1] <= max(entries, 11)
            np.testing.assert_allclose(x.reshape(2, -1, 11), whole[:, rows], rtol=1e-5, atol=1e-6)
            end = rows.stop
        assert end == 23

    def test_a_tile_has_the_same_bits_whenever_it_is_formed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made, _ = self.made()
        monkeypatch.setattr(tiles, "TILE_ENTRIES", 50)
        first = [x.tobytes() for _, x in made.blocks()]
        assert [x.tobytes() for _, x in made.blocks()] == first

    def test_a_sample_is_of_the_same_places_of_all(self) -> None:
        left, right = torch.arange(1.0, 24.0)[:, None], torch.tensor([[1.0, 101.0, 10007.0]])
        made = Tiles(("de", "ja"), [left, 2 * left], [right, right])
        sample = made.sample("m", 4000)
        assert sample.shape == (2, 4000)
        assert np.array_equal(sample[1], 2 * sample[0])
        every = (left @ right).flatten().tolist()
        counts = np.array([(sample[0] == np.float32(value)).sum() for value in every])
        assert counts.sum() == 4000
        # χ² of 69 equally likely places has mean 68 and standard deviation √136.
        assert ((counts - 4000 / 69) ** 2).sum() / (4000 / 69) < 68 + 5 * math.sqrt(136)
        assert np.array_equal(sample, made.sample("m", 4000))
        assert not np.array_equal(sample, made.sample("n", 4000))
