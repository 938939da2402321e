"""Progress on standard error: a live bar on a terminal, lines that stay everywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from adapterctl.accounting.comparison import format_seconds
from adapterctl.cli.state import State
from adapterctl.workflows.reporting import Reporter, SilentReporter, Stage

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

DONE, FAILED = "✓", "✗"
_SECONDS_BETWEEN_LINES = 10.0
_TOLD_FROM = 0.02
"""Share of a stage after which the rest is estimated."""


def _write_line(line: str) -> None:
    # Where nobody watches, somebody reads the log later and wants to know when that was.
    sys.stderr.write(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {line}\n")
    sys.stderr.flush()


def completed_line(title: str, detail: str, seconds: float, mark: str = DONE) -> str:
    """Return the line that stays of a stage: ``✓ train ja — 240 steps, loss 0.03 · 12 s``."""
    told = f" — {detail}" if detail else ""
    return f"{mark} {title}{told} · {format_seconds(seconds)}"


def seconds_left(seconds: float, done: float, total: float) -> float | None:
    """Return how long the rest takes at the speed so far, None where that cannot be said: the first steps mislead."""
    return seconds * (total - done) / done if 0 < _TOLD_FROM * total <= done <= total else None


class _PlainStage:
    """A stage that says a line now and then."""

    def __init__(self, title: str, write: Callable[[str], None], clock: Callable[[], float]) -> None:
        self.title = title
        self.detail = ""
        self.started = self._last = clock()
        self._write, self._clock = write, clock

    def advance(self, done: float, total: float, detail: str = "") -> None:
        """Say how far it is, ten seconds after the last line at the earliest."""
        self.detail = detail or self.detail
        now = self._clock()
        if now - self._last < _SECONDS_BETWEEN_LINES:
            return
        self._last = now
        left = seconds_left(now - self.started, done, total)
        parts = [f"{done / total:.0%}" if total > 0 else "", self.detail]
        parts.append(f"about {format_seconds(left)} left" if left is not None else "")
        self._write(f"  {self.title}: {', '.join(part for part in parts if part)}")


class PlainReporter:
    """One line at the beginning of a stage, one at its end, and one every ten seconds between them."""

    def __init__(self, write: Callable[[str], None] | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._write = write or _write_line
        self._clock = clock

    @contextmanager
    def stage(self, title: str) -> Iterator[Stage]:
        """Announce a stage and say what came of it."""
        self._write(f"… {title}")
        stage = _PlainStage(title, self._write, self._clock)
        mark = FAILED
        try:
            yield stage
            mark = DONE
        finally:
            self._write(completed_line(title, stage.detail, self._clock() - stage.started, mark))

    def note(self, text: str) -> None:
        """Say one line."""
        self._write(text)


class _LiveStage:
    """A stage that moves a bar."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self.detail = ""
        self._progress, self._task = progress, task

    def advance(self, done: float, total: float, detail: str = "") -> None:
        """Move the bar; a total of zero is one that nobody knows."""
        from rich.markup import escape

        self.detail = detail or self.detail
        self._progress.update(self._task, completed=done, total=total or None, detail=escape(self.detail))


class LiveReporter:
    """A bar for every stage under way, with elapsed and estimated time; a line for every one that has ended."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True, highlight=False)
        self._progress: Progress | None = None

    def _begin(self) -> Progress:
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[detail]}", style="dim"),
            TimeElapsedColumn(),
            TextColumn("left", style="dim"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        progress.start()
        return progress

    def _say(self, line: str, style: str = "") -> None:
        self._console.print(line, style=style, markup=False, soft_wrap=True)

    @contextmanager
    def stage(self, title: str) -> Iterator[Stage]:
        """Show a bar while the stage lasts and leave a line behind."""
        from rich.markup import escape

        # Stages inside a stage share one display: a terminal has only one.
        outermost = self._progress is None
        progress = self._progress = self._progress or self._begin()
        task = progress.add_task(escape(title), total=None, detail="")
        stage = _LiveStage(progress, task)
        started = time.monotonic()
        mark = FAILED
        try:
            yield stage
            mark = DONE
        finally:
            progress.remove_task(task)
            if outermost:
                progress.stop()
                self._progress = None
            line = completed_line(title, stage.detail, time.monotonic() - started, mark)
            self._say(line, style="green" if mark == DONE else "red")

    def note(self, text: str) -> None:
        """Say one line above the bars."""
        self._say(text)


def reporter_for(state: State) -> Reporter:
    """Return the reporter that fits: none with ``--quiet``, bars on a terminal, lines elsewhere."""
    if state.quiet:
        return SilentReporter()
    return LiveReporter() if sys.stderr.isatty() else PlainReporter()
