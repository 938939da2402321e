"""What all updates so far have cost, beside retraining everything each time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from adapterctl.accounting import comparison as compare
from adapterctl.accounting.amounts import Amount
from adapterctl.accounting.comparison import Side
from adapterctl.accounting.ledger import DONE, PROCESS, Entry, attempts
from adapterctl.accounting.scenarios import Point, Quantity
from adapterctl.workflows.books import SETUP, UPDATE
from adapterctl.workflows.session import Session


def spent_so_far(
    session: Session, retrain: Side, present: Side, extra: Iterable[Entry] = ()
) -> dict[Quantity, tuple[Point, ...]]:
    """Return what was spent after the set-up and after every update, in both ways.

    What an update cost that was never finished is added to the next one that was. Retraining everything was done once
    at most: for every update it is a projection. Nothing is returned where the set-up is not on the books.

    Args:
        session: The command at work, an update that is just ending.
        retrain: Retraining everything, as it was measured or projected.
        present: The same on the rows that there are now.
        extra: What is not on the books yet of this update.
    """
    entries = [*session.ledger.entries(), *extra]
    prices = session.workspace.config.prices
    setup = session.ledger.last_update_id(SETUP)
    if setup is None:
        return {}
    merged = [compare.side(SETUP, attempts(entries, setup), prices)]
    combined = [(retrain.seconds, retrain.money)]
    waiting: list[Entry] = []
    for update_id, own in _updates(entries).items():
        waiting += own
        finished = any(entry.step == PROCESS and entry.outcome == DONE for entry in own)
        if finished or update_id == session.update_id:
            merged.append(compare.side(UPDATE, waiting, prices))
            combined.append((present.seconds.projected(), present.money.projected()))
            waiting = []
    return {
        "wall": _points([side.seconds for side in merged], [seconds for seconds, _ in combined]),
        "money": _points([side.money for side in merged], [money for _, money in combined]),
    }


def _updates(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    """Return the entries of every update, in the order in which they ended: the one at work comes last."""
    by_id: dict[str, list[Entry]] = {}
    for entry in entries:
        if entry.command == UPDATE and entry.update_id:
            by_id.setdefault(entry.update_id, []).append(entry)
    return dict(sorted(by_id.items(), key=lambda item: max(entry.moment for entry in item[1])))


def _points(merged: Sequence[Amount], combined: Sequence[Amount]) -> tuple[Point, ...]:
    points, one, other = [], Amount(0.0), Amount(0.0)
    for at, (more, less) in enumerate(zip(merged, combined, strict=True)):
        one, other = one + more, other + less
        points.append(Point(at, one, other))
    return tuple(points)
