"""Methods that judge every entry on its own: dropping, trimming, voting, block of rows by block of rows.

A threshold or a majority over the whole model takes passes of its own, in which coordinates are computed again
rather than kept: memory is bounded by one module whatever the size of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from adapterctl.merging.methods import Dialect, Method
from adapterctl.merging.operators import dare_mask, elect, kth_largest, trim, vote, weighted_sum
from adapterctl.merging.spaces import Coordinates, Parts
from adapterctl.randomness import generator

TRIM_PASSES = 4
"""How often ``kth_largest`` reads the model."""


@dataclass(frozen=True)
class Entrywise:
    """What an entrywise merge needs to know, and how many passes over the model it takes.

    Attributes:
        method: The method's row.
        dialect: The fine print.
        languages: The languages, in the order of the parts.
        weights: A factor for each.
        density: Share of entries kept.
        seed: Seed of the random masks.
    """

    method: Method
    dialect: Dialect
    languages: tuple[str, ...]
    weights: tuple[float, ...]
    density: float
    seed: int

    @property
    def trims(self) -> bool:
        """Whether small entries are dropped at all."""
        return self.method.sparsify == "trim" and self.density < 1

    @property
    def needs_model_threshold(self) -> bool:
        """Whether one threshold holds for the whole model."""
        return self.trims and self.dialect.scope == "model"

    @property
    def needs_majority(self) -> bool:
        """Whether a balanced vote asks for the majority of the whole model."""
        return self.method.combine == "elect" and self.dialect.zero_sign == "majority" and len(self.languages) > 1

    @property
    def passes(self) -> int:
        """How often the coordinates of the whole model are computed."""
        return 1 + TRIM_PASSES * self.needs_model_threshold + self.needs_majority

    def kept(self, size: int) -> int:
        """Return how many of ``size`` entries stay: at least one, and one more under the papers' rules."""
        return max(1, int(size * self.density) + self.dialect.extra)

    def dropped(self, module: str, space: Coordinates) -> Coordinates:
        """Return the coordinates with entries dropped at random (DARE) and the rest scaled up.

        The mask of a language and module depends on nothing but the seed, the language and the module.
        """
        if self.method.sparsify != "dare" or self.density == 1:
            return space

        def masked() -> Iterator[tuple[Parts, Parts]]:
            generators = [generator("dare", self.seed, lang, module) for lang in self.languages]
            for parts in space.blocks():
                yield (
                    parts,
                    tuple(
                        part * dare_mask(numbers, part.shape, self.density)
                        for part, numbers in zip(parts, generators, strict=True)
                    ),
                )

        factors = [1.0 / self.density] * len(self.languages)
        if self.dialect.rescale == "l1":
            factors = _norm_ratios(masked())

        def blocks() -> Iterator[Parts]:
            for _, kept in masked():
                yield tuple(part * factor for part, factor in zip(kept, factors, strict=True))

        return replace(space, blocks=blocks)

    def thresholds(self, blocks: Callable[[], Iterator[Parts]]) -> list[float]:
        """Return the smallest magnitude that stays, for each language."""
        return kth_largest(blocks, self.kept)

    def majority(self, blocks: Iterator[Parts], thresholds: Sequence[float] | None) -> float:
        """Return the sign that most entries elect: 1, or -1 also when they balance, as the reference code does."""
        total = 0.0
        for parts in blocks:
            total += float(
                vote(_trimmed(parts, thresholds), self.weights, weighted=self.dialect.weighted_vote).sum().item()
            )
        return 1.0 if total > 0 else -1.0

    def merged(self, space: Coordinates, thresholds: Sequence[float] | None, zero_sign: float) -> torch.Tensor:
        """Return the merged part of one module.

        Args:
            space: The module, entries already dropped.
            thresholds: Those of the whole model; None where they are the module's own or nothing is trimmed.
            zero_sign: The sign of a balanced vote.
        """
        if self.trims and thresholds is None:
            thresholds = self.thresholds(space.blocks)
        return torch.cat([self._combined(_trimmed(parts, thresholds), zero_sign) for parts in space.blocks()])

    def _combined(self, parts: Parts, zero_sign: float) -> torch.Tensor:
        if self.method.combine == "sum":
            return weighted_sum(parts, self.weights)
        dare = self.method.sparsify == "dare"
        return elect(
            parts,
            self.weights,
            weighted=self.dialect.weighted_vote,
            divisor=self.dialect.dare_ties_divisor if dare else self.dialect.ties_divisor,
            zero_sign=zero_sign,
        )


def _trimmed(parts: Parts, thresholds: Sequence[float] | None) -> Parts:
    if thresholds is None:
        return parts
    return tuple(trim(part, threshold) for part, threshold in zip(parts, thresholds, strict=True))


def _norm_ratios(masked: Iterator[tuple[Parts, Parts]]) -> list[float]:
    """Return ‖x‖₁ / ‖x after dropping‖₁ for each language; 1 where nothing is left."""
    whole: list[float] = []
    left: list[float] = []
    for before, after in masked:
        if not whole:
            whole, left = [0.0] * len(before), [0.0] * len(before)
        for index, (x, y) in enumerate(zip(before, after, strict=True)):
            whole[index] += float(x.abs().sum().item())
            left[index] += float(y.abs().sum().item())
    return [w / kept if kept else 1.0 for w, kept in zip(whole, left, strict=True)]
