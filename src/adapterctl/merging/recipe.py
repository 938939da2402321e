"""The merge recipe: the configuration of a merge, and what is odd about it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any, Literal

from pydantic import Field

from adapterctl.errors import Problem
from adapterctl.merging.methods import DIALECTS, METHODS, Dialect, Method
from adapterctl.settings import Settings

MethodName = Literal[
    "linear",
    "ties",
    "dare-linear",
    "dare-ties",
    "magnitude-prune",
    "knots-ties",
    "core-ta",
    "core-tsv",
    "core-iso-c",
]


class MergeRecipe(Settings):
    """How the adapters of all languages become one.

    The merged ΔW is λ times what the method makes of the weighted deltas. Weights are used as they are, never
    normalised: a language without one gets 1/T (T languages) where the method adds deltas up, and 1 elsewhere.
    """

    method: MethodName = Field(
        "core-tsv", description="How deltas are combined; `core-tsv` keeps most on the pocket model."
    )
    weights: dict[str, float] = Field(default_factory=dict, description="Weight of a language, used as it is.")
    density: float = Field(0.6, gt=0, le=1, description="Share of entries that TIES and DARE methods keep.")
    lambda_: Literal["auto"] | float = Field(
        "auto", alias="lambda", description="Factor on the whole result; `auto` chooses it on the dev split."
    )
    seed: int = Field(0, description="Seed of the random masks of DARE methods.")
    rank: Literal["auto", "full"] | Annotated[int, Field(ge=1)] = Field(
        "auto",
        description="Rank of the result: `auto` is the sum of the adapters' ranks, `full` what dense methods need to "
        "lose nothing, a number truncates.",
    )
    semantics: Literal["paper", "mergekit", "peft"] = Field(
        "paper", description="Whose fine print dense methods follow: the papers' code, mergekit or PEFT."
    )
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="What the result is stored in.")

    @property
    def row(self) -> Method:
        """The method's row of data."""
        return METHODS[self.method]

    @property
    def dialect(self) -> Dialect:
        """The fine print that holds: libraries disagree on dense methods only."""
        return DIALECTS[self.semantics if self.row.has_dialects else "paper"]

    def resolved_weights(self, languages: Collection[str]) -> dict[str, float]:
        """Return the weight of every language, in alphabetical order."""
        default = self.row.default_weight(len(languages))
        return {lang: self.weights.get(lang, default) for lang in sorted(languages)}

    def resolved_lambda(self, scale: float | None = None) -> float:
        """Return λ as a number: the recipe's own, else ``scale``, else 1."""
        if self.lambda_ != "auto":
            return self.lambda_
        return 1.0 if scale is None else scale

    def resolved(self, languages: Collection[str], scale: float | None = None) -> dict[str, Any]:
        """Return the recipe with λ and every language's weight as numbers."""
        return {
            **self.model_dump(by_alias=True),
            "lambda": self.resolved_lambda(scale),
            "weights": self.resolved_weights(languages),
        }


def contradictions(recipe: MergeRecipe, languages: Collection[str]) -> list[Problem]:
    """Return what keeps a recipe from being carried out on these languages."""
    where = "merge.weights"
    problems = [
        Problem(where, f"{lang!r} is none of the languages {', '.join(sorted(languages))}", "remove or correct the key")
        for lang in sorted(set(recipe.weights) - set(languages))
    ]
    if languages and not any(recipe.resolved_weights(languages).values()):
        problems.append(Problem(where, "every weight is 0, so nothing would be merged", "give a language a weight"))
    return problems


def lint(recipe: MergeRecipe, languages: Collection[str]) -> list[Problem]:
    """Return what is contradictory in a recipe, and what was set but changes nothing."""
    problems = contradictions(recipe, languages)
    row, given = recipe.row, recipe.model_fields_set

    def inert(key: str, reason: str, hint: str = "remove the key") -> None:
        problems.append(Problem(f"merge.{key}", f"it changes nothing: {reason}", hint))

    if row.sparsify == "none" and "density" in given:
        inert("density", f"{recipe.method} drops no entries")
    if row.sparsify == "dare" and recipe.density == 1:
        plain = "linear" if row.combine == "sum" else "ties at density 1"
        inert("density", f"at density 1, {recipe.method} is {plain}", "lower the density or choose the plain method")
    if row.sparsify == "trim" and row.combine == "sum" and recipe.density == 1:
        inert("density", f"at density 1, {recipe.method} is linear", "lower the density or choose linear")
    if "seed" in given and (row.sparsify != "dare" or recipe.density == 1):
        inert("seed", f"{recipe.method} at density {recipe.density:g} draws no random numbers")
    if "semantics" in given and recipe.semantics != "paper" and not row.has_dialects:
        inert("semantics", f"{recipe.method} is the same under all of them")
    if recipe.rank == "full" and row.exact:
        inert("rank", f"{recipe.method} is exact at the sum of the ranks", 'write "auto"')
    if row.combine == "iso" and isinstance(recipe.rank, int):
        message = f"all singular values of {recipe.method} are equal, so what a smaller rank keeps is arbitrary"
        problems.append(Problem("merge.rank", message, 'write "auto", or choose core-tsv'))
    if recipe.lambda_ == 0:
        problems.append(Problem("merge.lambda", "0 makes an adapter that changes nothing", 'write "auto" or a number'))
    for lang, weight in recipe.weights.items():
        if weight == 0 and lang in languages:
            problems.append(Problem("merge.weights", f"{lang} has weight 0 and takes no part", "remove the language"))
    if len(languages) == 1:
        problems.append(Problem("", "there is one language only, so there is nothing to merge", "add a language"))
    return problems
