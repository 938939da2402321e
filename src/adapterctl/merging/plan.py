"""A merge recipe resolved on adapters: what is merged, in which order, with which numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from adapterctl.errors import MergeError, Problem
from adapterctl.lora.adapter import Adapter
from adapterctl.lora.peft_config import scale_of
from adapterctl.merging.backend import CPU, Backend
from adapterctl.merging.lint import contradictions
from adapterctl.merging.recipe import MergeRecipe


@dataclass(frozen=True)
class Member:
    """One language in one module.

    Attributes:
        adapter: Its adapter.
        lang: Its language.
        scale: s of ΔW = s·B·A.
        weight: Its weight in this module.
        rank: r of its factors.
    """

    adapter: Adapter
    lang: str
    scale: float
    weight: float
    rank: int


@dataclass(frozen=True)
class ModulePlan:
    """One module, and who takes part in its merge.

    Attributes:
        module: Its path.
        out: Rows of ΔW.
        width: Columns of ΔW.
        members: Those that take part, in alphabetical order of their languages.
        absent: Languages that count as zero here because their adapters do not have the module, with their weights.
        factor: λ, base share and schedule: what the merged ΔW is multiplied with.
        rank: The rank it is stored with, at most what can differ from zero.
    """

    module: str
    out: int
    width: int
    members: tuple[Member, ...]
    absent: tuple[tuple[str, float], ...]
    factor: float
    rank: int

    @property
    def total_rank(self) -> int:
        """R = Σ r of the members."""
        return sum(member.rank for member in self.members)

    @property
    def languages(self) -> int:
        """T, the number of languages that count."""
        return len(self.members) + len(self.absent)

    @property
    def weights(self) -> tuple[float, ...]:
        """The members' weights."""
        return tuple(member.weight for member in self.members)

    @cached_property
    def columns(self) -> tuple[slice, ...]:
        """Where each member's rank lies in the stacked factors."""
        slices, start = [], 0
        for member in self.members:
            slices.append(slice(start, start + member.rank))
            start += member.rank
        return tuple(slices)


@dataclass(frozen=True)
class Plan:
    """A merge with every number known and the languages in alphabetical order, whatever order they were given in.

    Attributes:
        recipe: The recipe.
        adapters: All adapters, by language.
        scale: λ.
        modules: Every module, sorted by its path.
        backend: Where it is computed.
    """

    recipe: MergeRecipe
    adapters: tuple[Adapter, ...]
    scale: float
    modules: tuple[ModulePlan, ...]
    backend: Backend = CPU

    @cached_property
    def resolved(self) -> dict[str, Any]:
        """The recipe with every number, and files by their content, which is read once."""
        return self.recipe.resolved(self.languages, self.scale)

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages, in alphabetical order."""
        return tuple(adapter.lang or "" for adapter in self.adapters)

    @property
    def rank(self) -> int:
        """R of the merged adapter: that of its largest module."""
        return max(1, *(module.rank for module in self.modules))

    @property
    def dtype(self) -> torch.dtype:
        """What entries are computed in."""
        return torch.float64 if self.recipe.precision == "float64" else torch.float32


def make_plan(
    adapters: Sequence[Adapter], recipe: MergeRecipe, out: Path | None, scale: float | None, backend: Backend = CPU
) -> Plan:
    """Resolve a recipe on adapters that are known to fit together.

    Raises:
        MergeError: With everything that keeps the merge from being carried out; no tensor is read for it.
    """
    problems = []
    if not adapters:
        problems.append(Problem("", "there is no adapter to merge", "give one adapter folder for each language"))
    languages = [adapter.lang or "" for adapter in adapters]
    for adapter in adapters:
        if not adapter.lang:
            problems.append(Problem(str(adapter.folder), "its language is not known", "open it with its language"))
        if out is not None and overlap(out, adapter.folder):
            message = "the result would replace one of its inputs, or lie inside it"
            problems.append(Problem(str(out), message, "choose another folder"))
    for lang in sorted({lang for lang in languages if lang and languages.count(lang) > 1}):
        problems.append(Problem(lang, "two adapters have this language", "give one adapter for each language"))
    problems += contradictions(recipe, languages)
    ordered = tuple(sorted(adapters, key=lambda adapter: adapter.lang or ""))
    paths = sorted({module for adapter in ordered for module in adapter.modules})
    if not problems:
        problems += recipe.schedule.idle(paths)
    if problems:
        raise MergeError("the merge cannot be carried out", problems=problems)
    number = recipe.resolved_lambda(scale)
    modules = tuple(_module_plan(path, ordered, recipe, number) for path in paths)
    if recipe.space == "factors":
        _require_equal_ranks(modules)
    return Plan(recipe, ordered, number, modules, backend)


def overlap(out: Path, folder: Path) -> bool:
    """Tell whether one of two folders is the other, or lies inside it."""
    one, other = out.resolve(), folder.resolve()
    return one == other or one in other.parents or other in one.parents


def _module_plan(path: str, adapters: Sequence[Adapter], recipe: MergeRecipe, scale: float) -> ModulePlan:
    schedule = recipe.schedule
    having = [adapter for adapter in adapters if path in adapter.factors]
    counting = adapters if recipe.missing == "zero" else having
    weights = {
        lang: weight * schedule.weight_factor(path, lang)
        for lang, weight in recipe.resolved_weights([adapter.lang or "" for adapter in counting]).items()
    }
    members = []
    for adapter in having:
        (rank, width), (out, _) = adapter.shape(path)
        weight = weights[adapter.lang or ""]
        if weight != 0 or not recipe.dialect.drop_unweighted:
            members.append(Member(adapter, adapter.lang or "", scale_of(adapter.config, path), weight, rank))
    absent = tuple(
        (lang, weights[lang])
        for lang in sorted({adapter.lang or "" for adapter in counting} - {adapter.lang or "" for adapter in having})
        if weights[lang] != 0 or not recipe.dialect.drop_unweighted
    )
    factor = scale * (1.0 - recipe.base_share) * schedule.factor(path)
    rank = _stored_rank(recipe, [member.rank for member in members], min(out, width))
    return ModulePlan(path, out, width, tuple(members), absent, factor, rank)


def _stored_rank(recipe: MergeRecipe, ranks: Sequence[int], whole: int) -> int:
    """Return the rank a module is stored with: what the recipe asks, at most what can differ from zero."""
    total = min(sum(ranks), whole)
    if recipe.space == "factors":
        total = possible = max(ranks, default=0)
    else:
        possible = total if recipe.row.exact else whole
    if recipe.rank == "full":
        return possible if ranks else 0
    return total if recipe.rank == "auto" else min(recipe.rank, possible)


def _require_equal_ranks(modules: Sequence[ModulePlan]) -> None:
    problems = [
        Problem(
            module.module,
            "ranks differ (" + ", ".join(f"{member.lang}: {member.rank}" for member in module.members) + ")",
            "leave space out: ΔW of any ranks can be merged",
        )
        for module in modules
        if len({member.rank for member in module.members}) > 1
    ]
    if problems:
        raise MergeError("factors can be merged apart only where they have one shape", problems=problems)
