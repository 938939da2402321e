"""Exact order statistics of magnitudes that are never held all at once.

A random sample brackets the k-th largest magnitude; one pass counts what lies above the bracket and collects what lies
in it; the answer is then exact. Where a bracket misses (hardly ever, or for many equal entries) a histogram of leading
digits gives one that cannot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from adapterctl.merging import kernels, kernels_torch

SAMPLE = 1 << 16
"""Entries of a sample of one language, at most."""

_DEVIATIONS = 4.5
"""Half the width of a bracket, in standard deviations of the rank of a sample's order statistic."""

_LEADING = 15


@dataclass(frozen=True)
class Threshold:
    """The k-th largest magnitude of one language.

    Attributes:
        value: The magnitude.
        allowed: How many entries of exactly this magnitude are among the k largest.
        equal: How many there are in all.
    """

    value: float
    allowed: int
    equal: int


@dataclass(frozen=True)
class _Bits:
    """How magnitudes of one dtype are compared as integers."""

    unsigned: Any
    mask: Any
    shift: Any
    seen_as: Any
    kernels: Any

    def of(self, values: Any) -> Any:
        return values.view(self.seen_as)


_FORMS = {
    np.dtype(np.float32): _Bits(np.uint32, np.uint32(0x7FFFFFFF), np.uint32(31 - _LEADING), np.uint32, kernels),
    np.dtype(np.float64): _Bits(np.uint64, np.uint64(0x7FFFFFFFFFFFFFFF), np.uint64(63 - _LEADING), np.uint64, kernels),
}
# Without their signs, the bits are the same integers for types with a sign.
_FORMS |= {
    torch.float32: replace(_FORMS[np.dtype(np.float32)], seen_as=torch.int32, kernels=kernels_torch),
    torch.float64: replace(_FORMS[np.dtype(np.float64)], seen_as=torch.int64, kernels=kernels_torch),
}

Bracket = tuple[Any, Any]
"""From and below: bits of magnitudes."""


@dataclass(frozen=True, eq=False)
class Found:
    """What one pass over a part of the entries found for one language.

    Attributes:
        above: How many magnitudes lie above the bracket.
        inside: The bits of those in it; None where there were too many.
        size: How many entries were looked at.
        to_zero: Whether the bracket reaches down to zero; zeros themselves are not collected, there may be many.
    """

    above: int
    inside: Any | None
    size: int
    to_zero: bool = False


def bracket(sample: Any, size: int, wanted: int) -> Bracket:
    """Return a range of magnitudes that very likely holds the ``wanted``-th largest of ``size`` entries."""
    form = _FORMS[sample.dtype]
    bits = np.sort(form.of(sample) & form.mask)
    share = wanted / size
    middle = len(bits) * (1.0 - share)
    spread = _DEVIATIONS * (len(bits) * share * (1.0 - share)) ** 0.5 + 2
    first, last = int(middle - spread), int(middle + spread) + 1
    low = bits[first] if first >= 0 else form.unsigned(0)
    high = bits[last] if last < len(bits) else form.mask
    return low, high


def scan(
    tiles: Iterable[tuple[Any, Any]], brackets: Mapping[int, Bracket], sizes: Mapping[int, int]
) -> dict[int, Found]:
    """Count and collect in one pass.

    Args:
        tiles: Rows and entries of every tile; only the entries matter.
        brackets: By position of the member.
        sizes: How many entries in a bracket are expected at most, by position.
    """
    buffers: dict[int, Any] = {}
    above = dict.fromkeys(brackets, 0)
    ends = dict.fromkeys(brackets, 0)
    seen = 0
    for _, x in tiles:
        form = _FORMS[x.dtype]
        seen += x.shape[1]
        for index, (low, high) in brackets.items():
            if index not in buffers:
                buffers[index] = np.empty(sizes[index], form.unsigned)
            if ends[index] < 0:
                continue
            over, ends[index] = form.kernels.count_band(
                form.of(x[index]), form.mask, max(low, form.unsigned(1)), high, buffers[index], ends[index]
            )
            above[index] += over
    return {
        index: Found(
            above[index],
            buffers[index][: ends[index]].copy() if ends[index] >= 0 else None,
            seen,
            bool(brackets[index][0] == 0),
        )
        for index in buffers
    }


def leading_digits(tiles: Iterable[tuple[Any, Any]], members: Sequence[int]) -> dict[int, Any]:
    """Count the entries of members by the leading digits of their magnitudes."""
    counts = {index: np.zeros(1 << _LEADING, np.int64) for index in members}
    for _, x in tiles:
        form = _FORMS[x.dtype]
        for index in members:
            form.kernels.histogram(form.of(x[index]), form.mask, form.shift, counts[index])
    return counts


def sure_bracket(counts: Any, wanted: int, dtype: Any) -> tuple[Bracket, int]:
    """Return the range that holds the ``wanted``-th largest for sure, and how many entries lie in it."""
    form = _FORMS[np.dtype(dtype)]
    above = np.cumsum(counts[::-1])
    digit = len(counts) - 1 - min(int(np.searchsorted(above, wanted)), len(counts) - 1)
    low = form.unsigned(digit << int(form.shift))
    high = form.mask if digit == len(counts) - 1 else form.unsigned((digit + 1) << int(form.shift))
    return (low, high), int(counts[digit])


def settle(found: Sequence[Found], wanted: int, dtype: Any) -> Threshold | None:
    """Return the ``wanted``-th largest magnitude from all parts of the entries; None where the bracket missed it."""
    collected = [part.inside for part in found if part.inside is not None]
    if len(collected) < len(found):
        return None
    inside = np.concatenate(collected)
    rest = wanted - sum(part.above for part in found)
    zeros = sum(part.size - part.above for part in found) - inside.size if all(p.to_zero for p in found) else 0
    if inside.size < rest <= inside.size + zeros:
        return Threshold(0.0, rest - inside.size, zeros)
    if not 1 <= rest <= inside.size:
        return None
    bits = np.partition(inside, inside.size - rest)[inside.size - rest]
    greater = int((inside > bits).sum())
    form = _FORMS[np.dtype(dtype)]
    value = np.array([bits], form.unsigned).view(dtype)[0]
    return Threshold(float(value), rest - greater, int((inside == bits).sum()))


def sample_size(size: int) -> int:
    """Return how many of ``size`` entries of one module are looked at to find a bracket."""
    return min(size, max(1 << 12, min(SAMPLE, size >> 8)))


def room(size: int) -> int:
    """Return how many entries a bracket from a sample may hold among ``size``."""
    return int(size * 0.08) + 4096


def kth_largest(
    blocks: Callable[[], Iterable[tuple[Any, Any]]], sample: Any, size: int, wanted: int
) -> list[Threshold]:
    """Return the ``wanted``-th largest magnitude of every member of one module.

    Args:
        blocks: Gives the tiles anew on every call.
        sample: ``members × count`` entries.
        size: Entries of one member.
        wanted: k, from 1 to ``size``.
    """
    dtype = sample.dtype
    members = range(sample.shape[0])
    brackets = {index: bracket(sample[index], size, wanted) for index in members}
    found = scan(blocks(), brackets, dict.fromkeys(members, room(size)))
    settled = {index: settle([found[index]], wanted, dtype) for index in members}
    missed = [index for index in members if settled[index] is None]
    if missed:
        counts = leading_digits(blocks(), missed)
        sure = {index: sure_bracket(counts[index], wanted, dtype) for index in missed}
        again = scan(blocks(), {i: b for i, (b, _) in sure.items()}, {i: n for i, (_, n) in sure.items()})
        settled.update({index: settle([again[index]], wanted, dtype) for index in missed})
    return [threshold for index in members if (threshold := settled[index]) is not None]
