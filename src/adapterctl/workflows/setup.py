"""``adapterctl setup``: every language's adapter, the first merge, the first champion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from adapterctl.errors import UsageError
from adapterctl.fingerprint import fingerprint
from adapterctl.training.job import training_key
from adapterctl.workflows import releases
from adapterctl.workflows.candidates import Candidate, make_candidate, pin, release_run
from adapterctl.workflows.releases import Pin
from adapterctl.workflows.scoring import Scorer
from adapterctl.workflows.session import Session, options_of
from adapterctl.workflows.steps import language_job, register_adapter, train_adapter
from adapterctl.workflows.trained import TrainedAdapter
from adapterctl.workspace.data import LanguageData, load_data

if TYPE_CHECKING:
    from adapterctl.registry.client import RunHandle


@dataclass(frozen=True)
class SetupOutcome:
    """What ``setup`` made.

    Attributes:
        trained: Every language's adapter.
        candidate: The release that came of them.
    """

    trained: tuple[TrainedAdapter, ...]
    candidate: Candidate


def setup(session: Session) -> SetupOutcome:
    """Train every language, merge, evaluate, and make the result the first champion.

    Run again after an interruption, it goes on where it was.

    Raises:
        UsageError: There is a champion already that was not made by this very set-up.
        DataError: Rows that cannot be used.
    """
    data = load_data(session.workspace, session.workspace.languages)
    keys = {lang: training_key(language_job(session, lang, rows.train)) for lang, rows in data.items()}
    champion = releases.current(session.registry, session.project)
    made_so = champion is not None and champion.recipe == options_of(session.workspace.config.merge)
    if champion is not None and not (
        made_so and {lang: p.training_key for lang, p in champion.adapters.items()} == keys
    ):
        raise UsageError(
            f"project '{session.project}' has a champion already (version {champion.version})",
            hint="retrain one language with: adapterctl update --lang LANG; or choose another project name",
        )
    session.update_id = fingerprint({"command": "setup", "project": session.project, "adapters": keys})
    with release_run(session, f"setup:{session.update_id}", "setup", {}) as run:
        trained = train_languages(session, data, run=run)
        pins = {adapter.lang: pinned for adapter, pinned in trained}
        candidate = make_candidate(
            session,
            Scorer(session, data),
            pins,
            champion=None,
            run=run,
            reason="setup",
            # A champion is changed by gated updates only: other dev rows must not give it another λ.
            settled_scale=champion.scale if champion else None,
        )
    return SetupOutcome(tuple(adapter for adapter, _ in trained), candidate)


def train_languages(
    session: Session, data: dict[str, LanguageData], *, run: RunHandle | None
) -> list[tuple[TrainedAdapter, Pin]]:
    """Train and register the adapters of the given languages, one after the other."""
    done = []
    for lang, rows in data.items():
        job = language_job(session, lang, rows.train)
        trained = train_adapter(session, job, inputs_key=training_key(job), parent=run)
        version = register_adapter(session, trained, run)
        done.append((trained, pin(trained, version.version)))
    return done


def train_only(session: Session, langs: Sequence[str]) -> list[tuple[TrainedAdapter, Pin]]:
    """Train and register the adapters of some languages; no release is made.

    Raises:
        DataError: Rows that cannot be used.
    """
    data = load_data(session.workspace, langs)
    keys = {lang: training_key(language_job(session, lang, rows.train)) for lang, rows in data.items()}
    session.update_id = fingerprint({"command": "train", "project": session.project, "adapters": keys})
    return train_languages(session, data, run=None)
