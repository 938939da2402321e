"""One process at a time moves a project's aliases, whichever machines the processes are on.

MLflow has no compare-and-set, so that no lock can be one tag that everybody writes. A queue needs no more than tags of
one's own: this is Lamport's bakery ("A New Solution of Dijkstra's Concurrent Programming Problem", 1974), in tags of
the project's experiment.

    write a tag of my own, without a number ── read all ── take the highest number + 1 ── wait for everybody before me

Correct for any speed of any process, because nobody ever writes what another has written. What a killed process leaves
in the queue is told from a living one by its process, on the same machine, and elsewhere by a pulse that has stopped:
clocks of several machines are compared only to decide when it is worth looking.
"""

from __future__ import annotations

import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from adapterctl.errors import AdapterctlError, LockHeld
from adapterctl.registry.connection import Connection
from adapterctl.registry.faults import error_code
from adapterctl.registry.processes import is_alive, process_token

PREFIX = "adapterctl.lock."
LIFETIME = 60.0
"""Seconds without a pulse after which a place in the queue is nobody's any more."""
_PULSE = 10.0
_LOOK = 0.2
_LONGEST_LOOK = 2.0
_ATTEMPTS = 5


@dataclass(frozen=True)
class Place:
    """A place in the queue.

    Attributes:
        id: Of whoever stands there.
        number: Its number; 0 while it is being chosen.
        command: What is to be done.
        host: Name of the machine.
        kernel: Names the running system and its process numbers: a container may share the name of its host.
        process: Names the process there.
        since: When it began, ISO 8601, UTC.
        expires: Seconds since 1970, by the clock of that machine.
        pulse: Counts up as long as the process lives.
    """

    id: str
    number: int
    command: str
    host: str
    kernel: str
    process: str
    since: str
    expires: float
    pulse: int

    @property
    def order(self) -> tuple[int, str]:
        """Who comes first has the lower one."""
        return self.number, self.id

    @property
    def told(self) -> str:
        """Who that is, for a person."""
        return f"process {self.process.partition('@')[0]} on {self.host}, '{self.command}' since {self.since}"


def _kernel() -> str:
    """Return what tells process numbers of this system from those of another, also of one with the same name."""
    parts = []
    for path in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        with suppress(OSError):
            parts.append(os.readlink(path) if path.endswith("pid") else Path(path).read_text("ascii").strip())
    return " ".join(parts)


def queue(connection: Connection) -> list[Place]:
    """Return everybody who stands in the project's queue, the holder first; what is no place of ours is passed over."""
    tags: Mapping[str, str] = connection.client.get_experiment(connection.experiment_id).tags
    found = [_parsed(name, text) for name, text in tags.items() if name.startswith(PREFIX)]
    return sorted((place for place in found if place is not None), key=lambda place: place.order)


def _parsed(name: str, text: str) -> Place | None:
    try:
        values = json.loads(text)
        place = Place(**values)
        numbers = isinstance(place.number, int) and isinstance(place.pulse, int)
        texts = all(isinstance(values[key], str) for key in ("id", "command", "host", "kernel", "process", "since"))
        if numbers and texts and isinstance(place.expires, int | float) and name == f"{PREFIX}{place.id}":
            return place
    except (ValueError, TypeError, RecursionError):
        pass
    return None


def is_dead(place: Place) -> bool:
    """Return whether a place belongs to a process of this very system that has ended."""
    return place.kernel == _kernel() and place.host == platform.node() and not is_alive(place.process)


def is_silent(place: Place) -> bool:
    """Return whether a place should have given a sign of life by now, as far as clocks can be compared."""
    return place.expires < time.time()


def clear(connection: Connection, place: Place) -> None:
    """Take a place out of the queue; nothing happens where it is gone already."""
    try:
        connection.client.delete_experiment_tag(connection.experiment_id, f"{PREFIX}{place.id}")
    except AdapterctlError as error:
        if error_code(error) != "RESOURCE_DOES_NOT_EXIST":
            raise


class Lease:
    """The right to move a project's aliases, for as long as it is held.

    Args:
        connection: The open registry.
        command: What is to be done, for whoever finds the lock held.
    """

    def __init__(self, connection: Connection, command: str) -> None:
        self._connection = connection
        self._place = Place(
            id=uuid.uuid4().hex,
            number=0,
            command=command,
            host=platform.node(),
            kernel=_kernel(),
            process=process_token(os.getpid()),
            since=datetime.now(UTC).isoformat(timespec="seconds"),
            expires=0.0,
            pulse=0,
        )
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._seen: dict[str, tuple[int, float]] = {}

    def acquire(self, *, wait: bool = False, told: Callable[[str], None] | None = None) -> None:
        """Stand in the queue until it is our turn.

        Args:
            wait: Wait for whoever is there already; else that is an error at once.
            told: Is told, once, whom we wait for.

        Raises:
            LockHeld: Somebody else holds the lock, and nobody wants to wait.
            RegistryError: The registry cannot be reached.
        """
        try:
            self._take_number()
            self._thread = threading.Thread(target=self._live, name="adapterctl-lock", daemon=True)
            self._thread.start()
            self._stand(wait, told)
        except BaseException:
            self.release()
            raise

    def _take_number(self) -> None:
        # Who reads the queue while we choose sees a place without a number, and waits until it has one.
        self._write(replace(self._place, number=0))
        highest = max((place.number for place in queue(self._connection)), default=0)
        self._write(replace(self._place, number=highest + 1))

    def _stand(self, wait: bool, told: Callable[[str], None] | None) -> None:
        pause, patience = _LOOK, time.monotonic() + 2 * _PULSE
        while True:
            ahead = self._ahead()
            if not ahead:
                return
            holder = next((place for place in ahead if place.number), None)
            # Whoever has no number yet takes one within moments; whoever is silent is watched for two pulses.
            watched = holder is None or (is_silent(holder) and time.monotonic() < patience)
            if not wait and not watched:
                raise held(holder or ahead[0])
            if told is not None and holder is not None and wait:
                told(f"waiting for {holder.told}")
                told = None
            time.sleep(pause)
            pause = min(pause * 1.3, _LONGEST_LOOK)

    def _ahead(self) -> list[Place]:
        """Return who comes before us, the dead taken away."""
        found = queue(self._connection)
        if self._place.id not in {place.id for place in found}:
            # Somebody took us for dead, for example while this machine slept: stand at the end again.
            self._take_number()
            found = queue(self._connection)
        ahead = []
        for place in found:
            if place.id == self._place.id or (place.number and place.order > self._place.order):
                continue
            if is_dead(place) or self._has_stopped(place):
                clear(self._connection, place)
            else:
                ahead.append(place)
        return ahead

    def _has_stopped(self, place: Place) -> bool:
        """Return whether no pulse came for as long as one is waited for, by our own clock alone."""
        now = time.monotonic()
        pulse, since = self._seen.setdefault(place.id, (place.pulse, now))
        if pulse != place.pulse:
            self._seen[place.id] = (place.pulse, now)
            return False
        return now - since > (2 * _PULSE if is_silent(place) else LIFETIME)

    def require(self) -> None:
        """Make sure that the lock is still ours, right before something is moved.

        Raises:
            LockHeld: It was lost: this machine slept, or could not reach the registry, for longer than it lives.
        """
        first = next((place for place in queue(self._connection) if place.number), None)
        # Not only there but first: whoever was taken for dead may have come back with its old number.
        if first is None or first.id != self._place.id:
            raise LockHeld(
                "the project's lock was lost: for too long the registry had no sign of life of this command",
                hint="run the same command again; it goes on where it was",
            )

    def release(self) -> None:
        """Leave the queue; a registry that does not answer is not waited for, the place expires."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(_PULSE)
        with suppress(AdapterctlError):
            clear(self._connection, self._place)

    def _live(self) -> None:
        """Give a sign of life now and then; a registry that is away for a moment does not matter."""
        while not self._ended.wait(_PULSE):
            with suppress(AdapterctlError):
                if self._place.id not in {place.id for place in queue(self._connection)}:
                    # Taken away: a sign of life now would put us back before whoever came after us.
                    return
                self._write(replace(self._place, pulse=self._place.pulse + 1))

    def _write(self, place: Place) -> None:
        self._place = replace(place, expires=round(time.time() + LIFETIME, 1))
        text = json.dumps(asdict(self._place), separators=(",", ":"))
        for attempt in range(_ATTEMPTS):
            try:
                self._connection.client.set_experiment_tag(self._connection.experiment_id, f"{PREFIX}{place.id}", text)
                return
            except AdapterctlError as error:
                # A database that several write to at once may refuse one of them for a moment.
                if error_code(error) not in ("BAD_REQUEST", "TEMPORARILY_UNAVAILABLE") or attempt == _ATTEMPTS - 1:
                    raise
                time.sleep(_LOOK * 2**attempt)


def held(place: Place) -> LockHeld:
    """Return the error for somebody who finds the lock held."""
    return LockHeld(
        f"another adapterctl works on this project in the registry: {place.told}",
        hint="wait until it ends (--wait does so), then run the same command again",
    )
