"""What merge methods do to coordinates: pure functions on tensors, in any space.

``parts`` are the coordinates of the languages, all of one shape, in the order of ``weights``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch

NEGLIGIBLE = 1e-7
"""Singular values below this share of the largest are zero: they vanish in float32."""

_DIGITS = (48, 32, 16, 0)
_RADIX = 1 << 16


def weighted_sum(parts: Sequence[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    """Return Σ wᵢ xᵢ."""
    total = torch.zeros_like(parts[0])
    for part, weight in zip(parts, weights, strict=True):
        total += weight * part
    return total


def trim(values: torch.Tensor, threshold: float) -> torch.Tensor:
    """Return ``values`` with every entry below ``threshold`` in magnitude set to zero."""
    return torch.where(values.abs() >= threshold, values, 0.0)


def vote(parts: Sequence[torch.Tensor], weights: Sequence[float], *, weighted: bool) -> torch.Tensor:
    """Return the sign of the (weighted) sum of each entry: -1, 0 or 1 (TIES, arXiv 2306.01708, "elect")."""
    return torch.sign(weighted_sum(parts, weights if weighted else [1.0] * len(parts)))


def elect(
    parts: Sequence[torch.Tensor], weights: Sequence[float], *, weighted: bool, divisor: str, zero_sign: float
) -> torch.Tensor:
    """Elect a sign for every entry and combine the entries that agree with it (TIES, "disjoint merge").

    Args:
        parts: The trimmed coordinates of the languages.
        weights: A factor for each language.
        weighted: Whether weights count in the vote, and decide with their sign who agrees.
        divisor: ``count`` of those that agree, their ``weight``, or ``none``.
        zero_sign: The sign where the vote is exactly balanced.
    """
    elected = vote(parts, weights, weighted=weighted)
    elected[elected == 0] = zero_sign
    total, share = torch.zeros_like(parts[0]), torch.zeros_like(parts[0])
    for part, weight in zip(parts, weights, strict=True):
        opinion = torch.sign(part) * (float(np.sign(weight)) if weighted else 1.0)
        agrees = opinion == elected
        total += torch.where(agrees, weight * part, 0.0)
        if divisor != "none":
            share += torch.where(agrees, weight if divisor == "weight" else 1.0, 0.0)
    return total if divisor == "none" else total / torch.where(share == 0, 1.0, share)


def dare_mask(generator: np.random.Generator, shape: Sequence[int], density: float) -> torch.Tensor:
    """Return a mask that keeps each entry with probability ``density`` (DARE, arXiv 2311.03099).

    Numbers are drawn row by row: drawing a matrix in blocks of rows gives the same mask as drawing it at once.
    """
    return torch.from_numpy(generator.random(tuple(shape)) < density)


def significant(singular: torch.Tensor) -> int:
    """Return how many singular values (largest first) are not zero up to rounding."""
    return int((singular > NEGLIGIBLE * singular[0]).sum().item()) if singular.numel() else 0


def _polar(stack: torch.Tensor) -> torch.Tensor:
    """Return the nearest matrix with orthonormal columns.

    Where ``stack`` lacks rank the result is the partial isometry on its column space: two equal languages share a
    direction instead of one of them getting an arbitrary one.
    """
    u, s, vt = torch.linalg.svd(stack, full_matrices=False)
    keep = significant(s)
    nearest: torch.Tensor = u[:, :keep] @ vt[:keep]
    return nearest


def tsv(parts: Sequence[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    """Merge by whitened task singular vectors (TSV-M, arXiv 2412.00081), all components of every language kept.

    Per language xᵢ = Uᵢ Sᵢ Vᵢᵀ. The stacks [U₁ … U_T] and [V₁ … V_T] are replaced by their polar factors, and the
    singular values, times the weights, are put back.
    """
    lefts, values, rights = [], [], []
    for part, weight in zip(parts, weights, strict=True):
        u, s, vt = torch.linalg.svd(part, full_matrices=False)
        keep = significant(s)
        lefts.append(u[:, :keep])
        values.append(weight * s[:keep])
        rights.append(vt[:keep].T)
    scaled = _polar(torch.cat(lefts, dim=1)) * torch.cat(values)
    return scaled @ _polar(torch.cat(rights, dim=1)).T


def isotropic(parts: Sequence[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    """Give all non-zero singular values of the weighted sum their mean (Iso-C, arXiv 2502.04959).

    A single language is left as it is: there is nothing to balance it against.
    """
    total = weighted_sum(parts, weights)
    if len(parts) == 1:
        return total
    u, s, vt = torch.linalg.svd(total, full_matrices=False)
    keep = significant(s)
    flattened: torch.Tensor = s[:keep].sum() / max(keep, 1) * (u[:, :keep] @ vt[:keep])
    return flattened


def kth_largest(stream: Callable[[], Iterable[Sequence[torch.Tensor]]], keep: Callable[[int], int]) -> list[float]:
    """Return for each language the exact magnitude of its k-th largest entry, without holding all entries.

    A radix selection: the bits of a non-negative double sort like the number. Four passes over the stream, each
    fixing 16 bits, with one histogram for each language.

    Args:
        stream: Gives the entries anew on every call: blocks, each a tensor (float64) for every language.
        keep: From the number of entries of a language to its k, at least 1.
    """
    prefixes: list[int] = []
    wanted: list[int] = []
    for shift in _DIGITS:
        histograms: list[np.ndarray] = []
        for block in stream():
            for index, values in enumerate(block):
                if index == len(histograms):
                    histograms.append(np.zeros(_RADIX, dtype=np.int64))
                bits = values.abs().reshape(-1).numpy().view(np.int64)
                if prefixes:
                    bits = bits[bits >> (shift + 16) == prefixes[index]]
                histograms[index] += np.bincount((bits >> shift) & (_RADIX - 1), minlength=_RADIX)
        if not prefixes:
            prefixes = [0] * len(histograms)
            wanted = [keep(int(histogram.sum())) for histogram in histograms]
        for index, histogram in enumerate(histograms):
            prefixes[index], wanted[index] = _descend(histogram, prefixes[index], wanted[index])
    return [float(np.int64(prefix).view(np.float64)) for prefix in prefixes]


def _descend(histogram: np.ndarray, prefix: int, wanted: int) -> tuple[int, int]:
    """Choose the digit that holds the entry, counted from the largest, and how far into that digit it lies."""
    above = np.cumsum(histogram[::-1])
    position = min(int(np.searchsorted(above, wanted)), _RADIX - 1)
    before = int(above[position - 1]) if position else 0
    return (prefix << 16) | (_RADIX - 1 - position), wanted - before


def row_blocks(rows: int, size: int) -> Iterator[slice]:
    """Cut ``rows`` rows into consecutive blocks of at most ``size``."""
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))
