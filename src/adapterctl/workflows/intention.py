"""What an update means, told without doing any of it: planning and updating start from the same words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from adapterctl.errors import UsageError
from adapterctl.examples import Example
from adapterctl.fingerprint import fingerprint
from adapterctl.training.job import TrainingJob, training_key
from adapterctl.workflows.candidates import folder_of
from adapterctl.workflows.releases import Pin, Release
from adapterctl.workflows.session import Session, options_of
from adapterctl.workflows.steps import job_for, language_job


@dataclass(frozen=True)
class Intention:
    """What an update would do.

    Attributes:
        job: The training.
        inputs_key: Names rows and settings alone.
        update_id: Names the whole update; equal for every attempt at it.
        champion: The release it starts from.
        others: The pins of the languages that stay as they are.
        changed: Whether there is anything new.
    """

    job: TrainingJob
    inputs_key: str
    update_id: str
    champion: Release
    others: dict[str, Pin]
    changed: bool


def intend(session: Session, lang: str, examples: tuple[Example, ...], champion: Release) -> Intention:
    """Return what an update of ``lang`` from ``champion`` means, without doing any of it.

    Raises:
        UsageError: The champion belongs to another base model.
    """
    require_same_base(session, champion)
    settings, config = session.workspace.adapters[lang], session.workspace.config
    known = champion.adapters.get(lang)
    start: Path | None = None
    if config.update.start == "continue" and known:
        start = folder_of(session, known)
    job = job_for(session, lang, examples, lora=settings.lora, training=settings.update_training, start_from=start)
    inputs_key = training_key(language_job(session, lang, examples))
    others = {
        other: champion.adapters[other]
        for other in session.workspace.languages
        if other != lang and other in champion.adapters
    }
    recipe = options_of(config.merge)
    served = {*others, lang} == set(champion.adapters)
    return Intention(
        job=job,
        inputs_key=inputs_key,
        update_id=release_id(
            session, champion, others, {"lang": lang, "training": training_key(job), "scale": config.update.scale}
        ),
        champion=champion,
        others=others,
        changed=known is None or known.inputs_key != inputs_key or champion.recipe != recipe or not served,
    )


def require_same_base(session: Session, champion: Release) -> None:
    """Refuse to merge adapters of two base models."""
    if champion.base_identity != session.base.identity:
        raise UsageError(
            f"champion version {champion.version} was made for another base model than base_model.path "
            f"'{session.base.name}' names now",
            hint="put base_model in adapterctl.yaml back; or set another project name and run: adapterctl setup",
        )


def release_id(session: Session, champion: Release, pins: Mapping[str, Pin], what: Mapping[str, str]) -> str:
    """Return the name of a release to be made: equal for every attempt at it, other for anything else."""
    return fingerprint(
        {
            "project": session.project,
            "champion": champion.content_hash,
            "pins": {lang: pinned.content_hash for lang, pinned in pins.items()},
            "recipe": options_of(session.workspace.config.merge),
            "gate": options_of(session.workspace.config.gate),
            **what,
        }
    )
