"""Releases: one merged adapter with everything behind it, and the aliases that say which one is served."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Field, field_validator

from adapterctl.accounting.usage import showable
from adapterctl.errors import AdapterctlError, RegistryError, UsageError
from adapterctl.fingerprint import short
from adapterctl.registry.names import CANDIDATE, CHAMPION, PREVIOUS, adapter_name, merged_name
from adapterctl.settings import Settings
from adapterctl.workflows import review_tags
from adapterctl.workflows.shapes import require_scores, require_verdict

if TYPE_CHECKING:
    from adapterctl.registry.client import Registry, RunHandle
    from adapterctl.registry.versions import Version

RELEASE_FILE = "release.json"
RELEASE_RUN_TAG = "adapterctl.release_run"
"""The tag of a version that names the run with its latest release.json."""
UPDATE_TAG = "adapterctl.update_id"
"""The tag of a version that names the work it came of."""
RETURNING = "returning"
"""The alias of a rollback under way: where ``champion`` is about to point."""


Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""A content hash or key, which becomes a part of paths: others may have written the file it is read from."""


Tag = Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,35}$")]
"""A language as a key: whatever else may stand in a registry, this is no markup, path or terminal code."""

Told = Annotated[str, AfterValidator(showable)]
"""A text that is shown to people, without what would steer their terminal."""


class Pin(Settings):
    """One adapter version, pinned by content.

    Attributes:
        lang: Its language.
        version: Its number in the registry.
        content_hash: Of configuration and tensors: what is merged.
        training_key: Names the training that made it; local results are kept under it.
        inputs_key: Names rows and settings it was trained from: what ``--if-changed`` compares.
        data_hash: Of its training rows alone; empty for pins made before it was noted.
        rows: How many rows that were; 0 where unknown.
    """

    lang: Tag
    version: int
    content_hash: Hash
    training_key: Hash
    inputs_key: Hash
    data_hash: str = Field(default="", pattern=r"^([0-9a-f]{64})?$")
    rows: int = 0


class Release(Settings):
    """One merged adapter with the exact adapters, recipe, scores and verdict behind it.

    Attributes:
        version: Number of the merged adapter in the registry.
        created: When, in ISO 8601 and UTC.
        reason: Which command made it, such as ``update ja``.
        base: Name of the base model, and ``base_identity`` the hash of its files.
        recipe: The merge recipe as written.
        scale: The λ that was used, chosen on the dev split where the recipe says ``auto``.
        adapters: The pinned adapters by language.
        content_hash: Of the merged adapter.
        merge_key: Names the merge that made it.
        scores: Summary of the scorecard on the test split.
        own_scores: For each language, the mean of its own adapter on the test split, where measured.
        base_scores: For each language, the mean of the base model on the test split, where measured.
        verdict: The gate's verdict against the champion of the time; None for a first release.
        run_id: The MLflow run that holds figures, scorecard and costs.
        compared_with: Version of the champion that the verdict compares with; None for a first release.
        update_id: Names the work on the books, which tells what it cost; empty where it was not noted.
        code: Versions of what computes results: ``training``, ``merging``, ``scoring``; empty where not noted.
    """

    version: int
    created: Told
    reason: Told
    base: Told
    base_identity: str
    recipe: dict[str, Any]
    scale: float
    adapters: dict[Tag, Pin]
    content_hash: Hash
    merge_key: Hash
    scores: dict[str, Any]
    own_scores: dict[str, float] = Field(default_factory=dict)
    base_scores: dict[str, float] = Field(default_factory=dict)
    verdict: dict[str, Any] | None = None
    run_id: str = ""
    compared_with: int | None = None
    update_id: str = ""
    code: dict[str, int] = Field(default_factory=dict)

    @field_validator("scores")
    @classmethod
    def _scores(cls, value: dict[str, Any]) -> dict[str, Any]:
        require_scores(value)
        return {"average": None, "languages": {}, "cells": []} | value

    @field_validator("verdict")
    @classmethod
    def _verdict(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value is not None:
            require_verdict(value)
        return value

    @property
    def passed(self) -> bool:
        """Whether the gate let it pass; a first release has nothing to be compared with."""
        return self.verdict is None or bool(self.verdict["passed"])

    @property
    def waits(self) -> bool:
        """Whether the gate had too few rows to decide and the policy of the time leaves it to a person."""
        return self.gate == "inconclusive" and self.verdict is not None and self.verdict.get("inconclusive") == "review"

    @property
    def gate(self) -> str:
        """What the gate said, in a word: ``first`` (nothing to compare with), ``passed``, ``failed`` or
        ``inconclusive`` (too few rows, and the policy does not let that pass).
        """
        if self.verdict is None:
            return "first"
        if self.passed:
            return "passed"
        return "inconclusive" if self.verdict.get("outcome") == "inconclusive" else "failed"


def read_release(registry: Registry, version: Version) -> Release:
    """Read what stands behind a version of the merged adapter.

    Raises:
        RegistryError: The version has no readable ``release.json``.
    """
    try:
        content = registry.read_json(version.tags.get(RELEASE_RUN_TAG) or version.run_id, RELEASE_FILE)
        return Release.model_validate(content)
    except (ValueError, AdapterctlError) as error:
        raise RegistryError(
            f"version {version.version} of {version.name} has no readable {RELEASE_FILE}: {showable(str(error))}",
            hint="adapterctl did not make it; move the alias to another version: adapterctl promote --version N",
        ) from error


def require_its_own(version: Version, release: Release) -> None:
    """Make sure that what is told of a version is told of its adapter, before anything points at it.

    Raises:
        RegistryError: It tells of another adapter.
    """
    if release.content_hash != version.content_hash or release.version != version.version:
        raise RegistryError(
            f"{RELEASE_FILE} of version {version.version} of {version.name} tells of another adapter "
            f"({short(release.content_hash)}) than the version holds ({short(version.content_hash)})",
            hint="promote another version: adapterctl history, then adapterctl promote --version N",
        )


def current(registry: Registry, project: str, alias: str = CHAMPION) -> Release | None:
    """Return the release an alias points at, None when there is none."""
    name = merged_name(project)
    number = registry.aliases(name).get(alias)
    if number is None:
        return None
    return read_release(registry, registry.version(name, number))


def readable(registry: Registry, project: str, alias: str = CHAMPION) -> Release | None:
    """Return the release an alias points at, None where there is none or nobody can read what it is.

    A damaged release must not keep anybody from putting another in its place.
    """
    try:
        return current(registry, project, alias)
    except RegistryError:
        return None


def require_champion(registry: Registry, project: str, otherwise: str) -> Release:
    """Return the champion.

    Raises:
        UsageError: There is none; the hint is ``otherwise``.
    """
    champion = current(registry, project)
    if champion is None:
        raise UsageError(f"project '{project}' has no champion yet", hint=otherwise)
    return champion


def promote(
    registry: Registry, project: str, release: Release, *, expected: int | None, reason: str = "", person: bool = False
) -> None:
    """Make a release the champion; the champion of before becomes ``previous``.

    The order matters: whoever is killed between two steps runs the command again and ends in the same state, and
    ``champion`` always points at a whole release.

    Args:
        registry: The open registry.
        project: The project.
        release: Which; its files were verified.
        expected: Version of the champion that the release takes the place of; None where there is none.
        reason: Why, for the record.
        person: Whether a person decided it.

    Raises:
        LockHeld: The champion is another one by now; nothing was moved.
    """
    name = merged_name(project)
    aliases = registry.aliases(name)
    before = aliases.get(CHAMPION)
    if before != release.version:
        registry.require_alias(name, CHAMPION, expected)
    # Who promotes does not want an interrupted rollback to be finished.
    registry.drop_alias(name, RETURNING)
    if before != release.version:
        if before is not None:
            registry.set_alias(name, PREVIOUS, before)
        registry.set_alias(name, CHAMPION, release.version, expected=before)
    _mark_adapters(registry, project, release)
    if aliases.get(CANDIDATE) == release.version:
        registry.drop_alias(name, CANDIDATE)
    version = registry.version(name, release.version)
    # Who was killed after the move notes it now.
    if before != release.version or not review_tags.was_promoted(version.tags):
        review = review_tags.APPROVED if person else None
        review_tags.record(registry, version, review_tags.PROMOTED, reason=reason, review=review)


def _mark_adapters(registry: Registry, project: str, champion: Release) -> None:
    """Let ``champion`` of every language's adapter point at the version that the release pins."""
    for lang, pinned in champion.adapters.items():
        registry.set_alias(adapter_name(project, lang), CHAMPION, pinned.version)


def rollback(registry: Registry, project: str, *, reason: str = "") -> tuple[Release, Release | None]:
    """Exchange champion and previous; return the new champion and the one that stepped down, where it can be read.

    A third alias remembers the way while the two are exchanged, so that a killed rollback is finished by the next. The
    version that steps down is marked as rejected: no job promotes it again by itself.

    Raises:
        UsageError: There is nothing to return to.
        RegistryError: What is to be returned to is not whole any more; nothing was moved.
        LockHeld: Somebody else moved the aliases.
    """
    name = merged_name(project)
    aliases = registry.aliases(name)
    if RETURNING not in aliases:
        if CHAMPION not in aliases or PREVIOUS not in aliases:
            raise UsageError(
                f"project '{project}' has no previous release to return to",
                hint="see the releases with: adapterctl history",
            )
        target = registry.version(name, aliases[PREVIOUS])
        registry.require_whole(target)
        require_its_own(target, read_release(registry, target))
        registry.set_alias(name, RETURNING, aliases[PREVIOUS], expected=None)
        aliases = registry.aliases(name)
    moves = aliases[CHAMPION] != aliases[RETURNING]
    if moves:
        registry.set_alias(name, PREVIOUS, aliases[CHAMPION])
        registry.set_alias(name, CHAMPION, aliases[RETURNING], expected=aliases[CHAMPION])
    champion = current(registry, project)
    # It was there when the exchange began, and nobody else writes while the project is locked.
    assert champion is not None
    _mark_adapters(registry, project, champion)
    for alias, what, review in (
        (PREVIOUS, review_tags.STEPPED_DOWN, review_tags.REJECTED),
        (CHAMPION, review_tags.ROLLED_BACK, review_tags.APPROVED),
    ):
        version = registry.version(name, registry.aliases(name)[alias])
        if moves or review_tags.last(version.tags) != what:
            review_tags.record(registry, version, what, reason=reason, review=review)
    registry.drop_alias(name, RETURNING)
    return champion, readable(registry, project, PREVIOUS)


def publish_release(run: RunHandle, release: Release, extra: Mapping[str, Any]) -> None:
    """Write the release's own files into its run."""
    run.log_json(RELEASE_FILE, release.model_dump(mode="json"))
    for path, content in extra.items():
        run.log_json(path, content)
