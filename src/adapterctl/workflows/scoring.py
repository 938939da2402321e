"""Scorecards: every row is answered once and kept; the base model is loaded only when an answer is missing."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from adapterctl import base_model
from adapterctl.evaluation.engine import Engine, PreparedRow
from adapterctl.evaluation.scorecard import ExampleScore, Scorecard
from adapterctl.evaluation.signatures import signatures_of
from adapterctl.examples import Example
from adapterctl.fingerprint import file_hash, fingerprint
from adapterctl.tasks import TaskSettings
from adapterctl.workflows.kept import KeptScores, row_key, scores_key
from adapterctl.workflows.session import Session, StepRecord
from adapterctl.workspace.data import LanguageData

if TYPE_CHECKING:
    from adapterctl.evaluation.answers import Answer

LOCAL = "transformers"
"""The signature of models that answer in this process."""

_ROWS_AT_ONCE = 1024
"""Rows between two writes: what a killed evaluation loses at most, give or take a cell."""


@dataclass(frozen=True)
class Subject:
    """A model to be scored: the base model, or the base model with an adapter.

    Attributes:
        label: What people call it.
        key: Content hash of the adapter; empty for the base model alone.
        folder: The adapter's folder; None for the base model alone.
        factor: What the adapter's ΔW is multiplied with.
        fetch: Gives the folder where that takes time; asked only when there is something to answer.
    """

    label: str
    key: str = ""
    folder: Path | None = None
    factor: float = 1.0
    fetch: Callable[[], Path] | None = None

    def located(self) -> Path | None:
        """Return the adapter's folder, fetched where it is not here."""
        return self.fetch() if self.fetch else self.folder


BASE = Subject("base")


@dataclass(frozen=True)
class _Cell:
    """The rows of one language and task, with what is known of their scores."""

    lang: str
    name: str
    task: TaskSettings
    rows: dict[str, Example]
    signatures: dict[str, str]
    kept: KeptScores

    @property
    def missing(self) -> list[str]:
        return self.kept.missing(self.rows)

    @property
    def current(self) -> bool:
        return self.kept.judged_by(self.signatures, self.task.primary_metric)

    def add(self, keys: Sequence[str], scores: Sequence[ExampleScore]) -> None:
        self.kept.add(keys, scores, self.signatures, self.task.primary_metric)


@dataclass
class Scorer:
    """Scores models on the rows of a workspace.

    Attributes:
        session: The command at work.
        data: Rows of every language that may be asked for.
        tasks: The tasks that are asked about; all of them where empty.
        remote: What answers instead of a model in this process. Nobody can tell which weights are behind it, so
            nothing of it is kept.
        longest: The most tokens that it reads, where that is known.
    """

    session: Session
    data: Mapping[str, LanguageData]
    tasks: frozenset[str] = frozenset()
    remote: Engine | None = None
    longest: int | None = None
    _known: dict[str, list[tuple[str, Example]]] = field(default_factory=dict, repr=False)

    @cached_property
    def tokenizer(self) -> Any:
        """The base model's tokenizer."""
        return base_model.load_tokenizer(self.session.base)

    @cached_property
    def _model(self) -> Any:
        return base_model.load_model(self.session.base)

    def _model_key(self, subject: Subject) -> str:
        base = self.session.base
        # Names the tokens that end a text; training and merging do not depend on it, so it is no part of the identity.
        generation = Path(base.location) / "generation_config.json"
        return fingerprint(
            {
                "base": base.identity,
                "generation": file_hash(generation) if generation.is_file() else "",
                "dtype": base.settings.dtype,
                "quantization": base.settings.quantization,
                "folded": base.settings.fold_adapters,
                "adapter": subject.key,
                "factor": subject.factor,
            }
        )

    def _rows(self, lang: str, split: str) -> list[tuple[str, Example]]:
        """Return the rows of a split with their hashes, which are the same for every model."""
        if f"{lang}/{split}" not in self._known:
            self._known[f"{lang}/{split}"] = [(row_key(row), row) for row in getattr(self.data[lang], split)]
        return self._known[f"{lang}/{split}"]

    def _cells(self, subject: Subject, langs: Iterable[str], split: str) -> list[_Cell]:
        suite, folder = self.session.workspace.suite, self.session.workspace.suite_path.parent
        model_key, engine = self._model_key(subject), self.remote.signature if self.remote else LOCAL
        cells = []
        for lang in langs:
            rows: dict[str, dict[str, Example]] = {}
            for key, example in self._rows(lang, split):
                if not self.tasks or example.task in self.tasks:
                    rows.setdefault(example.task, {})[key] = example
            for name, found in sorted(rows.items()):
                task = suite.all_tasks[name]
                key = scores_key(model_key, lang, name, task, chat=self.session.base.chat, engine=engine)
                path = self.session.workspace.paths.scores(key)
                kept = KeptScores(path) if self.remote else KeptScores.read(path, lang, name)
                signatures = signatures_of(task, lang, suite, engine, folder=folder)
                cells.append(_Cell(lang, name, task, found, signatures, kept))
        return cells

    def score(self, subject: Subject, langs: Iterable[str], split: str, record: StepRecord | None = None) -> Scorecard:
        """Return the scorecard of a model; answers that are known already are read, the others are made and kept.

        Args:
            subject: The model.
            langs: The languages.
            split: ``dev`` for choices, ``test`` for results.
            record: Where progress goes; its ``reused`` becomes true when no row had to be answered.
        """
        cells = self._cells(subject, langs, split)
        for cell in cells:
            if cell.kept.scores and not cell.current:
                self._judge_again(cell)
        waiting = [cell for cell in cells if cell.missing]
        if waiting:
            self._answer(subject, waiting, record)
        if record is not None:
            record.reused = not waiting
        return self._scorecard(subject, cells)

    def kept(self, subject: Subject, langs: Iterable[str], split: str) -> Scorecard:
        """Return what is known of a model's scores, without answering anything."""
        cells = self._cells(subject, langs, split)
        made = [cell.kept.cell(cell.rows, cell.task)[0] for cell in cells if cell.current]
        return Scorecard(subject.label, tuple(cell for cell in made if cell is not None))

    def _scorecard(self, subject: Subject, cells: Iterable[_Cell]) -> Scorecard:
        """Return the cells as a scorecard, and keep the metrics that had to be computed."""
        made = []
        for cell in cells:
            found, new = cell.kept.cell(cell.rows, cell.task)
            if new and self.remote is None:
                cell.kept.write()
            if found is not None:
                made.append(found)
        return Scorecard(subject.label, tuple(made))

    def _judge_again(self, cell: _Cell) -> None:
        """Compute the metrics of kept answers anew: a library or the suite's choice of metrics has changed.

        Those to the rows of the other split too, which lie in the same file; those to rows that are gone are dropped.
        """
        judged: dict[str, ExampleScore] = {}
        # A split by itself: the same id may stand in both.
        for split in ("dev", "test"):
            rows = {key: row for key, row in self._rows(cell.lang, split) if row.task == cell.name}
            judged |= self._judged(cell, {key: row for key, row in rows.items() if key in cell.kept.scores})
        cell.kept.scores.clear()
        cell.add(list(judged), list(judged.values()))
        cell.kept.write()

    def _judged(self, cell: _Cell, known: Mapping[str, Example]) -> dict[str, ExampleScore]:
        """Return the scores of rows whose answers are kept, by the present metrics."""
        from adapterctl.evaluation.answers import Answer
        from adapterctl.evaluation.metrics import judge

        workspace, scores = self.session.workspace, [cell.kept.scores[key] for key in known]
        rows = [
            PreparedRow(example, cell.task, (), (), int(score.details.get("dropped_tokens", 0)), score.row)
            for example, score in zip(known.values(), scores, strict=True)
        ]
        answers = [Answer(score.prediction, score.details) for score in scores]
        judged = judge(rows, answers, workspace.suite, folder=workspace.suite_path.parent)
        return dict(zip(known, judged, strict=True))

    def _answer(self, subject: Subject, cells: Sequence[_Cell], record: StepRecord | None) -> None:
        total, done = sum(len(cell.missing) for cell in cells), 0
        # What judges texts takes long to import: that can be done while the model answers.
        importing = Thread(target=_import_judges, args=({cell.task.kind for cell in cells},), daemon=True)
        with self._engine(subject) as engine:
            importing.start()
            for together in _together(cells):

                def advance(answered: int, _: int, before: int = done) -> None:
                    if record is not None:
                        record.stage.advance(before + answered, total)

                done += self._answer_together(engine, together, advance, record)

    def _answer_together(self, engine: Engine, cells: Sequence[_Cell], advance: Any, record: StepRecord | None) -> int:
        """Answer what is missing in several cells at once, so that batches are full; keep each cell's scores."""
        from adapterctl.evaluation.answers import answer, prepare
        from adapterctl.evaluation.metrics import judge

        suite, folder = self.session.workspace.suite, self.session.workspace.suite_path.parent
        wanted = [(cell, key) for cell in cells for key in cell.missing]
        contexts = [size for size in (base_model.context_of(self.session.base), self.longest) if size is not None]
        rows = prepare(
            self.tokenizer,
            [cell.rows[key] for cell, key in wanted],
            suite.all_tasks,
            chat=self.session.base.chat,
            context=min(contexts, default=None),
        )
        answers = answer(engine, rows, progress=advance)
        if record is not None and self.remote is None:
            self._count(rows, answers, record)
        for cell in cells:
            places = [place for place, (owner, _) in enumerate(wanted) if owner is cell]
            scores = judge(
                [rows[place] for place in places], [answers[place] for place in places], suite, folder=folder
            )
            cell.add([wanted[place][1] for place in places], scores)
            if self.remote is None:
                cell.kept.write()
        return len(rows)

    def _count(self, rows: Sequence[PreparedRow], answers: Sequence[Answer], record: StepRecord) -> None:
        """Count tokens and operations: 2·N for every token that goes forward."""
        texts = [answer.prediction for row, answer in zip(rows, answers, strict=True) if row.task.generates]
        written = sum(map(len, self.tokenizer(texts, add_special_tokens=False)["input_ids"])) if texts else 0
        tokens = written + sum(len(row.prompt) + sum(map(len, row.candidates)) for row in rows)
        record.meter.count(tokens=tokens, flops=2.0 * self.session.base.parameters * tokens)

    @contextmanager
    def _engine(self, subject: Subject) -> Iterator[Engine]:
        if self.remote is not None:
            yield self.remote
            return
        from adapterctl.evaluation.scoring import LocalEngine
        from adapterctl.lora.attach import attached

        suite, fold = self.session.workspace.suite, self.session.base.settings.fold_adapters
        with attached(self._model, subject.located(), subject.factor, fold=fold) as model:
            yield LocalEngine(model, self.tokenizer, batch_size=suite.batch_size, batch_tokens=suite.batch_tokens)


def _import_judges(kinds: Collection[str]) -> None:
    """Import the libraries behind the metrics of these kinds of tasks; a missing one is told when it is used."""
    with suppress(ImportError):
        if not {"classification", "multiple-choice"}.isdisjoint(kinds):
            import sklearn.metrics  # noqa: F401
        if not {"summarization", "translation", "generation"}.isdisjoint(kinds):
            import rouge_score.rouge_scorer  # noqa: F401
            import sacrebleu.metrics  # noqa: F401


def _together(cells: Sequence[_Cell]) -> Iterator[list[_Cell]]:
    """Give cells in groups that are answered at once."""
    group: list[_Cell] = []
    for cell in cells:
        group.append(cell)
        if sum(len(one.missing) for one in group) >= _ROWS_AT_ONCE:
            yield group
            group = []
    if group:
        yield group


def score_subject(session: Session, scorer: Scorer, subject: Subject, langs: list[str], split: str) -> Scorecard:
    """Score one model as a step of its own."""
    with session.step("evaluate", subject.label, subject.key, f"evaluate {subject.label}") as record:
        return scorer.score(subject, langs, split, record)
