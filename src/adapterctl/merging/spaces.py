"""The spaces in which adapters are compared: joint bases found from the factors, or ΔW itself by blocks of rows.

Every space describes ΔW of language i as ``left @ part_i @ right`` with orthonormal ``left`` columns and ``right``
rows, so that merging the parts merges the deltas, and the singular values of the merged part are those of ΔW.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from adapterctl.lora.delta import LowRankDelta
from adapterctl.merging.operators import row_blocks, significant, weighted_sum

BLOCK_ENTRIES = 1 << 20
"""How many entries of a dense delta are in memory at once for each language: 8 MiB in float64."""

Parts = tuple[torch.Tensor, ...]


@dataclass(frozen=True, eq=False)
class Coordinates:
    """One module of all languages, in the coordinates of a space.

    Attributes:
        blocks: Gives the parts anew on every call, a block of rows at a time, from the first row to the last.
        left: ``out × p`` with orthonormal columns; None is the identity.
        right: ``q × in`` with orthonormal rows; None is the identity.
    """

    blocks: Callable[[], Iterator[Parts]]
    left: torch.Tensor | None = None
    right: torch.Tensor | None = None


@dataclass(frozen=True, eq=False)
class Factored:
    """A merged module as factors.

    Attributes:
        A: ``rank × in``.
        B: ``out × rank``.
        energy: ‖ΔW‖²_F before truncation.
        lost: The part of it that truncation gave up.
    """

    A: torch.Tensor
    B: torch.Tensor
    energy: float
    lost: float


def dense(deltas: Sequence[LowRankDelta]) -> Coordinates:
    """ΔW itself, never more than a block of rows of it at once."""
    out, width = deltas[0].shape
    factors = [delta.scaled_factors() for delta in deltas]

    def blocks() -> Iterator[Parts]:
        for rows in row_blocks(out, max(1, BLOCK_ENTRIES // width)):
            yield tuple(b[rows] @ a for a, b in factors)

    return Coordinates(blocks)


def knots(deltas: Sequence[LowRankDelta]) -> Coordinates:
    """The joint left singular basis of [ΔW₁ | … | ΔW_T] (KnOTS, arXiv 2410.19735), found from the factors.

    With [s₁B₁ … s_TB_T] = Q [R₁ … R_T] and Aᵢᵀ = QᵢLᵢ, the singular values and left vectors of the concatenation are
    those of Q [R₁L₁ᵀ … R_TL_Tᵀ]. The part of language i is diag(σ)Vᵢᵀ = uᵀRᵢAᵢ, ``k × in``.
    """
    q, r = torch.linalg.qr(torch.cat([delta.scaled_factors()[1] for delta in deltas], dim=1))
    coefficients = r.split([delta.rank for delta in deltas], dim=1)
    inner = [
        share @ torch.linalg.qr(delta.A.T, mode="r").R.T for share, delta in zip(coefficients, deltas, strict=True)
    ]
    u, s, _ = torch.linalg.svd(torch.cat(inner, dim=1), full_matrices=False)
    u = u[:, : significant(s)]
    parts = tuple(u.T @ share @ delta.A for share, delta in zip(coefficients, deltas, strict=True))
    return Coordinates(lambda: iter((parts,)), left=q @ u)


def core(deltas: Sequence[LowRankDelta]) -> Coordinates:
    """The joint bases of all B and all A (core space, arXiv 2509.17786): parts Uᵀ(sᵢBᵢAᵢ)V, at most R × R, lossless."""
    scaled = [delta.scaled_factors() for delta in deltas]
    left = _span([b for _, b in scaled])
    right = _span([a.T for a, _ in scaled]).T
    parts = tuple((left.T @ b) @ (a @ right.T) for a, b in scaled)
    return Coordinates(lambda: iter((parts,)), left=left, right=right)


def _span(columns: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return orthonormal columns that span all the given ones; none is left out, however small it is."""
    basis: torch.Tensor = torch.linalg.qr(torch.cat(list(columns), dim=1)).Q
    return basis


def stacked(deltas: Sequence[LowRankDelta], weights: Sequence[float]) -> Factored:
    """Return Σ wᵢΔWᵢ exactly, as the factors written one below the other: A = [A₁; …], B = [w₁s₁B₁ …]."""
    scaled = [delta.scaled_factors() for delta in deltas]
    a = torch.cat([a for a, _ in scaled])
    b = torch.cat([weight * b for (_, b), weight in zip(scaled, weights, strict=True)], dim=1)
    return Factored(a, b, LowRankDelta(a, b, 1.0).norm() ** 2, 0.0)


def linear_sum(deltas: Sequence[LowRankDelta], weights: Sequence[float], rank: int) -> Factored:
    """Return Σ wᵢΔWᵢ at the given rank: stacked if it fits, else the best approximation (Eckart and Young 1936)."""
    if sum(delta.rank for delta in deltas) <= rank:
        return stacked(deltas, weights)
    coordinates = core(deltas)
    (parts,) = coordinates.blocks()
    return factorise(coordinates, weighted_sum(parts, weights), rank)


def factorise(space: Coordinates, merged: torch.Tensor, rank: int) -> Factored:
    """Turn a merged part into LoRA factors of at most ``rank``, the best of that rank (Eckart and Young 1936).

    A and B share the singular values evenly, and components come in the order of their size.
    """
    u, s, vt = torch.linalg.svd(merged, full_matrices=False)
    keep = min(rank, significant(s))
    root = s[:keep].sqrt()
    b, a = u[:, :keep] * root, root[:, None] * vt[:keep]
    energy, kept = float((s**2).sum()), float((s[:keep] ** 2).sum())
    return Factored(
        A=a if space.right is None else a @ space.right,
        B=b if space.left is None else space.left @ b,
        energy=energy,
        lost=max(energy - kept, 0.0),
    )
