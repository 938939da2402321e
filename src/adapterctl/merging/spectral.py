"""Methods that work on singular vectors, on the core matrices of one module: everything here is at most R × R.

A member's core matrix is ``Mᵢ = lefts[i] @ rights[i]`` in the joint bases of all B and all A, so that products, norms
and singular values are those of ΔWᵢ (core space, arXiv 2509.17786). All in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from adapterctl.merging.bases import significant

SVC_FLOOR = 0.1
"""α of SVC: a language that a direction tells nothing about counts as much as one at this share."""


@dataclass(frozen=True, eq=False)
class Core:
    """One module in core space.

    Attributes:
        lefts: ``p × r`` of every member, scale included.
        rights: ``r × q`` of every member.
        weights: The members' weights.
        languages: T, with those that count as zero here.
        spread: Squared singular values of the stacked B in the left basis; None where it is not its singular basis.
    """

    lefts: Sequence[torch.Tensor]
    rights: Sequence[torch.Tensor]
    weights: Sequence[float]
    languages: int
    spread: torch.Tensor | None

    def parts(self) -> list[torch.Tensor]:
        """Return every member's core matrix, ``p × q``."""
        return [left @ right for left, right in zip(self.lefts, self.rights, strict=True)]


def weighted_sum(core: Core) -> torch.Tensor:
    """Return Σ wᵢMᵢ."""
    total = torch.zeros(core.lefts[0].shape[0], core.rights[0].shape[1], dtype=torch.float64)
    for left, right, weight in zip(core.lefts, core.rights, core.weights, strict=True):
        total.addmm_(left, right, alpha=weight)
    return total


def _thin_svd(left: torch.Tensor, right: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the singular triples of ``left @ right`` that are not zero, from its thin factors."""
    q, r = torch.linalg.qr(left)
    p, t = torch.linalg.qr(right.T)
    u, s, vt = torch.linalg.svd(r @ t.T, full_matrices=False)
    keep = significant(s)
    return q @ u[:, :keep], s[:keep], p @ vt[:keep].T


def _polar(stack: torch.Tensor) -> torch.Tensor:
    """Return the nearest matrix with orthonormal columns.

    Where ``stack`` lacks rank the result is the partial isometry on its column space: two equal languages share a
    direction instead of one of them getting an arbitrary one.
    """
    u, s, vt = torch.linalg.svd(stack, full_matrices=False)
    keep = significant(s)
    nearest: torch.Tensor = u[:, :keep] @ vt[:keep]
    return nearest


def tsv(core: Core) -> torch.Tensor:
    """Merge by whitened task singular vectors (TSV-M, arXiv 2412.00081), all components of every language kept.

    Per language Mᵢ = Uᵢ Sᵢ Vᵢᵀ. The stacks [U₁ … U_T] and [V₁ … V_T] are replaced by their polar factors, and the
    singular values, times the weights, are put back.
    """
    lefts, values, rights = [], [], []
    for left, right, weight in zip(core.lefts, core.rights, core.weights, strict=True):
        u, s, v = _thin_svd(left, right)
        lefts.append(u)
        values.append(weight * s)
        rights.append(v)
    scaled = _polar(torch.cat(lefts, dim=1)) * torch.cat(values)
    return scaled @ _polar(torch.cat(rights, dim=1)).T


def isotropic(core: Core) -> torch.Tensor:
    """Give all non-zero singular values of the weighted sum their mean (Iso-C, arXiv 2502.04959).

    A single language is left as it is: there is nothing to balance it against.
    """
    total = weighted_sum(core)
    if core.languages == 1:
        return total
    u, s, vt = torch.linalg.svd(total, full_matrices=False)
    keep = significant(s)
    flattened: torch.Tensor = s[:keep].sum() / max(keep, 1) * (u[:, :keep] @ vt[:keep])
    return flattened


def calibrated(core: Core) -> torch.Tensor:
    """Shrink directions that several languages share (SVC, arXiv 2602.05536).

    With Σ wᵢMᵢ = UΣVᵀ and cᵢ(r) = ⟨uᵣᵀS, uᵣᵀMᵢ⟩/‖uᵣᵀMᵢ‖², the singular value r is multiplied by
    T / Σᵢ max(α, cᵢ(r)), α = 0.1.
    """
    u, s, vt = torch.linalg.svd(weighted_sum(core), full_matrices=False)
    merged = s[:, None] * vt
    shares = torch.full((len(s),), SVC_FLOOR * (core.languages - len(core.lefts)), dtype=torch.float64)
    for part in core.parts():
        seen = u.T @ part
        energy = (seen * seen).sum(dim=1)
        told = energy > 0
        share = torch.where(told, (merged * seen).sum(dim=1) / torch.where(told, energy, 1.0), 0.0)
        shares += share.clamp_min(SVC_FLOOR)
    rebuilt: torch.Tensor = (u * (s * core.languages / shares)) @ vt
    return rebuilt


def pico(core: Core) -> torch.Tensor:
    """Damp the output directions that the languages share, then add (Pico, arXiv 2604.16826).

    With [s₁B₁ … s_TB_T] = U diag(σ) Vᵀ and its shares σⱼ²/Σσ² of energy, direction j is multiplied by
    1/(1 + (T-1)·shareⱼ); the sum is brought back to the mean norm of the languages.
    """
    assert core.spread is not None
    damping = 1.0 / (1.0 + (core.languages - 1) * core.spread / core.spread.sum())
    damped = damping[:, None] * weighted_sum(core)
    norm = float(damped.norm())
    mean = sum(float(part.norm()) for part in core.parts()) / core.languages
    return damped * (mean / norm) if norm else damped


OPERATORS: dict[str, Callable[[Core], torch.Tensor]] = {
    "sum": weighted_sum,
    "tsv": tsv,
    "iso": isotropic,
    "svc": calibrated,
    "pico": pico,
}
"""What a method's ``combine`` does in core space."""

NEEDS_SINGULAR_BASIS = frozenset({"pico", "elect"})
"""What depends on which basis of the joint space is taken, and takes that of singular vectors."""
