"""Inner products of factors, in float64: all that joint bases need to know about the long sides of A and B.

Every block belongs to two adapters and one module and is always computed on its own, in the same way: a block that was
kept from an earlier merge has the same bits as one computed now.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from adapterctl.errors import AdapterError
from adapterctl.merging import kernels
from adapterctl.merging.arena import Stack, arena
from adapterctl.merging.plan import ModulePlan

_PIECE = 256
"""Rows of all members that are worked on at once: they fit in the second-level cache."""

Pair = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Grams:
    """The inner products of one module's factors, without scales.

    Attributes:
        A: ``R × R``: AAᵀ of the stacked A. Blocks of different members are zero where they were not asked for.
        B: ``R × R``: BᵀB of the stacked B.
    """

    A: torch.Tensor
    B: torch.Tensor

    def norms(self, stack: Stack) -> list[float]:
        """Return ‖ΔW‖_F of every member: ‖sBA‖² = s² tr((BᵀB)(AAᵀ))."""
        found = []
        for member, at in zip(stack.plan.members, stack.plan.columns, strict=True):
            squared = float(torch.sum(self.B[at, at] * self.A[at, at]).item())
            found.append(abs(member.scale) * max(squared, 0.0) ** 0.5)
        return found


class Blocks:
    """Where blocks come from: the kept ones, else they are computed and kept.

    Args:
        kept: ``(side, module, first content hash, second content hash) -> block`` of earlier merges; new ones are
            added. None computes all and keeps none.
        hashes: The content hash of every language's adapter.
        mark: What tells blocks from those of another backend.
    """

    def __init__(
        self, kept: dict[tuple[str, str, str, str], torch.Tensor] | None, hashes: Mapping[str, str], mark: str = ""
    ) -> None:
        self._kept = kept
        self._hashes = hashes
        self._mark = mark
        self._before = frozenset(kept or ())
        self._met: set[tuple[str, str, str, str]] = set()

    @property
    def reused(self) -> int:
        """How many blocks came from earlier merges."""
        return len(self._met & self._before)

    @property
    def computed(self) -> int:
        """How many blocks were computed now."""
        return len(self._met - self._before)

    def of(self, stack: Stack, *, cross_a: bool, cross_b: bool) -> Grams:
        """Return the inner products of a module.

        Args:
            stack: The loaded factors.
            cross_a: Whether A of different members meet; else only each with itself.
            cross_b: The same for B.

        Raises:
            AdapterError: A factor holds NaN or an infinity.
        """
        grams = Grams(
            self._side("A", stack, stack.A, cross_a),
            self._side("B", stack, stack.B, cross_b),
        )
        for side, gram in (("A", grams.A), ("B", grams.B)):
            diagonal = torch.isfinite(gram.diagonal())
            if not bool(diagonal.all()):
                names = [
                    member.lang
                    for member, at in zip(stack.plan.members, stack.plan.columns, strict=True)
                    if not bool(diagonal[at].all())
                ]
                raise AdapterError(
                    f"{stack.plan.module}: lora_{side} of {', '.join(names)} holds NaN or infinite numbers"
                )
        return grams

    def _side(self, side: str, stack: Stack, factors: torch.Tensor, cross: bool) -> torch.Tensor:
        plan = stack.plan
        size = plan.total_rank
        gram = torch.zeros(size, size, dtype=torch.float64)
        missing: list[Pair] = []
        # A stored float64 loses digits on its way into float32: what was computed from those is another block.
        kind = f"{side}64" if factors.dtype == torch.float64 else side
        kind = f"{kind} {self._mark}" if self._mark else kind
        hashes = [self._hashes[member.lang] for member in plan.members]
        for i in range(len(hashes)):
            for j in range(i, len(hashes)) if cross else (i,):
                # Of two adapters the one with the smaller hash comes first, whatever their languages are called.
                first, second = (i, j) if hashes[i] <= hashes[j] else (j, i)
                key = (kind, plan.module, hashes[first], hashes[second])
                block = None if self._kept is None else self._kept.get(key)
                self._met.add(key)
                if block is None:
                    missing.append((first, second))
                else:
                    _put(gram, plan.columns[first], plan.columns[second], block)
        if missing and factors.device.type == "cpu":
            _fill(gram, factors, plan, missing, lying=side == "A")
        elif missing:
            _fill_from_device(gram, factors.T if side == "A" else factors, plan, missing)
        if self._kept is not None:
            for first, second in missing:
                block = gram[plan.columns[first], plan.columns[second]].clone()
                self._kept[kind, plan.module, hashes[first], hashes[second]] = block
        return gram


def _put(gram: torch.Tensor, first: slice, second: slice, block: torch.Tensor) -> None:
    gram[first, second] = block
    gram[second, first] = block.T


def _fill(gram: torch.Tensor, factors: torch.Tensor, plan: ModulePlan, pairs: Sequence[Pair], *, lying: bool) -> None:
    """Write XᵢᵀXⱼ of the pairs to both of their places; ``lying`` factors have their long side along the rows."""
    starts = np.array([*(at.start for at in plan.columns), plan.total_rank])
    most = max(member.rank for member in plan.members)
    piece = arena().take("gram", (len(plan.members), _PIECE * most), torch.float64)
    kernels.inner_products(factors.numpy(), lying, starts, np.array(pairs), piece.numpy(), _PIECE, gram.numpy())


def _fill_from_device(gram: torch.Tensor, factors: torch.Tensor, plan: ModulePlan, pairs: Sequence[Pair]) -> None:
    """Write XᵢᵀXⱼ of the pairs, computed where the factors ``long × R`` are, to both of their places."""
    wide = factors.to(torch.float64)
    for first, second in pairs:
        left, right = plan.columns[first], plan.columns[second]
        _put(gram, left, right, (wide[:, left].T @ wide[:, right]).cpu())
