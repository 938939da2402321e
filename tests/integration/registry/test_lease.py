"""One process at a time moves a project's aliases: on every kind of store, also after kills, with any clock."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from adapterctl.errors import LockHeld, RegistryError
from adapterctl.registry import lease
from adapterctl.registry.client import Registry
from adapterctl.registry.lease import Lease, Place, clear, is_dead, queue
from adapterctl.registry.settings import ResolvedRegistry


@pytest.fixture
def registry(store: ResolvedRegistry, project: str) -> Registry:
    return Registry.connect(store, project)


@pytest.fixture
def own(sqlite_store: ResolvedRegistry, project: str) -> Registry:
    """A project of its own in the quickest store."""
    return Registry.connect(sqlite_store, project)


class Clock:
    """A clock that goes on only while somebody sleeps."""

    def __init__(self, each: Callable[[int], None] = lambda turn: None) -> None:
        self.slept, self._turn, self._each = 0.0, 0, each

    def sleep(self, seconds: float) -> None:
        self.slept += seconds
        self._turn += 1
        self._each(self._turn)

    def monotonic(self) -> float:
        return self.slept

    def time(self) -> float:
        return time.time()


def put(registry: Registry, place: Place) -> None:
    """Stand in the queue as somebody else."""
    connection = registry.connection
    connection.client.set_experiment_tag(
        connection.experiment_id, f"{lease.PREFIX}{place.id}", json.dumps(asdict(place))
    )


def somebody(**values: Any) -> Place:
    place = Place("other", 1, "update", "elsewhere", "kernel", "1@1.00", "2026-01-01", time.time() + 3600, 0)
    return replace(place, **values)


def test_held_refused_and_free_again(registry: Registry, store: ResolvedRegistry) -> None:
    other = Registry.connect(store, registry.project)
    with registry.exclusive("update"):
        with registry.exclusive("publish"):
            pass
        with (
            pytest.raises(LockHeld, match=rf"process {os.getpid()} on .*'update' since") as caught,
            other.exclusive("x"),
        ):
            pass
        assert "--wait" in caught.value.hint
        assert [place.command for place in queue(registry.connection)] == ["update"]
    with other.exclusive("promote"):
        assert [place.command for place in queue(registry.connection)] == ["promote"]
    assert queue(registry.connection) == []


def test_projects_do_not_wait_for_one_another(registry: Registry, store: ResolvedRegistry) -> None:
    with registry.exclusive("update"), Registry.connect(store, f"{registry.project}-b").exclusive("update"):
        pass


def test_eight_at_once_are_never_inside_together(
    registry: Registry, store: ResolvedRegistry, robot: Callable[..., list[int]], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    order = {"do": "enter", "store": asdict(store), "project": registry.project, "log": str(log), "times": 1}
    assert robot([order] * 8, together=True) == [0] * 8
    lines = [line.split() for line in log.read_text("utf-8").splitlines()]
    assert len(lines) == 16
    for (came, who), (left, also) in zip(lines[::2], lines[1::2], strict=True):
        assert (came, left, who) == ("in", "out", also)
    assert queue(registry.connection) == []


def test_a_killed_holder_is_not_waited_for(
    registry: Registry, store: ResolvedRegistry, robot: Callable[..., list[int]], tmp_path: Path
) -> None:
    order = {"do": "enter", "store": asdict(store), "project": registry.project, "log": str(tmp_path / "l"), "times": 1}
    assert robot([{**order, "die": True}]) == [-9]
    (left,) = queue(registry.connection)
    assert is_dead(left)
    with registry.exclusive("update"):
        assert [place.command for place in queue(registry.connection)] == ["update"]


def test_whoever_still_chooses_a_number_is_waited_for(own: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    put(own, somebody(id="0", number=0))
    turns: list[int] = []

    def each(turn: int) -> None:
        turns.append(turn)
        put(own, somebody(id="0", number=1))

    monkeypatch.setattr(lease, "time", Clock(each))
    with pytest.raises(LockHeld), own.exclusive("update"):
        pass
    assert turns == [1]


@pytest.mark.parametrize("beats", [True, False])
def test_a_silent_holder_elsewhere_is_watched_before_it_is_taken_for_dead(
    own: Registry, monkeypatch: pytest.MonkeyPatch, beats: bool
) -> None:
    """Its clock may be a day behind: only a pulse that stops counts."""
    put(own, somebody(expires=time.time() - 86_400))
    clock = Clock(lambda turn: put(own, somebody(expires=1.0, pulse=turn)) if beats else None)
    monkeypatch.setattr(lease, "time", clock)
    if beats:
        with pytest.raises(LockHeld, match="on elsewhere"), own.exclusive("update"):
            pass
        assert [place.id for place in queue(own.connection)] == ["other"]
    else:
        with own.exclusive("update"):
            assert [place.command for place in queue(own.connection)] == ["update"]
    assert clock.slept >= 19


def test_a_holder_whose_clock_runs_ahead_is_given_up_by_whoever_waits(
    own: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(own, somebody(expires=time.time() + 86_400))
    with pytest.raises(LockHeld, match="process 1 on elsewhere"), own.exclusive("update"):
        pass
    said: list[str] = []
    clock = Clock()
    monkeypatch.setattr(lease, "time", clock)
    own.told = said.append
    with own.exclusive("update", wait=True):
        pass
    assert clock.slept > lease.LIFETIME
    assert said == ["waiting for process 1 on elsewhere, 'update' since 2026-01-01"]


def test_who_lost_the_lock_moves_nothing(own: Registry) -> None:
    with own.exclusive("update"):
        (place,) = queue(own.connection)
        clear(own.connection, place)
        with pytest.raises(LockHeld, match="lock was lost"):
            own.set_alias("pocket-merged", "champion", 1)
        with pytest.raises(LockHeld, match="lock was lost"):
            own.drop_alias("pocket-merged", "champion")


def test_who_was_taken_for_dead_while_waiting_stands_at_the_end(own: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    put(own, somebody())
    waiting = Lease(own.connection, "update")

    def each(turn: int) -> None:
        (mine,) = [place for place in queue(own.connection) if place.id != "other"]
        if turn == 1:
            clear(own.connection, mine)
        else:
            assert mine.number == 2
            clear(own.connection, somebody())

    monkeypatch.setattr(lease, "time", Clock(each))
    waiting.acquire(wait=True)
    waiting.release()
    assert queue(own.connection) == []


def test_who_comes_back_from_the_dead_stops_whoever_came_after(own: Registry) -> None:
    with own.exclusive("update"):
        put(own, somebody(id="0", number=1))
        with pytest.raises(LockHeld, match="lock was lost"):
            own.drop_alias("pocket-merged", "champion")


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "7", "[" * 5000, '{"id": "x"}', json.dumps({**asdict(somebody()), "number": "1"}),
     json.dumps({**asdict(somebody()), "host": None}), json.dumps(asdict(somebody(id="another")))],
)  # fmt: skip
def test_what_is_no_place_is_passed_over(own: Registry, text: str) -> None:
    own.connection.client.set_experiment_tag(own.experiment_id, f"{lease.PREFIX}other", text)
    with own.exclusive("update"):
        pass


def test_a_pulse_is_given_and_not_after_the_lock_was_taken_away(own: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "_PULSE", 0.5)
    with own.exclusive("update"):
        (first,) = queue(own.connection)
        end = time.monotonic() + 20
        while queue(own.connection)[0].pulse < 1:
            assert time.monotonic() < end
            time.sleep(0.02)
        assert queue(own.connection)[0].since == first.since
        clear(own.connection, first)
        time.sleep(1.2)
        assert queue(own.connection) == []


def test_a_registry_that_goes_away_at_the_end_is_not_waited_for(own: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*arguments: Any) -> None:
        raise RegistryError("nobody answers")

    with own.exclusive("update"):
        monkeypatch.setattr(own.connection.client._client, "delete_experiment_tag", gone)
