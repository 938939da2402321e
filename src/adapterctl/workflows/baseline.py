"""``adapterctl baseline``: the combined adapter on all rows of all languages (COMB), measured and not guessed."""

from __future__ import annotations

from dataclasses import dataclass

from adapterctl.evaluation.figures import heat_map
from adapterctl.evaluation.scorecard import Scorecard
from adapterctl.fingerprint import fingerprint
from adapterctl.training.job import TrainingJob, training_key
from adapterctl.workflows.candidates import release_run, score_subject
from adapterctl.workflows.scoring import Scorer, Subject
from adapterctl.workflows.session import Session
from adapterctl.workflows.steps import job_for, register_adapter, train_adapter
from adapterctl.workflows.trained import COMBINED, TrainedAdapter
from adapterctl.workspace.data import LanguageData, load_data


@dataclass(frozen=True)
class BaselineOutcome:
    """The combined adapter.

    Attributes:
        trained: The adapter.
        version: Its number in the registry.
        card: Its scorecard on the test split.
    """

    trained: TrainedAdapter
    version: int
    card: Scorecard


def combined_job(session: Session, data: dict[str, LanguageData]) -> TrainingJob:
    """Return the training of one adapter on the rows of all languages, with the settings all adapters share."""
    defaults = session.workspace.config.defaults
    rows = [example for lang in data for example in data[lang].train]
    return job_for(session, COMBINED, rows, lora=defaults.lora, training=defaults.training)


def baseline(session: Session) -> BaselineOutcome:
    """Train, register and evaluate the combined adapter as a retrain-all would, with everything on the books.

    Raises:
        DataError: Rows that cannot be used.
    """
    data = load_data(session.workspace, session.workspace.languages)
    job = combined_job(session, data)
    key = training_key(job)
    session.update_id = fingerprint({"command": "baseline", "project": session.project, "training": key})
    with release_run(session, f"baseline:{session.update_id}", "baseline (retrain-all)", {}) as run:
        trained = train_adapter(session, job, inputs_key=key, parent=run)
        version = register_adapter(session, trained, run)
        subject = Subject(COMBINED, trained.content_hash, trained.folder)
        card = score_subject(session, Scorer(session, data), subject, list(data), "test")
        run.log_json("scorecard.json", card.as_dict())
        run.log_metrics({f"{cell.lang}.{cell.task}": cell.value for cell in card.cells} | {"average": card.average})
        run.log_figure("scorecard.png", heat_map(card))
    return BaselineOutcome(trained, version.version, card)
