"""What a release's run shows a reviewer beside its scores: figures, rows, datasets, and everything in words."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from adapterctl.accounting import comparison as compare
from adapterctl.accounting.comparison import Comparison
from adapterctl.accounting.ledger import PROCESS, Entry, attempts
from adapterctl.errors import UsageError
from adapterctl.evaluation.scorecard import Scorecard
from adapterctl.fingerprint import fingerprint
from adapterctl.workflows import predictions
from adapterctl.workflows.books import UPDATE, compare_update
from adapterctl.workflows.release_note import OF_A_RUN, VERDICT_FILE, ReleaseNote
from adapterctl.workflows.releases import Release
from adapterctl.workflows.session import Session
from adapterctl.workflows.spending import spent_so_far
from adapterctl.workspace.data import LanguageData

if TYPE_CHECKING:
    from adapterctl.evaluation.verdict import Verdict
    from adapterctl.registry.client import RunHandle

_MOST_COMPARED, _MOST_CURVES = 16, 10
"""Languages in one picture: of adapters beside one another, and of losses."""
_MOST_RANK, _MOST_WORK = 512, 5e9
"""Sum of the ranks, and multiplications, for the picture of interference: seconds, also for adapters of an 8B model."""


@dataclass(frozen=True)
class Evidence:
    """What a release rests on.

    Attributes:
        verdict: The gate's; None for a first release.
        champion: What it was compared with; None for a first release.
        card: Its scorecard on the test split.
        before: The champion's; None for a first release.
        data: The rows of every language.
        folders: The pinned adapters' folders by language.
    """

    verdict: Verdict | None
    champion: Release | None
    card: Scorecard
    before: Scorecard | None
    data: Mapping[str, LanguageData]
    folders: Mapping[str, Path]


def release_note(session: Session, release: Release, shown: Evidence) -> ReleaseNote:
    """Return what a reviewer is told about a release that is about to be registered."""
    own = [*attempts(session.ledger.entries(), session.update_id), _so_far(session)]
    examples = {lang: one.test for lang, one in shown.data.items()} if _may_tell_rows(session) else None
    return ReleaseNote(
        release=release,
        verdict=shown.verdict,
        champion=shown.champion,
        policy=session.workspace.config.promotion,
        cost=_comparisons(session)[0] if session.command == UPDATE else None,
        spent=compare.side(session.command, own, session.workspace.config.prices),
        rows=predictions.compare_rows(shown.card, shown.before, examples=examples),
    )


def _may_tell_rows(session: Session) -> bool:
    return session.workspace.config.registry.log_examples


def scorecards(session: Session, shown: Evidence) -> dict[str, object]:
    """Return the scorecards as files of a run; what the rows say is in them only where the workspace allows it."""
    texts = _may_tell_rows(session)
    files: dict[str, object] = {"scorecard.json": shown.card.as_dict(texts=texts)}
    if shown.before is not None:
        files["champion_scorecard.json"] = shown.before.as_dict(texts=texts)
    return files


def show(session: Session, run: RunHandle, note: ReleaseNote, shown: Evidence) -> tuple[str, ...]:
    """Write figures, rows and datasets of a release into its run; return the names of the figures."""
    pictures = _pictures(session, note, shown)
    for name, picture in pictures.items():
        run.log_figure(name, picture)
    if note.rows is not None and note.rows.shown:
        run.log_table(predictions.FILE, note.rows.columns)
    for lang in sorted(note.release.adapters):
        rows = shown.data[lang].test
        # MLflow keeps an input once, however often it is noted.
        digest = fingerprint([row.as_dict() for row in rows])
        run.log_input_dataset(f"{lang} test", digest, path="evaluation", rows=len(rows), context="test")
    return tuple(pictures)


def tell(run: RunHandle, note: ReleaseNote) -> None:
    """Write into its run what a release is, in words, and call the run accordingly."""
    run.log_text(VERDICT_FILE, note.whole())
    run.set_note(note.text(OF_A_RUN))
    run.set_tags({"adapterctl.gate": note.release.gate, "adapterctl.version": note.release.version})
    run.rename(note.run_name)


def _pictures(session: Session, note: ReleaseNote, shown: Evidence) -> dict[str, bytes]:
    """Return the figures by name, those first that a reviewer looks at first."""
    from adapterctl.evaluation.figures import changes, differences, heat_map

    pictures: dict[str, bytes] = {}
    if shown.verdict is not None:
        pictures["changes.png"] = changes(shown.verdict, trained=note.trained)
        pictures["gate.png"] = differences(shown.verdict)
    pictures["scorecard.png"] = heat_map(shown.card)
    optional = {
        "loss.png": _losses(session, note, shown),
        "interference.png": _interference(note, shown),
        "cumulative_cost.png": _cumulative_cost(session),
    }
    return pictures | {name: picture for name, picture in optional.items() if picture}


def _losses(session: Session, note: ReleaseNote, shown: Evidence) -> bytes | None:
    """Draw the losses of the languages that are new in this release, where their training was done here."""
    from adapterctl.training.figures import loss_curves
    from adapterctl.training.trainer import stored_result

    trained = note.trained[:_MOST_CURVES]
    found = {lang: stored_result(shown.folders[lang], note.release.adapters[lang].training_key) for lang in trained}
    curves = {lang: result.history for lang, result in found.items() if result is not None and result.history}
    if not curves:
        return None
    left_out = len(note.trained) - len(trained)
    return loss_curves(curves, "Training loss" + (f" ({left_out} languages left out)" if left_out else ""))


def _interference(note: ReleaseNote, shown: Evidence) -> bytes | None:
    """Draw how the merged adapters get in one another's way; what changed is always among those that are drawn."""
    from adapterctl.lora.adapter import Adapter
    from adapterctl.merging.interference import inspect
    from adapterctl.merging.interference_figure import interference_summary

    changed = note.trained if note.champion else ()
    langs = [*changed, *(lang for lang in sorted(shown.folders) if lang not in changed)]
    if len(langs) < 2:
        return None
    adapters = [Adapter.open(shown.folders[lang], lang) for lang in langs[:_MOST_COMPARED]]
    rank = max(adapter.rank(module) for adapter in adapters for module in adapter.modules)
    adapters = adapters[: max(2, _MOST_RANK // rank)]
    found = inspect(adapters, most_work=_MOST_WORK)
    every = len({module for adapter in adapters for module in adapter.modules})
    of = f"{len(adapters)} of {len(langs)} adapters" if len(adapters) < len(langs) else f"{len(langs)} adapters"
    part = f"{found.modules} of {every} modules" if found.modules < every else f"{every} modules"
    return interference_summary(found, title=f"Interference of {of}, {part}")


def _so_far(session: Session) -> Entry:
    """Return what the command used up to now: it has not ended, and this stands for the whole."""
    return session.entry(PROCESS, session.subject, "", session.used_so_far())


def _comparisons(session: Session) -> tuple[Comparison | None, Comparison | None]:
    """Return the update beside the retrain-all as measured or projected, and beside one on the rows of today."""
    try:
        return compare_update(session, session.update_id, [_so_far(session)])
    except UsageError:
        # Neither a retrain-all nor any training was ever measured here.
        return None, None


def _cumulative_cost(session: Session) -> bytes | None:
    """Draw what all updates so far have cost, beside retraining everything each time."""
    from adapterctl.accounting.curves import draw_cumulative

    known, today = _comparisons(session) if session.command == UPDATE else (None, None)
    if known is None:
        return None
    series = spent_so_far(session, known.retrain, (today or known).retrain, [_so_far(session)])
    if not any(point.combined.value for points in series.values() for point in points):
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = draw_cumulative(
            series,
            title="What has been spent, update after update",
            axis_label="updates",
            start_label="set-up",
            currency=known.update.currency,
            path=Path(folder) / "cumulative_cost.png",
        )
        return path.read_bytes()
