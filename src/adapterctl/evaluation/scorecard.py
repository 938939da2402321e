"""What a model was measured to be worth: per row, per language and task, per language."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from adapterctl.errors import DataError
from adapterctl.evaluation.catalogue import METRICS

SCHEMA = 2
"""Version of the stored form of scorecards and verdicts."""

EMPTY = "empty"
"""The detail that says, where predictions are left out, whether a row's was empty."""


@dataclass(frozen=True)
class ExampleScore:
    """What a model answered to one row, and what that is worth.

    Attributes:
        id, lang, task: Of the row.
        prediction: The chosen label or choice, or the generated text.
        reference: The right one.
        score: What the row contributes, higher is better: 1 for the right label or choice, else 0; the task's primary
            metric of this text alone, from 0 to 1; minus the bits a byte for text that is only read.
        row: Hash of what the model was asked and offered; rows are only compared where it is the same.
        group: Rows of one group are resampled together; empty for a row that stands for itself.
        details: What the metrics are computed from. Labels and choices: ``log_likelihoods`` of the candidates,
            ``lengths`` of them in characters, ``chosen`` and ``answer`` as their indices, ``chosen_norm`` by
            log-likelihood per character. Text: ``ended``, whether it ended by itself, the metrics of the row by name
            from 0 to 1, ``chrf_stats`` and ``bleu_stats`` as sacrebleu counts them. Text that is read: ``nats``,
            ``tokens``, ``bytes``. ``dropped_tokens`` where the prompt's beginning had to be cut to fit the model's
            context.
    """

    id: str
    lang: str
    task: str
    prediction: str
    reference: str
    score: float
    row: str = ""
    group: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Cell:
    """One language and task of a scorecard.

    Attributes:
        lang, task: Which.
        n: Number of rows.
        primary: Name of the metric that stands for the cell.
        value: That metric; from 0 to 1, but for bits per byte and perplexity.
        metrics: All metrics of the task, by name.
        scores: The rows, by id.
        signatures: By metric, everything its value depends on beside the texts: library, version, tokenizer, engine.
            Values of different signatures are never compared.
    """

    lang: str
    task: str
    n: int
    primary: str
    value: float
    metrics: Mapping[str, float]
    scores: tuple[ExampleScore, ...]
    signatures: Mapping[str, str] = field(default_factory=dict)

    @property
    def averaged(self) -> bool:
        """Whether the cell counts in the language's mean: its primary metric goes from 0 to 1, higher is better."""
        return 0 <= self.value <= 1 and (self.primary not in METRICS or METRICS[self.primary].averaged)

    @property
    def empty(self) -> int:
        """How many predictions are empty."""
        if "nats" in self._details:
            return 0
        return sum(score.details.get(EMPTY, not score.prediction) for score in self.scores)

    @property
    def cut(self) -> int:
        """How many texts were cut at the longest length that is generated."""
        return sum(score.details.get("ended") is False for score in self.scores)

    @property
    def shortened(self) -> int:
        """How many rows lost a part that the model's context had no room for."""
        return sum(bool(score.details.get("dropped_tokens")) for score in self.scores)

    @property
    def _details(self) -> Mapping[str, Any]:
        return self.scores[0].details if self.scores else {}

    def as_dict(self, *, texts: bool = True) -> dict[str, Any]:
        """Return the cell as JSON values; see ``Scorecard.as_dict``."""
        rows = [row_dict(score, texts=texts) for score in self.scores]
        return vars(self) | {"metrics": dict(self.metrics), "signatures": dict(self.signatures), "scores": rows}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Cell:
        """Return the cell that ``as_dict`` wrote."""
        # Language and task are the cell's own; they are not repeated in every row of the stored form.
        place = {"lang": value["lang"], "task": value["task"]}
        return cls(**{**value, "scores": tuple(ExampleScore(**place, **row) for row in value["scores"])})


def row_dict(score: ExampleScore, *, texts: bool = True) -> dict[str, Any]:
    """Return a row as JSON values, without language and task, which the cell tells.

    Args:
        score: The row.
        texts: Whether prediction and reference are told. Without, what is left are hashes and numbers; whether the
            prediction was empty is noted instead.
    """
    row = {name: value for name, value in vars(score).items() if name not in ("lang", "task")}
    if texts:
        return row | {"details": dict(score.details)}
    details = {name: value for name, value in score.details.items() if _numeric(value)}
    empty = bool(score.details.get(EMPTY, not score.prediction))
    return row | {"prediction": "", "reference": "", "details": {**details, EMPTY: empty}}


def _numeric(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(map(_numeric, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_numeric, value))
    return value is None or isinstance(value, bool | int | float)


@dataclass(frozen=True)
class Scorecard:
    """The result of a suite on one model.

    Attributes:
        model: What was measured, in words for a person.
        cells: Sorted by language and task.
    """

    model: str
    cells: tuple[Cell, ...]

    def __post_init__(self) -> None:
        cells = tuple(sorted(self.cells, key=lambda cell: (cell.lang, cell.task)))
        object.__setattr__(self, "cells", cells)

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages, in order."""
        return tuple(dict.fromkeys(cell.lang for cell in self.cells))

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks, in order."""
        return tuple(sorted({cell.task for cell in self.cells}))

    def find(self, lang: str, task: str) -> Cell | None:
        """Return the cell of a language and task, or None where it was not measured."""
        return next((cell for cell in self.cells if (cell.lang, cell.task) == (lang, task)), None)

    def cell(self, lang: str, task: str) -> Cell:
        """Return the cell of a language and task.

        Raises:
            DataError: It was not measured.
        """
        found = self.find(lang, task)
        if found is None:
            raise DataError(
                f"the scorecard of {self.model} has no rows for '{lang}', task '{task}'",
                hint=f"add rows to the files of the suite, then run: adapterctl evaluate --lang {lang}",
            )
        return found

    def language(self, lang: str) -> float:
        """Return the mean of the primary metrics of a language's tasks; perplexity is told apart from it.

        Raises:
            DataError: The language was not measured.
        """
        values = [cell.value for cell in self.cells if cell.lang == lang and cell.averaged]
        if not values:
            raise DataError(
                f"the scorecard of {self.model} does not cover '{lang}'; it has {', '.join(self.languages)}",
                hint=f"run: adapterctl evaluate --lang {lang}",
            )
        return sum(values) / len(values)

    @property
    def average(self) -> float:
        """The mean over languages of the mean over their tasks.

        Raises:
            DataError: There are no cells.
        """
        languages = dict.fromkeys(cell.lang for cell in self.cells if cell.averaged)
        if not languages:
            what = "no metric that goes from 0 to 1, so that it has no mean" if self.cells else "no rows"
            raise DataError(f"the scorecard of {self.model} has {what}", hint="check the tasks and files of the suite")
        return sum(map(self.language, languages)) / len(languages)

    def only(self, languages: Collection[str]) -> Scorecard:
        """Return the scorecard of these languages alone."""
        return Scorecard(self.model, tuple(cell for cell in self.cells if cell.lang in languages))

    def summary(self) -> dict[str, Any]:
        """Return the scorecard without its rows, as JSON values; None stands for the mean of nothing."""
        averaged = dict.fromkeys(cell.lang for cell in self.cells if cell.averaged)
        return {
            "model": self.model,
            "average": self.average if averaged else None,
            "languages": {lang: self.language(lang) for lang in averaged},
            "cells": [
                {
                    "lang": cell.lang,
                    "task": cell.task,
                    "n": cell.n,
                    "primary": cell.primary,
                    "value": cell.value,
                    "metrics": dict(cell.metrics),
                    "empty": cell.empty,
                    "cut": cell.cut,
                    "shortened": cell.shortened,
                    "signatures": dict(cell.signatures),
                }
                for cell in self.cells
            ],
        }

    def as_dict(self, *, texts: bool = True) -> dict[str, Any]:
        """Return the whole scorecard as JSON values.

        Args:
            texts: Whether what the rows say is part of it; without, a scorecard can leave the workspace.
        """
        return {
            "schema": SCHEMA,
            "model": self.model,
            "cells": [cell.as_dict(texts=texts) for cell in self.cells],
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Scorecard:
        """Return the scorecard that ``as_dict`` wrote.

        Raises:
            DataError: It was written in another form.
        """
        require_schema(value, "scorecard")
        return cls(value["model"], tuple(Cell.from_dict(cell) for cell in value["cells"]))


def require_schema(value: Mapping[str, Any], what: str) -> None:
    """Refuse a stored value of another form.

    Raises:
        DataError: ``value`` does not say that it has the present form.
    """
    if value.get("schema") != SCHEMA:
        raise DataError(
            f"this {what} is stored in form {value.get('schema')!r}; this version of adapterctl reads form {SCHEMA}",
            hint="evaluate again with: adapterctl evaluate",
        )
