"""What an update learnt: the test rows that arrived since the champion was released, before and after."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import Any

from adapterctl.errors import RegistryError
from adapterctl.evaluation.scorecard import Scorecard
from adapterctl.evaluation.statistics import bootstrap_mean
from adapterctl.workflows.releases import Release
from adapterctl.workflows.session import Session


@dataclass(frozen=True)
class NewRows:
    """The new test rows of one language and task.

    Attributes:
        lang, task: Which.
        n: Number of rows the champion was not yet released on.
        champion, candidate: Mean score of a row: 1 for the right answer, or the text's ROUGE.
        low, high: Two-sided 95 % bootstrap interval of the mean difference.
    """

    lang: str
    task: str
    n: int
    champion: float
    candidate: float
    low: float
    high: float

    @property
    def difference(self) -> float:
        """Candidate − champion; above 0 is better."""
        return self.candidate - self.champion


def new_rows(session: Session, card: Scorecard, before: Scorecard, champion: Release) -> tuple[NewRows, ...]:
    """Compare candidate and champion on the test rows that are new since the champion was released."""
    known = _released_rows(session, champion)
    if known is None:
        return ()
    found = []
    settings = session.workspace.config.gate
    for cell in before.cells:
        old = {score.row: score.score for score in cell.scores if score.row not in known}
        pairs = [(old[score.row], score.score) for score in card.cell(cell.lang, cell.task).scores if score.row in old]
        if not pairs:
            continue
        names = (settings.seed, "new rows", cell.lang, cell.task)
        interval = bootstrap_mean([b - a for a, b in pairs], resamples=settings.resamples, names=names)
        low, high = interval.interval(0.95)
        found.append(
            NewRows(cell.lang, cell.task, len(pairs), fmean(a for a, _ in pairs), fmean(b for _, b in pairs), low, high)
        )
    return tuple(found)


def _released_rows(session: Session, champion: Release) -> set[str] | None:
    """Return the rows of the scorecard that the champion was released with, None where it cannot be read."""
    try:
        stored: dict[str, Any] = session.registry.read_json(champion.run_id, "scorecard.json")
        return {score.row for cell in Scorecard.from_dict(stored).cells for score in cell.scores}
    except RegistryError:
        return None
