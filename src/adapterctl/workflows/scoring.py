"""Scorecards: every cell is scored once and kept; the base model is loaded only when a cell is missing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from adapterctl import base_model
from adapterctl.evaluation.scorecard import Cell, Scorecard, cell_key
from adapterctl.examples import Example
from adapterctl.files import write_json
from adapterctl.fingerprint import fingerprint
from adapterctl.workflows.session import Session, StepRecord
from adapterctl.workspace.data import LanguageData


@dataclass(frozen=True)
class Subject:
    """A model to be scored: the base model, or the base model with an adapter.

    Attributes:
        label: What people call it.
        key: Content hash of the adapter; empty for the base model alone.
        folder: The adapter's folder; None for the base model alone.
        factor: What the adapter's ΔW is multiplied with.
    """

    label: str
    key: str = ""
    folder: Path | None = None
    factor: float = 1.0


BASE = Subject("base")


@dataclass
class Scorer:
    """Scores models on the rows of a workspace.

    Attributes:
        session: The command at work.
        data: Rows of every language that may be asked for.
    """

    session: Session
    data: Mapping[str, LanguageData]

    @cached_property
    def _tokenizer(self) -> Any:
        return base_model.load_tokenizer(self.session.base)

    @cached_property
    def _model(self) -> Any:
        return base_model.load_model(self.session.base)

    def _model_key(self, subject: Subject) -> str:
        base = self.session.base
        return fingerprint(
            {
                "base": base.identity,
                "dtype": base.settings.dtype,
                "quantization": base.settings.quantization,
                "folded": base.settings.fold_adapters,
                "adapter": subject.key,
                "factor": subject.factor,
            }
        )

    def _cells(self, subject: Subject, langs: Iterable[str], split: str) -> dict[Path, tuple[Example, ...]]:
        """Return the rows of every cell under the file in which its scores are kept."""
        tasks, model_key = self.session.workspace.suite.all_tasks, self._model_key(subject)
        cells: dict[Path, tuple[Example, ...]] = {}
        for lang in langs:
            rows: dict[str, list[Example]] = {}
            for example in getattr(self.data[lang], split):
                rows.setdefault(example.task, []).append(example)
            for task, examples in sorted(rows.items()):
                key = cell_key(model_key, examples, tasks[task], chat=self.session.base.chat)
                cells[self.session.workspace.paths.cell(key)] = tuple(examples)
        return cells

    def score(self, subject: Subject, langs: Iterable[str], split: str, record: StepRecord | None = None) -> Scorecard:
        """Return the scorecard of a model; cells that are known already are read, the others are scored and kept.

        Args:
            subject: The model.
            langs: The languages.
            split: ``dev`` for choices, ``test`` for results.
            record: Where progress goes; its ``reused`` becomes true when no cell had to be scored.
        """
        cells = self._cells(subject, langs, split)
        kept = {path: _read_cell(path) for path in cells}
        missing = [path for path, cell in kept.items() if cell is None]
        if missing:
            self._score_missing(subject, {path: cells[path] for path in missing}, kept, record)
        if record is not None:
            record.reused = not missing
        return Scorecard(subject.label, tuple(cell for cell in kept.values() if cell is not None))

    def kept(self, subject: Subject, langs: Iterable[str], split: str) -> Scorecard:
        """Return what is known of a model's scores, without scoring anything."""
        known = [_read_cell(path) for path in self._cells(subject, langs, split)]
        return Scorecard(subject.label, tuple(cell for cell in known if cell is not None))

    def _score_missing(
        self,
        subject: Subject,
        cells: Mapping[Path, tuple[Example, ...]],
        kept: dict[Path, Cell | None],
        record: StepRecord | None,
    ) -> None:
        from adapterctl.evaluation.metrics import make_cell
        from adapterctl.evaluation.scoring import score
        from adapterctl.lora.attach import attached

        settings = self.session.workspace.suite
        total, done = sum(map(len, cells.values())), 0
        with attached(
            self._model, subject.folder, subject.factor, fold=self.session.base.settings.fold_adapters
        ) as model:
            for path, examples in cells.items():

                def advance(scored: int, _: int, before: int = done) -> None:
                    if record is not None:
                        record.stage.advance(before + scored, total)

                scores = score(
                    model,
                    self._tokenizer,
                    examples,
                    settings.all_tasks,
                    chat=self.session.base.chat,
                    batch_size=settings.batch_size,
                    progress=advance,
                )
                cell = make_cell(scores, settings.all_tasks[examples[0].task])
                write_json(path, cell.as_dict())
                kept[path] = cell
                done += len(examples)


def _read_cell(path: Path) -> Cell | None:
    """Return a kept cell; a damaged one counts as missing and is scored again."""
    try:
        return Cell.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        return None
