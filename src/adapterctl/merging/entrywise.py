"""Methods that judge every entry on its own: dropping, trimming, voting, tile by tile."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from adapterctl.merging import kernels_torch
from adapterctl.merging.dialects import Dialect
from adapterctl.merging.masks import last_kept, mask_words, place
from adapterctl.merging.methods import Method
from adapterctl.merging.plan import ModulePlan, Plan
from adapterctl.merging.recipe import MergeRecipe
from adapterctl.merging.selection import Threshold, kth_largest, sample_size
from adapterctl.merging.tiles import Tiles

_DIVISORS = {"none": 0, "count": 1, "weight": 2}
_SMALLEST_ENERGY = 1e-6
"""Where mergekit takes all languages for equally strong."""


Cuts = dict[int, list[tuple[float, int]]]
"""For members, magnitudes of which only the first so many entries stay."""


@dataclass
class Tally:
    """What became of the entries of one module.

    Attributes:
        kept: Entries that stayed after dropping, by language.
        lost: Those of them that lost the vote, by language.
        balanced: Votes that were exactly balanced though there were entries.
        net: The sum of the signs of all other votes.
    """

    kept: dict[str, int] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)
    balanced: int = 0
    net: int = 0

    @property
    def discard_rate(self) -> dict[str, float]:
        """The share of each language's kept entries that lost the vote."""
        return {lang: self.lost[lang] / count if count else 0.0 for lang, count in self.kept.items()}


@dataclass(frozen=True)
class Rules:
    """How entries are judged in one module.

    Attributes:
        recipe: The recipe.
        module: The module and its members.
    """

    recipe: MergeRecipe
    module: ModulePlan

    @property
    def method(self) -> Method:
        """The method's row."""
        return self.recipe.row

    @property
    def dialect(self) -> Dialect:
        """The fine print."""
        return self.recipe.dialect

    @property
    def drops(self) -> bool:
        """Whether any entry is dropped."""
        return self.method.drop != "none" and self.recipe.density < 1

    def merged(self, tiles: Tiles, thresholds: Mapping[str, Threshold] | None, zero_sign: float, out: Any) -> Tally:
        """Merge one module's coordinates.

        Args:
            tiles: The members' coordinates.
            thresholds: Those of the whole model by language; None where they are the module's own.
            zero_sign: The sign of an exactly balanced vote.
            out: ``rows × width``, written; an array or a tensor, as the tiles are.
        """
        if self.method.combine == "sce":
            return self._sce(tiles, out)
        dtype, kernels = tiles.dtype, tiles.backend.kernels
        low, high, cuts = self._bands(tiles, thresholds, dtype)
        weights = np.array(self.module.weights, dtype)
        tally = Tally()
        if self.method.combine == "sum":
            for rows, x in self._after_dropping(tiles, cuts):
                kernels.band_sum(x, low, high, weights, out[rows].reshape(-1))
            return tally
        votes = weights if self.dialect.weighted_vote else np.ones_like(weights)
        lean = self._lean(tiles, low, high, cuts, dtype)
        dare = self.method.drop == "dare"
        divisor = _DIVISORS[self.dialect.dare_divisor if dare else self.dialect.divisor]
        kept, lost = np.zeros(len(weights), np.int64), np.zeros(len(weights), np.int64)
        for rows, x in self._after_dropping(tiles, cuts):
            balanced, net = kernels.elect(
                x, low, high, weights, votes, lean, divisor, dtype.type(zero_sign), out[rows].reshape(-1), kept, lost
            )
            tally.balanced += int(balanced)
            tally.net += int(net)
        tally.kept = dict(zip(tiles.langs, kept.tolist(), strict=True))
        tally.lost = dict(zip(tiles.langs, lost.tolist(), strict=True))
        return tally

    def _bands(self, tiles: Tiles, thresholds: Mapping[str, Threshold] | None, dtype: Any) -> tuple[Any, Any, Cuts]:
        """Return from which and below which magnitude entries stay, and the magnitudes of which only some stay."""
        count = len(tiles.langs)
        low, high = np.zeros(count, dtype), np.full(count, np.finfo(dtype).max, dtype)
        if not self.drops or self.method.drop not in ("trim", "band"):
            return low, high, {}
        if self.method.drop == "band":
            return self._crumbs(tiles, low, high)
        if thresholds is not None:
            found = [thresholds[lang] for lang in tiles.langs]
        else:
            found = self._own(tiles, self.dialect.kept(tiles.size, self.recipe.density))
        low[:] = [threshold.value for threshold in found]
        if not self.dialect.exact_count:
            return low, high, {}
        return low, high, {i: [(at.value, at.allowed)] for i, at in enumerate(found) if at.allowed < at.equal}

    def _crumbs(self, tiles: Tiles, low: Any, high: Any) -> tuple[Any, Any, Cuts]:
        """Return the band of Model Breadcrumbs (arXiv 2312.06795) of one module: exactly so many entries stay."""
        wanted = int(self.recipe.density * tiles.size)
        outliers = tiles.size - wanted - max(0, tiles.size - wanted - int(self.recipe.gamma * tiles.size))
        if wanted == 0:
            low[:] = high
            return low, high, {}
        last = self._own(tiles, outliers + wanted)
        low[:] = [threshold.value for threshold in last]
        cuts: Cuts = {index: [(at.value, at.allowed)] for index, at in enumerate(last)}
        for index, at in enumerate(self._own(tiles, outliers) if outliers else ()):
            high[index] = np.nextafter(low.dtype.type(at.value), np.inf)
            if at.value == last[index].value:
                cuts[index] = [(at.value, last[index].allowed - at.allowed)]
            else:
                cuts[index].append((at.value, at.equal - at.allowed))
        return low, high, cuts

    def _own(self, tiles: Tiles, wanted: int) -> list[Threshold]:
        sample = tiles.sample(self.module.module, sample_size(tiles.size))
        return kth_largest(tiles.blocks, sample, tiles.size, wanted)

    def _after_dropping(
        self, tiles: Tiles, cuts: Mapping[int, Sequence[tuple[float, int]]]
    ) -> Iterator[tuple[slice, Any]]:
        """Give the tiles with entries dropped at random, and with those dropped that are one too many."""
        if self.drops and self.method.drop in ("dare", "della"):
            yield from self._at_random(tiles)
            return
        kernels = tiles.backend.kernels
        left = {index: list(found) for index, found in cuts.items()}
        for rows, x in tiles.blocks():
            for index, found in left.items():
                for place_of, (value, allowed) in enumerate(found):
                    found[place_of] = value, kernels.drop_surplus(x[index], tiles.dtype.type(value), allowed)
            yield rows, x

    def _at_random(self, tiles: Tiles) -> Iterator[tuple[slice, Any]]:
        by_norm, kernels = self.dialect.rescale == "l1", tiles.backend.kernels
        factors = np.ones(len(tiles.langs))
        if by_norm:
            whole, left = np.zeros_like(factors), np.zeros_like(factors)
            for rows, x in tiles.blocks():
                whole += [kernels.absolute_sum(values) for values in x]
                self._drop(tiles, rows, x, rescale=False)
                left += [kernels.absolute_sum(values) for values in x]
            factors = np.divide(whole, left, out=np.ones_like(whole), where=left > 0)
        for rows, x in tiles.blocks():
            self._drop(tiles, rows, x, rescale=not by_norm)
            if by_norm:
                for values, factor in zip(x, factors, strict=True):
                    values *= float(factor)
            yield rows, x

    def _drop(self, tiles: Tiles, rows: slice, x: Any, *, rescale: bool) -> None:
        """Drop entries of a tile at random, by a mask that depends on seed, language, module and place alone."""
        density, kernels = self.recipe.density, tiles.backend.kernels
        start = place(rows.start * tiles.width)
        for lang, values in zip(tiles.langs, x, strict=True):
            first, second = mask_words(self.recipe.seed, lang, self.module.module)
            if self.method.drop == "della":
                chances = _chances(values.reshape(-1, tiles.width), density, self.recipe.epsilon)
                kernels.drop_by_chance(values, first, second, start, chances.reshape(-1), rescale)
            else:
                factor = tiles.dtype.type(1.0 / density if rescale else 1.0)
                kernels.drop_at_random(values, first, second, start, last_kept(density), factor)

    def _lean(
        self, tiles: Tiles, low: Any, high: Any, cuts: Mapping[int, Sequence[tuple[float, int]]], dtype: Any
    ) -> Any:
        """Return what the sign of each member's entries adds to a vote: slack times a typical entry of the others."""
        lean = np.zeros(len(tiles.langs), dtype)
        protected = [lang in self.recipe.protect for lang in tiles.langs]
        if self.recipe.method != "ties-slack" or not self.recipe.slack or all(protected) or not any(protected):
            return lean
        total, count = 0.0, 0
        for _, x in self._after_dropping(tiles, cuts):
            for index, values in enumerate(x):
                if not protected[index]:
                    added, entries = tiles.backend.kernels.band_total(values, low[index], high[index])
                    total, count = total + added, count + entries
        lean[np.array(protected)] = self.recipe.slack * total / count if count else 0.0
        return lean

    def _sce(self, tiles: Tiles, out: Any) -> Tally:
        """Select, calculate, erase (SCE, arXiv 2408.07990); ``out`` holds the variances until they are used up."""
        kernels, dtype = tiles.backend.kernels, tiles.dtype
        threshold, allowed = dtype.type(-1), 0
        if self.drops:
            for rows, x in tiles.blocks():
                kernels.variance(x, len(self.module.absent), out[rows].reshape(-1))
            spread = out.reshape(-1)
            wanted = int(_count_nonzero(spread) * self.recipe.density)
            threshold = dtype.type(_nth_largest(spread, wanted) if wanted else np.finfo(dtype).max)
            allowed = wanted - int((spread > float(threshold)).sum())

        def selected() -> Iterator[tuple[slice, Any]]:
            left = allowed
            for rows, x in tiles.blocks():
                if self.drops:
                    left = kernels.keep_where(x, out[rows].reshape(-1), threshold, left)
                yield rows, x

        energies = np.zeros(len(tiles.langs))
        for _, x in selected():
            kernels.energies(x, energies)
        coefficients = energies / tiles.size * np.array(self.module.weights)
        total = float(coefficients.sum())
        least = _SMALLEST_ENERGY if self.dialect.name == "mergekit" else 0.0
        if total == 0 or abs(total) < least:
            coefficients, total = np.ones_like(coefficients), float(len(coefficients))
        weights = (coefficients / total).astype(dtype)
        ones, nothing = np.ones_like(weights), np.zeros_like(weights)
        high = np.full_like(weights, np.finfo(dtype).max)
        kept, lost = np.zeros(len(weights), np.int64), np.zeros(len(weights), np.int64)
        for rows, x in selected():
            into = out[rows].reshape(-1)
            kernels.elect(x, nothing, high, weights, ones, nothing, 2, dtype.type(1), into, kept, lost)
        langs = tiles.langs
        return Tally(dict(zip(langs, kept.tolist(), strict=True)), dict(zip(langs, lost.tolist(), strict=True)))


def _chances(values: Any, density: float, epsilon: float) -> Any:
    """Return keep probabilities that grow with a magnitude's rank in its row (DELLA, arXiv 2406.11617)."""
    return density - epsilon + _ranks(values) / max(1, values.shape[1] - 1) * (2.0 * epsilon)


def _ranks(values: Any) -> Any:
    if isinstance(values, torch.Tensor):
        return kernels_torch.ranks(values)
    order = np.argsort(np.abs(values), axis=1, kind="stable")
    ranks = np.empty(values.shape, np.float64)
    np.put_along_axis(ranks, order, np.arange(values.shape[1], dtype=np.float64)[None, :], axis=1)
    return ranks


def _count_nonzero(values: Any) -> int:
    return int((torch if isinstance(values, torch.Tensor) else np).count_nonzero(values))


def _nth_largest(values: Any, n: int) -> float:
    if isinstance(values, torch.Tensor):
        return kernels_torch.nth_largest(values, n)
    return float(np.partition(values, -n)[-n])


def needs_model_threshold(plan: Plan) -> bool:
    """Tell whether one threshold of each language holds for the whole model."""
    recipe = plan.recipe
    return recipe.row.drop == "trim" and recipe.density < 1 and recipe.dialect.scope == "model"


def asks_for_majority(plan: Plan) -> bool:
    """Tell whether an exactly balanced vote takes the sign of the majority of the whole model."""
    return plan.recipe.row.combine == "elect" and plan.recipe.dialect.zero_sign == "majority"
