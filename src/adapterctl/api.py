"""The Python API, with the words of the command line: ``Workspace.open(".").update("ja")``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapterctl.workflows.reporting import Reporter, SilentReporter
from adapterctl.workflows.session import Session, reading, working
from adapterctl.workspace import workspace as files

if TYPE_CHECKING:
    from adapterctl.errors import Problem
    from adapterctl.evaluation.scorecard import Scorecard
    from adapterctl.workflows.baseline import BaselineOutcome, Kind
    from adapterctl.workflows.books import CostReport
    from adapterctl.workflows.plan import Plan
    from adapterctl.workflows.release import Export, Promotion
    from adapterctl.workflows.remerge import MergeOutcome
    from adapterctl.workflows.review import PastRelease, Status
    from adapterctl.workflows.setup import SetupOutcome
    from adapterctl.workflows.standalone import Merged
    from adapterctl.workflows.update import UpdateOutcome
    from adapterctl.workspace.documents import Document


class Workspace:
    """A workspace and everything that can be done with it.

    >>> workspace = Workspace.open("my-project")  # doctest: +SKIP
    >>> outcome = workspace.update("ja")  # doctest: +SKIP
    >>> outcome.candidate.promoted  # doctest: +SKIP
    True

    Every method raises the errors of ``adapterctl.errors``. A gate that does not let a candidate pass is no error here:
    ``outcome.candidate.verdict`` says so.
    """

    def __init__(self, checked: files.Workspace, reporter: Reporter | None = None) -> None:
        self.files = checked
        self._reporter = reporter or SilentReporter()

    @classmethod
    def open(cls, path: str | Path = ".", *, reporter: Reporter | None = None) -> Workspace:
        """Open the workspace around a folder.

        Args:
            path: A folder in it.
            reporter: Who watches; nobody by default.

        Raises:
            UsageError: There is no workspace.
            ConfigError: Its files are not valid.
        """
        return cls(files.Workspace.open(path), reporter)

    @contextmanager
    def _working(self, command: str, subject: str = "") -> Iterator[Session]:
        with working(self.files, command, subject, self._reporter) as session:
            yield session

    def _reading(self, command: str) -> Session:
        return reading(self.files, command, self._reporter)

    def plan(self, lang: str) -> Plan:
        """Say what an update of ``lang`` would do and cost."""
        from adapterctl.workflows.plan import plan_update

        return plan_update(self._reading("plan"), self.files.require_language(lang))

    def setup(self) -> SetupOutcome:
        """Train every language, merge, evaluate, and make the first champion."""
        from adapterctl.workflows.setup import setup

        with self._working("setup") as session:
            return setup(session)

    def update(self, lang: str, *, if_changed: bool = False) -> UpdateOutcome:
        """Retrain one language, merge all again, evaluate all, gate, and promote where it may be."""
        from adapterctl.workflows.update import update

        lang = self.files.require_language(lang)
        with self._working("update", lang) as session:
            return update(session, lang, if_changed=if_changed)

    def baseline(self, kind: Kind = "retrain", *, lang: str | None = None) -> BaselineOutcome:
        """Measure the retrain-all, the continued combined adapter, or the plain average of the adapters."""
        from adapterctl.workflows.baseline import COMMANDS, baseline

        wanted = self.files.require_language(lang) if lang else None
        with self._working(COMMANDS[kind], "combined") as session:
            return baseline(session, kind, wanted)

    def evaluate(
        self, model: str = "champion", langs: Sequence[str] = (), split: str = "test", *, tasks: Sequence[str] = ()
    ) -> Scorecard:
        """Score a model on the suite: ``base``, ``champion``, ``ja@champion``, ``merged/7``, a folder, ..."""
        from adapterctl.workflows.measure import Question, evaluate_models

        wanted = tuple(self.files.require_language(lang) for lang in langs)
        with self._working("evaluate", model) as session:
            return evaluate_models(session, [model], Question(wanted, tuple(tasks), split)).cards[0]

    def merge(self, out: str | Path | None = None, **recipe: Any) -> MergeOutcome:
        """Merge the versions that the champion pins, unregistered.

        Args:
            out: A folder to write the result to as well.
            recipe: Keys of the recipe that are to differ from ``adapterctl.yaml``; ``lambda_`` for λ.
        """
        from adapterctl.workflows.remerge import recipe_for, remerge
        from adapterctl.workflows.targets import Target

        target = Target(Path(out) if out is not None else None)
        checked = recipe_for(self.files, _recipe_document(recipe), target=target)
        with self._working("merge", "merged") as session:
            return remerge(session, target, checked.recipe, checked.warnings)

    def status(self) -> Status:
        """Say where the project stands."""
        from adapterctl.workflows.review import status

        return status(self._reading("status"))

    def history(self) -> Sequence[PastRelease]:
        """List the releases, newest first."""
        from adapterctl.workflows.review import history

        return history(self._reading("history"))

    def promote(self, version: int | None = None, *, force: bool = False) -> Promotion:
        """Make the candidate, or a version, the champion."""
        from adapterctl.workflows.release import promote

        with self._working("promote", "merged") as session:
            return promote(session, version, force=force)

    def rollback(self) -> Promotion:
        """Return to the previous champion."""
        from adapterctl.workflows.release import rollback

        with self._working("rollback", "merged") as session:
            return rollback(session)

    def cost_report(self) -> CostReport:
        """Compare the last update with retraining everything."""
        from adapterctl.workflows.books import cost_report

        return cost_report(self._reading("cost report"))

    def export(self, to: str | Path, alias: str = "champion") -> Export:
        """Write a release as a folder to serve from."""
        from adapterctl.workflows.release import export

        return export(self._reading("export"), Path(to), alias)


def merge(
    adapters: Sequence[str | Path] | Mapping[str, str | Path],
    out: str | Path,
    *,
    recipe: str | Path | None = None,
    to_model: str | Path | None = None,
    cache: str | Path | None = None,
    threads: int | None = None,
    device: str = "cpu",
    reporter: Reporter | None = None,
    **keys: Any,
) -> Merged:
    """Merge the adapters in folders into one: no workspace, no registry, no base model.

    >>> made = merge({"de": "de-lora", "ja": "ja-lora"}, "merged", method="ties", density=0.4)  # doctest: +SKIP
    >>> made.report.energy_kept  # doctest: +SKIP
    0.83

    Args:
        adapters: PEFT folder by language; or folders that say their language themselves, by what they record or by
            what they are called, and texts such as ``ja=DIR``.
        out: Where the merged adapter appears, all at once; an earlier merge there is replaced.
        recipe: A file with the recipe.
        to_model: Folder of the base model: then the merged model is written instead of an adapter.
        cache: Folder of intermediate results that a later merge takes again.
        threads: How many modules are worked on at a time; None leaves it to the engine.
        device: ``cpu`` or ``cuda``.
        reporter: Who watches; nobody by default.
        keys: Keys of the recipe, over those of the file; ``lambda_`` for λ.

    Raises:
        UsageError: Recipe or folders cannot be used; ``problems`` has everything that is wrong with any of them.
        AdapterError: The adapters cannot be used.
    """
    from adapterctl.workflows.standalone import merge_folders
    from adapterctl.workflows.targets import Target
    from adapterctl.workspace.recipes import over, read_recipe

    if isinstance(adapters, Mapping):
        adapters = [f"{lang}={folder}" for lang, folder in adapters.items()]
    document = _recipe_document(keys)
    problems: list[Problem] = []
    if recipe is not None:
        file, problems = read_recipe(Path(recipe))
        document = over(file, document)
    model, kept = (Path(path) if path is not None else None for path in (to_model, cache))
    return merge_folders(
        [str(folder) for folder in adapters],
        document,
        Target(Path(out), model, kept, threads, device),
        reporter=reporter or SilentReporter(),
        problems=problems,
    )


def _recipe_document(keys: Mapping[str, Any]) -> Document:
    """Return keys of a recipe as they were passed; ``lambda`` is no name in Python, so ``lambda_`` stands for it."""
    from adapterctl.workspace.recipes import document_of

    return document_of({key.removesuffix("_"): value for key, value in keys.items()})
