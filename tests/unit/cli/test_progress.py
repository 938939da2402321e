from __future__ import annotations

import io
from contextlib import redirect_stderr

import pytest

from adapterctl.cli.progress import LiveReporter, PlainReporter, completed_line, reporter_for, seconds_left
from adapterctl.cli.state import State
from adapterctl.workflows.reporting import SilentReporter


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def reporter(lines: list[str], clock: Clock) -> PlainReporter:
    return PlainReporter(lines.append, clock)


def test_a_stage_is_a_line_at_each_end_with_the_last_detail(reporter, lines: list[str], clock: Clock) -> None:
    with reporter.stage("train ja") as stage:
        stage.advance(1, 240, "loss 2.10")
        clock.now += 6.06
        stage.advance(240, 240, "240 steps, loss 0.03")
        stage.advance(240, 240)
    assert lines == ["… train ja", "✓ train ja — 240 steps, loss 0.03 · 6.1 s"]


def test_between_them_a_line_every_ten_seconds_at_most(reporter, lines: list[str], clock: Clock) -> None:
    with reporter.stage("train ja") as stage:
        for step in range(1, 41):
            clock.now += 1
            stage.advance(step, 50, f"step {step}")
    assert lines[1:-1] == [
        "  train ja: 20%, step 10, about 40 s left",
        "  train ja: 40%, step 20, about 30 s left",
        "  train ja: 60%, step 30, about 20 s left",
        "  train ja: 80%, step 40, about 10 s left",
    ]


def test_an_unknown_total_has_no_estimate(reporter, lines: list[str], clock: Clock) -> None:
    with reporter.stage("choose λ") as stage:
        clock.now += 11
        stage.advance(3, 0, "λ 0.8: 0.71")
    assert lines[1] == "  choose λ: λ 0.8: 0.71"


def test_a_stage_that_fails_says_so_and_lets_the_error_pass(reporter, lines: list[str]) -> None:
    with pytest.raises(ZeroDivisionError), reporter.stage("merge"):
        raise ZeroDivisionError
    assert lines[-1] == "✗ merge · 0.0 s"


def test_notes_stay(reporter, lines: list[str]) -> None:
    reporter.note("ja has [40] new rows")
    assert lines == ["ja has [40] new rows"]


def test_the_estimate_is_the_speed_so_far() -> None:
    assert seconds_left(10.0, 25, 100) == pytest.approx(30.0)
    assert seconds_left(10.0, 0, 100) is None
    assert seconds_left(10.0, 1, 100) is None
    assert seconds_left(10.0, 2, 100) == pytest.approx(490.0)
    assert seconds_left(10.0, 3, 0) is None


def test_a_stage_without_detail() -> None:
    assert completed_line("register", "", 0.26) == "✓ register · 0.3 s"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_completed_stages_stay_as_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TERM": "xterm", "COLUMNS": "100", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    with redirect_stderr(Terminal()) as terminal:
        reporter = reporter_for(State())
        assert isinstance(reporter, LiveReporter)
        with reporter.stage("update ja"):
            with reporter.stage("train [ja]") as stage:
                stage.advance(12, 24, "loss 0.5 [bold]")
            reporter.note("note [x]")
        with pytest.raises(KeyError), reporter.stage("again"):
            raise KeyError
    text = terminal.getvalue()
    for line in ("✓ train [ja] — loss 0.5 [bold] · 0.0 s", "note [x]", "✓ update ja · 0.0 s", "✗ again · 0.0 s"):
        assert line in text
    # The cursor is shown again as often as it was hidden.
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 2


def test_elsewhere_lines_and_with_quiet_nothing() -> None:
    with redirect_stderr(io.StringIO()):
        assert isinstance(reporter_for(State()), PlainReporter)
    assert isinstance(reporter_for(State(quiet=True)), SilentReporter)
