"""The Python API, with the words of the command line: ``Workspace.open(".").update("ja")``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
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
    from adapterctl.workflows.diff import Diff
    from adapterctl.workflows.export import Export
    from adapterctl.workflows.lineage import Lineage
    from adapterctl.workflows.plan import Plan
    from adapterctl.workflows.release import Promotion, Reviewed
    from adapterctl.workflows.remerge import MergeOutcome
    from adapterctl.workflows.review import Status
    from adapterctl.workflows.setup import SetupOutcome
    from adapterctl.workflows.standalone import Merged
    from adapterctl.workflows.summaries import PastRelease
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
    def _working(
        self, command: str, subject: str = "", *, releasing: bool = False, wait: bool = False
    ) -> Iterator[Session]:
        with working(self.files, command, subject, self._reporter, releasing=releasing, wait=wait) as session:
            yield session

    def _reading(self, command: str) -> Session:
        return reading(self.files, command, self._reporter, quick=True)

    def plan(self, *langs: str) -> Plan:
        """Say what an update of some languages would do and cost; without any, of every language that is due."""
        from adapterctl.workflows.plan import plan_update

        return plan_update(self._reading("plan"), [self.files.require_language(lang) for lang in langs] or None)

    def setup(self) -> SetupOutcome:
        """Train every language, merge, evaluate, and make the first champion."""
        from adapterctl.workflows.setup import setup

        with self._working("setup", releasing=True) as session:
            return setup(session)

    def update(
        self,
        *langs: str,
        if_changed: bool = False,
        min_new_rows: int = 0,
        max_age: timedelta | None = None,
        resume: bool = True,
        wait: bool = False,
    ) -> UpdateOutcome:
        """Retrain languages, merge all once, evaluate all, gate, and promote where it may be.

        Args:
            langs: The languages; none for every language that is due.
            if_changed: Do nothing where neither rows nor settings, recipe, pins or code changed.
            min_new_rows: Do not train a language for fewer new or changed rows.
            max_age: An adapter older than this does not wait for ``min_new_rows``.
            resume: Go on where an interrupted attempt was; else its checkpoints are thrown away first.
            wait: Wait for another adapterctl that is at work.
        """
        from adapterctl.workflows.triggers import Triggers
        from adapterctl.workflows.update import update

        wanted = tuple(self.files.require_language(lang) for lang in langs) or None
        triggers = Triggers(if_changed, min_new_rows, max_age)
        with self._working("update", " ".join(wanted or ()), releasing=True, wait=wait) as session:
            return update(session, wanted, triggers, resume=resume)

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

    def history(self, limit: int | None = None) -> Sequence[PastRelease]:
        """List the releases, newest first, at most ``limit`` of them."""
        from adapterctl.workflows.review import history

        return history(self._reading("history"), limit)

    def lineage(self, name: str = "merged@champion") -> Lineage:
        """Say what a version was made from, and what was made from it."""
        from adapterctl.workflows.lineage import lineage

        return lineage(self._reading("lineage"), name)

    def diff(self, before: str, after: str) -> Diff:
        """Say what is different between two releases, or two adapters of one language."""
        from adapterctl.workflows.diff import diff

        return diff(self._reading("diff"), before, after)

    def promote(self, version: int | None = None, *, override_gate: str = "", reason: str = "") -> Promotion:
        """Make the candidate, or a version, the champion; ``override_gate`` says why the gate's no does not count."""
        from adapterctl.workflows.release import Override, promote

        with self._working("promote", "merged", releasing=True) as session:
            override = Override(override_gate) if override_gate else None
            return promote(session, version, override=override, reason=reason)

    def act_on_review(self) -> Reviewed:
        """Do what a reviewer decided about the candidate by its version's tag ``review``."""
        from adapterctl.workflows.release import act_on_review

        with self._working("promote", "merged", releasing=True) as session:
            return act_on_review(session)

    def reject(self, version: int | None = None, *, reason: str) -> int:
        """Refuse the candidate, or a version, and return its number: no job makes it candidate or champion again."""
        from adapterctl.workflows.release import reject

        with self._working("reject", "merged", releasing=True) as session:
            return reject(session, version, reason=reason)

    def rollback(self, *, reason: str = "") -> Promotion:
        """Return to the previous champion."""
        from adapterctl.workflows.release import rollback

        with self._working("rollback", "merged", releasing=True) as session:
            return rollback(session, reason)

    def pin(self, lang: str, version: int | None = None) -> UpdateOutcome:
        """Hold a language at a version of its adapter; merges anew where the champion serves another."""
        from adapterctl.workflows.reshape import pin_language

        tag = self.files.require_language(lang)
        with self._working("pin", tag, releasing=True) as session:
            return pin_language(session, tag, version)

    def unpin(self, lang: str) -> int:
        """Let a language go that was held at a version, and return that version."""
        from adapterctl.workflows.reshape import unpin_language

        tag = self.files.require_language(lang)
        with self._working("unpin", tag, releasing=True) as session:
            return unpin_language(session, tag)

    def cost_report(self) -> CostReport:
        """Compare the last update with retraining everything."""
        from adapterctl.workflows.books import cost_report

        return cost_report(self._reading("cost report"))

    def export(
        self,
        to: str | Path,
        release: str = "champion",
        target: str = "peft",
        *,
        max_lora_rank: int | None = None,
        fit: bool = False,
        base: str | Path | None = None,
        notify: Sequence[str] = (),
        **how: Any,
    ) -> Export:
        """Write a release as a folder to serve from, and tell running servers of it.

        Args:
            to: The folder that holds the exports.
            release: ``champion``, ``candidate``, ``previous`` or ``merged/7``.
            target: ``peft``, ``vllm``, ``sglang``, ``gguf`` or ``model``.
            max_lora_rank: What the server is started with; None where that may be chosen.
            fit: Truncate a release of a larger rank, instead of refusing it.
            base: Folder of the base model, where the workspace's is another or not in a folder.
            notify: Addresses of running servers.
            how: The other attributes of ``workflows.export_options.Wanted``, such as ``name`` and ``keep_old``.
        """
        from adapterctl.workflows.export import export
        from adapterctl.workflows.export_options import Wanted

        folder = Path(base) if base is not None else None
        wanted = Wanted(Path(to), release, target, max_lora_rank, fit, folder, tuple(notify), **how)
        return export(self._reading("export"), wanted)


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
