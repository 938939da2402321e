"""The change a LoRA adapter makes to one module."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True, eq=False)
class LowRankDelta:
    """ΔW = scale · B · A of one module (Hu et al. 2021, arXiv 2106.09685).

    Attributes:
        A: The down projection, ``rank × in``.
        B: The up projection, ``out × rank``.
        scale: α/r, or α/√r for rsLoRA; never 1 by assumption.
    """

    A: torch.Tensor
    B: torch.Tensor
    scale: float

    def __post_init__(self) -> None:
        if self.A.ndim != 2 or self.B.ndim != 2 or self.A.shape[0] != self.B.shape[1]:
            raise ValueError(f"A {tuple(self.A.shape)} and B {tuple(self.B.shape)} are not factors of one matrix")

    @property
    def rank(self) -> int:
        """The number of rows of A, which bounds the rank of ΔW."""
        return self.A.shape[0]

    @property
    def shape(self) -> tuple[int, int]:
        """``(out, in)``, the shape of ΔW."""
        return self.B.shape[0], self.A.shape[1]

    def dense(self) -> torch.Tensor:
        """Return ΔW itself, ``out × in``."""
        return self.scaled_factors()[1] @ self.A

    def scaled_factors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ``(A, scale · B)``, whose product ``(scale · B) · A`` is ΔW."""
        return self.A, self.B * self.scale

    def norm(self) -> float:
        """Return ‖ΔW‖_F from the r × r Gram matrices: ‖BA‖² = tr((BᵀB)(AAᵀ)), never the dense product."""
        squared = float(torch.sum((self.B.T @ self.B) * (self.A @ self.A.T)).item())
        return abs(self.scale) * math.sqrt(max(squared, 0.0))


def raw_bytes(tensor: torch.Tensor) -> memoryview:
    """Return the bytes of a tensor as they are stored, without copying them where it is contiguous."""
    flat: Any = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
    return memoryview(flat)


def all_finite(tensor: torch.Tensor) -> bool:
    """Tell whether no number is NaN or infinite.

    A sum is finite where all numbers are, but for an overflow, and is faster than judging them one by one.
    """
    return math.isfinite(float(tensor.sum())) or bool(torch.isfinite(tensor).all())
