"""``adapterctl baseline``: what a release has to stand beside, measured and not guessed.

* ``retrain``: one combined adapter on all rows of all languages (COMB), as a team without merging would make it.
* ``continue``: the combined adapter trained on with one language's rows alone: the cheapest update without merging.
* ``linear``: the average of the adapters that the champion pins, times a λ chosen on dev: the simplest merge.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from adapterctl.errors import UsageError
from adapterctl.evaluation.figures import differences, heat_map
from adapterctl.evaluation.scorecard import Scorecard
from adapterctl.fingerprint import fingerprint
from adapterctl.merging.recipe import MergeRecipe
from adapterctl.registry.names import combined_name
from adapterctl.training.job import TrainingJob, training_key
from adapterctl.workflows import releases
from adapterctl.workflows.candidates import folder_of, release_run, subject_of
from adapterctl.workflows.models import subject_named
from adapterctl.workflows.releases import Release
from adapterctl.workflows.scoring import Scorer, Subject, score_subject
from adapterctl.workflows.session import Session
from adapterctl.workflows.steps import find_scale, job_for, merge_adapters, register_adapter, train_adapter
from adapterctl.workflows.trained import COMBINED, TrainedAdapter
from adapterctl.workspace.data import LanguageData, load_data

if TYPE_CHECKING:
    from adapterctl.evaluation.verdict import Verdict
    from adapterctl.registry.client import RunHandle

Kind = Literal["retrain", "continue", "linear"]

COMMANDS: Mapping[str, str] = {
    "retrain": "baseline",
    "continue": "baseline-continue",
    "linear": "baseline-linear",
}
"""The command of each kind, as in the books: only the first is what an update's cost is compared with."""


@dataclass(frozen=True)
class BaselineOutcome:
    """A baseline, measured.

    Attributes:
        kind: ``retrain``, ``continue`` or ``linear``.
        card: Its scorecard on the test split.
        trained: The adapter; None where nothing was trained.
        version: Its number in the registry; None where it is not registered, since nobody would serve it.
        scale: λ of the average, chosen on the dev rows, 1 without them; None where nothing was merged.
        verdict: The champion, as candidate, against the baseline, on the same rows; None without a champion.
    """

    kind: str
    card: Scorecard
    trained: TrainedAdapter | None = None
    version: int | None = None
    verdict: Verdict | None = None
    scale: float | None = None


def combined_job(session: Session, data: dict[str, LanguageData]) -> TrainingJob:
    """Return the training of one adapter on the rows of all languages, with the settings all adapters share."""
    defaults = session.workspace.config.defaults
    rows = [example for lang in data for example in data[lang].train]
    return job_for(session, COMBINED, rows, lora=defaults.lora, training=defaults.training)


def baseline(session: Session, kind: Kind = "retrain", lang: str | None = None) -> BaselineOutcome:
    """Make and measure a baseline, with everything on the books.

    Args:
        session: The command at work.
        kind: Which one.
        lang: The language whose rows a ``continue`` trains on.

    Raises:
        UsageError: A ``continue`` has no language or no combined adapter to go on from; a ``linear`` no champion.
        DataError: Rows that cannot be used.
    """
    data = load_data(session.workspace, session.workspace.languages)
    champion = releases.current(session.registry, session.project)
    if kind == "linear":
        return _averaged(session, data, champion)
    job = combined_job(session, data) if kind == "retrain" else _continued_job(session, data, lang)
    key = training_key(job)
    session.update_id = fingerprint({"command": session.command, "project": session.project, "training": key})
    name = "baseline (retrain-all)" if kind == "retrain" else f"baseline (continue on {lang})"
    with release_run(session, f"{session.command}:{session.update_id}", name, {}) as run:
        trained = train_adapter(session, job, inputs_key=key, parent=run)
        version = register_adapter(session, trained, run).version if kind == "retrain" else None
        label = COMBINED if kind == "retrain" else f"{COMBINED}, continued on {lang}"
        subject = Subject(label, trained.content_hash, trained.folder)
        card, verdict = _measured(session, data, subject, champion, run)
    return BaselineOutcome(kind, card, trained, version, verdict)


def _continued_job(session: Session, data: dict[str, LanguageData], lang: str | None) -> TrainingJob:
    if lang is None:
        raise UsageError("a continued baseline needs the language to go on with", hint="name it with: --lang TAG")
    if not session.registry.versions(combined_name(session.project)):
        raise UsageError("there is no combined adapter to go on from", hint="train it with: adapterctl baseline")
    start, defaults = subject_named(session, COMBINED), session.workspace.config.defaults
    training = session.workspace.adapters[lang].update_training
    return job_for(
        session, COMBINED, data[lang].train, lora=defaults.lora, training=training, start_from=start.located()
    )


def _averaged(session: Session, data: dict[str, LanguageData], champion: Release | None) -> BaselineOutcome:
    if champion is None:
        raise UsageError("there is no champion whose adapters could be averaged", hint="run: adapterctl setup")
    recipe = MergeRecipe.model_validate({"method": "linear", "lambda": "auto"})
    pins = {lang: pinned for lang, pinned in champion.adapters.items() if lang in data}
    folders = {lang: folder_of(session, pinned) for lang, pinned in pins.items()}
    pinned = {lang: one.content_hash for lang, one in pins.items()}
    session.update_id = fingerprint({"command": session.command, "project": session.project, "pins": pinned})
    with release_run(session, f"{session.command}:{session.update_id}", "baseline (linear average)", {}) as run:
        # The baseline gets what the release gets: its λ is chosen on the dev rows as well, where there are any.
        chosen = all(data[lang].dev for lang in pins)
        scale = find_scale(session, Scorer(session, data), folders, None, recipe=recipe).scale if chosen else 1.0
        folder, key, _ = merge_adapters(session, folders, scale, recipe=recipe)
        subject = Subject("linear average", key, folder)
        card, verdict = _measured(session, {lang: data[lang] for lang in pins}, subject, champion, run)
    return BaselineOutcome("linear", card, verdict=verdict, scale=scale)


def _measured(
    session: Session, data: dict[str, LanguageData], subject: Subject, champion: Release | None, run: RunHandle
) -> tuple[Scorecard, Verdict | None]:
    """Score a baseline and compare the champion with it, row by row."""
    from adapterctl.evaluation.gate import gate

    scorer = Scorer(session, data)
    card = score_subject(session, scorer, subject, list(data), "test")
    texts = session.workspace.config.registry.log_examples
    run.log_json("scorecard.json", card.as_dict(texts=texts))
    average = card.summary()["average"]
    metrics = {f"{cell.lang}.{cell.task}": cell.value for cell in card.cells}
    run.log_metrics(metrics | ({"average": average} if average is not None else {}))
    run.log_figure("scorecard.png", heat_map(card))
    if champion is None:
        return card, None
    shared = [lang for lang in data if lang in champion.adapters]
    served = score_subject(session, scorer, subject_of(session, champion, "champion"), shared, "test")
    verdict = gate(served, card.only(shared), session.workspace.config.gate)
    run.log_json("verdict.json", verdict.as_dict())
    run.log_figure("against_champion.png", differences(verdict))
    return card, verdict
