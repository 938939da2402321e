"""When an update is worth it: what a job that runs every night asks before it trains anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from adapterctl.errors import RegistryError
from adapterctl.examples import Example
from adapterctl.registry.names import adapter_name
from adapterctl.training.job import row_hashes
from adapterctl.workflows.intention import Part, part_of, pinned_versions
from adapterctl.workflows.releases import Release
from adapterctl.workflows.session import Session
from adapterctl.workflows.steps import ROWS_FILE, TRAINED_TAG
from adapterctl.workspace.data import LanguageData


@dataclass(frozen=True)
class Triggers:
    """What has to be so for an update to begin.

    Attributes:
        if_changed: Something is new: rows, settings, recipe, pins or code.
        min_new_rows: So many rows are new or changed; rows that were taken out always count as enough.
        max_age: An adapter older than this does not wait for ``min_new_rows``.
    """

    if_changed: bool = False
    min_new_rows: int = 0
    max_age: timedelta | None = None

    @property
    def conditional(self) -> bool:
        """Whether anything is asked at all."""
        return self.if_changed or self.min_new_rows > 0 or self.max_age is not None


@dataclass(frozen=True)
class Due:
    """Whether a language is to be trained now.

    Attributes:
        lang: Which.
        due: Whether it is.
        why: In words.
        new_rows: Rows that the champion's adapter was not trained on; None where that is not known.
        removed_rows: Rows that it was trained on and that are gone.
        age_days: Age of the champion's adapter; None where there is none or it is not known.
        aged: Whether it is older than it may be.
    """

    lang: str
    due: bool
    why: str
    new_rows: int | None = None
    removed_rows: int | None = None
    age_days: float | None = None
    aged: bool = False


def due_languages(
    session: Session,
    langs: Sequence[str],
    data: Mapping[str, LanguageData],
    champion: Release,
    triggers: Triggers,
    now: datetime | None = None,
) -> tuple[Due, ...]:
    """Return, for every language that is asked about, whether it is to be trained now, and why."""
    pinned = pinned_versions(session)
    return tuple(
        Due(lang, False, f"pinned to version {pinned[lang].version}")
        if lang in pinned
        else _due(session, part_of(session, lang, data[lang], champion), data[lang].train, triggers, now)
        for lang in langs
    )


def _due(
    session: Session, part: Part, rows: Sequence[Example], triggers: Triggers, now: datetime | None
) -> Due:  # fmt: skip
    age = _age(session, part, now or datetime.now(UTC))
    days = age / timedelta(days=1) if age is not None else None
    aged = age is not None and triggers.max_age is not None and age > triggers.max_age
    old = f"{days:.0f} days old" if days is not None else ""
    if not part.trains:
        # The same rows and settings give the same adapter again.
        why = "nothing changed" + (f", though it is {old}: training again would give the same" if aged else "")
        return Due(part.lang, False, why, 0, 0, days, aged)
    new, removed = _new_and_removed(session, part, rows)
    told = _told(part.change, new, removed)
    small = part.change in ("data", "rows or settings") and new is not None and new < triggers.min_new_rows
    if small and not removed:
        wanted = f"fewer than {triggers.min_new_rows}"
        if not aged:
            return Due(part.lang, False, f"{told}: {wanted}", new, removed, days, aged)
        told = f"{told}: {wanted}, but the adapter is {old}"
    return Due(part.lang, True, told, new, removed, days, aged)


def _told(change: str, new: int | None, removed: int | None) -> str:
    if change not in ("data", "rows or settings"):
        return "not served yet" if change == "new language" else f"{change} changed"
    if new is None:
        return f"{change} changed"
    gone = f", {removed} taken out" if removed else ""
    return f"{new} new row{'' if new == 1 else 's'}{gone}"


def _new_and_removed(session: Session, part: Part, rows: Sequence[Example]) -> tuple[int | None, int | None]:
    """Return how many rows are new and how many are gone since the champion's adapter was trained."""
    if part.known is None:
        return len(rows), 0
    known = known_rows(session, part)
    if known is None:
        # An adapter of before this was noted: its number of rows may be known all the same.
        return (max(0, len(rows) - part.known.rows), None) if part.known.rows else (None, None)
    present = Counter(row_hashes(rows))
    return (present - known).total(), (known - present).total()


def known_rows(session: Session, part: Part) -> Counter[str] | None:
    """Return the hashes of the rows that the champion's adapter was trained on, None where nobody noted them."""
    if part.known is None:
        return None
    try:
        version = session.registry.version(adapter_name(session.project, part.lang), part.known.version)
        stored: object = session.registry.read_json(version.run_id, ROWS_FILE)
    except RegistryError:
        return None
    return Counter(_texts(stored)) if isinstance(stored, list) else None


def _texts(values: Iterable[object]) -> Iterable[str]:
    return (value for value in values if isinstance(value, str))


def _age(session: Session, part: Part, now: datetime) -> timedelta | None:
    """Return how long ago the champion's adapter was trained; never less than nothing, whatever the clock says."""
    if part.known is None:
        return None
    version = session.registry.version(adapter_name(session.project, part.lang), part.known.version)
    try:
        trained = datetime.fromisoformat(version.tags.get(TRAINED_TAG) or version.created)
        return max(timedelta(0), now - (trained if trained.tzinfo else trained.replace(tzinfo=UTC)))
    except ValueError:
        return None
