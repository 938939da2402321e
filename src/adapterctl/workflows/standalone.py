"""Merging folders of adapters: without a workspace, a registry or a base model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from adapterctl.errors import AdapterError, Problem, UsageError
from adapterctl.merging.digest import worst_modules
from adapterctl.merging.lint import excessive_rank
from adapterctl.workflows.reporting import Reporter
from adapterctl.workflows.targets import Target, target_problems
from adapterctl.workspace.documents import Document
from adapterctl.workspace.recipes import check_recipe, placed

if TYPE_CHECKING:
    from pathlib import Path

    from adapterctl.lora.adapter import Adapter
    from adapterctl.merging.recipe import MergeRecipe
    from adapterctl.merging.report import MergeReport


@dataclass(frozen=True)
class Merged:
    """A merge of folders that has been carried out.

    Attributes:
        report: What the merge says about itself.
        base_model: The base model as the adapters name it.
        to_model: Whether a whole model was written.
        scale_was_auto: Whether the recipe left λ open, so that it is 1.
        warnings: What is odd about the recipe.
    """

    report: MergeReport
    base_model: str | None
    to_model: bool
    scale_was_auto: bool
    warnings: tuple[Problem, ...]

    @property
    def folder(self) -> Path:
        """Where the result lies."""
        return self.report.folder

    @property
    def scale_origin(self) -> str:
        """Where λ comes from, in brackets; empty where the recipe says it."""
        return "(auto: 1, as there are no rows to choose it on)" if self.scale_was_auto else ""

    def as_dict(self) -> dict[str, Any]:
        """Return the merge as plain values."""
        return {
            **summary(self.report),
            "base_model": self.base_model,
            "to_model": self.to_model,
            "scale_was_auto": self.scale_was_auto,
            "warnings": [vars(problem) for problem in self.warnings],
        }


def summary(report: MergeReport) -> dict[str, Any]:
    """Return what a person wants to know of a merge, as plain values."""
    return {
        "folder": str(report.folder),
        "key": report.key,
        "method": report.method,
        "semantics": report.recipe["semantics"],
        "weights": dict(report.weights),
        "scale": report.scale,
        "inputs": dict(report.inputs),
        "modules": len(report.modules),
        "rank": report.rank,
        "vllm_rank": report.vllm_rank,
        "energy_kept": report.energy_kept,
        "worst_modules": worst_modules(report),
        "discard_rate": dict(report.discard_rate),
        "merged_norm": report.merged_norm,
        "mean_input_norm": report.mean_input_norm,
        "seconds": report.seconds,
        "peak_memory_bytes": report.peak_memory_bytes,
        "reused": dict(report.reused or {}),
    }


def merge_folders(
    arguments: Sequence[str],
    written: Document,
    target: Target,
    *,
    reporter: Reporter,
    problems: Sequence[Problem] = (),
) -> Merged:
    """Merge the adapters in folders; what is wrong with options, recipe and folders is told together.

    Args:
        arguments: The folders, each ``DIR`` or ``LANG=DIR``.
        written: The recipe as it was written.
        target: Where and how.
        reporter: Who watches.
        problems: What is known to be wrong already.

    Raises:
        UsageError: The options, the recipe or the target cannot be used; the problems of the folders are told too.
        AdapterError: The folders cannot be used.
        MergeError: The recipe cannot be carried out on these adapters.
        StorageError: The disk is full, read-only or not permitted.
    """
    from adapterctl.lora.compatibility import check
    from adapterctl.lora.naming import name_adapters, split_argument

    adapters, of_folders = name_adapters(arguments)
    languages = sorted({adapter.lang for adapter in adapters if adapter.lang})
    # A language that could not be read is missing from the list for another reason than a misspelt weight.
    checked = check_recipe(written, languages if not of_folders else ())
    wrong = [*problems, *checked.errors]
    wrong += target_problems(target, {argument: split_argument(argument)[1] for argument in arguments})
    missing = checked.recipe.missing if checked.recipe else "refuse"
    of_folders += check(adapters, missing=missing, numbers=False)
    if not arguments:
        wrong.append(Problem("", "no adapters were named", "name their folders, as in: de=DIR ja=DIR"))
    wrong += placed(rank_problems(checked.recipe, target), written)
    if checked.recipe and not of_folders:
        wrong += placed(checked.recipe.schedule.idle(module_paths(adapters)), written)
    _refuse(wrong, of_folders)
    assert checked.recipe is not None
    assert target.out is not None
    recipe = checked.recipe
    title = f"merge {len(adapters)} adapters ({recipe.method})"
    with reporter.stage(title) as stage:
        report = carry_out(adapters, recipe, target, progress=stage.advance)
    warnings = [*checked.warnings, *placed(_remarks(recipe, adapters, target), written)]
    auto = recipe.lambda_ == "auto"
    return Merged(report, adapters[0].base_model, target.to_model is not None, auto, tuple(warnings))


def carry_out(
    adapters: Sequence[Adapter], recipe: MergeRecipe, target: Target, *, scale: float | None = None, progress: Any
) -> MergeReport:
    """Merge opened adapters into an adapter or into a model."""
    from adapterctl.merging.cache import FactorCache
    from adapterctl.merging.engine import merge

    assert target.out is not None
    cache = FactorCache(target.cache) if target.cache is not None else None
    how: dict[str, Any] = {
        "scale": scale,
        "progress": progress,
        "threads": target.threads,
        "device": target.device,
        "cache": cache,
    }
    if target.to_model is not None:
        from adapterctl.merging.into_model import merge_into_model

        return merge_into_model(adapters, recipe, target.to_model, target.out, **how)
    return merge(adapters, recipe, target.out, **how)


def _remarks(recipe: MergeRecipe, adapters: Sequence[Adapter], target: Target) -> list[Problem]:
    """Return what the adapters' ranks say about the recipe's, and what does not matter to a whole model."""
    if target.to_model is not None:
        return [
            Problem(f"merge.{key}", "it changes nothing: a whole model has no rank and keeps its type", "leave it out")
            for key in ("rank", "dtype")
            if key in recipe.model_fields_set
        ]
    if not isinstance(recipe.rank, int):
        return []
    sums: dict[str, int] = {}
    sizes: dict[str, int] = {}
    for adapter in adapters:
        for module in adapter.modules:
            a, b = adapter.shape(module)
            sums[module] = sums.get(module, 0) + a[0]
            sizes[module] = min(a[1], b[0])
    return excessive_rank(
        recipe, max(min(size, sums[module] if recipe.row.exact else size) for module, size in sizes.items())
    )


def rank_problems(recipe: MergeRecipe | None, target: Target) -> list[Problem]:
    """Return a problem where a rank is asked of a whole model."""
    if recipe is None or target.to_model is None or not isinstance(recipe.rank, int):
        return []
    message = f"rank {recipe.rank} is one of an adapter; a delta is added to a model at its full rank"
    return [Problem("merge.rank", message, "leave it out")]


def module_paths(adapters: Sequence[Adapter]) -> list[str]:
    """Return the modules that any of the adapters changes, sorted."""
    return sorted({module for adapter in adapters for module in adapter.modules})


def _refuse(wrong: Sequence[Problem], of_folders: Sequence[Problem]) -> None:
    problems = [*wrong, *of_folders]
    if not problems:
        return
    told = f"this merge cannot be done: {len(problems)} problem{'s' if len(problems) > 1 else ''}"
    if wrong:
        hint = "methods and their options are listed by: adapterctl recipe methods"
        raise UsageError(told, problems=problems, hint=hint)
    raise AdapterError(told, problems=problems)
