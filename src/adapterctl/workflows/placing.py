"""What becomes of a release that was just made: champion, candidate, or neither."""

from __future__ import annotations

from dataclasses import dataclass

from adapterctl.registry.names import CANDIDATE, merged_name
from adapterctl.workflows import releases, review_tags
from adapterctl.workflows.releases import Release
from adapterctl.workflows.session import Session

REVIEW_FOR = "adapterctl.review_for"
"""The tag of a version that names the work whose review the tag ``review`` is: an approval holds for no other."""


@dataclass(frozen=True)
class Placed:
    """What became of a release.

    Attributes:
        promoted: Whether it is the champion now.
        refused: Why it is not even a candidate: a person has rejected this very adapter before; empty otherwise.
    """

    promoted: bool
    refused: str = ""


def place(session: Session, release: Release, champion: Release | None) -> Placed:
    """Point the aliases: a first release is the champion; later ones as gate, policy and people say.

    Args:
        session: The command at work.
        release: What was made and registered.
        champion: What it was compared with; None for a first release.

    Raises:
        LockHeld: The champion is another one by now; nothing was moved.
        RegistryError: The stored files are not what was published.
    """
    registry, name = session.registry, merged_name(session.project)
    if champion is not None and champion.version == release.version:
        return Placed(True)
    with session.step("alias", "merged", release.content_hash, "set the aliases"):
        version = registry.version(name, release.version)
        if review_tags.decision(version.tags) == review_tags.REJECTED:
            return Placed(False, _refusal(version.version, review_tags.events(version.tags)))
        # Read and hashed again: nothing unverified is ever pointed at, also where an earlier command published it.
        registry.require_whole(version)
        automatic = session.workspace.config.promotion == "auto"
        promotes = champion is None or (automatic and release.passed)
        if not promotes and version.tags.get(REVIEW_FOR) != release.update_id:
            waits = {review_tags.REVIEW: review_tags.WAITING, REVIEW_FOR: release.update_id}
            registry.set_version_tags(version, waits)
        registry.set_alias(name, CANDIDATE, release.version)
        if promotes:
            expected = champion.version if champion else None
            reason = "the gate let it pass" if champion else "the first release"
            releases.promote(registry, session.project, release, expected=expected, reason=reason)
    return Placed(promotes)


def _refusal(number: int, known: tuple[review_tags.Event, ...]) -> str:
    """Return who refused a version and why, as far as it was noted."""
    for event in reversed(known):
        if event.what in (review_tags.REJECTED, review_tags.STEPPED_DOWN):
            why = f": {event.reason}" if event.reason else ""
            return f"version {number} was {event.what} on {event.time} by {event.by}{why}"
    return f"version {number} carries the tag review=rejected"
