"""What an update learnt: the test rows that arrived since the champion was released, before and after."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from adapterctl.errors import DataError, RegistryError
from adapterctl.evaluation.policy import GateSettings
from adapterctl.evaluation.scorecard import Cell, Scorecard
from adapterctl.evaluation.statistics import paired_bootstrap
from adapterctl.evaluation.sums import class_count, from_sums
from adapterctl.evaluation.units import oriented, unit_indices, unit_statistics
from adapterctl.workflows.releases import Release
from adapterctl.workflows.session import Session

_CONFIDENCE = 0.95


@dataclass(frozen=True)
class NewRows:
    """The new test rows of one language and task.

    Attributes:
        lang, task, metric: Which, and the task's primary metric.
        n: Number of rows the champion was not yet released on.
        champion, candidate: The metric of these rows.
        difference: Candidate − champion, turned where a lower metric is better: above 0 is better.
        low, high: Two-sided 95 % bootstrap interval of the difference.
    """

    lang: str
    task: str
    metric: str
    n: int
    champion: float
    candidate: float
    difference: float
    low: float
    high: float


def new_rows(session: Session, card: Scorecard, before: Scorecard, champion: Release) -> tuple[NewRows, ...]:
    """Compare candidate and champion on the test rows that are new since the champion was released."""
    known = _released_rows(session, champion)
    if known is None:
        return ()
    settings = session.workspace.config.gate
    compared = (_compare(card.cell(cell.lang, cell.task), cell, known, settings) for cell in before.cells)
    return tuple(one for one in compared if one is not None)


def _compare(candidate: Cell, champion: Cell, known: set[str], settings: GateSettings) -> NewRows | None:
    """Compare one cell's new rows by its primary metric; None where there are none."""
    old = {(score.id, score.row): score for score in champion.scores if score.row not in known}
    after = [score for score in candidate.scores if (score.id, score.row) in old]
    if not after:
        return None
    rows = [old[score.id, score.row] for score in after]
    metric, units, classes = candidate.primary, unit_indices(after), class_count([*rows, *after])
    before, now = (unit_statistics(metric, side, units, classes) for side in (rows, after))
    names = (settings.seed, "new rows", candidate.lang, candidate.task)
    result = paired_bootstrap(before, now, oriented(metric), resamples=settings.resamples, names=names)
    low, high = result.interval(_CONFIDENCE)
    return NewRows(
        lang=candidate.lang,
        task=candidate.task,
        metric=metric,
        n=len(after),
        champion=float(from_sums(metric, before.sum(axis=0))),
        candidate=float(from_sums(metric, now.sum(axis=0))),
        difference=result.value,
        low=low,
        high=high,
    )


def _released_rows(session: Session, champion: Release) -> set[str] | None:
    """Return the rows of the scorecard that the champion was released with, None where it cannot be read."""
    try:
        stored: dict[str, Any] = session.registry.read_json(champion.run_id, "scorecard.json")
        return {score.row for cell in Scorecard.from_dict(stored).cells for score in cell.scores}
    except (DataError, RegistryError):
        # Gone, or of an earlier version of adapterctl, which stored scorecards in another form.
        return None
