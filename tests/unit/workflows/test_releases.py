"""The order in which aliases are moved: whoever is killed between two moves and calls again ends in the same state."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.support.adapters import make_adapter

from adapterctl.errors import LockHeld, RegistryError, UsageError
from adapterctl.registry.versions import Version
from adapterctl.workflows import releases, review_tags
from adapterctl.workflows.candidates import subject_of
from adapterctl.workflows.releases import RELEASE_RUN_TAG, Release
from adapterctl.workspace.layout import state_paths

NAME = "pocket-merged"


class Killed(BaseException):
    pass


class FakeRegistry:
    """Aliases and releases in memory; ends with ``Killed`` after a number of moves."""

    def __init__(self, aliases: dict[str, int]) -> None:
        self.moved = dict(aliases)
        self.left: int | None = None
        self.tags: dict[int, dict[str, str]] = {}
        self.damaged: set[int] = set()

    def _move(self) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise Killed

    def aliases(self, name: str) -> dict[str, int]:
        assert name == NAME
        return dict(self.moved)

    def require_alias(self, name: str, alias: str, expected: int | None) -> None:
        if self.moved.get(alias) != expected:
            raise LockHeld(f"somebody else moved {alias}")

    def require_whole(self, version: Version) -> None:
        if version.version in self.damaged:
            raise RegistryError("is not what was published")

    def set_version_tags(self, version: Version, tags: dict[str, Any]) -> None:
        self._move()
        self.tags.setdefault(version.version, {}).update(tags)

    def set_alias(self, name: str, alias: str, version: int, *, expected: int | None = -1) -> None:
        if self.moved.get(alias) != version:
            if expected != -1:
                self.require_alias(name, alias, expected)
            self._move()
            self.moved[alias] = version

    def drop_alias(self, name: str, alias: str) -> None:
        if alias in self.moved:
            self._move()
            del self.moved[alias]

    def version(self, name: str, number: int) -> Version:
        tags = dict(self.tags.get(number, {}))
        return Version(name, number, f"{number:064x}", f"run {number}", "", tags, "", "", "")

    def read_json(self, place: str, path: str) -> Any:
        return release(int(place.removeprefix("run "))).model_dump(mode="json")


def release(version: int, verdict: dict[str, Any] | None = None) -> Release:
    return Release(
        version=version, created="", reason="setup", base="pocket", base_identity="b", recipe={}, scale=1.0,
        adapters={}, content_hash=f"{version:064x}", merge_key="0" * 64, scores={}, verdict=verdict,
    )  # fmt: skip


def carry_out(registry: FakeRegistry, command: str) -> None:
    if command == "rollback":
        releases.rollback(registry, "pocket")  # type: ignore[arg-type]
    else:
        expected = registry.moved.get("champion")
        releases.promote(registry, "pocket", release(3), expected=expected, reason="why")  # type: ignore[arg-type]


CASES = {
    "first": ("promote", {"candidate": 3}, {"champion": 3}),
    "next": ("promote", {"candidate": 3, "champion": 2, "previous": 1}, {"champion": 3, "previous": 2}),
    "another candidate": ("promote", {"candidate": 4, "champion": 2}, {"candidate": 4, "champion": 3, "previous": 2}),
    "is it already": ("promote", {"champion": 3, "previous": 1}, {"champion": 3, "previous": 1}),
    "there and back": ("rollback", {"champion": 2, "previous": 1}, {"champion": 1, "previous": 2}),
    "back with a candidate": (
        "rollback", {"candidate": 4, "champion": 2, "previous": 1}, {"candidate": 4, "champion": 1, "previous": 2},
    ),
}  # fmt: skip


@pytest.mark.parametrize("moves", [None, *range(7)], ids=lambda moves: f"killed after {moves}")
@pytest.mark.parametrize("case", CASES)
def test_a_second_call_ends_where_an_uninterrupted_one_does(case: str, moves: int | None) -> None:
    command, before, after = CASES[case]
    registry = FakeRegistry(before)
    registry.left = moves
    try:
        carry_out(registry, command)
    except Killed:
        assert registry.moved.get("champion") in (before.get("champion"), after["champion"])
        registry.left = None
        carry_out(registry, command)
        assert registry.moved == after
    else:
        assert registry.moved == after
    champion = registry.tags.get(after["champion"], {})
    if after["champion"] != before.get("champion"):
        expected = ("promoted", "why") if command == "promote" else ("rolled back to", "")
        events = review_tags.events(champion)
        assert [(event.what, event.reason) for event in events] == [expected]
    if command == "rollback":
        assert review_tags.decision(registry.tags[after["previous"]]) == "rejected"
        assert review_tags.decision(champion) == "approved"


def test_a_champion_that_somebody_else_has_moved_is_not_overwritten() -> None:
    registry = FakeRegistry({"champion": 5, "previous": 2, "candidate": 3})
    with pytest.raises(LockHeld, match="somebody else moved champion"):
        releases.promote(registry, "pocket", release(3), expected=2)  # type: ignore[arg-type]
    assert registry.moved == {"champion": 5, "previous": 2, "candidate": 3}


def test_a_rollback_to_files_that_were_swapped_is_refused() -> None:
    registry = FakeRegistry({"champion": 2, "previous": 1})
    registry.damaged = {1}
    with pytest.raises(RegistryError, match="is not what was published"):
        carry_out(registry, "rollback")
    assert registry.moved == {"champion": 2, "previous": 1}


@pytest.mark.parametrize("moves", [1, 2, 3])
def test_a_promotion_makes_an_interrupted_rollback_void(moves: int) -> None:
    registry = FakeRegistry({"champion": 2, "previous": 1})
    registry.left = moves
    with pytest.raises(Killed):
        carry_out(registry, "rollback")
    registry.left = None
    champion = registry.moved["champion"]
    carry_out(registry, "promote")
    assert registry.moved == {"champion": 3, "previous": champion}


def test_there_is_nothing_to_return_to() -> None:
    for aliases in ({}, {"champion": 1}):
        with pytest.raises(UsageError, match="no previous release"):
            carry_out(FakeRegistry(aliases), "rollback")


def test_the_champion_that_is_required() -> None:
    assert releases.current(FakeRegistry({}), "pocket") is None  # type: ignore[arg-type]
    with pytest.raises(UsageError) as caught:
        releases.require_champion(FakeRegistry({}), "pocket", "do this")  # type: ignore[arg-type]
    assert caught.value.hint == "do this"
    found = releases.require_champion(FakeRegistry({"champion": 2}), "pocket", "")  # type: ignore[arg-type]
    assert found.content_hash == release(2).content_hash


def test_the_latest_run_of_a_version_tells_what_it_is() -> None:
    registry = FakeRegistry({})
    version = Version(NAME, 1, "", "run 1", "", {RELEASE_RUN_TAG: "run 7"}, "", "", "")
    assert releases.read_release(registry, version).version == 7  # type: ignore[arg-type]
    unreadable = Version(NAME, 1, "", "run x", "", {}, "", "", "")
    with pytest.raises(RegistryError, match=r"has no readable release\.json"):
        releases.read_release(registry, unreadable)  # type: ignore[arg-type]


def test_what_passed() -> None:
    assert [release(1, verdict).passed for verdict in (None, {"passed": True}, {"passed": False})] == [
        True, True, False,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("verdict", "gate", "passed", "waits"),
    [
        (None, "first", True, False),
        ({"passed": True, "outcome": "pass", "inconclusive": "fail"}, "passed", True, False),
        ({"passed": True, "outcome": "inconclusive", "inconclusive": "pass"}, "passed", True, False),
        ({"passed": False, "outcome": "inconclusive", "inconclusive": "review"}, "inconclusive", False, True),
        ({"passed": False, "outcome": "inconclusive", "inconclusive": "fail"}, "inconclusive", False, False),
        ({"passed": False, "outcome": "fail", "inconclusive": "review"}, "failed", False, False),
        ({"passed": False}, "failed", False, False),
    ],
)
def test_what_the_gate_said_in_a_word(verdict: dict[str, Any] | None, gate: str, passed: bool, waits: bool) -> None:
    found = release(1, verdict)
    assert (found.gate, found.passed, found.waits) == (gate, passed, waits)


@pytest.mark.parametrize("name", ["content_hash", "merge_key"])
@pytest.mark.parametrize("value", ["../../etc", "/tmp/" + "a" * 59, "A" * 64, "a" * 64 + "\n", ""])
def test_what_becomes_a_path_is_a_hash(name: str, value: str) -> None:
    registry: Any = FakeRegistry({})
    written = release(1).model_dump(mode="json")
    registry.read_json = lambda place, path: {**written, name: value}
    with pytest.raises(RegistryError, match=r"has no readable release\.json"):
        releases.read_release(registry, registry.version(NAME, 1))


def test_the_scores_of_another_adapter_are_not_kept_under_a_releases_name(tmp_path: Path) -> None:
    def download(version: Version, folder: Path) -> None:
        make_adapter(folder)

    registry: Any = FakeRegistry({})
    registry.download = download
    session: Any = SimpleNamespace(
        workspace=SimpleNamespace(paths=state_paths(tmp_path)), registry=registry, project="pocket"
    )
    with pytest.raises(RegistryError, match="does not hold the adapter that its content hash names"):
        subject_of(session, release(1), "champion")
