"""What the evaluation rows can show, known before anything is trained."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from adapterctl.evaluation.catalogue import metric_of
from adapterctl.evaluation.policy import GateSettings
from adapterctl.evaluation.scorecard import Cell, Scorecard
from adapterctl.evaluation.statistics import detectable_difference, expected_sd, jackknife_sd
from adapterctl.evaluation.units import oriented, right_or_wrong, row_values, unit_indices, unit_statistics


@dataclass(frozen=True)
class CellPower:
    """What the rows of one language and task can show.

    Attributes:
        lang, task: Which.
        n: Number of rows, or of groups of rows.
        margin: The loss the gate tolerates, in points of the metric.
        detectable: Smallest true loss that shows with 80 % probability; see ``statistics.detectable_difference``. NaN,
            like the margin, where the metric does not go from 0 to 1 and there is no champion yet.
        measured: Whether the spread of scores behind it is the champion's; else it is the worst there can be.
        least: The fewest rows with which the gate lets anything pass.
    """

    lang: str
    task: str
    n: int
    margin: float
    detectable: float
    measured: bool
    least: int = 1

    @property
    def enough(self) -> bool:
        """Whether a candidate as good as the champion passes with at least 80 % probability."""
        return self.n >= self.least and self.detectable <= self.margin


def champion_sd(cell: Cell) -> float:
    """Return how much one unit contributes to the spread of a cell's primary metric; see ``jackknife_sd``."""
    units = unit_indices(cell.scores)
    return jackknife_sd(unit_statistics(cell.primary, cell.scores, units), oriented(cell.primary))


def power(
    rows: Mapping[tuple[str, str], int],
    settings: GateSettings,
    champion: Scorecard | None = None,
    metrics: Mapping[str, str] | None = None,
) -> tuple[CellPower, ...]:
    """Return what the evaluation rows can show, by language and task.

    An expectation, not a measurement: the candidate is assumed to score rows with the champion's spread and a
    correlation of one half (``statistics.expected_sd``).

    Args:
        rows: How many rows, or groups of rows, each language and task has.
        settings: The gate's.
        champion: Its scorecard, where there is one.
        metrics: The primary metric of each task; from 0 to 1 where not given.
    """
    return tuple(
        _cell_power(lang, task, n, settings, champion, (metrics or {}).get(task, ""))
        for (lang, task), n in sorted(rows.items())
    )


def _cell_power(
    lang: str, task: str, n: int, settings: GateSettings, champion: Scorecard | None, metric: str
) -> CellPower:
    known = champion.find(lang, task) if champion is not None else None
    step = 0.0
    if known is not None:
        metric, margin = known.primary, settings.margin_for(task, known.primary, known.value)
        sd = expected_sd(champion_sd(known))
        discrete = metric_of(metric).family == "mean" and right_or_wrong(row_values(metric, known.scores))
        step = 1 / n if discrete else 0.0
    else:
        # Of a metric without an upper end there is no worst case.
        bounded = metric_of(metric).averaged
        margin = settings.margin_for(task, metric, 1.0 if bounded else math.nan)
        sd = expected_sd() if bounded else math.nan
    return CellPower(
        lang=lang,
        task=task,
        n=n,
        margin=margin,
        detectable=detectable_difference(n, sd, confidence=settings.confidence, step=step),
        measured=known is not None,
        least=settings.min_examples,
    )
