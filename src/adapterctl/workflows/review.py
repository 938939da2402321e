"""What there is to review: the champion, the candidate, what changed since, and the releases so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from adapterctl.errors import AdapterctlError
from adapterctl.registry.names import CANDIDATE, CHAMPION, PREVIOUS, merged_name
from adapterctl.training.job import training_key
from adapterctl.workflows import releases
from adapterctl.workflows.journal import Pending, read_pending
from adapterctl.workflows.releases import Release
from adapterctl.workflows.session import Session
from adapterctl.workflows.steps import language_job
from adapterctl.workspace.data import load_data


@dataclass(frozen=True)
class LanguageStatus:
    """Where one language stands.

    Attributes:
        lang: Its tag.
        version: Version of the adapter that is served; None where the champion does not serve the language.
        score: The champion's mean over the language's tasks on the test split; None where it was not measured.
        own: What the language's own adapter scores there; None where it was not measured.
        state: ``up to date``, ``changed`` (rows or settings since the champion), ``not served``, or ``bad rows``.
    """

    lang: str
    version: int | None
    score: float | None
    own: float | None
    state: str


@dataclass(frozen=True)
class Status:
    """Where a project stands.

    Attributes:
        project: Its name.
        registry: Where its versions are, without secrets.
        champion, candidate, previous: What the aliases point at; None where they are not set.
        languages: Every language of the workspace.
        pending: An interrupted command; None where there is none.
        artifacts: Where the champion's figures and tables lie: a folder, or an address of the registry.
    """

    project: str
    registry: str
    champion: Release | None
    candidate: Release | None
    previous: Release | None
    languages: tuple[LanguageStatus, ...]
    pending: Pending | None
    artifacts: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the status as plain values."""
        found = {"champion": self.champion, "candidate": self.candidate, "previous": self.previous}
        return {
            "project": self.project,
            "registry": self.registry,
            **{name: release.model_dump(mode="json") if release else None for name, release in found.items()},
            "languages": [vars(language) for language in self.languages],
            "pending": self.pending.model_dump() if self.pending else None,
            "artifacts": self.artifacts,
        }


def status(session: Session) -> Status:
    """Return where the project stands; rows that cannot be read are a state of their language, not an error."""
    champion, candidate, previous = (
        releases.current(session.registry, session.project, alias) for alias in (CHAMPION, CANDIDATE, PREVIOUS)
    )
    return Status(
        project=session.project,
        registry=session.registry.resolved.shown,
        champion=champion,
        candidate=candidate,
        previous=previous,
        languages=tuple(_language(session, lang, champion) for lang in session.workspace.languages),
        pending=read_pending(session.workspace),
        artifacts=session.registry.artifacts_of(champion.run_id) if champion else None,
    )


def _language(session: Session, lang: str, champion: Release | None) -> LanguageStatus:
    pinned = champion.adapters.get(lang) if champion else None
    if champion is None or pinned is None:
        return LanguageStatus(lang, None, None, None, "not served")
    try:
        rows = load_data(session.workspace, [lang])[lang].train
        same = training_key(language_job(session, lang, rows)) == pinned.inputs_key
        state = "up to date" if same else "changed"
    except AdapterctlError:
        state = "bad rows"
    score = champion.scores["languages"].get(lang)
    return LanguageStatus(lang, pinned.version, score, champion.own_scores.get(lang), state)


@dataclass(frozen=True)
class PastRelease:
    """A release as the history lists it.

    Attributes:
        release: What it is.
        aliases: What points at it.
        gate: ``first``, ``passed``, ``failed`` or ``inconclusive``.
    """

    release: Release
    aliases: tuple[str, ...]
    gate: str

    def as_dict(self) -> dict[str, Any]:
        """Return the release as plain values."""
        return {**self.release.model_dump(mode="json"), "aliases": list(self.aliases), "gate": self.gate}


def history(session: Session) -> Sequence[PastRelease]:
    """Return the releases, newest first."""
    name = merged_name(session.project)
    aliases = session.registry.aliases(name)
    listed = []
    for version in reversed(session.registry.versions(name)):
        if releases.RELEASE_RUN_TAG not in version.tags:
            # Its command was killed before the release was whole; run again, it finishes it.
            continue
        release = releases.read_release(session.registry, version)
        pointing = tuple(sorted(alias for alias, number in aliases.items() if number == version.version))
        listed.append(PastRelease(release, pointing, release.gate))
    return listed
