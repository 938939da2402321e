"""Which versions stay and which go: a rule on plain values, so that it can be tested on any registry there might be."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from adapterctl.fingerprint import fingerprint

Ref = tuple[str, int]
"""A version: the registered model and the number."""


def kept(
    there: Mapping[str, Collection[int]],
    links: Callable[[Ref], Iterable[Ref]],
    roots: Mapping[Ref, str],
    keep: int,
) -> dict[Ref, str]:
    """Return every version that stays, with the reason: the newest, the roots, and all that they are made of.

    Args:
        there: The numbers of the versions of every registered model.
        links: What a version was made of.
        roots: Versions that stay whatever their age, with the reason.
        keep: How many of the newest versions of every model stay.
    """
    reasons: dict[Ref, str] = {}
    for name, numbers in there.items():
        for number in sorted(numbers, reverse=True)[:keep]:
            reasons[name, number] = f"one of the newest {keep}" if keep > 1 else "the newest"
    reasons |= {ref: why for ref, why in roots.items() if ref[1] in there.get(ref[0], ())}
    waiting = sorted(reasons)
    while waiting:
        ref = waiting.pop()
        for part in links(ref):
            if part not in reasons and part[1] in there.get(part[0], ()):
                reasons[part] = f"part of {ref[0]} v{ref[1]}"
                waiting.append(part)
    return reasons


@dataclass(frozen=True)
class Doomed:
    """A version that goes, or a logged model without one.

    Attributes:
        name: The registered model, or the name of the logged model.
        version: The version; None for a logged model without one.
        model_id: MLflow's logged model that holds the files; empty where another version holds it too, or where it is
            gone.
        created: When it was made, ISO 8601.
        bytes: What its files take.
        why: Why it goes.
    """

    name: str
    version: int | None
    model_id: str
    created: str
    bytes: int
    why: str


@dataclass(frozen=True)
class Kept:
    """A version that stays, and why."""

    name: str
    version: int
    why: str


@dataclass(frozen=True)
class Plan:
    """What would go and what would stay.

    Attributes:
        keep: How many of the newest versions of every model stay.
        doomed: What goes, in this order: what is made of others before those others.
        kept: What stays.
    """

    keep: int
    doomed: tuple[Doomed, ...]
    kept: tuple[Kept, ...]

    @property
    def id(self) -> str:
        """Names exactly what would go: another plan has another name."""
        going = [[item.name, item.version, item.model_id] for item in self.doomed]
        return fingerprint({"keep": self.keep, "going": going})[:12]

    @property
    def bytes(self) -> int:
        """How much room it frees."""
        return sum(item.bytes for item in self.doomed)

    def as_dict(self) -> dict[str, Any]:
        """Return the plan as plain values."""
        return {
            "plan": self.id,
            "keep": self.keep,
            "bytes": self.bytes,
            "doomed": [asdict(item) for item in self.doomed],
            "kept": [asdict(item) for item in self.kept],
        }
