"""From a merged matrix to the factors of an adapter: the best of a rank (Eckart and Young 1936), and what it loses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from adapterctl.merging import kernels
from adapterctl.merging.arena import arena
from adapterctl.merging.bases import Basis, find_basis, significant
from adapterctl.randomness import generator

_SMALL = 384
"""Shorter side up to which a dense matrix is decomposed at once."""

_OVERSAMPLING = 8
_HALF_ROUNDS = 16
_ENOUGH = 1e-4
"""Subspace iteration ends where half a round gained less than this share of the energy."""

_INDEPENDENT = 1e-3
"""Least diagonal of a Cholesky factor of unit columns at which they are made orthonormal by it."""


@dataclass(frozen=True, eq=False)
class Factored:
    """A merged module as factors; they lie in the thread's buffers and are overwritten by the next module.

    Attributes:
        A: ``q × in``.
        B: ``out × q``, the module's factor included.
        energy: ‖ΔW‖²_F before truncation and without the module's factor.
        lost: The part of it that truncation gave up.
        gap: Smallest relative gap of the singular values that the result depends on; None where none matter.
        whole: ΔW itself, ``out × in``, the module's factor included, for those who do not want factors; A and B are
            empty then.
    """

    A: torch.Tensor
    B: torch.Tensor
    energy: float
    lost: float
    gap: float | None = None
    whole: torch.Tensor | None = None

    @property
    def rank(self) -> int:
        """How many components it has."""
        return self.A.shape[0] if self.whole is None else min(self.whole.shape)


def from_core(
    merged: torch.Tensor,
    left: tuple[Basis, torch.Tensor],
    right: tuple[Basis, torch.Tensor],
    rank: int,
    factor: float,
) -> Factored:
    """Return the factors of a merged core matrix, components in the order of their size.

    Args:
        merged: ``p × q`` in float64.
        left: Basis of the stacked B, and that stack, ``out × R``.
        right: Basis of the stacked Aᵀ, and that stack, ``in × R``.
        rank: The most components to keep.
        factor: What the result is multiplied with.
    """
    u, s, vt = torch.linalg.svd(merged, full_matrices=False)
    keep = min(rank, significant(s))
    root = s[:keep].sqrt()
    a, b = _output(keep, left[1].shape[0], right[1].shape[0], left[1])
    left[0].times(left[1], u[:, :keep] * (root * factor), b)
    right[0].times(right[1], vt[:keep].T * root, a.T)
    energy, kept = float((s**2).sum()), float((s[:keep] ** 2).sum())
    truncated = keep < significant(s)
    gap = _gap_at(s, keep) if truncated else None
    return Factored(a, b, energy, max(energy - kept, 0.0) if truncated else 0.0, gap)


def _output(rank: int, out: int, width: int, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    a = arena().take("out A", (rank, width), like.dtype, like.device)
    return a, arena().take("out B", (out, rank), like.dtype, like.device)


def _gap_at(values: torch.Tensor, keep: int) -> float:
    """Return (σₖ - σₖ₊₁)/σ₁: how clear the cut of a truncation is."""
    return float((values[keep - 1] - values[keep]) / values[0])


def from_factors(a: torch.Tensor, b: torch.Tensor, rank: int, factor: float) -> Factored:
    """Return the best factors of a rank of b·a, from any factors ``R × in`` and ``out × R``; they are not changed."""
    gram_a, gram_b = _gram(a.T), _gram(b)
    if a.shape[0] <= rank:
        return Factored(a, b * factor, max(float((gram_a * gram_b).sum()), 0.0), 0.0)
    ones = torch.ones(a.shape[0], dtype=torch.float64)
    left, right = find_basis(b, ones, gram_b), find_basis(a.T, ones, gram_a)
    return from_core(left.coefficients @ right.coefficients.T, (left, b), (right, a.T), rank, factor)


def from_rows(
    merged: torch.Tensor,
    basis: Basis,
    turn: torch.Tensor,
    stack: torch.Tensor,
    rank: int,
    factor: float,
    gap: float | None,
) -> Factored:
    """Return the factors of U·merged, where U = Q·turn has orthonormal columns: merged is A already.

    Args:
        merged: ``k × in``.
        basis: Q, of the stacked B.
        turn: ``p × k`` in float64.
        stack: The stacked B, ``out × R``.
        rank: The most components to keep.
        factor: What the result is multiplied with.
        gap: Smallest relative gap of the joint singular values.
    """
    size = merged.shape[0]
    energy = frobenius(merged)
    if size <= rank:
        b = arena().take("out B", (stack.shape[0], size), stack.dtype, stack.device)
        basis.times(stack, turn * factor, b)
        return Factored(merged, b, energy, 0.0, gap)
    wide = merged.to(torch.float64)
    values, vectors = torch.linalg.eigh((wide @ wide.T).cpu())
    best = vectors.flip(1)[:, :rank]
    a, b = _output(rank, stack.shape[0], merged.shape[1], stack)
    torch.mm(best.T.to(merged), merged, out=a)
    basis.times(stack, turn @ best * factor, b)
    return Factored(a, b, energy, max(float(values.flip(0)[rank:].clamp_min(0).sum()), 0.0), gap)


def frobenius(matrix: torch.Tensor) -> float:
    """Return ‖matrix‖²_F, summed in float64."""
    if matrix.device.type != "cpu":
        return float(torch.linalg.vector_norm(matrix, dtype=torch.float64)) ** 2
    total = np.zeros(1)
    kernels.energies(matrix.contiguous().reshape(1, -1).numpy(), total)
    return float(total[0])


def from_dense(
    merged: torch.Tensor, start: Callable[[int], torch.Tensor], rank: int, factor: float, name: str
) -> Factored:
    """Return the best factors of a rank of a dense matrix.

    Where the rank is the full one nothing is decomposed: one factor is the identity. Small matrices are decomposed in
    float64. Large ones by subspace iteration (Halko, Martinsson and Tropp 2011, arXiv 0909.4061) that begins with the
    main directions of the weighted sum and goes on until half a round gains less than a ten-thousandth of the energy;
    what is then kept is measured, not estimated.

    Args:
        merged: ``out × in``.
        start: Gives at most so many columns to begin with, ``out × any``: the main directions of the weighted sum.
        rank: Components to keep.
        factor: What the result is multiplied with.
        name: The module, which names the random numbers.
    """
    out, width = merged.shape
    energy = frobenius(merged)
    if rank >= min(out, width):
        return _as_it_is(merged, factor, energy)
    if min(out, width) <= _SMALL:
        u, s, vt = torch.linalg.svd(merged.to("cpu", torch.float64), full_matrices=False)
        keep = min(rank, significant(s))
        root = s[:keep].sqrt()
        b, a = (u[:, :keep] * (root * factor)).to(merged.dtype), (root[:, None] * vt[:keep]).to(merged.dtype)
        lost = float((s[keep:] ** 2).sum())
        return Factored(a, b, energy, lost if keep < significant(s) else 0.0, _gap_at(s, keep) if keep else None)
    size = min(rank + max(_OVERSAMPLING, rank // 2), out, width)
    return _by_subspace(merged, _probe(start(size), size, name), rank, factor, energy)


def undivided(merged: torch.Tensor, factor: float) -> Factored:
    """Return a dense matrix as it is, times the factor (in place)."""
    energy = frobenius(merged)
    if factor != 1:
        merged *= factor
    none = merged.new_empty(0, 0)
    return Factored(none, none, energy, 0.0, None, merged)


def _as_it_is(merged: torch.Tensor, factor: float, energy: float) -> Factored:
    out, width = merged.shape
    if width <= out:
        return Factored(torch.eye(width, dtype=merged.dtype, device=merged.device), merged * factor, energy, 0.0)
    return Factored(merged, torch.eye(out, dtype=merged.dtype, device=merged.device) * factor, energy, 0.0)


def _by_subspace(merged: torch.Tensor, left: torch.Tensor, rank: int, factor: float, energy: float) -> Factored:
    """Return the best factors by subspace iteration on both sides in turn, until half a round gains nothing more."""
    out, width = merged.shape
    size = left.shape[1]
    right = arena().take("subspace right", (width, size), merged.dtype, merged.device)
    torch.mm(merged.T, _orthonormal(left), out=right)
    kept = -1.0
    for step in range(_HALF_ROUNDS):
        # In turn: Y = M R with orthonormal R, and Z = MᵀL with orthonormal L; either holds the energy of its side.
        basis = _orthonormal(left if step % 2 else right)
        side = right if step % 2 else left
        torch.mm(merged.T if step % 2 else merged, basis, out=side)
        values, vectors = torch.linalg.eigh(_gram(side))
        found = float(values[-rank:].clamp_min(0).sum())
        settled = found - kept <= _ENOUGH * energy
        kept = found
        if settled:
            break
    best = vectors.flip(1)[:, :rank].to(merged)
    a, b = _output(rank, out, width, merged)
    into_a, into_b = (side, basis) if step % 2 else (basis, side)
    torch.mm(best.T, into_a.T, out=a)
    torch.mm(into_b, best * factor, out=b)
    ordered = values.flip(0).clamp_min(0).sqrt()
    gap = _gap_at(ordered, rank) if size > rank and float(ordered[0]) else None
    return Factored(a, b, energy, max(energy - kept, 0.0), gap)


def _probe(start: torch.Tensor, size: int, name: str) -> torch.Tensor:
    """Return ``size`` columns to begin with: the given ones, random ones where there are too few."""
    known = min(size, start.shape[1])
    probe = arena().take("subspace left", (start.shape[0], size), start.dtype, start.device)
    probe[:, :known] = start[:, :known]
    if known < size:
        numbers = generator("subspace", name).standard_normal((start.shape[0], size - known), dtype=np.float32)
        probe[:, known:] = (torch.from_numpy(numbers) / start.shape[0] ** 0.5).to(start.device)
    return probe


def main_directions(a: torch.Tensor, b: torch.Tensor, most: int) -> torch.Tensor:
    """Return the strongest left singular vectors of b·a, ``out × most`` or fewer, from any factors of it."""
    ones = torch.ones(a.shape[0], dtype=torch.float64)
    left = find_basis(b, ones, _gram(b))
    right = find_basis(a.T, ones, _gram(a.T))
    u, s, _ = torch.linalg.svd(left.coefficients @ right.coefficients.T, full_matrices=False)
    keep = min(most, significant(s))
    found = torch.empty(b.shape[0], keep, dtype=b.dtype, device=b.device)
    left.times(b, u[:, :keep], found)
    return found


def _gram(columns: torch.Tensor) -> torch.Tensor:
    """Return the inner products of columns in float64, on the CPU."""
    wide = columns.to(torch.float64)
    return (wide.T @ wide).cpu()


def _orthonormal(columns: torch.Tensor) -> torch.Tensor:
    """Return columns with the same span and orthonormal (CholeskyQR, Householder where that is not exact)."""
    gram = _gram(columns)
    lengths = gram.diagonal().sqrt()
    if bool((lengths > 0).all()):
        lower, failed = torch.linalg.cholesky_ex(gram / (lengths[:, None] * lengths[None, :]))
        if int(failed.item()) == 0 and float(lower.diagonal().min()) > _INDEPENDENT:
            eye = torch.eye(gram.shape[0], dtype=torch.float64)
            inverse = torch.linalg.solve_triangular(lower, eye, upper=False) / lengths[None, :]
            turned: torch.Tensor = columns @ inverse.T.to(columns)
            return turned
    turned = torch.linalg.qr(columns.to("cpu", torch.float64)).Q.to(columns)
    return turned
