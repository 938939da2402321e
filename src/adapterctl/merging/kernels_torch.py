"""The inner loops over entries as operations on whole tiles, for tensors on any device.

Every function does what its namesake in :mod:`adapterctl.merging.kernels` does. Entries are tensors; numbers for each
language, counts and what was found are small and stay numpy arrays on the CPU. Products are rounded before they are
added, as in the compiled loops: a vote that is exactly balanced there is balanced here.
"""

from __future__ import annotations

from typing import Any

import torch

_WORD = 0xFFFFFFFF


def count_band(bits: torch.Tensor, mask: Any, low: Any, high: Any, found: Any, start: int) -> tuple[int, int]:
    """Count magnitudes ≥ ``high``, and append those in [``low``, ``high``) to ``found`` from ``start`` on.

    Returns:
        The count, and where ``found`` ends now; -1 where it is too small.
    """
    magnitudes = bits & int(mask)
    over = magnitudes >= int(high)
    inside = magnitudes[(magnitudes >= int(low)) & ~over]
    end = start + inside.numel()
    if end > found.size:
        return int(over.sum()), -1
    found[start:end] = inside.cpu().numpy()
    return int(over.sum()), end


def histogram(bits: torch.Tensor, mask: Any, shift: Any, counts: Any) -> None:
    """Count the leading digits of the bits of magnitudes."""
    digits = (bits & int(mask)) >> int(shift)
    counts += torch.bincount(digits, minlength=len(counts)).cpu().numpy()


def drop_surplus(values: torch.Tensor, threshold: Any, allowed: int) -> int:
    """Zero all entries of exactly this magnitude but the first ``allowed``; return how many are still allowed."""
    equal = values.abs() == float(threshold)
    number = equal.cumsum(0)
    values.masked_fill_(equal & (number > allowed), 0)
    return max(0, allowed - int(number[-1]))


def _random_bits(count: int, first: Any, second: Any, start: Any, device: torch.device) -> torch.Tensor:
    """Return the 32 random bits of the entries from ``start`` on, in int64."""
    h = torch.arange(int(start), int(start) + count, dtype=torch.int64, device=device)

    def times(factor: int) -> None:
        # The lower half of a product is right though the product does not fit.
        h.bitwise_and_(_WORD).mul_(factor).bitwise_and_(_WORD)

    def fold(shift: int) -> None:
        h.bitwise_xor_(h >> shift)

    times(0x9E3779B1)
    h.bitwise_xor_(int(first))
    fold(16)
    times(0x85EBCA6B)
    fold(13)
    times(0xC2B2AE35)
    fold(16)
    h.add_(int(second)).bitwise_and_(_WORD)
    fold(15)
    times(0x2C1B3C6D)
    fold(12)
    times(0x297A2D39)
    fold(15)
    return h


def drop_at_random(values: torch.Tensor, first: Any, second: Any, start: Any, last_kept: Any, factor: Any) -> None:
    """Keep entry ``start + i`` where its 32 random bits are at most ``last_kept``, times ``factor``; zero others."""
    h = _random_bits(values.numel(), first, second, start, values.device)
    values.mul_(float(factor)).masked_fill_(h > int(last_kept), 0)


def drop_by_chance(
    values: torch.Tensor, first: Any, second: Any, start: Any, chances: torch.Tensor, rescale: bool
) -> None:
    """Keep entry ``start + i`` with the probability ``chances[i]``, by 1/probability where ``rescale``; zero others."""
    h = _random_bits(values.numel(), first, second, start, values.device)
    if rescale:
        values.copy_(values.to(torch.float64) / chances)
    values.masked_fill_(h >= chances * 4294967296.0, 0)


def absolute_sum(values: torch.Tensor) -> float:
    """Return the sum of magnitudes, in float64."""
    return float(values.abs().sum(dtype=torch.float64))


def _stay(magnitudes: torch.Tensor, low: Any, high: Any) -> torch.Tensor:
    return (magnitudes >= float(low)) & (magnitudes < float(high))


def band_total(values: torch.Tensor, low: Any, high: Any) -> tuple[float, int]:
    """Return the sum, in float64, and the number of the non-zero magnitudes in [``low``, ``high``)."""
    magnitudes = values.abs()
    inside = magnitudes[_stay(magnitudes, low, high) & (magnitudes > 0)]
    return float(inside.sum(dtype=torch.float64)), inside.numel()


def band_sum(x: torch.Tensor, low: Any, high: Any, weights: Any, out: torch.Tensor) -> None:
    """Write Σ wᵢxᵢ over the entries with low ≤ |x| < high."""
    out.zero_()
    for values, lowest, highest, weight in zip(x, low, high, weights, strict=True):
        out += torch.where(_stay(values.abs(), lowest, highest), values, 0.0) * float(weight)


def elect(
    x: torch.Tensor, low: Any, high: Any, weights: Any, votes: Any, lean: Any, divisor: int, zero_sign: Any,
    out: torch.Tensor, kept: Any, lost: Any,
) -> tuple[int, int]:  # fmt: skip
    """Trim, elect a sign for every entry and combine the entries that agree with it (TIES, arXiv 2306.01708).

    The arguments are those of :func:`adapterctl.merging.kernels.elect`.

    Returns:
        How many votes were balanced though there were entries, and the sum of all other signs.
    """
    ballot, counts = torch.zeros_like(out), []
    there = torch.zeros_like(out, dtype=torch.bool)
    for values, lowest, highest, vote, leaning in zip(x, low, high, votes, lean, strict=True):
        magnitudes = values.abs()
        stays = _stay(magnitudes, lowest, highest) & (magnitudes > 0)
        values.masked_fill_(~stays, 0)
        ballot += values * float(vote)
        if leaning:
            ballot += torch.sign(values) * float(leaning)
        there |= stays
        counts.append(stays.sum())
    sign = torch.sign(ballot)
    counts += [((sign == 0) & there).sum(), sign.sum(dtype=torch.int64)]
    sign.masked_fill_(sign == 0, float(zero_sign))
    share = torch.zeros_like(out)
    out.zero_()
    for values, weight, vote in zip(x, weights, votes, strict=True):
        agreement = values * (sign if vote >= 0 else -sign)
        agrees = agreement > 0
        out += torch.where(agrees, values, 0.0) * float(weight)
        if divisor:
            share += agrees.to(share.dtype) * (1.0 if divisor == 1 else float(weight))
        counts.append((agreement < 0).sum())
    if divisor:
        out /= share.masked_fill_(share == 0, 1.0)
    # One transfer for all: each waits for everything before it.
    numbers = torch.stack(counts).cpu().tolist()
    kept += numbers[: len(kept)]
    lost += numbers[len(kept) + 2 :]
    return numbers[len(kept)], numbers[len(kept) + 1]


def variance(x: torch.Tensor, absent: int, out: torch.Tensor) -> None:
    """Write the population variance of every entry over the languages, and as many zeros as are absent."""
    languages = len(x) + absent
    # Added in order: of equal entries the variance must be exactly zero, for those that are not are counted.
    mean = torch.zeros_like(out, dtype=torch.float64)
    for values in x:
        mean += values
    mean /= languages
    total = absent * mean * mean
    for values in x:
        total += (values - mean).square_()
    out.copy_(total / languages)


def keep_where(x: torch.Tensor, judged: torch.Tensor, threshold: Any, allowed: int) -> int:
    """Zero all languages' entries where ``judged`` is below the threshold, and all equal to it but ``allowed``."""
    equal = judged == float(threshold)
    number = equal.cumsum(0)
    x.masked_fill_((judged < float(threshold)) | (equal & (number > allowed)), 0)
    return max(0, allowed - int(number[-1]))


def energies(x: torch.Tensor, out: Any) -> None:
    """Add Σx² of every language to ``out``, in float64."""
    out += torch.linalg.vector_norm(x, dim=1, dtype=torch.float64).square().cpu().numpy()


def nth_largest(values: torch.Tensor, n: int) -> float:
    """Return the n-th largest of some numbers."""
    return float(values.kthvalue(values.numel() - n + 1).values)


def ranks(values: torch.Tensor) -> torch.Tensor:
    """Return the rank of every magnitude in its row, from 0, in float64; of equals the first has the lower one."""
    order = values.abs().argsort(dim=1, stable=True)
    places = torch.arange(values.shape[1], dtype=torch.float64, device=values.device)
    return torch.empty_like(values, dtype=torch.float64).scatter_(1, order, places.expand_as(order))
