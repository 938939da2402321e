"""``adapterctl evaluate``: any model of the project, or any adapter folder, on the suite."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from adapterctl.errors import UsageError
from adapterctl.evaluation.scorecard import Scorecard
from adapterctl.registry.names import ALIASES, adapter_name, combined_name
from adapterctl.workflows import releases
from adapterctl.workflows.candidates import folder_of, score_subject, subject_of
from adapterctl.workflows.scoring import BASE, Scorer, Subject
from adapterctl.workflows.session import Session
from adapterctl.workflows.steps import holds
from adapterctl.workflows.trained import COMBINED
from adapterctl.workspace.data import load_data

KINDS = "champion, candidate, previous, base, combined, a language, or the folder of an adapter"


def evaluate_model(session: Session, model: str, langs: Sequence[str], split: str) -> Scorecard:
    """Score a model on the rows of a split.

    Args:
        session: The command at work.
        model: ``champion``, ``candidate``, ``previous``, ``base``, ``combined``, a language (its own adapter as the
            champion pins it), or the folder of an adapter.
        langs: The languages to score; all of the workspace where empty.
        split: ``dev`` or ``test``.

    Raises:
        UsageError: There is no such model.
        DataError: Rows that cannot be used.
    """
    subject = _subject(session, model)
    data = load_data(session.workspace, langs or session.workspace.languages)
    return score_subject(session, Scorer(session, data), subject, list(data), split)


def _subject(session: Session, model: str) -> Subject:
    from adapterctl.lora.adapter import Adapter

    registry, project = session.registry, session.project
    if model == "base":
        return BASE
    if model in ALIASES:
        release = releases.current(registry, project, model)
        if release is None:
            raise UsageError(f"project '{project}' has no {model}", hint="see what there is: adapterctl status")
        return subject_of(session, release, model)
    if model == COMBINED:
        versions = registry.versions(combined_name(project))
        if not versions:
            raise UsageError("there is no combined adapter yet", hint="train it with: adapterctl baseline")
        folder = session.workspace.paths.pinned(versions[-1].content_hash)
        if not holds(folder, versions[-1].content_hash):
            registry.download(versions[-1], folder)
        return Subject(COMBINED, versions[-1].content_hash, folder)
    if Path(model).is_dir():
        adapter = Adapter.open(Path(model))
        return Subject(model, adapter.content_hash, adapter.folder)
    if model in session.workspace.languages:
        champion = releases.require_champion(registry, project, "run: adapterctl setup")
        if model in champion.adapters:
            pinned = champion.adapters[model]
            return Subject(adapter_name(project, model), pinned.content_hash, folder_of(session, pinned))
        raise UsageError(f"the champion does not serve '{model}'", hint=f"run: adapterctl update --lang {model}")
    raise UsageError(f"there is no model '{model}'", hint=f"name one of: {KINDS}")
