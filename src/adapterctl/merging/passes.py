"""The passes over a model that a merge takes: one, or three where thresholds hold for the whole model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from adapterctl.merging.arena import arena
from adapterctl.merging.entrywise import Rules, Tally, asks_for_majority, needs_model_threshold
from adapterctl.merging.factorise import Factored
from adapterctl.merging.plan import ModulePlan, Plan
from adapterctl.merging.selection import (
    Found,
    Threshold,
    bracket,
    leading_digits,
    room,
    sample_size,
    scan,
    settle,
    sure_bracket,
)
from adapterctl.merging.spaces import Space, judges_entries
from adapterctl.merging.workers import Workers

_LEAST_SAMPLE = 32


@dataclass(frozen=True, eq=False)
class Merged:
    """What is left of a merged module when its factors are written.

    Attributes:
        plan: The module.
        rank: How many components its factors have.
        energy: ‖ΔW‖²_F before truncation, without the module's factor.
        lost: The part of it that truncation gave up.
        gap: Smallest relative gap of the singular values that the result depends on.
        tally: What became of its entries.
    """

    plan: ModulePlan
    rank: int
    energy: float
    lost: float
    gap: float | None
    tally: Tally


Write = Callable[[ModulePlan, Factored], None]


class Passes:
    """Merges every module of a plan.

    Args:
        plan: What to merge.
        space: The space of its method.
        crew: Who does the work.
        write: Takes the factors of a module; called from several threads, once a module, or again where the sign of
            balanced votes turned out to be the other one.
        known: Thresholds of the whole model that were found in an earlier merge, by language; completed.
    """

    def __init__(
        self, plan: Plan, space: Space, crew: Workers, write: Write, known: dict[str, Threshold] | None = None
    ) -> None:
        self._plan, self._space, self._crew, self._write = plan, space, crew, write
        self._known = known if known is not None else {}

    @staticmethod
    def steps(plan: Plan) -> int:
        """Return how many steps a merge takes, one a module and pass."""
        model = judges_entries(plan.recipe) and needs_model_threshold(plan)
        return len(plan.modules) * (3 if model else 1)

    def run(self) -> list[Merged]:
        """Merge and write every module, and return them in the order of the plan."""
        modules = self._plan.modules
        if not judges_entries(self._plan.recipe):
            return self._crew.map(self._whole, modules)
        thresholds = self._model_thresholds() if needs_model_threshold(self._plan) else None
        merged = self._crew.map(lambda module: self._judged(module, thresholds, 1.0), modules)
        if not asks_for_majority(self._plan) or sum(item.tally.net for item in merged) > 0:
            return merged
        # Plus was taken for granted. Where there was a balanced vote, it has to be minus.
        again = [index for index, item in enumerate(merged) if item.tally.balanced]
        self._crew.expect(len(again))
        redone = self._crew.map(lambda index: self._judged(modules[index], thresholds, -1.0), again)
        for index, item in zip(again, redone, strict=True):
            merged[index] = item
        return merged

    def _whole(self, module: ModulePlan) -> Merged:
        if not module.members:
            return self._nothing(module)
        return self._done(module, self._space.merge(module), Tally())

    def _judged(self, module: ModulePlan, thresholds: Mapping[str, Threshold] | None, zero_sign: float) -> Merged:
        if not module.members:
            return self._nothing(module)
        prepared = self._space.prepare(module)
        tiles, backend = prepared.tiles, prepared.tiles.backend
        merged = arena().take("merged", (tiles.rows, tiles.width), self._plan.dtype, backend.device)
        if tiles.size == 0:
            return self._nothing(module)
        out = backend.entries(merged)
        tally = Rules(self._plan.recipe, module).merged(tiles, thresholds, zero_sign, out)
        return self._done(module, prepared.finish(merged), tally)

    def _done(self, module: ModulePlan, factored: Factored, tally: Tally) -> Merged:
        self._write(module, factored)
        return Merged(module, factored.rank, factored.energy, factored.lost, factored.gap, tally)

    def _nothing(self, module: ModulePlan) -> Merged:
        dtype = self._plan.dtype
        zero = Factored(torch.zeros(0, module.width, dtype=dtype), torch.zeros(module.out, 0, dtype=dtype), 0.0, 0.0)
        return self._done(module, zero, Tally())

    def _model_thresholds(self) -> dict[str, Threshold]:
        """Return the least magnitude of every language that stays, over all modules; known ones are not looked for."""
        modules = [module for module in self._plan.modules if module.members]
        sought = {member.lang for module in modules for member in module.members} - set(self._known)
        if not sought:
            modules = []
        self._crew.expect(2 * (len(modules) - len(self._plan.modules)))
        if not modules:
            return self._known
        samples: dict[str, list[Any]] = defaultdict(list)
        sizes: dict[str, int] = defaultdict(int)
        phantom: dict[str, int] = defaultdict(int)
        whole = sum(self._space.entries(module) for module in modules)
        for found in self._crew.map(lambda module: self._sampled(module, sought, whole), modules):
            for lang, sample in found.samples.items():
                samples[lang].append(sample)
                sizes[lang] += found.size
            for lang in found.absent:
                phantom[lang] += found.size
        for module in self._plan.modules:
            for lang, _ in module.absent if not module.members else ():
                phantom[lang] += self._space.entries(module)
        wanted = {
            # Entries of modules that a language does not have count as zeros: there are more of them to drop.
            lang: min(size, self._plan.recipe.dialect.kept(size + phantom[lang], self._plan.recipe.density))
            for lang, size in sizes.items()
        }
        brackets = {
            lang: bracket(np.concatenate(parts), sizes[lang], wanted[lang]) for lang, parts in sorted(samples.items())
        }
        thresholds = self._settled(modules, brackets, wanted, dict.fromkeys(brackets))
        if missed := sorted(set(brackets) - set(thresholds)):
            self._crew.expect(2 * len(modules))
            sure, counts = self._sure_brackets(modules, missed, wanted)
            thresholds |= self._settled(modules, sure, wanted, counts)
        self._known.update(thresholds)
        return self._known

    def _sampled(self, module: ModulePlan, sought: Collection[str], whole: int) -> _Sampled:
        tiles = self._space.prepare(module).tiles
        absent = tuple(lang for lang, _ in module.absent)
        size, tiles = tiles.size, tiles.only(sought)
        if not size or not tiles.langs:
            return _Sampled({}, size, absent)
        # The same share of every module, so that all samples together are one of the whole model.
        share = self._space.entries(module) / whole
        sample = tiles.sample(module.module, min(size, max(_LEAST_SAMPLE, round(sample_size(whole) * share))))
        return _Sampled(dict(zip(tiles.langs, sample, strict=True)), size, absent)

    def _settled(
        self,
        modules: Sequence[ModulePlan],
        brackets: Mapping[str, Any],
        wanted: Mapping[str, int],
        counts: Mapping[str, int | None],
    ) -> dict[str, Threshold]:
        def scanned(module: ModulePlan) -> dict[str, Found]:
            tiles = self._space.prepare(module).tiles.only(brackets)
            if not tiles.langs or not tiles.size:
                return {}
            places = {index: brackets[lang] for index, lang in enumerate(tiles.langs)}
            rooms = {index: counts[lang] or room(tiles.size) for index, lang in enumerate(tiles.langs)}
            return {tiles.langs[index]: part for index, part in scan(tiles.blocks(), places, rooms).items()}

        parts: dict[str, list[Found]] = defaultdict(list)
        for found in self._crew.map(scanned, modules):
            for lang, part in found.items():
                parts[lang].append(part)
        dtype = np.float64 if self._plan.dtype == torch.float64 else np.float32
        settled = {lang: settle(found, wanted[lang], dtype) for lang, found in parts.items()}
        return {lang: threshold for lang, threshold in settled.items() if threshold is not None}

    def _sure_brackets(
        self, modules: Sequence[ModulePlan], langs: Sequence[str], wanted: Mapping[str, int]
    ) -> tuple[dict[str, Any], dict[str, int]]:
        def counted(module: ModulePlan) -> dict[str, Any]:
            tiles = self._space.prepare(module).tiles.only(langs)
            if not tiles.langs or not tiles.size:
                return {}
            found = leading_digits(tiles.blocks(), range(len(tiles.langs)))
            return {tiles.langs[index]: digits for index, digits in found.items()}

        totals: dict[str, Any] = {}
        for found in self._crew.map(counted, modules):
            for lang, counts in found.items():
                totals[lang] = totals[lang] + counts if lang in totals else counts
        dtype = np.float64 if self._plan.dtype == torch.float64 else np.float32
        sure = {lang: sure_bracket(totals[lang], wanted[lang], dtype) for lang in langs}
        return {lang: found for lang, (found, _) in sure.items()}, {lang: count for lang, (_, count) in sure.items()}


@dataclass(frozen=True, eq=False)
class _Sampled:
    samples: dict[str, Any]
    size: int
    absent: tuple[str, ...]
