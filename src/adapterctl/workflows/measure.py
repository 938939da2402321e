"""``adapterctl evaluate``: any models of the project, adapter folders or a served model, on a suite."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from adapterctl import base_model
from adapterctl.errors import DataError, Problem, UsageError
from adapterctl.evaluation.scorecard import Scorecard
from adapterctl.evaluation.suite import Split
from adapterctl.files import disk_errors, write_text
from adapterctl.fingerprint import canonical_json
from adapterctl.workflows.models import subject_named
from adapterctl.workflows.scoring import Scorer, Subject, score_subject
from adapterctl.workflows.session import Session
from adapterctl.workspace.config import PROJECT_FILE
from adapterctl.workspace.data import LanguageData, load_data

HARNESS = "lm-eval"


@dataclass(frozen=True)
class Question:
    """What is to be measured.

    Attributes:
        langs: The languages; all of the workspace where empty.
        tasks: The suite's tasks; all where empty.
        split: ``dev`` or ``test``.
        suite: Another suite file than the workspace's.
        harness: Tasks of lm-evaluation-harness: names, or paths of task files; the suite is not asked then.
        url: Base address of an OpenAI-compatible endpoint that answers in place of a model in this process.
    """

    langs: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    split: str = "test"
    suite: Path | None = None
    harness: tuple[str, ...] = ()
    url: str = ""


@dataclass(frozen=True)
class Evaluation:
    """What came of it.

    Attributes:
        question: What was measured.
        cards: One scorecard a model, in the order in which they were named.
        warnings: What a reader of the figures should know, such as test rows that were trained on.
    """

    question: Question
    cards: tuple[Scorecard, ...]
    warnings: tuple[Problem, ...] = field(default=())

    def as_dict(self) -> dict[str, Any]:
        """Return the evaluation as plain values, without the rows."""
        return {
            "split": None if self.question.harness else self.question.split,
            "models": [card.summary() for card in self.cards],
            "warnings": [str(problem) for problem in self.warnings],
        }


def evaluate_models(session: Session, models: Sequence[str], question: Question) -> Evaluation:
    """Score models on the rows of a split; see ``models.FORMS`` for their names.

    Args:
        session: The command at work.
        models: Their names; with ``question.url`` as the endpoint serves them, where none means its only one.
        question: What is to be measured.

    Raises:
        UsageError: There is no such model or task.
        DataError: Rows that cannot be used.
        EndpointError: The endpoint cannot be reached.
    """
    if question.suite is not None:
        session.workspace = session.workspace.with_suite(question.suite)
    if question.harness:
        cards = [_by_harness(session, subject_named(session, model), question) for model in models]
        return Evaluation(question, tuple(cards))
    unknown = [task for task in question.tasks if task not in session.workspace.suite.all_tasks]
    if unknown:
        raise UsageError(
            f"the suite has no task '{unknown[0]}'",
            hint=f"its tasks are {', '.join(sorted(session.workspace.suite.tasks))}",
        )
    data = load_data(session.workspace, question.langs or session.workspace.languages)
    _require_rows(data, question)
    scorer = Scorer(session, data, frozenset(question.tasks))
    if question.url:
        cards = _served(session, scorer, models, question)
    else:
        subjects = [subject_named(session, model) for model in models]
        cards = [score_subject(session, scorer, subject, list(data), question.split) for subject in subjects]
    warnings = tuple(problem for one in data.values() for problem in one.overlapping)
    return Evaluation(question, tuple(cards), warnings)


def _require_rows(data: dict[str, LanguageData], question: Question) -> None:
    """Refuse a question that nothing is asked about: of all languages together, or of one that was named."""
    counts = {
        lang: sum(not question.tasks or row.task in question.tasks for row in getattr(one, question.split))
        for lang, one in data.items()
    }
    without = [lang for lang in question.langs if not counts[lang]] or ([] if any(counts.values()) else list(counts))
    if without:
        asked = f" of {', '.join(question.tasks)}" if question.tasks else ""
        raise DataError(
            f"there is no {question.split} row{asked} in {', '.join(without)}",
            hint=f"add rows to the {question.split} files that the suite names",
        )


def _served(session: Session, scorer: Scorer, models: Sequence[str], question: Question) -> list[Scorecard]:
    """Score what an endpoint serves."""
    from adapterctl.evaluation.openai_engine import OpenAIEngine, served_models

    if not models:
        found = served_models(question.url)
        if len(found) != 1:
            raise UsageError(
                f"the endpoint serves {len(found)} models, so one has to be named",
                hint=f"name one of: {', '.join(found)}" if found else "load a model there first",
            )
        models = found
    cards = []
    for model in models:
        with OpenAIEngine(question.url, model) as engine:
            engine.check()
            remote = replace(scorer, remote=engine, longest=engine.context)
            cards.append(score_subject(session, remote, Subject(model), list(scorer.data), question.split))
    return cards


def _by_harness(session: Session, subject: Subject, question: Question) -> Scorecard:
    """Score a model by lm-evaluation-harness."""
    from adapterctl.evaluation.lm_eval_tasks import run_lm_eval
    from adapterctl.lora.attach import attached

    base, suite = session.base, session.workspace.suite
    with session.step("evaluate", subject.label, subject.key, f"evaluate {subject.label} with {HARNESS}"):
        model, tokenizer = base_model.load_model(base), base_model.load_tokenizer(base)
        with attached(model, subject.located(), subject.factor, fold=base.settings.fold_adapters) as ready:
            cells = run_lm_eval(
                ready,
                tokenizer,
                question.harness,
                batch_size=suite.batch_size,
                langs=question.langs or session.workspace.languages,
            )
    return Scorecard(subject.label, cells)


def require_writable(session: Session, path: Path, suite: Path | None) -> None:
    """Refuse, before anything is asked, a file for predictions that cannot be written or that holds what is read.

    Raises:
        UsageError: It is a folder or in none, or one of the workspace's own files.
        StorageError: It is not permitted.
    """
    if not path.name or path.is_dir() or not path.parent.is_dir():
        raise UsageError(f"predictions cannot be written to '{path}'", hint="name a file in a folder that is there")
    # The workspace's own suite is an input as well as the one that is measured.
    own = session.workspace
    measured = own.with_suite(suite) if suite else own
    splits: tuple[Split, ...] = ("dev", "test")
    read = [own.root / PROJECT_FILE, own.suite_path, measured.suite_path]
    for lang in own.languages:
        read += [own.adapters[lang].file, *own.training_files(lang)]
        read += [file for one in (own, measured) for split in splits for file in one.split_files(lang, split)]
    if path.resolve() in {file.resolve() for file in read}:
        raise UsageError(f"'{path}' is a file that the evaluation reads", hint="write the predictions to another file")
    with disk_errors(path):
        # Opened for appending, a file stays as it is, and one that this makes is removed again. Nothing else is tried:
        # a pipe has its reader only once.
        new = not path.exists()
        if new or path.is_file():
            path.open("ab").close()
        if new:
            path.resolve().unlink()


def write_predictions(evaluation: Evaluation, path: Path) -> None:
    """Write what the models answered to every row, one JSON object a line; a link is followed, a device written to.

    Raises:
        StorageError: The disk is full, read-only or not permitted.
    """
    lines = [
        canonical_json(
            {
                "model": card.model,
                "lang": cell.lang,
                "task": cell.task,
                "id": score.id,
                "prediction": score.prediction,
                "reference": score.reference,
                "score": score.score,
            }
        )
        for card in evaluation.cards
        for cell in card.cells
        for score in cell.scores
    ]
    target, text = path.resolve(), "".join(line + "\n" for line in lines)
    if target.exists() and not target.is_file():
        with disk_errors(path):
            target.write_text(text, encoding="utf-8")
    else:
        write_text(target, text)
