"""What there is to review: the champion, the candidate, what changed since, and the releases so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from adapterctl.registry.names import CANDIDATE, CHAMPION, PREVIOUS, merged_name
from adapterctl.workflows import releases
from adapterctl.workflows.freshness import BAD_ROWS, inputs_keys
from adapterctl.workflows.journal import Pending, read_pending
from adapterctl.workflows.releases import Release
from adapterctl.workflows.session import Session
from adapterctl.workflows.summaries import PastRelease, is_release, past_release


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
    served = [lang for lang in session.workspace.languages if champion and lang in champion.adapters]
    keys = inputs_keys(session, served) if served else {}
    return Status(
        project=session.project,
        registry=session.registry.resolved.shown,
        champion=champion,
        candidate=candidate,
        previous=previous,
        languages=tuple(_language(lang, champion, keys.get(lang, "")) for lang in session.workspace.languages),
        pending=read_pending(session.workspace),
        artifacts=session.registry.artifacts_of(champion.run_id) if champion else None,
    )


def _language(lang: str, champion: Release | None, key: str) -> LanguageStatus:
    pinned = champion.adapters.get(lang) if champion else None
    if champion is None or pinned is None:
        return LanguageStatus(lang, None, None, None, "not served")
    state = BAD_ROWS if key == BAD_ROWS else "up to date" if key == pinned.inputs_key else "changed"
    score = champion.scores["languages"].get(lang)
    return LanguageStatus(lang, pinned.version, score, champion.own_scores.get(lang), state)


def history(session: Session, limit: int | None = None) -> Sequence[PastRelease]:
    """Return the releases, newest first.

    Args:
        session: The command at work.
        limit: At most so many; None for all.
    """
    name = merged_name(session.project)
    aliases = session.registry.aliases(name)
    # Where a command was killed before the release was whole, the version is none; run again, it finishes it.
    whole = [version for version in reversed(session.registry.versions(name)) if is_release(version)]
    return [past_release(session.registry, version, aliases) for version in whole[:limit]]
