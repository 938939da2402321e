"""The inner loops over entries, compiled: plain arithmetic on one tile, in order.

``x`` is always ``languages × entries`` in float32 or float64, C-contiguous and finite. Every loop gives the same bits
on every run: the compiler may assume that there are no NaN, no infinities and no meaning in the sign of zero, but not
re-associate sums; no random state is kept. Compiled code is cached on disk beside the package, or in the user's cache
folder where the package cannot be written to.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

_compiled = njit(nogil=True, cache=True, error_model="numpy", fastmath={"nnan", "ninf", "nsz"})

_CHUNK = 512
"""Entries that are worked on while they are in the first-level cache."""

_LANES = 16
"""Sums that are kept side by side, so that the order of additions is fixed and still several at a time."""

_FLAGS = 4096
"""Entries that are judged one by one, several at a time, before the few that matter are looked for."""


@_compiled
def count_band(bits: Any, mask: Any, low: Any, high: Any, found: Any, start: int) -> tuple[int, int]:
    """Count magnitudes ≥ ``high``, and append those in [``low``, ``high``) to ``found`` from ``start`` on.

    Magnitudes are compared as the bits of floats without their sign (``mask``): for those, integers sort alike.

    Returns:
        The count, and where ``found`` ends now; -1 where it is too small.
    """
    above, end = 0, start
    kind = bits.dtype.type
    width = kind(high - low)
    flags = np.zeros(_FLAGS, np.uint8)
    eights = flags.view(np.uint64)
    for first in range(0, bits.size, _FLAGS):
        chunk = bits[first : first + _FLAGS]
        over: Any = np.int32(0)
        for i in range(chunk.size):
            over = np.int32(over + np.int32((chunk[i] & mask) >= high))
        above += over
        for i in range(chunk.size):
            # What is below ``low`` wraps around and is large.
            flags[i] = np.uint8(kind((chunk[i] & mask) - low) < width)
        flags[chunk.size :] = 0
        for eight in range(eights.size):
            if eights[eight] != 0:
                for i in range(8 * eight, 8 * eight + 8):
                    if flags[i] != 0:
                        if end == found.size:
                            return above, -1
                        found[end] = chunk[i] & mask
                        end += 1
    return above, end


@_compiled
def histogram(bits: Any, mask: Any, shift: Any, counts: Any) -> None:
    """Count the leading digits of the bits of magnitudes."""
    for i in range(bits.size):
        counts[(bits[i] & mask) >> shift] += 1


@_compiled
def drop_surplus(values: Any, threshold: Any, allowed: int) -> int:
    """Zero all entries of exactly this magnitude but the first ``allowed``; return how many are still allowed."""
    for first in range(0, values.size, _CHUNK):
        chunk = values[first : first + _CHUNK]
        equal: Any = np.int32(0)
        for i in range(chunk.size):
            equal = np.int32(equal + np.int32(abs(chunk[i]) == threshold))
        if equal > 0:
            for i in range(chunk.size):
                if abs(chunk[i]) == threshold:
                    if allowed > 0:
                        allowed -= 1
                    else:
                        chunk[i] = 0
    return allowed


@_compiled
def _hash(index: Any, first: Any, second: Any) -> Any:
    """Mix a counter with a key of 64 bits into 32 random bits: two rounds of multiply and xor-shift."""
    # Every step is cut to 32 bits by hand: the compiler works with 64.
    h = np.uint32(np.uint32(index * np.uint32(0x9E3779B1)) ^ first)
    h = np.uint32(h ^ (h >> np.uint32(16)))
    h = np.uint32(h * np.uint32(0x85EBCA6B))
    h = np.uint32(h ^ (h >> np.uint32(13)))
    h = np.uint32(h * np.uint32(0xC2B2AE35))
    h = np.uint32(h ^ (h >> np.uint32(16)))
    h = np.uint32(h + second)
    h = np.uint32(h ^ (h >> np.uint32(15)))
    h = np.uint32(h * np.uint32(0x2C1B3C6D))
    h = np.uint32(h ^ (h >> np.uint32(12)))
    h = np.uint32(h * np.uint32(0x297A2D39))
    h = np.uint32(h ^ (h >> np.uint32(15)))
    return h


@_compiled
def drop_at_random(values: Any, first: Any, second: Any, start: Any, last_kept: Any, factor: Any) -> None:
    """Keep entry ``start + i`` where its 32 random bits are at most ``last_kept``, times ``factor``; zero others."""
    zero = values.dtype.type(0)
    for i in range(values.size):
        h = _hash(np.uint32(start + np.uint32(i)), first, second)
        values[i] = values[i] * factor if h <= last_kept else zero


@_compiled
def drop_by_chance(values: Any, first: Any, second: Any, start: Any, chances: Any, rescale: bool) -> None:
    """Keep entry ``start + i`` with the probability ``chances[i]``, by 1/probability where ``rescale``; zero others."""
    for i in range(values.size):
        h = _hash(np.uint32(start + np.uint32(i)), first, second)
        if h < chances[i] * 4294967296.0:
            if rescale:
                values[i] = values[i] / chances[i]
        else:
            values[i] = 0


@_compiled
def absolute_sum(values: Any) -> float:
    """Return the sum of magnitudes, in float64."""
    total = 0.0
    for i in range(values.size):
        total += abs(values[i])
    return total


@_compiled
def band_total(values: Any, low: Any, high: Any) -> tuple[float, int]:
    """Return the sum, in float64, and the number of the non-zero magnitudes in [``low``, ``high``)."""
    total, count = 0.0, 0
    for i in range(values.size):
        magnitude = abs(values[i])
        if magnitude >= low and magnitude < high and magnitude > 0:
            total += magnitude
            count += 1
    return total, count


@_compiled
def band_sum(x: Any, low: Any, high: Any, weights: Any, out: Any) -> None:
    """Write Σ wᵢxᵢ over the entries with low ≤ |x| < high."""
    zero = out.dtype.type(0)
    for first in range(0, out.size, _CHUNK):
        total = out[first : first + _CHUNK]
        for i in range(total.size):
            total[i] = zero
        for t in range(x.shape[0]):
            lowest, highest, weight = low[t], high[t], weights[t]
            row = x[t, first : first + _CHUNK]
            for i in range(total.size):
                value = row[i]
                magnitude = abs(value)
                total[i] += weight * value if (magnitude >= lowest) & (magnitude < highest) else zero


@_compiled
def elect(
    x: Any, low: Any, high: Any, weights: Any, votes: Any, lean: Any, divisor: int, zero_sign: Any, out: Any,
    kept: Any, lost: Any,
) -> tuple[int, int]:  # fmt: skip
    """Trim, elect a sign for every entry and combine the entries that agree with it (TIES, arXiv 2306.01708).

    Args:
        x: The entries; changed: entries outside [low, high) become zero.
        low: Least magnitude that stays, by language.
        high: Magnitude from which entries are dropped, by language.
        weights: Factor on the values.
        votes: Factor on the values in the vote; its sign says what a value is an opinion for.
        lean: What is added to the vote for the sign of a protected language's entry.
        divisor: 0 none, 1 how many agree, 2 the sum of their weights.
        zero_sign: The sign where the vote is exactly balanced.
        out: The result.
        kept: Is increased by the number of entries that stayed, by language.
        lost: Is increased by the number of those that lost the vote, by language.

    Returns:
        How many votes were balanced though there were entries, and the sum of all other signs.
    """
    languages = x.shape[0]
    zero, one = out.dtype.type(0), out.dtype.type(1)
    signs, shares, masses = np.empty(_CHUNK, out.dtype), np.empty(_CHUNK, out.dtype), np.empty(_CHUNK, out.dtype)
    balanced, net = 0, 0
    for first in range(0, out.size, _CHUNK):
        total = out[first : first + _CHUNK]
        count = total.size
        sign, share, mass = signs[:count], shares[:count], masses[:count]
        for i in range(count):
            sign[i], mass[i], total[i], share[i] = zero, zero, zero, zero
        for t in range(languages):
            lowest, highest, vote, leaning = low[t], high[t], votes[t], lean[t]
            row = x[t, first : first + _CHUNK]
            stayed: Any = np.int32(0)
            for i in range(count):
                value = row[i]
                magnitude = abs(value)
                stays = (magnitude >= lowest) & (magnitude < highest) & (magnitude > zero)
                value = value if stays else zero
                row[i] = value
                sign[i] += vote * value
                mass[i] += abs(value)
                stayed = np.int32(stayed + np.int32(stays))
            if leaning != zero:
                for i in range(count):
                    value = row[i]
                    sign[i] += leaning if value > zero else (-leaning if value < zero else zero)
            kept[t] += stayed
        ties: Any = np.int32(0)
        plus: Any = np.int32(0)
        minus: Any = np.int32(0)
        for i in range(count):
            vote_total = sign[i]
            ties = np.int32(ties + np.int32((vote_total == zero) & (mass[i] > zero)))
            plus = np.int32(plus + np.int32(vote_total > zero))
            minus = np.int32(minus + np.int32(vote_total < zero))
            sign[i] = one if vote_total > zero else (-one if vote_total < zero else zero_sign)
        balanced += ties
        net += plus - minus
        for t in range(languages):
            weight = weights[t]
            opinion = one if votes[t] >= zero else -one
            unit = zero if divisor == 0 else (one if divisor == 1 else weight)
            row = x[t, first : first + _CHUNK]
            defeats: Any = np.int32(0)
            for i in range(count):
                value = row[i]
                agreement = value * (sign[i] * opinion)
                agrees = agreement > zero
                total[i] += weight * value if agrees else zero
                share[i] += unit if agrees else zero
                defeats = np.int32(defeats + np.int32(agreement < zero))
            lost[t] += defeats
        if divisor != 0:
            for i in range(count):
                held = share[i]
                total[i] = total[i] / (held if held != zero else one)
    return balanced, net


@_compiled
def variance(x: Any, absent: int, out: Any) -> None:
    """Write the population variance of every entry over the languages, and as many zeros as are absent."""
    languages = x.shape[0] + absent
    for i in range(out.size):
        mean = 0.0
        for t in range(x.shape[0]):
            mean += x[t, i]
        mean /= languages
        total = absent * mean * mean
        for t in range(x.shape[0]):
            total += (x[t, i] - mean) * (x[t, i] - mean)
        out[i] = total / languages


@_compiled
def keep_where(x: Any, judged: Any, threshold: Any, allowed: int) -> int:
    """Zero all languages' entries where ``judged`` is below the threshold, and all equal to it but ``allowed``."""
    for i in range(judged.size):
        stays = judged[i] > threshold
        if judged[i] == threshold and allowed > 0:
            allowed -= 1
            stays = True
        if not stays:
            x[:, i] = 0
    return allowed


@njit(nogil=True, cache=True, error_model="numpy", fastmath={"nnan", "ninf", "nsz", "contract"})
def _add_products(x: Any, y: Any, out: Any) -> None:
    """Add XᵀY to ``out``, row by row in order, eight rows at a time; all in float64."""
    whole = x.shape[0] - x.shape[0] % 8
    for k in range(0, whole, 8):
        y0, y1, y2, y3, y4, y5, y6, y7 = y[k], y[k + 1], y[k + 2], y[k + 3], y[k + 4], y[k + 5], y[k + 6], y[k + 7]
        for a in range(x.shape[1]):
            x0, x1, x2, x3 = x[k, a], x[k + 1, a], x[k + 2, a], x[k + 3, a]
            x4, x5, x6, x7 = x[k + 4, a], x[k + 5, a], x[k + 6, a], x[k + 7, a]
            row = out[a]
            for b in range(row.size):
                total = row[b] + x0 * y0[b] + x1 * y1[b] + x2 * y2[b] + x3 * y3[b]
                row[b] = total + x4 * y4[b] + x5 * y5[b] + x6 * y6[b] + x7 * y7[b]
    for k in range(whole, x.shape[0]):
        for a in range(x.shape[1]):
            for b in range(y.shape[1]):
                out[a, b] += x[k, a] * y[k, b]


@_compiled
def inner_products(stack: Any, lying: bool, starts: Any, pairs: Any, piece: Any, rows: int, out: Any) -> None:
    """Write the inner products of pairs of members to both of their places in ``out``.

    A block depends on its two members alone, not on who else is in the stack. A library's product of matrices as thin
    as these takes twice as long.

    Args:
        stack: ``long × R``, or ``R × long`` where it is ``lying``; the members side by side.
        lying: Whether columns are the long side.
        starts: Where each member begins, and R.
        pairs: ``pairs × 2`` positions of members.
        piece: A buffer, ``members × (rows · largest r)``, float64.
        rows: How many rows of all members are worked on at once.
        out: ``R × R``, float64.
    """
    long = stack.shape[1] if lying else stack.shape[0]
    widths = starts[1:] - starts[:-1]
    totals = np.zeros((pairs.shape[0], widths.max() ** 2), np.float64)
    used = np.zeros(widths.size, np.bool_)
    for p in range(pairs.shape[0]):
        used[pairs[p, 0]] = True
        used[pairs[p, 1]] = True
    for first in range(0, long, rows):
        count = min(rows, long - first)
        for member in range(used.size):
            if not used[member]:
                continue
            begin, width = starts[member], widths[member]
            into = piece[member, : count * width].reshape(count, width)
            if lying:
                for c in range(width):
                    source = stack[begin + c, first : first + count]
                    for k in range(count):
                        into[k, c] = source[k]
            else:
                for k in range(count):
                    source = stack[first + k, begin : begin + width]
                    for c in range(width):
                        into[k, c] = source[c]
        for p in range(pairs.shape[0]):
            i, j = pairs[p, 0], pairs[p, 1]
            x = piece[i, : count * widths[i]].reshape(count, widths[i])
            y = piece[j, : count * widths[j]].reshape(count, widths[j])
            _add_products(x, y, totals[p, : widths[i] * widths[j]].reshape(widths[i], widths[j]))
    for p in range(pairs.shape[0]):
        i, j = pairs[p, 0], pairs[p, 1]
        total = totals[p, : widths[i] * widths[j]].reshape(widths[i], widths[j])
        for a in range(widths[i]):
            for b in range(widths[j]):
                out[starts[i] + a, starts[j] + b] = total[a, b]
                out[starts[j] + b, starts[i] + a] = total[a, b]


@_compiled
def dot_at(left: Any, right: Any, rows: Any, columns: Any, out: Any) -> None:
    """Write the entries of ``left @ right`` at some places."""
    for place in range(out.size):
        row, column = rows[place], columns[place]
        total = out.dtype.type(0)
        for r in range(left.shape[1]):
            total += left[row, r] * right[r, column]
        out[place] = total


@_compiled
def energies(x: Any, out: Any) -> None:
    """Add Σx² of every language to ``out``, in float64."""
    lanes = np.empty(_LANES, np.float64)
    for t in range(x.shape[0]):
        row = x[t]
        lanes[:] = 0.0
        whole = row.size - row.size % _LANES
        for first in range(0, whole, _LANES):
            part = row[first : first + _LANES]
            for lane in range(_LANES):
                value = np.float64(part[lane])
                lanes[lane] += value * value
        for i in range(whole, row.size):
            value = np.float64(row[i])
            lanes[0] += value * value
        for lane in range(_LANES):
            out[t] += lanes[lane]
