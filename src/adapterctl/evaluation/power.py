"""What the evaluation rows can show, known before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from adapterctl.evaluation.metrics import class_count
from adapterctl.evaluation.scorecard import Cell, Scorecard
from adapterctl.evaluation.statistics import bootstrap_macro_f1, detectable_difference, expected_sd
from adapterctl.evaluation.suite import GateSettings


@dataclass(frozen=True)
class CellPower:
    """What the rows of one language and task can show.

    Attributes:
        lang, task: Which.
        n: Number of rows.
        margin: The loss the gate tolerates.
        detectable: Smallest true loss that shows with 80 % probability; see ``statistics.detectable_difference``.
        measured: Whether the spread of scores behind it is the champion's; else it is the worst there can be.
    """

    lang: str
    task: str
    n: int
    margin: float
    detectable: float
    measured: bool

    @property
    def enough(self) -> bool:
        """Whether a candidate as good as the champion passes with at least 80 % probability."""
        return self.detectable <= self.margin


def champion_sd(cell: Cell, settings: GateSettings) -> float:
    """Return how much one row contributes to the spread of a cell's primary metric.

    The standard deviation of the rows' scores; for macro-F1, which is no mean, √n times its bootstrap standard error.
    """
    if cell.primary != "macro_f1":
        return float(np.std([score.score for score in cell.scores]))
    result = bootstrap_macro_f1(
        [score.details["answer"] for score in cell.scores],
        [score.details["chosen"] for score in cell.scores],
        classes=class_count(cell.scores),
        resamples=settings.resamples,
        names=(settings.seed, "champion", cell.lang, cell.task),
    )
    return float(result.standard_error * np.sqrt(cell.n))


def power(
    rows: Mapping[tuple[str, str], int], settings: GateSettings, champion: Scorecard | None = None
) -> tuple[CellPower, ...]:
    """Return what the evaluation rows can show, by language and task.

    An expectation, not a measurement: the candidate is assumed to score rows with the champion's spread and a
    correlation of one half (``statistics.expected_sd``).

    Args:
        rows: How many rows each language and task has.
        settings: The gate's.
        champion: Its scorecard, where there is one.
    """
    cells = []
    for (lang, task), n in sorted(rows.items()):
        known = champion.find(lang, task) if champion is not None else None
        sd = expected_sd(champion_sd(known, settings) if known is not None else None)
        cells.append(
            CellPower(
                lang=lang,
                task=task,
                n=n,
                margin=settings.margin_for(task),
                detectable=detectable_difference(n, sd, confidence=settings.confidence),
                measured=known is not None,
            )
        )
    return tuple(cells)
