"""``adapterctl merge`` in a workspace: the champion's pinned adapters merged again, unregistered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from adapterctl.errors import Problem, UsageError
from adapterctl.lora.write import copy_adapter
from adapterctl.merging.scale import ScaleChoice
from adapterctl.workflows import releases
from adapterctl.workflows.candidates import folder_of
from adapterctl.workflows.scoring import Scorer
from adapterctl.workflows.session import Session
from adapterctl.workflows.standalone import carry_out, rank_problems, summary
from adapterctl.workflows.steps import find_scale, merge_adapters, recipe_of
from adapterctl.workflows.targets import Target, target_problems
from adapterctl.workspace.data import load_data
from adapterctl.workspace.documents import Document
from adapterctl.workspace.recipes import BLOCK, CheckedRecipe, check_recipe, over, placed, relative_to
from adapterctl.workspace.workspace import Workspace

if TYPE_CHECKING:
    from pathlib import Path

    from adapterctl.merging.recipe import MergeRecipe
    from adapterctl.merging.report import MergeReport


@dataclass(frozen=True)
class MergeOutcome:
    """A merge that is not registered.

    Attributes:
        folder: The merged PEFT folder, or the merged model.
        report: What the merge says about itself.
        choice: How λ was chosen.
        base_model: The base model as the merged adapter names it.
        to_model: Whether a whole model was written.
        warnings: What is odd about the recipe.
    """

    folder: Path
    report: MergeReport
    choice: ScaleChoice
    base_model: str | None
    to_model: bool = False
    warnings: tuple[Problem, ...] = ()

    @property
    def scale_origin(self) -> str:
        """Where λ comes from, in brackets; empty where the recipe says it."""
        tried = len(self.choice.tried)
        return f"(auto: the best of {tried} on the dev rows)" if tried else ""

    def as_dict(self) -> dict[str, Any]:
        """Return the merge as plain values."""
        return {
            **summary(self.report),
            "folder": str(self.folder),
            "base_model": self.base_model,
            "to_model": self.to_model,
            "tried": [list(pair) for pair in self.choice.tried],
            "warnings": [vars(problem) for problem in self.warnings],
        }


def recipe_for(
    workspace: Workspace,
    options: Document,
    file: Document | None = None,
    *,
    target: Target,
    problems: Sequence[Problem] = (),
) -> CheckedRecipe:
    """Return the recipe of a workspace with other settings over it.

    Args:
        workspace: The workspace.
        options: What is to be different.
        file: A recipe that takes the place of the workspace's.
        target: Where and how.
        problems: What is known to be wrong already.

    Raises:
        UsageError: Recipe, options or target cannot be used.
    """
    under = relative_to(workspace.root, workspace.project_document.part(BLOCK)) if file is None else file
    checked = check_recipe(over(under, options), workspace.languages)
    wrong = [*problems, *checked.errors, *target_problems(target, {}, required=False)]
    wrong += placed(rank_problems(checked.recipe, target), options)
    if target.cache is not None and target.to_model is None:
        wrong.append(Problem("--cache", "a workspace keeps its own intermediate results", "leave it out"))
    if wrong:
        count = f"{len(wrong)} problem{'s' if len(wrong) > 1 else ''}"
        hint = "methods and their options are listed by: adapterctl recipe methods"
        raise UsageError(f"this merge cannot be done: {count}", problems=wrong, hint=hint)
    return checked


def remerge(
    session: Session,
    target: Target | None = None,
    recipe: MergeRecipe | None = None,
    warnings: Sequence[Problem] = (),
) -> MergeOutcome:
    """Merge the adapters that the champion pins.

    Args:
        session: The command at work.
        target: Where to write the result as well, and how the merge is carried out.
        recipe: The recipe; None takes the workspace's.
        warnings: What is odd about it.

    Raises:
        UsageError: There is no champion.
    """
    from adapterctl.lora.adapter import Adapter

    target, recipe = target or Target(), recipe or recipe_of(session)
    champion = releases.require_champion(session.registry, session.project, "make one with: adapterctl setup")
    langs = [lang for lang in session.workspace.languages if lang in champion.adapters]
    folders = {lang: folder_of(session, champion.adapters[lang]) for lang in langs}
    scorer = Scorer(session, load_data(session.workspace, langs))
    choice = find_scale(session, scorer, folders, champion.scale, recipe=recipe)
    if target.to_model is not None:
        opened = [Adapter.open(folder, lang) for lang, folder in sorted(folders.items())]
        with session.reporter.stage(f"merge {len(opened)} adapters into the model") as stage:
            report = carry_out(opened, recipe, target, scale=choice.scale, progress=stage.advance)
        return MergeOutcome(report.folder, report, choice, opened[0].base_model, True, tuple(warnings))
    folder, _, report = merge_adapters(
        session, folders, choice.scale, recipe=recipe, threads=target.threads, device=target.device
    )
    if target.out is not None:
        copy_adapter(folder, target.out)
    base = Adapter.open(folder).base_model
    return MergeOutcome(target.out or folder, report, choice, base, warnings=tuple(warnings))
