"""Inner products of factors, in float64: all that joint bases need to know about the long sides of A and B.

Every block belongs to two adapters and one module and is always computed on its own, in the same way: a block that was
kept from an earlier merge has the same bits as one computed now.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from adapterctl.errors import AdapterError
from adapterctl.merging import kernels
from adapterctl.merging.arena import Stack, arena

_PIECE = 2048
"""Rows that are converted to float64 at once."""

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
        self.reused = 0
        self.computed = 0

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
            self._side("A", stack, [part.T for part in stack.parts_of_A], cross_a),
            self._side("B", stack, stack.parts_of_B, cross_b),
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

    def _side(self, side: str, stack: Stack, parts: Sequence[torch.Tensor], cross: bool) -> torch.Tensor:
        plan = stack.plan
        size = plan.total_rank
        gram = torch.zeros(size, size, dtype=torch.float64)
        missing: list[Pair] = []
        # A stored float64 loses digits on its way into float32: what was computed from those is another block.
        kind = f"{side}64" if parts and parts[0].dtype == torch.float64 else side
        kind = f"{kind} {self._mark}" if self._mark else kind
        hashes = [self._hashes[member.lang] for member in plan.members]
        for i in range(len(parts)):
            for j in range(i, len(parts)) if cross else (i,):
                # Of two adapters the one with the smaller hash comes first, whatever their languages are called.
                first, second = (i, j) if hashes[i] <= hashes[j] else (j, i)
                key = (kind, plan.module, hashes[first], hashes[second])
                block = None if self._kept is None else self._kept.get(key)
                if block is None:
                    missing.append((first, second))
                else:
                    self.reused += 1
                    _put(gram, plan.columns[first], plan.columns[second], block)
        for (first, second), block in _inner_products(parts, missing).items():
            self.computed += 1
            _put(gram, plan.columns[first], plan.columns[second], block)
            if self._kept is not None:
                self._kept[kind, plan.module, hashes[first], hashes[second]] = block
        return gram


def _put(gram: torch.Tensor, first: slice, second: slice, block: torch.Tensor) -> None:
    gram[first, second] = block
    gram[second, first] = block.T


def _inner_products(parts: Sequence[torch.Tensor], pairs: Sequence[Pair]) -> dict[Pair, torch.Tensor]:
    """Return XᵢᵀXⱼ for the pairs, from matrices ``long × r``, piece by piece in float64."""
    products = {
        (i, j): torch.zeros(parts[i].shape[1], parts[j].shape[1], dtype=torch.float64, device=parts[i].device)
        for i, j in pairs
    }
    needed = sorted({index for pair in pairs for index in pair})
    long = parts[0].shape[0] if parts else 0
    here = not parts or parts[0].device.type == "cpu"
    step = _PIECE if here else max(1, long)
    for start in range(0, long, step):
        rows = slice(start, min(start + step, long))
        pieces = {}
        for index in needed:
            part = parts[index][rows]
            pieces[index] = arena().take(f"gram {index}", tuple(part.shape), torch.float64, part.device)
            pieces[index].copy_(part)
        for (i, j), product in products.items():
            if here:
                # A library's product of matrices as thin as these takes twice as long.
                kernels.add_products(pieces[i].numpy(), pieces[j].numpy(), product.numpy())
            else:
                product.addmm_(pieces[i].T, pieces[j])
    return {pair: product.cpu() for pair, product in products.items()}
