"""Orthonormal bases of stacked factors, from their inner products where those are exact enough.

For a stack X (``long × R``, columns scaled by s) with XᵀX = LLᵀ (Cholesky), Q = X L⁻ᵀ has orthonormal columns and
X = Q Lᵀ: the long side is read once for the inner products and once for the product that makes the result, and never
factorised. The error grows with the square of the condition number of the columns (brought to one length), so a stack
that is nearly dependent is factorised by Householder reflections in float64 instead, and directions below
:data:`NEGLIGIBLE` are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from adapterctl.merging.arena import arena

NEGLIGIBLE = 1e-7
"""Singular values below this share of the largest are zero: they vanish in float32."""

_GRAM_LIMIT = 2e4
"""Up to which ‖L‖_F‖L⁻¹‖_F/R inner products describe a stack; the condition number itself, which counts with its
square, may be R times as large at worst. In trials with R up to 320, Q was then orthonormal to 1e-6."""

_SINGLE_LIMIT = 32.0
"""Condition number up to which the product that makes the result may be computed in float32."""

_PIECE = 4096
_CHEAP = 1 << 16
"""Entries of a stack up to which float64 costs nothing that anybody would notice."""


def significant(singular: torch.Tensor) -> int:
    """Return how many singular values (largest first) are not zero up to rounding."""
    if not singular.numel():
        return 0
    return int(((singular > NEGLIGIBLE * singular[0]) & (singular > 0)).sum().item())


@dataclass(frozen=True, eq=False)
class Basis:
    """Orthonormal directions Q (``long × p``) that span the scaled columns of a stack: X·diag(s) = Q·coefficients.

    Attributes:
        coefficients: ``p × R``, float64.
        transform: ``R × p``, Q = X·transform with the unscaled X; None where Q itself is held.
        directions: Q in float64, where the transform would not be exact enough.
        values: Singular values of the stack, largest first, where Q are its singular vectors; else None.
        precise: Whether products with the transform need float64.
    """

    coefficients: torch.Tensor
    transform: torch.Tensor | None
    directions: torch.Tensor | None
    values: torch.Tensor | None
    precise: bool

    @property
    def size(self) -> int:
        """The number p of directions."""
        return self.coefficients.shape[0]

    def times(self, stack: torch.Tensor, inner: torch.Tensor, out: torch.Tensor) -> None:
        """Write Q·inner (``long × q``) into ``out``; ``inner`` is ``p × q`` in float64, ``stack`` the unscaled X."""
        if self.directions is not None:
            out.copy_(self.directions @ inner)  # also onto another device
            return
        assert self.transform is not None
        combined = (self.transform @ inner).to(stack.device)
        if stack.dtype == torch.float64 or not (self.precise or stack.numel() <= _CHEAP):
            _product(stack, combined.to(stack.dtype), out)
            return
        for start in range(0, stack.shape[0], _PIECE):
            rows = slice(start, min(start + _PIECE, stack.shape[0]))
            out[rows] = stack[rows].to(torch.float64) @ combined


def _product(left: torch.Tensor, right: torch.Tensor, out: torch.Tensor) -> None:
    if out.is_contiguous() or out.T.is_contiguous():
        torch.mm(left, right, out=out)
    else:
        out.copy_(torch.mm(left, right, out=arena().take("product", tuple(out.shape), out.dtype, out.device)))


def find_basis(
    stack: torch.Tensor, scales: torch.Tensor, gram: torch.Tensor, *, singular: bool = False, precise: bool = False
) -> Basis:
    """Return a basis of a stack.

    Args:
        stack: X, ``long × R``, unscaled.
        scales: s of every column, float64.
        gram: XᵀX of the unscaled columns, ``R × R``, float64.
        singular: Whether the directions have to be the stack's left singular vectors, the strongest first.
        precise: Do not use inner products at all.
    """
    scaled = gram * (scales[:, None] * scales[None, :])
    lengths = scaled.diagonal().clamp_min(0.0).sqrt()
    size = scaled.shape[0]
    if not precise and 0 < size <= stack.shape[0] and bool((lengths > 0).all()):
        lower, failed = torch.linalg.cholesky_ex(scaled / (lengths[:, None] * lengths[None, :]))
        if int(failed.item()) == 0:
            inverse = torch.linalg.solve_triangular(lower, torch.eye(size, dtype=torch.float64), upper=False)
            condition = float(lower.norm() * inverse.norm()) / size
            if condition <= _GRAM_LIMIT:
                return _from_cholesky(lower, inverse, lengths, scales, singular, condition > _SINGLE_LIMIT)
    return _householder(stack, scales, singular)


def _from_cholesky(
    lower: torch.Tensor,
    inverse: torch.Tensor,
    lengths: torch.Tensor,
    scales: torch.Tensor,
    singular: bool,
    precise: bool,
) -> Basis:
    """X·diag(s)/lengths = Q·lowerᵀ; for singular directions Q is turned by the left singular vectors of the rest."""
    coefficients = lower.T * lengths
    transform = (scales / lengths)[:, None] * inverse.T
    if not singular:
        return Basis(coefficients, transform, None, None, precise)
    u, s, vt = torch.linalg.svd(coefficients)
    keep = significant(s)
    turned = transform @ u[:, :keep]
    # Columns of very different length make small singular directions differences of large ones.
    spread = float(s[0] / s[keep - 1]) if keep else 1.0
    return Basis(s[:keep, None] * vt[:keep], turned, None, s[:keep], precise or spread > _SINGLE_LIMIT)


def _householder(stack: torch.Tensor, scales: torch.Tensor, singular: bool) -> Basis:
    """Columns are brought to one length first, so that a language with a tiny ΔW keeps its digits beside others."""
    scaled = stack.to("cpu", torch.float64) * scales
    lengths = torch.linalg.vector_norm(scaled, dim=0)
    there = lengths > 0
    q, r = torch.linalg.qr(scaled[:, there] / lengths[there])
    u, s, vt = torch.linalg.svd(r, full_matrices=False)
    keep = significant(s)
    # Columns that are zero stay exactly zero: noise in their place would have signs, and vote.
    coefficients = torch.zeros(keep, stack.shape[1], dtype=torch.float64)
    coefficients[:, there] = s[:keep, None] * vt[:keep] * lengths[there]
    directions = q @ u[:, :keep]
    if not singular:
        return Basis(coefficients, None, directions, None, True)
    turn, values, vt = torch.linalg.svd(coefficients[:, there], full_matrices=False)
    keep = significant(values)
    coefficients = torch.zeros(keep, stack.shape[1], dtype=torch.float64)
    coefficients[:, there] = values[:keep, None] * vt[:keep]
    return Basis(coefficients, None, directions @ turn[:, :keep], values[:keep], True)


def half_gram(part: torch.Tensor, gram: torch.Tensor) -> torch.Tensor:
    """Return C (``r × r``) with CCᵀ = AAᵀ for one member's A (``r × in``): the inner geometry of its rows."""
    lower, failed = torch.linalg.cholesky_ex(gram)
    if int(failed.item()) == 0:
        diagonal = lower.diagonal()
        if float(diagonal.min()) * _GRAM_LIMIT > float(diagonal.max()):
            half: torch.Tensor = lower
            return half
    half = torch.linalg.qr(part.T.to("cpu", torch.float64), mode="r").R.T
    return half


@dataclass(frozen=True, eq=False)
class JointBasis:
    """The left singular basis of [ΔW₁ | … | ΔW_T] (KnOTS, arXiv 2410.19735), and every member's coordinates in it.

    ΔWᵢ = U Pᵢ with Pᵢ = diag(σ)Vᵢᵀ = lefts[i] Aᵢ.

    Attributes:
        basis: A basis of the stacked B.
        turn: ``p × k``, U = Q·turn.
        lefts: ``k × r`` of every member, float64.
        values: σ, largest first.
    """

    basis: Basis
    turn: torch.Tensor
    lefts: list[torch.Tensor]
    values: torch.Tensor

    @property
    def tensors(self) -> list[torch.Tensor]:
        """Everything it holds."""
        basis = self.basis
        held = [basis.coefficients, basis.transform, basis.directions, self.turn, self.values, *self.lefts]
        return [tensor for tensor in held if tensor is not None]


def joint_basis(basis: Basis, columns: Sequence[slice], halves: Sequence[torch.Tensor]) -> JointBasis:
    """Find the joint left singular basis from a basis of the stacked B and the inner geometry of every A.

    With [s₁B₁ … s_TB_T] = Q [R₁ … R_T] and AᵢAᵢᵀ = CᵢCᵢᵀ, the concatenation has the left singular vectors and values
    of Q [R₁C₁ … R_TC_T], and Pᵢ = uᵀRᵢAᵢ.
    """
    inner = [basis.coefficients[:, at] @ half for at, half in zip(columns, halves, strict=True)]
    u, s, _ = torch.linalg.svd(torch.cat(inner, dim=1), full_matrices=False)
    u = u[:, : significant(s)]
    return JointBasis(basis, u, [u.T @ basis.coefficients[:, at] for at in columns], s[: u.shape[1]])


def smallest_gap(values: torch.Tensor) -> float | None:
    """Return the smallest (σⱼ - σⱼ₊₁)/σ₁: where it is tiny, a basis of singular vectors is not unique."""
    if values.numel() < 2:
        return None
    return max(0.0, float((values[:-1] - values[1:]).min() / values[0]))
