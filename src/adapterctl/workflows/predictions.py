"""Row by row: what a candidate answers worse than the champion, what better; the worst rows on top."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from adapterctl.evaluation.scorecard import ExampleScore, Scorecard
from adapterctl.examples import Example

FILE = "predictions.json"
MOST_ROWS = 1000
_LONGEST_TEXT = 2000
_SAME = 1e-9
_DIGITS = 4

_NUMBERS = ("language", "task", "id", "change", "champion", "candidate")
_TEXTS = ("asked", "reference", "champion's answer", "candidate's answer")


@dataclass(frozen=True)
class Predictions:
    """The rows of a release, compared with those of the champion.

    Attributes:
        columns: The table by column; what the rows say is part of it only where that was asked for.
        worse, better, alike: How many rows each of them were, also of those that the table has no room for.
        alone: Rows that the champion was not asked, such as those of a new language.
        left_out: Rows that the table has no room for, or that are alike.
    """

    columns: Mapping[str, Sequence[Any]] = field(repr=False)
    worse: int
    better: int
    alike: int
    alone: int

    @property
    def shown(self) -> int:
        """How many rows the table has."""
        return len(self.columns["id"])

    @property
    def left_out(self) -> int:
        """How many rows it does not have."""
        return self.worse + self.better + self.alike + self.alone - self.shown


@dataclass(frozen=True)
class _Row:
    new: ExampleScore
    old: ExampleScore | None

    @property
    def change(self) -> float:
        return 0.0 if self.old is None else self.new.score - self.old.score

    @property
    def place(self) -> tuple[Any, ...]:
        """Sorts what got worse first, most of it on top, then the largest gains, then rows without a champion."""
        worse, better = self.change < -_SAME, self.change > _SAME
        group = 0 if worse else 1 if better else 2
        size = -abs(self.change) if worse or better else self.new.score
        return (group, size, self.new.lang, self.new.task, self.new.id)


def compare_rows(
    card: Scorecard,
    before: Scorecard | None,
    *,
    examples: Mapping[str, Sequence[Example]] | None = None,
    most: int = MOST_ROWS,
) -> Predictions:
    """Return how a candidate answers every row beside the champion.

    Rows that both answer equally well are left out, and of the others so many that ``most`` remain.

    Args:
        card: The candidate's scorecard.
        before: The champion's, on the same rows; None where there is none.
        examples: The rows by language, where what they say may be told; None tells ids and scores alone.
        most: How many rows the table has at most.
    """
    old = {
        (one.lang, one.task, one.id, one.row): one for cell in (before.cells if before else ()) for one in cell.scores
    }
    rows = [_Row(one, old.get((one.lang, one.task, one.id, one.row))) for cell in card.cells for one in cell.scores]
    told = [row for row in rows if row.old is None or abs(row.change) > _SAME]
    shown = sorted(told, key=lambda row: row.place)[:most]
    lines = [_numbers(row) for row in shown]
    heads: tuple[str, ...] = _NUMBERS
    if examples is not None:
        heads = _NUMBERS + _TEXTS
        known = {(row.lang, row.task, row.id): row for found in examples.values() for row in found}
        lines = [[*line, *_texts(row, known)] for line, row in zip(lines, shown, strict=True)]
    return Predictions(
        columns={head: [line[place] for line in lines] for place, head in enumerate(heads)},
        worse=sum(row.change < -_SAME for row in rows),
        better=sum(row.change > _SAME for row in rows),
        alike=sum(row.old is not None and abs(row.change) <= _SAME for row in rows),
        alone=sum(row.old is None for row in rows),
    )


def _numbers(row: _Row) -> list[Any]:
    old = None if row.old is None else round(row.old.score, _DIGITS)
    change = None if row.old is None else round(row.change, _DIGITS)
    return [row.new.lang, row.new.task, row.new.id, change, old, round(row.new.score, _DIGITS)]


def _texts(row: _Row, known: Mapping[tuple[str, str, str], Example]) -> list[str]:
    example = known.get((row.new.lang, row.new.task, row.new.id))
    texts = (
        asked(example) if example else "",
        row.new.reference,
        row.old.prediction if row.old else "",
        row.new.prediction,
    )
    return [text if len(text) <= _LONGEST_TEXT else text[: _LONGEST_TEXT - 1] + "…" for text in texts]


def asked(example: Example) -> str:
    """Return what a row asks, as a person reads it; the template around it is the same for all rows."""
    turns = [f"{role}: {content}" for role, content in example.messages]
    parts = [example.context, example.question, example.input, example.prompt, *turns, *example.choices]
    return "\n".join(part for part in parts if part)
