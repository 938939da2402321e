"""What is different between two versions: adapters, recipe, data, scores, gate, cost, base model, code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from adapterctl.accounting.ledger import attempts
from adapterctl.errors import ConfigError, UsageError
from adapterctl.registry.names import adapter_name, merged_name
from adapterctl.workflows.changes import (
    Change,
    CostChange,
    DataChange,
    Known,
    ScoreChange,
    averages,
    changes,
    cost_change,
    data_change,
    score_changes,
)
from adapterctl.workflows.models import version_named
from adapterctl.workflows.releases import Release, read_release
from adapterctl.workflows.summaries import BASE_IDENTITY_TAG, BASE_TAG, DATA_TAG, ROWS_TAG

if TYPE_CHECKING:
    from adapterctl.registry.client import Registry
    from adapterctl.registry.versions import Version
    from adapterctl.workflows.session import Session

_TRAINING_PARAMS = ("lora.", "training.")
_TRAINING_KEY_TAG = "adapterctl.training_key"


@dataclass(frozen=True)
class Side:
    """One of the two.

    Attributes:
        name: The registered model, and ``version`` its number.
        created: When it was registered.
        aliases: What points at it.
        content_hash: Of the adapter.
        reason: Which command made it; empty for an adapter of one language.
        gate: What the gate said of it, and ``compared_with`` the version it was compared with then.
        base: Name and identity of the base model.
    """

    name: str
    version: int
    created: str
    aliases: tuple[str, ...]
    content_hash: str
    reason: str = ""
    gate: str = ""
    compared_with: int | None = None
    base: tuple[str, str] = ("", "")


@dataclass(frozen=True)
class Diff:
    """What is different between two versions.

    Attributes:
        before, after: The two.
        adapters: The languages whose adapter is another one.
        recipe: Keys of the merge recipe, or of the training of one language's adapter, that differ; λ as it was used.
        data: Every language whose adapter differs.
        scores: Every cell, sorted by language and task; empty for adapters of one language.
        averages: The mean over the languages, on the same rows where the gate measured that; None where it is unknown.
        cost: What each took.
        code: What computes results in another version.
        notes: One sentence for everything that cannot be told.
    """

    before: Side
    after: Side
    adapters: tuple[Change, ...]
    recipe: tuple[Change, ...]
    data: tuple[DataChange, ...]
    scores: tuple[ScoreChange, ...]
    averages: tuple[float | None, float | None]
    cost: CostChange
    code: tuple[Change, ...]
    notes: tuple[str, ...]

    @property
    def same_content(self) -> bool:
        """Whether both are the same adapter, byte by byte."""
        return self.before.content_hash == self.after.content_hash != ""

    @property
    def same_base(self) -> bool:
        """Whether both belong to the same base model; an identity that nobody noted is not compared."""
        first, second = self.before.base, self.after.base
        return first[1] == second[1] if first[1] and second[1] else first[0] == second[0]

    def as_dict(self) -> dict[str, Any]:
        """Return the differences as plain values."""
        return asdict(self) | {
            "scores": [cell.as_dict() for cell in self.scores],
            "cost": self.cost.as_dict(),
            "same_content": self.same_content,
            "same_base": self.same_base,
        }


def diff(session: Session, before: str, after: str) -> Diff:
    """Return what is different between two versions.

    Args:
        session: The command at work.
        before, after: Names as ``models.version_named`` takes them: two merged adapters, or two adapters of one
            language.

    Raises:
        UsageError: There is no such version, or the two are of different kinds.
        RegistryError: The registry cannot be reached, or a release is not readable.
    """
    first, second = version_named(session, before), version_named(session, after)
    if first.name != second.name:
        raise UsageError(
            f"{first} and {second} cannot be compared: they are adapters of different kinds",
            hint="name two merged adapters (merged/3 merged/7) or two of one language (ja/1 ja/2)",
        )
    if first.name == merged_name(session.project):
        return _of_releases(session, first, second)
    return _of_adapters(session, first, second)


def _of_releases(session: Session, first: Version, second: Version) -> Diff:
    registry = session.registry
    one, other = read_release(registry, first), read_release(registry, second)
    aliases, entries = registry.aliases(first.name), session.ledger.entries()
    moved = [lang for lang in sorted({*one.adapters, *other.adapters}) if _hash(one, lang) != _hash(other, lang)]
    recipes = [{**release.recipe, "lambda": release.scale} for release in (one, other)]
    made = [attempts(entries, release.update_id) if release.update_id else [] for release in (one, other)]
    coded = bool(one.code and other.code)
    return Diff(
        before=_side_of_release(first, one, aliases),
        after=_side_of_release(second, other, aliases),
        adapters=tuple(Change(lang, _number(one, lang), _number(other, lang)) for lang in moved),
        recipe=tuple(changes(recipes[0], recipes[1])),
        data=tuple(
            data_change(registry, lang, _pinned(registry, one, lang), _pinned(registry, other, lang)) for lang in moved
        ),
        scores=tuple(score_changes(one, other)),
        averages=averages(one, other),
        cost=cost_change(session.workspace.config.prices, made[0], made[1]),
        code=tuple(changes(one.code, other.code)) if coded else (),
        notes=() if coded else ("which versions of the code made them was not noted",),
    )


def _of_adapters(session: Session, first: Version, second: Version) -> Diff:
    registry = session.registry
    aliases, entries = registry.aliases(first.name), session.ledger.entries()
    settings: list[dict[str, str]] = []
    notes: list[str] = []
    for version in (first, second):
        run, _ = registry.what_is_left(version)
        params = run.data.params if run is not None else {}
        settings.append({name: value for name, value in params.items() if name.startswith(_TRAINING_PARAMS)})
        if not settings[-1]:
            notes.append(f"the settings of the training of {version} are not noted any more")
    keys = [version.tags.get(_TRAINING_KEY_TAG, "") for version in (first, second)]
    made = [[entry for entry in entries if key and entry.step == "train" and entry.key == key] for key in keys]
    return Diff(
        before=_side_of_adapter(first, aliases),
        after=_side_of_adapter(second, aliases),
        adapters=(),
        recipe=() if notes else tuple(changes(settings[0], settings[1])),
        data=(data_change(registry, first.tags.get("lang") or first.name, _registered(first), _registered(second)),),
        scores=(),
        averages=(None, None),
        cost=cost_change(session.workspace.config.prices, made[0], made[1]),
        code=(),
        notes=tuple(notes),
    )


def _side_of_release(version: Version, release: Release, aliases: Mapping[str, int]) -> Side:
    return Side(
        name=version.name,
        version=version.version,
        created=version.created,
        aliases=_pointing(version, aliases),
        content_hash=version.content_hash,
        reason=release.reason,
        gate=release.gate,
        compared_with=release.compared_with,
        base=(release.base, release.base_identity),
    )


def _side_of_adapter(version: Version, aliases: Mapping[str, int]) -> Side:
    base = version.tags.get(BASE_TAG, ""), version.tags.get(BASE_IDENTITY_TAG, "")
    pointing = _pointing(version, aliases)
    return Side(version.name, version.version, version.created, pointing, version.content_hash, base=base)


def _pointing(version: Version, aliases: Mapping[str, int]) -> tuple[str, ...]:
    return tuple(sorted(alias for alias, number in aliases.items() if number == version.version))


def _hash(release: Release, lang: str) -> str | None:
    pinned = release.adapters.get(lang)
    return pinned.content_hash if pinned else None


def _number(release: Release, lang: str) -> int | None:
    pinned = release.adapters.get(lang)
    return pinned.version if pinned else None


def _pinned(registry: Registry, release: Release, lang: str) -> Known | None:
    """Return what is known of the rows behind a pin; its version may be gone, or be another adapter by now."""
    pinned = release.adapters.get(lang)
    if pinned is None:
        return None
    try:
        version = registry.version(adapter_name(registry.project, lang), pinned.version)
    except (UsageError, ConfigError):
        version = None
    if version is None or version.content_hash != pinned.content_hash:
        return Known(pinned.version, pinned.data_hash, pinned.rows or None, None)
    noted = _registered(version)
    return Known(pinned.version, pinned.data_hash or noted.sha256, pinned.rows or noted.rows, version)


def _registered(version: Version) -> Known:
    text = version.tags.get(ROWS_TAG, "")
    rows = int(text[:12]) if text.isdecimal() else None
    return Known(version.version, version.tags.get(DATA_TAG, ""), rows, version)
