"""What an update means, told without doing any of it: planning and updating start from the same words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapterctl.errors import RegistryError, UsageError
from adapterctl.fingerprint import fingerprint
from adapterctl.registry.names import PINNED, adapter_name
from adapterctl.training.job import RECIPE_VERSION, TrainingJob, rows_hash, training_key
from adapterctl.workflows.candidates import folder_of
from adapterctl.workflows.code import code_versions
from adapterctl.workflows.releases import Pin, Release
from adapterctl.workflows.session import Session, options_of
from adapterctl.workflows.steps import job_for, language_job
from adapterctl.workspace.data import LanguageData


@dataclass(frozen=True)
class Part:
    """What an update means for one of the languages it is about.

    Attributes:
        lang: Which.
        job: The training.
        inputs_key: Names rows and settings alone.
        data_hash: Names the rows alone.
        known: The champion's pin; None where it does not serve the language.
        change: Why the language is to be trained: ``data``, ``settings``, ``code``, ``rows or settings`` where the
            champion does not know which, ``new language``; empty where it is not.
    """

    lang: str
    job: TrainingJob
    inputs_key: str
    data_hash: str
    known: Pin | None
    change: str

    @property
    def trains(self) -> bool:
        """Whether there is anything to learn."""
        return bool(self.change)


@dataclass(frozen=True)
class Intention:
    """What an update would do.

    Attributes:
        parts: The languages it is about.
        update_id: Names the whole update; equal for every attempt at it.
        champion: The release it starts from.
        others: The pins of the languages that stay as they are, those that a person has pinned among them.
        changes: What is new, in words: ``data of ja``, ``recipe``, ``code``, ``languages``, ``pins``.
    """

    parts: tuple[Part, ...]
    update_id: str
    champion: Release
    others: dict[str, Pin]
    changes: tuple[str, ...]

    @property
    def changed(self) -> bool:
        """Whether there is anything new."""
        return bool(self.changes)

    @property
    def langs(self) -> tuple[str, ...]:
        """The languages it is about."""
        return tuple(part.lang for part in self.parts)


def part_of(session: Session, lang: str, rows: LanguageData, champion: Release) -> Part:
    """Return what an update from ``champion`` means for one language."""
    settings, known = session.workspace.adapters[lang], champion.adapters.get(lang)
    start: Path | None = None
    if session.workspace.config.update.start == "continue" and known:
        start = folder_of(session, known)
    job = job_for(session, lang, rows.train, lora=settings.lora, training=settings.update_training, start_from=start)
    inputs_key, data_hash = training_key(language_job(session, lang, rows.train)), rows_hash(rows.train)
    return Part(lang, job, inputs_key, data_hash, known, _change(known, inputs_key, data_hash, champion))


def _change(known: Pin | None, inputs_key: str, data_hash: str, champion: Release) -> str:
    if known is None:
        return "new language"
    if known.inputs_key == inputs_key:
        return ""
    if not known.data_hash:
        return "rows or settings"
    if known.data_hash != data_hash:
        return "data"
    return "code" if champion.code.get("training", RECIPE_VERSION) != RECIPE_VERSION else "settings"


def intend(session: Session, langs: Sequence[str], data: Mapping[str, LanguageData], champion: Release) -> Intention:
    """Return what an update of some languages from ``champion`` means, without doing any of it.

    Raises:
        UsageError: The champion belongs to another base model, or a language is pinned to a version.
    """
    require_same_base(session, champion)
    pinned = pinned_versions(session)
    if held := sorted(set(langs) & set(pinned)):
        raise UsageError(
            f"{held[0]} is pinned to version {pinned[held[0]].version}: it is not retrained",
            hint=f"let it go first: adapterctl unpin --lang {held[0]}",
        )
    parts = tuple(part_of(session, lang, data[lang], champion) for lang in sorted(langs))
    known = {lang: pin for lang, pin in champion.adapters.items() if lang in session.workspace.languages}
    others = {lang: pinned.get(lang, pin) for lang, pin in known.items() if lang not in langs}
    trainings = {part.lang: training_key(part.job) for part in parts}
    return Intention(
        parts=parts,
        update_id=release_id(
            session, champion, others, {"trainings": trainings, "scale": session.workspace.config.update.scale}
        ),
        champion=champion,
        others=others,
        changes=(*_of_parts(parts), *release_changes(session, champion, {*others, *trainings}, others)),
    )


def _of_parts(parts: Sequence[Part]) -> list[str]:
    return [part.lang if part.change == "new language" else f"{part.change} of {part.lang}" for part in parts
            if part.trains]  # fmt: skip


def release_changes(
    session: Session, champion: Release, serves: set[str], others: Mapping[str, Pin] | None = None
) -> list[str]:
    """Return what is new about the merge, whatever the rows are.

    Args:
        session: The command at work.
        champion: What it is compared with.
        serves: The languages that the next release serves.
        others: The pins of the languages that are not trained.
    """
    changes = []
    if champion.recipe != options_of(session.workspace.config.merge):
        changes.append("recipe")
    if champion.code and champion.code.get("merging") != code_versions()["merging"]:
        changes.append("code")
    if gone := set(champion.adapters) - serves:
        changes.append(f"languages (without {', '.join(sorted(gone))})")
    moved = [lang for lang, pin in (others or {}).items() if pin.content_hash != champion.adapters[lang].content_hash]
    if moved:
        changes.append(f"pins of {', '.join(sorted(moved))}")
    return changes


def pinned_versions(session: Session) -> dict[str, Pin]:
    """Return the versions that a person has pinned, by language."""
    found = {}
    for lang in session.workspace.languages:
        name = adapter_name(session.project, lang)
        number = session.registry.aliases(name).get(PINNED)
        if number is not None:
            found[lang] = pin_of_version(session, lang, number)
    return found


def pin_of_version(session: Session, lang: str, number: int) -> Pin:
    """Return a registered version of a language's adapter as a pin.

    Raises:
        UsageError: There is no such version.
        RegistryError: Something else than adapterctl registered it.
    """
    version = session.registry.version(adapter_name(session.project, lang), number)
    tags: Mapping[str, Any] = version.tags
    try:
        return Pin(
            lang=lang,
            version=version.version,
            content_hash=version.content_hash,
            training_key=tags.get("adapterctl.training_key", ""),
            inputs_key=tags.get("adapterctl.inputs_key", ""),
            data_hash=tags.get("adapterctl.data_sha256", ""),
            rows=int(tags.get("adapterctl.rows", "0")),
        )
    except ValueError as error:
        raise RegistryError(
            f"{version} does not say what it was trained from: it was not registered by adapterctl",
            hint=f"choose another version of {lang}: adapterctl lineage {lang}@champion",
        ) from error


def require_same_base(session: Session, champion: Release) -> None:
    """Refuse to merge adapters of two base models."""
    if champion.base_identity != session.base.identity:
        raise UsageError(
            f"champion version {champion.version} was made for another base model than base_model.path "
            f"'{session.base.name}' names now",
            hint="put base_model in adapterctl.yaml back; or set another project name and run: adapterctl setup",
        )


def release_id(session: Session, champion: Release, pins: Mapping[str, Pin], what: Mapping[str, Any]) -> str:
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
