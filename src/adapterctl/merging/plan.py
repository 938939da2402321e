"""A merge recipe resolved on adapters: what is merged, in which order, with which numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from adapterctl.errors import MergeError, Problem
from adapterctl.lora.adapter import Adapter
from adapterctl.lora.delta import LowRankDelta
from adapterctl.merging.entrywise import Entrywise
from adapterctl.merging.recipe import MergeRecipe, contradictions


@dataclass(frozen=True)
class Plan:
    """A merge with every number known and the languages in alphabetical order, whatever order they were given in.

    Attributes:
        recipe: The recipe.
        adapters: Those that take part.
        languages: Their languages.
        weights: Their weights.
        scale: λ.
    """

    recipe: MergeRecipe
    adapters: tuple[Adapter, ...]
    languages: tuple[str, ...]
    weights: tuple[float, ...]
    scale: float

    @property
    def modules(self) -> tuple[str, ...]:
        """The modules to merge, sorted."""
        return self.adapters[0].modules

    @property
    def entrywise(self) -> Entrywise:
        """What methods that judge every entry need to know."""
        return Entrywise(
            self.recipe.row, self.recipe.dialect, self.languages, self.weights, self.recipe.density, self.recipe.seed
        )

    def deltas(self, module: str) -> list[LowRankDelta]:
        """Return ΔW of one module for every language, in float64."""
        return [adapter.delta(module, torch.float64) for adapter in self.adapters]

    def rank(self, module: str) -> int:
        """Return the rank a module is stored with: what the recipe asks, at most what can differ from zero."""
        shapes = [adapter.shape(module) for adapter in self.adapters]
        (_, width), (out, _) = shapes[0]
        whole = min(out, width)
        total = min(sum(a[0] for a, _ in shapes), whole)
        possible = total if self.recipe.row.exact else whole
        if self.recipe.rank == "full":
            return possible
        return total if self.recipe.rank == "auto" else min(self.recipe.rank, possible)


def make_plan(adapters: Sequence[Adapter], recipe: MergeRecipe, out: Path, scale: float | None) -> Plan:
    """Resolve a recipe on adapters.

    Raises:
        MergeError: With everything that keeps the merge from being carried out; no tensor is read for it.
    """
    problems = []
    if not adapters:
        problems.append(Problem("", "there is no adapter to merge"))
    languages = [adapter.lang or "" for adapter in adapters]
    for adapter in adapters:
        if not adapter.lang:
            problems.append(Problem(str(adapter.folder), "its language is not known", "open it with its language"))
        if out.resolve() == adapter.folder.resolve():
            problems.append(Problem(str(out), "the result would replace one of its inputs", "choose another folder"))
    for lang in sorted({lang for lang in languages if lang and languages.count(lang) > 1}):
        problems.append(Problem(lang, "two adapters have this language", "give one adapter for each language"))
    problems += contradictions(recipe, languages)
    if problems:
        raise MergeError("the merge cannot be carried out", problems=problems)
    weights = recipe.resolved_weights(languages)
    by_language = {adapter.lang or "": adapter for adapter in adapters}
    taking_part = [lang for lang in weights if weights[lang] != 0 or not recipe.dialect.drop_unweighted]
    return Plan(
        recipe,
        tuple(by_language[lang] for lang in taking_part),
        tuple(taking_part),
        tuple(weights[lang] for lang in taking_part),
        recipe.resolved_lambda(scale),
    )
