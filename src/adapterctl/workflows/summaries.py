"""What the tags of a version say about its release, so that many releases are listed without reading their files."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from adapterctl.errors import RegistryError
from adapterctl.registry.names import TAG_INPUTS, adapter_name
from adapterctl.workflows.releases import RELEASE_RUN_TAG, UPDATE_TAG, Release, read_release
from adapterctl.workflows.review_tags import REVIEW, Event, decision, events

if TYPE_CHECKING:
    from adapterctl.registry.client import Registry
    from adapterctl.registry.versions import Version

GATE_TAG, REASON_TAG = "adapterctl.gate", "adapterctl.reason"
AVERAGE_TAG, SCALE_TAG = "adapterctl.average", "adapterctl.lambda"
BASE_TAG, BASE_IDENTITY_TAG = "adapterctl.base_model", "adapterctl.base_identity"
DATA_TAG, ROWS_TAG = "adapterctl.data_sha256", "adapterctl.rows"

_INPUT = re.compile(r"(?P<name>[^\s:]{1,250}):(?P<version>[1-9][0-9]{0,8})")


def release_tags(release: Release, project: str) -> dict[str, Any]:
    """Return the tags that tell a release of its version; the latest measurement of an equal merge writes them anew."""
    pins = sorted(release.adapters.items())
    return {
        RELEASE_RUN_TAG: release.run_id,
        UPDATE_TAG: release.update_id,
        GATE_TAG: release.gate,
        REASON_TAG: release.reason,
        AVERAGE_TAG: "" if release.scores["average"] is None else release.scores["average"],
        SCALE_TAG: release.scale,
        BASE_TAG: release.base,
        BASE_IDENTITY_TAG: release.base_identity,
        TAG_INPUTS: " ".join(f"{adapter_name(project, lang)}:{pinned.version}" for lang, pinned in pins),
    }


def release_lineage(release: Release) -> dict[str, Any]:
    """Return what a merged adapter was made from, beside the adapters, for its ``lineage.json``."""
    return {
        "base": {"name": release.base, "identity": release.base_identity},
        "recipe": {**release.recipe, "lambda": release.scale},
        "datasets": [
            {"name": f"{lang} rows", "sha256": pinned.data_hash, "rows": pinned.rows}
            for lang, pinned in sorted(release.adapters.items())
        ],
    }


def inputs_of(tags: Mapping[str, str]) -> list[tuple[str, int]]:
    """Return the versions that a version was made from, as names and numbers; what is none is passed over."""
    found = map(_INPUT.fullmatch, tags.get(TAG_INPUTS, "").split())
    return [(match["name"], int(match["version"])) for match in found if match]


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


@dataclass(frozen=True)
class PastRelease:
    """A release as the history lists it.

    Attributes:
        version: Number of the merged adapter.
        created: When it was registered, ISO 8601, UTC.
        reason: Which command made it.
        gate: ``first``, ``passed``, ``failed`` or ``inconclusive``.
        review: ``approved`` or ``rejected`` by a person, or ``waiting``; empty where nobody was asked.
        aliases: What points at it.
        scale: The λ that was used; None where unknown.
        average: Mean over the languages on the test split; None where it was not measured.
        adapters: The version of every language's adapter, by registered model.
        content_hash: Of the merged adapter.
        run_id: The MLflow run with all the rest.
        events: Who promoted, rejected or rolled back, when and why; oldest first.
    """

    version: int
    created: str
    reason: str
    gate: str
    review: str
    aliases: tuple[str, ...]
    scale: float | None
    average: float | None
    adapters: Mapping[str, int]
    content_hash: str
    run_id: str
    events: tuple[Event, ...]
    _registry: Registry = field(repr=False, compare=False)
    _source: Version = field(repr=False, compare=False)

    @cached_property
    def release(self) -> Release:
        """Everything about it, read when it is asked for.

        Raises:
            RegistryError: Its ``release.json`` cannot be read.
        """
        return read_release(self._registry, self._source)

    def as_dict(self) -> dict[str, Any]:
        """Return the release as plain values."""
        plain = {name: value for name, value in vars(self).items() if not name.startswith("_") and name != "release"}
        return plain | {"adapters": dict(self.adapters), "events": [vars(event) for event in self.events]}


def is_release(version: Version) -> bool:
    """Return whether a merged version is a whole release; a killed command leaves one that is not, and finishes it."""
    return RELEASE_RUN_TAG in version.tags


def past_release(registry: Registry, version: Version, aliases: Mapping[str, int]) -> PastRelease:
    """Return what a version's tags say about its release; one that was made before they did is read from its file."""
    tags = dict(version.tags)
    if SCALE_TAG not in tags:
        try:
            release = read_release(registry, version)
        except RegistryError:
            # The list of the others is not to be lost for one that somebody has damaged.
            tags.setdefault(GATE_TAG, "unreadable")
        else:
            tags |= {name: str(value) for name, value in release_tags(release, registry.project).items()}
    return PastRelease(
        version=version.version,
        created=version.created,
        reason=tags.get(REASON_TAG, ""),
        gate=tags.get(GATE_TAG, ""),
        review=decision(tags) if REVIEW in tags else "",
        aliases=tuple(sorted(alias for alias, number in aliases.items() if number == version.version)),
        scale=_number(tags.get(SCALE_TAG, "")),
        average=_number(tags.get(AVERAGE_TAG, "")),
        adapters=dict(inputs_of(tags)),
        content_hash=version.content_hash,
        run_id=tags.get(RELEASE_RUN_TAG, ""),
        events=events(tags),
        _registry=registry,
        _source=version,
    )
