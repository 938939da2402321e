"""``promote``, ``reject`` and ``rollback``: what a person does with releases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from adapterctl.errors import GateFailed, UsageError
from adapterctl.registry.names import CANDIDATE, CHAMPION, merged_name
from adapterctl.workflows import releases, review_tags
from adapterctl.workflows.releases import Release
from adapterctl.workflows.session import Session


@dataclass(frozen=True)
class Promotion:
    """A change of champion.

    Attributes:
        champion: The champion now.
        before: The champion before; None where there was none.
    """

    champion: Release
    before: Release | None

    def as_dict(self) -> dict[str, Any]:
        """Return the change as plain values."""
        before = self.before.model_dump(mode="json") if self.before else None
        return {"champion": self.champion.model_dump(mode="json"), "before": before}


@dataclass(frozen=True)
class Override:
    """The word of a person against the gate's.

    Attributes:
        reason: Why; it is kept with the release.
    """

    reason: str


def promote(
    session: Session, version: int | None = None, *, override: Override | None = None, reason: str = ""
) -> Promotion:
    """Make the candidate, or any version of the merged adapter, the champion, because a person says so.

    Args:
        session: The command at work.
        version: Number of a version; the candidate where not given.
        override: Promote although the gate said no, or compared with another champion.
        reason: Why, where nothing is overridden.

    Raises:
        UsageError: There is no candidate, or no such version, or a reviewer has rejected the candidate.
        GateFailed: The gate said no, and was not overridden. What waits for a person is not refused: this is the
            person.
        RegistryError: The stored files are not what was published.
        LockHeld: Somebody else moved the champion.
    """
    registry, project = session.registry, session.project
    before = registry.aliases(merged_name(project)).get(CHAMPION)
    if version is None:
        release = _require_candidate(session)
        _refuse_rejected(session, release)
    else:
        release = releases.read_release(registry, registry.version(merged_name(project), version))
    if override is None:
        _require_gate(session, release, before)
    return _move(session, release, before, override.reason if override else reason, overridden=override is not None)


@dataclass(frozen=True)
class Reviewed:
    """What a job found that acts on reviewers' decisions.

    Attributes:
        decision: ``approved``, ``rejected``, ``waiting``, or ``none`` where there is no candidate.
        candidate: The candidate; None where there is none.
        promotion: The change of champion, where it was approved.
    """

    decision: str
    candidate: Release | None
    promotion: Promotion | None = None

    @property
    def acted(self) -> bool:
        """Whether anything was changed."""
        return self.decision in (review_tags.APPROVED, review_tags.REJECTED)

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "decision": self.decision,
            "candidate": self.candidate.version if self.candidate else None,
            "promotion": self.promotion.as_dict() if self.promotion else None,
        }


def act_on_review(session: Session, *, override: Override | None = None) -> Reviewed:
    """Do what a reviewer decided about the candidate by its version's tag ``review``; nothing where nobody has.

    ``approved`` promotes it, ``rejected`` takes the alias away.

    Args:
        session: The command at work.
        override: Promote an approved candidate although the gate said no.

    Raises:
        GateFailed: It is approved, but the gate said no and was not overridden.
        RegistryError: The stored files are not what was published.
        LockHeld: Somebody else moved the champion.
    """
    registry, project = session.registry, session.project
    release = releases.current(registry, project, CANDIDATE)
    if release is None:
        return Reviewed("none", None)
    name = merged_name(project)
    decision = review_tags.decision(registry.version(name, release.version).tags)
    if decision == review_tags.REJECTED:
        registry.drop_alias(name, CANDIDATE)
        return Reviewed(decision, release)
    if decision != review_tags.APPROVED:
        return Reviewed(decision, release)
    before = registry.aliases(merged_name(project)).get(CHAMPION)
    if override is None:
        _require_gate(session, release, before)
    reason = override.reason if override else "review=approved"
    return Reviewed(decision, release, _move(session, release, before, reason, overridden=override is not None))


def reject(session: Session, version: int | None = None, *, reason: str) -> int:
    """Refuse the candidate, or any version, and return its number: no job makes it candidate or champion again.

    What it is need not be readable: that may be the reason.

    Args:
        session: The command at work.
        version: Number of a version; the candidate where not given.
        reason: Why; it is kept with the release.

    Raises:
        UsageError: There is no candidate, or no such version, or it is the champion.
    """
    registry, project = session.registry, session.project
    name = merged_name(project)
    aliases = registry.aliases(name)
    number = version if version is not None else aliases.get(CANDIDATE)
    if number is None:
        raise _no_candidate(project)
    if aliases.get(CHAMPION) == number:
        raise UsageError(
            f"version {number} is the champion: it is served", hint="return to the one before: adapterctl rollback"
        )
    refused = review_tags.REJECTED
    review_tags.record(registry, registry.version(name, number), refused, reason=reason, review=refused)
    if aliases.get(CANDIDATE) == number:
        registry.drop_alias(name, CANDIDATE)
    return number


def _no_candidate(project: str) -> UsageError:
    return UsageError(
        f"project '{project}' has no candidate",
        hint="make one with: adapterctl update --lang LANG; or name a version: adapterctl promote --version N",
    )


def _require_candidate(session: Session) -> Release:
    release = releases.current(session.registry, session.project, CANDIDATE)
    if release is None:
        raise _no_candidate(session.project)
    return release


def _refuse_rejected(session: Session, release: Release) -> None:
    version = session.registry.version(merged_name(session.project), release.version)
    if review_tags.decision(version.tags) == review_tags.REJECTED:
        raise UsageError(
            f"version {release.version} was rejected by a reviewer (its tag review says so)",
            hint=f"promote it all the same with: adapterctl promote --version {release.version}",
        )


def _require_gate(session: Session, release: Release, before: int | None) -> None:
    """Make sure that the gate let a release pass, and that it compared with what is served now."""
    anyway = f'adapterctl promote --version {release.version} --override-gate --reason "..."'
    if not (release.passed or release.waits):
        few = ": there were too few rows to decide" if release.gate == "inconclusive" else ""
        raise GateFailed(
            f"version {release.version} did not pass the gate{few}",
            hint=f"look at it with: adapterctl ui; then: {anyway}",
        )
    if before is None or release.compared_with in (None, before) or release.version == before:
        return
    version = session.registry.version(merged_name(session.project), release.version)
    if not review_tags.was_promoted(version.tags):
        raise GateFailed(
            f"the gate compared version {release.version} with version {release.compared_with}, and version "
            f"{before} is the champion now",
            hint=f"make it anew against that one: adapterctl update; or, if you know better: {anyway}",
        )


def _move(session: Session, release: Release, before: int | None, reason: str, *, overridden: bool) -> Promotion:
    registry, project = session.registry, session.project
    version = registry.version(merged_name(project), release.version)
    registry.require_whole(version)
    releases.require_its_own(version, release)
    replaced = releases.readable(registry, project)
    releases.promote(
        registry,
        project,
        release,
        expected=before,
        reason=f"gate overridden: {reason}" if overridden else reason,
        person=True,
    )
    return Promotion(release, replaced)


def rollback(session: Session, reason: str = "") -> Promotion:
    """Return to the previous champion; the one that steps down is not promoted again by any job.

    Raises:
        UsageError: There is none.
        RegistryError: Its stored files are not what was published.
        LockHeld: Somebody else moved the aliases.
    """
    champion, stepped_down = releases.rollback(session.registry, session.project, reason=reason)
    return Promotion(champion, stepped_down)
