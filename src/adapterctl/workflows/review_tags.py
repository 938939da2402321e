"""What people and jobs decided about a version, in tags that a reviewer sees and sets in MLflow."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from adapterctl.people import this_person

if TYPE_CHECKING:
    from adapterctl.registry.client import Registry
    from adapterctl.registry.versions import Version

REVIEW = "review"
"""The tag a reviewer sets: ``approved`` or ``rejected``; ``waiting`` until somebody has."""
WAITING, APPROVED, REJECTED = "waiting", "approved", "rejected"
EVENTS = "adapterctl.events"
"""What happened to a version, as a JSON list."""

PROMOTED, ROLLED_BACK, STEPPED_DOWN = "promoted", "rolled back to", "rolled back"
_MOST_EVENTS = 20
_LONGEST_REASON = 200


@dataclass(frozen=True)
class Event:
    """Something that was decided about a version.

    Attributes:
        time: ISO 8601, UTC.
        what: ``promoted``, ``rejected``, ``rolled back`` (it stepped down), ``rolled back to``.
        by: Who, and on which machine.
        reason: Why, in the words of whoever decided; may be empty.
    """

    time: str
    what: str
    by: str
    reason: str = ""


def decision(tags: Mapping[str, str]) -> str:
    """Return ``approved``, ``rejected`` or ``waiting``: people write the tag by hand."""
    said = tags.get(REVIEW, "").strip().casefold()
    return said if said in (APPROVED, REJECTED) else WAITING


def events(tags: Mapping[str, str]) -> tuple[Event, ...]:
    """Return what happened to a version, oldest first; what is no event is passed over."""
    try:
        found = json.loads(tags.get(EVENTS, "[]"))
    except (ValueError, RecursionError):
        return ()
    return tuple(
        Event(**{name: one[name] for name in ("time", "what", "by", "reason")})
        for one in (found if isinstance(found, list) else ())
        if isinstance(one, dict) and all(isinstance(one.get(name), str) for name in ("time", "what", "by", "reason"))
    )


def last(tags: Mapping[str, str]) -> str:
    """Return what happened to a version last; empty where nothing did."""
    known = events(tags)
    return known[-1].what if known else ""


def was_promoted(tags: Mapping[str, str]) -> bool:
    """Return whether a version has been the champion."""
    return any(event.what in (PROMOTED, ROLLED_BACK) for event in events(tags))


def record(registry: Registry, version: Version, what: str, *, reason: str = "", review: str | None = None) -> None:
    """Note that something was decided about a version.

    Args:
        registry: The open registry.
        version: Which; its tags are read anew.
        what: What was decided.
        reason: Why.
        review: What the tag ``review`` is to say from now on; None leaves it.
    """
    version = registry.version(version.name, version.version)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    event = Event(now, what, this_person(), reason[:_LONGEST_REASON])
    kept = [*events(version.tags), event][-_MOST_EVENTS:]
    tags: dict[str, Any] = {EVENTS: json.dumps([asdict(one) for one in kept], ensure_ascii=False)}
    if review is not None:
        tags[REVIEW] = review
    registry.set_version_tags(version, tags)
