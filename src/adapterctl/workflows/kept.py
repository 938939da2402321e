"""Scores that are kept: one file for a model, language and task, with every row that it ever answered.

The metrics of the sets of rows that were asked for last are kept too: they are a sum over all rows, and what computes
them takes longer to import than a kept scorecard takes to read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adapterctl.evaluation.scorecard import Cell, ExampleScore, row_dict
from adapterctl.examples import Example
from adapterctl.files import write_json
from adapterctl.fingerprint import fingerprint
from adapterctl.tasks import TaskSettings

ANSWERING = 2
"""Version of how rows are asked and answered; a higher one makes every kept score old."""

_OF_METRICS = {"metric", "metrics"}
_MOST_SETS = 4


def scores_key(model_key: str, lang: str, name: str, task: TaskSettings, *, chat: bool, engine: str) -> str:
    """Return the content hash that names the scores of a model in a language and task.

    What only says how answers are judged is not part of it: an answer is kept when a metric is added.

    Args:
        model_key: Content hash of everything about the model: base model, adapter, number format.
        lang: The language.
        name: The task's name.
        task: Its settings.
        chat: Whether prompts are chats.
        engine: What answers.
    """
    return fingerprint(
        {
            "answering": ANSWERING,
            "model": model_key,
            "lang": lang,
            "name": name,
            "task": task.model_dump(mode="json", exclude=_OF_METRICS),
            "chat": chat,
            "engine": engine,
        }
    )


def row_key(example: Example) -> str:
    """Return the content hash of a row."""
    return fingerprint(example.as_dict())


@dataclass
class KeptScores:
    """The scores of a model in one language and task, by row.

    Attributes:
        path: Their file.
        signatures: By metric, what the scores were computed with.
        primary: The metric that tells what a row contributes.
        scores: By the content hash of the row.
        sets: By the hash of a set of rows and metrics, the metrics' values and signatures; the latest last.
    """

    path: Path
    signatures: dict[str, str] = field(default_factory=dict)
    primary: str = ""
    scores: dict[str, ExampleScore] = field(default_factory=dict)
    sets: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path, lang: str, task: str) -> KeptScores:
        """Read a file; one that is missing or damaged holds nothing, and its rows are scored again."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            scores = {key: ExampleScore(lang=lang, task=task, **score) for key, score in content["scores"].items()}
            return cls(path, dict(content["signatures"]), content["primary"], scores, dict(content["sets"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return cls(path)

    def write(self) -> None:
        """Write the file, all at once.

        Raises:
            StorageError: The disk is full, read-only or not permitted.
        """
        rows = {key: row_dict(score) for key, score in self.scores.items()}
        told = {"signatures": self.signatures, "primary": self.primary, "scores": rows, "sets": self.sets}
        write_json(self.path, told)

    def judged_by(self, signatures: Mapping[str, str], primary: str) -> bool:
        """Return whether the scores are what these metrics make of the answers, with the same one first."""
        return (self.signatures, self.primary) == (dict(signatures), primary)

    def missing(self, rows: Mapping[str, Example]) -> list[str]:
        """Return the keys of the rows that have no score."""
        return [key for key in rows if key not in self.scores]

    def add(
        self, keys: Sequence[str], scores: Sequence[ExampleScore], signatures: Mapping[str, str], primary: str
    ) -> None:
        """Take new scores in; all scores of the file have the same signatures and the same primary metric."""
        if not self.judged_by(signatures, primary):
            self.sets.clear()
        self.signatures, self.primary = dict(signatures), primary
        self.scores.update(zip(keys, scores, strict=True))

    def cell(self, rows: Mapping[str, Example], task: TaskSettings) -> tuple[Cell | None, bool]:
        """Return the cell of those rows that have a score, None where none has; and whether it was new.

        Raises:
            DataError: The rows do not make a cell.
        """
        known = sorted(key for key in rows if key in self.scores)
        if not known:
            return None, False
        place = fingerprint([known, task.all_metrics])
        scores = [self.scores[key] for key in known]
        kept = self.sets.get(place)
        if kept is None:
            from adapterctl.evaluation.metrics import make_cell

            cell = make_cell(scores, task, self.signatures)
            self.sets[place] = {"metrics": dict(cell.metrics), "signatures": dict(cell.signatures)}
            while len(self.sets) > _MOST_SETS:
                del self.sets[next(iter(self.sets))]
            return cell, True
        rest = {"metrics": kept["metrics"], "signatures": kept["signatures"]}
        value = kept["metrics"][task.primary_metric]
        ordered = tuple(sorted(scores, key=lambda score: score.id))
        first = ordered[0]
        return Cell(first.lang, first.task, len(ordered), task.primary_metric, value, scores=ordered, **rest), False
