"""What is contradictory in a merge recipe, and what was set but changes nothing."""

from __future__ import annotations

from collections.abc import Collection

from adapterctl.errors import Problem
from adapterctl.merging.methods import METHODS
from adapterctl.merging.recipe import FACTORWISE, MergeRecipe

_OPTIONAL = ("density", "seed", "semantics", "epsilon", "gamma", "slack", "protect", "grams")
"""The keys that only some methods read; a row of :data:`METHODS` names those of its method."""

_SUM_TOLERANCE = 1e-6


def contradictions(recipe: MergeRecipe, languages: Collection[str]) -> list[Problem]:
    """Return what keeps a recipe from being carried out.

    Args:
        recipe: The recipe.
        languages: Those that are merged; empty where they are not known, and what depends on them is not looked at.
    """
    problems = [] if not languages else _about_languages(recipe, languages)
    problems += recipe.schedule.problems(languages)
    if recipe.space == "factors":
        if recipe.semantics != "peft":
            message = "factors are merged apart in PEFT only"
            problems.append(Problem("merge.space", message, "set semantics to peft, or leave space out"))
        if recipe.method not in FACTORWISE:
            message = f"PEFT has no {recipe.method}; it merges factors by {', '.join(FACTORWISE)}"
            problems.append(Problem("merge.space", message, "choose one of them, or leave space out"))
    least, most = recipe.density - recipe.epsilon, recipe.density + recipe.epsilon
    if recipe.method == "della" and not (least > 0 and most <= 1):
        message = f"keep probabilities would run from {least:g} to {most:g}, beyond 0 to 1"
        problems.append(Problem("merge.epsilon", message, "lower epsilon"))
    return problems


def _about_languages(recipe: MergeRecipe, languages: Collection[str]) -> list[Problem]:
    """Return contradictions between a recipe and the languages that are merged."""
    known = ", ".join(sorted(languages))
    problems = [
        Problem(f"merge.{key}", f"{lang!r} is none of the languages {known}", "remove or correct the key")
        for key, named in (("weights", recipe.weights), ("protect", recipe.protect), ("grams", recipe.grams))
        for lang in sorted(set(named) - set(languages))
    ]
    if not any(recipe.resolved_weights(languages).values()):
        problems.append(
            Problem("merge.weights", "every weight is 0, so nothing would be merged", "give a language a weight")
        )
    if recipe.method == "regmean" and (lacking := sorted(set(languages) - set(recipe.grams))):
        message = f"RegMean needs the Gram matrices of every language; there are none of {', '.join(lacking)}"
        problems.append(Problem("merge.grams", message, "name a safetensors file for each"))
    return problems


def lint(recipe: MergeRecipe, languages: Collection[str]) -> list[Problem]:
    """Return what is contradictory in a recipe, and what was set but changes nothing or is probably not meant.

    Args:
        recipe: The recipe.
        languages: Those that are merged; empty where they are not known, and what depends on them is not looked at.
    """
    problems = contradictions(recipe, languages)
    for look in (_idle, _at_full_density, _at_zero, _doubtful_weights, _doubtful_result):
        problems += look(recipe)
    problems += [
        Problem("merge.weights", f"{lang} has weight 0 and takes no part", "remove the language")
        for lang, weight in recipe.weights.items()
        if weight == 0 and (lang in languages or not languages)
    ]
    if recipe.row.shares and recipe.weights and languages:
        total = sum(recipe.resolved_weights(languages).values())
        if abs(total - 1) > _SUM_TOLERANCE:
            message = f"the weights add up to {total:g}, not 1; they are used as they are"
            problems.append(Problem("merge.weights", message, "divide each by the sum, if a mean is meant"))
    if len(languages) > 1 and recipe.method == "ties-slack" and set(languages) <= set(recipe.protect):
        message = "it changes nothing: all languages are protected, so that none is"
        problems.append(Problem("merge.protect", message, "protect fewer languages"))
    if len(languages) == 1:
        problems.append(Problem("", "there is one language only, so there is nothing to merge", "add a language"))
    return problems


def excessive_rank(recipe: MergeRecipe, possible: int) -> list[Problem]:
    """Return a remark where the recipe's rank is above what the adapters can fill.

    Args:
        recipe: The recipe.
        possible: The highest rank that the result can have in any module.
    """
    if not isinstance(recipe.rank, int) or recipe.rank <= possible:
        return []
    message = f"the result has rank {possible} at most, and is stored so instead of with rank {recipe.rank}"
    return [Problem("merge.rank", message, f'write "auto", or {possible} at most')]


def _inert(key: str, reason: str, hint: str = "remove the key") -> Problem:
    return Problem(f"merge.{key}", f"it changes nothing: {reason}", hint)


def _idle(recipe: MergeRecipe) -> list[Problem]:
    """Return the keys that were written and that the method does not read, or that say nothing."""
    row, given = recipe.row, recipe.model_fields_set
    problems = []
    for key in _OPTIONAL:
        if key in given and key not in row.options:
            readers = ", ".join(name for name, other in METHODS.items() if key in other.options)
            problems.append(_inert(key, f"{recipe.method} does not read it; of these it matters to: {readers}"))
    if recipe.rank == "full" and row.exact:
        problems.append(_inert("rank", f"{recipe.method} is exact at the sum of the ranks", 'write "auto"'))
    for key, entries in (("layers", recipe.layers), ("modules", recipe.modules)):
        for name, entry in entries.items():
            if all(factor == 1 for factor in (entry.values() if isinstance(entry, dict) else [entry])):
                problems.append(_inert(key, f"a factor of 1 for {name!r} is what holds without it"))
    return problems


def _at_full_density(recipe: MergeRecipe) -> list[Problem]:
    """Return what a density of 1 turns a method into."""
    row = recipe.row
    if recipe.density != 1 or row.drop in ("none", "variance") or (row.drop, row.combine) == ("trim", "elect"):
        return []  # TIES at density 1 still votes, and is a setting of the papers.
    elected = row.name.replace("dare-", "").replace("della", "ties")
    became = "linear" if row.combine == "sum" else f"{elected} at density 1"
    reason = f"at density 1, {recipe.method} is {became}"
    problems = [_inert("density", reason, "lower the density or choose the plain method")]
    if row.draws and "seed" in recipe.model_fields_set:
        problems.append(_inert("seed", f"{recipe.method} at density 1 draws no random numbers"))
    return problems


def _at_zero(recipe: MergeRecipe) -> list[Problem]:
    """Return what a slack, an epsilon or a gamma of 0 turns a method into."""
    given, dialect = recipe.model_fields_set, recipe.dialect
    if recipe.method == "ties-slack":
        if recipe.slack and not recipe.protect:
            return [_inert("slack", "no language is protected", "name languages in protect")]
        if not recipe.slack:
            key = next((key for key in ("slack", "protect") if key in given), "method")
            return [_inert(key, "at slack 0, ties-slack is ties", "raise the slack or choose ties")]
    if recipe.method == "della" and recipe.epsilon == 0:
        same = dialect.rescale == "density" and dialect.divisor == dialect.dare_divisor
        other = "dare-ties" if same else "dare-ties but for what the sum is divided by"
        return [_inert("epsilon", f"at epsilon 0, della is {other}", "raise epsilon or choose dare-ties")]
    if recipe.method == "breadcrumbs" and recipe.gamma == 0:
        reason = "at gamma 0, breadcrumbs is magnitude-prune within each module"
        return [_inert("gamma", reason, "raise gamma or choose magnitude-prune")]
    return []


def _doubtful_weights(recipe: MergeRecipe) -> list[Problem]:
    """Return what negative weights do in a vote."""
    if recipe.row.combine != "elect":
        return []
    negative = [lang for lang, weight in sorted(recipe.weights.items()) if weight < 0]
    drops_at_random = recipe.row.drop == "dare"
    if not recipe.dialect.weighted_vote:
        message = "has a negative weight: its entries vote with their own sign and are then subtracted"
    elif recipe.dialect.divisor == "weight" and not drops_at_random:
        message = "has a negative weight: divided by it again, entries come back with their own sign where it is alone"
    else:
        return []
    return [Problem("merge.weights", f"{lang} {message}", "negative weights suit linear") for lang in negative]


def _doubtful_result(recipe: MergeRecipe) -> list[Problem]:
    """Return what is allowed, and probably not what is wanted."""
    problems: list[Problem] = []

    def doubt(key: str, message: str, hint: str) -> None:
        problems.append(Problem(f"merge.{key}", message, hint))

    if recipe.row.combine == "iso" and isinstance(recipe.rank, int):
        message = f"all singular values of {recipe.method} are equal, so what a smaller rank keeps is arbitrary"
        doubt("rank", message, 'write "auto", or choose core-tsv')
    if recipe.method in ("knots-linear", "core-ta"):
        doubt("method", f"{recipe.method} is exactly linear, computed on a detour", "choose linear")
    if recipe.space == "factors" and recipe.semantics == "peft":
        message = "A and B are merged apart: the product has cross terms, so that the result is not the merge of the ΔW"
        doubt("space", message, "leave space out, unless PEFT is to be reproduced")
    if recipe.lambda_ == 0:
        doubt("lambda", "0 makes an adapter that changes nothing", 'write "auto" or a number')
    if recipe.base_share and recipe.lambda_ != "auto":
        message = f"the result is multiplied by lambda {recipe.lambda_:g} and by 1 - base_share {recipe.base_share:g}"
        doubt("base_share", message, "write their product as lambda, if that is meant")
    return problems


def only_warnings(recipe: MergeRecipe, languages: Collection[str]) -> list[Problem]:
    """Return what :func:`lint` finds beyond what keeps the recipe from being carried out."""
    errors = contradictions(recipe, languages)
    return [problem for problem in lint(recipe, languages) if problem not in errors]
