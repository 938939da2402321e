"""What an update cost, beside what retraining everything costs."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapterctl.accounting import comparison as compare
from adapterctl.accounting import projection
from adapterctl.accounting.comparison import Comparison, Side
from adapterctl.accounting.ledger import DONE, PROCESS, Entry, attempts
from adapterctl.accounting.usage import total
from adapterctl.errors import UsageError
from adapterctl.workflows.session import Session

if TYPE_CHECKING:
    from adapterctl.registry.client import RunHandle

UPDATE, BASELINE, SETUP = "update", "baseline", "setup"
RETRAIN_ALL = "retrain-all"
BESIDES = ("champion",)
"""Subjects that ``adapterctl baseline`` scores to compare with; that is no part of what retraining everything costs."""


@dataclass(frozen=True)
class CostReport:
    """The last update against retraining everything.

    Attributes:
        lang: The language that was updated.
        time: When the update ended.
        comparison: The update against the retrain-all that was measured, or else projected.
        present: The update against a retrain-all on the rows there are now, projected from the measured one; None
            where none was measured.
    """

    lang: str
    time: str
    comparison: Comparison
    present: Comparison | None

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain values."""
        return {
            "lang": self.lang,
            "time": self.time,
            "comparison": self.comparison.as_dict(),
            "present": self.present.as_dict() if self.present else None,
        }


def trainings(entries: Iterable[Entry]) -> list[Entry]:
    """Return the trainings that were really done, each with what all of its attempts used: throughput is known from it.

    The attempt that goes on from a checkpoint counts all rows of the training, but only its own seconds.
    """
    by_training: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries:
        if entry.step == "train" and not entry.reused:
            by_training.setdefault((entry.update_id, entry.key), []).append(entry)
    done = [[one for one in found if one.usage.row_epochs] for found in by_training.values()]
    whole = [total(one.usage for one in found) for found in by_training.values()]
    made = [replace(last[-1], usage=usage) for last, usage in zip(done, whole, strict=True) if last]
    return sorted(made, key=lambda entry: entry.moment)


def projected_retrain(session: Session, row_epochs: int, alike: Iterable[compare.Line], basis: list[Entry]) -> Side:
    """Return the projected cost of training one combined adapter on ``row_epochs`` rows times epochs.

    Raises:
        UsageError: No training was measured yet.
    """
    known = [entry.usage for entry in basis]
    usage = projection.project_training(known, work=row_epochs, unit="row_epochs")
    slowest = projection.project_training(known, work=row_epochs, unit="row_epochs", pace="slowest")
    others = [line for line in alike if line.step in ("evaluate", "register", compare.REMAINDER)]
    return projection.projected_side(RETRAIN_ALL, usage, session.workspace.config.prices, others, slowest)


def all_row_epochs(session: Session) -> int:
    """Return the rows of all languages times the epochs of the combined training, without checking the rows."""
    rows = 0
    for lang in session.workspace.languages:
        for path in session.workspace.training_files(lang):
            with path.open("rb") as handle:
                rows += sum(1 for line in handle if line.strip())
    return rows * session.workspace.config.defaults.training.epochs


def compare_update(
    session: Session, update_id: str, extra: Iterable[Entry] = ()
) -> tuple[Comparison, Comparison | None]:
    """Compare all attempts at an update with the retrain-all: the measured one, and one on the present rows."""
    entries, prices = session.ledger.entries(), session.workspace.config.prices
    own = attempts(entries, update_id)
    finished = any(entry.step == PROCESS and entry.outcome == DONE for entry in own)
    update_side = compare.side(UPDATE, own if finished else [*own, *extra], prices)
    baseline_id = session.ledger.last_update_id(BASELINE)
    if baseline_id is None:
        basis = trainings(entries)
        return Comparison(
            update_side, projected_retrain(session, all_row_epochs(session), update_side.lines, basis)
        ), None
    measured = attempts(entries, baseline_id)
    retrain = compare.side(RETRAIN_ALL, measured, prices, without=BESIDES)
    basis = trainings(measured)
    present = None
    if basis and all_row_epochs(session) != sum(entry.usage.row_epochs for entry in basis):
        present = Comparison(update_side, projected_retrain(session, all_row_epochs(session), retrain.lines, basis))
    return Comparison(update_side, retrain), present


def cost_report(session: Session) -> CostReport:
    """Return what the last update cost.

    Raises:
        UsageError: There was no update yet.
    """
    update_id = session.ledger.last_update_id(UPDATE)
    if update_id is None:
        raise UsageError("no update is on the books yet", hint="run one with: adapterctl update --lang LANG")
    comparison, present = compare_update(session, update_id)
    last = attempts(session.ledger.entries(), update_id)[-1]
    return CostReport(last.subject, last.time, comparison, present)


def log_comparison(session: Session, run: RunHandle) -> None:
    """Write the costs of the update that is just ending into its run: numbers, table and picture."""
    from adapterctl.accounting.figures import draw_comparison

    # The command has not ended: what it used up to now stands for the whole.
    so_far = session.entry(PROCESS, session.subject, "", session.used_so_far())
    try:
        comparison, _ = compare_update(session, session.update_id, [so_far])
    except UsageError:
        # Neither a retrain-all nor any training was ever measured here: there is nothing to compare with.
        return
    metrics = {"cost.update_seconds": comparison.update.seconds.value}
    if comparison.time_ratio is not None:
        metrics["cost.time_ratio"] = comparison.time_ratio.value
    if comparison.money_ratio is not None:
        metrics["cost.money_ratio"] = comparison.money_ratio.value
    run.log_metrics(metrics)
    run.log_json("cost.json", comparison.as_dict())
    run.log_text("cost.md", comparison.markdown())
    with tempfile.TemporaryDirectory() as folder:
        run.log_figure("cost.png", draw_comparison(comparison, Path(folder) / "cost.png"))
