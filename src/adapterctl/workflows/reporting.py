"""What a workflow tells while it works; how it looks is the caller's affair."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Stage(Protocol):
    """One long step that is under way."""

    def advance(self, done: float, total: float, detail: str = "") -> None:
        """Say how much of the step is done."""


class Reporter(Protocol):
    """Whoever watches a workflow."""

    def stage(self, title: str) -> AbstractContextManager[Stage]:
        """Announce a step; leaving the context ends it."""

    def note(self, text: str) -> None:
        """Say one line that stays."""


class SilentStage:
    """A stage that nobody watches."""

    def advance(self, done: float, total: float, detail: str = "") -> None:
        """Say nothing."""


class StageShare:
    """One of several works of equal size that a stage goes through one after the other."""

    def __init__(self, stage: Stage, place: int, count: int) -> None:
        """Take a share.

        Args:
            stage: The whole.
            place: How many works come before this one.
            count: How many there are.
        """
        self._stage, self._place, self._count = stage, place, count

    def advance(self, done: float, total: float, detail: str = "") -> None:
        """Say how much of the share, and so of the whole, is done."""
        self._stage.advance(self._place + (done / total if total else 0.0), self._count, detail)


class SilentReporter:
    """Tells nobody anything: the default of the Python API."""

    @contextmanager
    def stage(self, title: str) -> Iterator[Stage]:
        """Give a stage that says nothing."""
        yield SilentStage()

    def note(self, text: str) -> None:
        """Say nothing."""
