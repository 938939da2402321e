"""Times of cron: what is read, what is refused, and that systemd means the same moments."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from datetime import datetime, timedelta

import pytest

from adapterctl.errors import UsageError
from adapterctl.scheduling.cron import calendar_lines, parse_cron

SYSTEMD_ANALYZE = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(SYSTEMD_ANALYZE is None, reason="systemd-analyze is not installed")


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("17 3 * * *", "17 3 * * *"),
        ("@daily", "0 0 * * *"),
        ("@Weekly", "0 0 * * 0"),
        ("@hourly", "0 * * * *"),
        ("  5  4 * jan mon ", "5 4 * JAN MON"),
        ("0 2 * * 7", "0 2 * * 0"),
        ("0 2 * * 5-7", "0 2 * * 0,5,6"),
        ("0 2 * * */7", "0 2 * * */7"),
    ],
)
def test_the_text_is_one_that_every_scheduler_reads(text: str, same: str) -> None:
    assert parse_cron(text).text == same


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "has 0 fields"),
        ("3 * * *", "has 4 fields"),
        ("0 17 3 * * *", "has 6 fields"),
        ("@reboot", "has 1 fields"),
        ("60 3 * * *", "bad minute"),
        ("17 24 * * *", "bad hour"),
        ("17 3 0 * *", "bad day-of-month"),
        ("17 3 * 13 *", "bad month"),
        ("17 3 * * 8", "bad day-of-week"),
        ("17 3 31 2 *", "bad day-of-month"),
        ("17 5-3 * * *", "bad hour"),
        ("*/0 3 * * *", "bad minute"),
        ("17 3 L * *", "the last or the nth day"),
        ("17 3 * * 5L", "the last or the nth day"),
        ("17 3 * * MON#1", "characters that no time of cron has"),
        ("17 3 ? * *", "characters that no time of cron has"),
        ("17 3 * * *; id", "has 6 fields"),
        ("$(id) 3 * * *", "characters that no time of cron has"),
        ("5/15 * * * *", "a step after a single number"),
        ("0 3 */2 * MON", "some schedulers ask for both days"),
        ("0 3 1 * */2", "some schedulers ask for both days"),
    ],
)
def test_what_is_refused_says_why(text: str, reason: str) -> None:
    with pytest.raises(UsageError, match=re.escape(reason)) as caught:
        parse_cron(text)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("17 3 * * *", 24 * 60), ("*/15 * * * *", 15), ("0,58 * * * *", 2), ("17 3 * * 1,2", 24 * 60)],
)
def test_the_shortest_gap(text: str, minutes: int) -> None:
    assert parse_cron(text).shortest_gap == timedelta(minutes=minutes)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("17 3 * * *", ("*-*-* 03:17:00",)),
        ("*/15 * * * *", ("*-*-* *:00,15,30,45:00",)),
        ("0 9-17 * * 1-5", ("Mon,Tue,Wed,Thu,Fri *-*-* 09..17:00:00",)),
        ("30 1 1,15 * *", ("*-*-01,15 01:30:00",)),
        ("0 0 1 1 *", ("*-01-01 00:00:00",)),
        ("0 4 1 * MON", ("*-*-01 04:00:00", "Mon *-*-* 04:00:00")),
    ],
)
def test_the_same_time_as_systemd_writes_it(text: str, lines: tuple[str, ...]) -> None:
    assert calendar_lines(parse_cron(text)) == lines


def weekday(moment: datetime) -> int:
    """Return the weekday as cron counts: Sunday is 0."""
    return moment.isoweekday() % 7


CASES: list[tuple[str, Callable[[datetime], bool]]] = [
    ("17 3 * * *", lambda t: (t.hour, t.minute) == (3, 17)),
    ("*/20 */6 * * *", lambda t: t.minute % 20 == 0 and t.hour % 6 == 0),
    ("5 8-10,22 * * *", lambda t: t.minute == 5 and t.hour in (8, 9, 10, 22)),
    ("0 2 * * 0", lambda t: (t.hour, t.minute) == (2, 0) and weekday(t) == 0),
    ("0 2 * * 6-7", lambda t: (t.hour, t.minute) == (2, 0) and weekday(t) in (0, 6)),
    ("0 2 13 * FRI", lambda t: (t.hour, t.minute) == (2, 0) and (t.day == 13 or weekday(t) == 5)),
    ("30 1 29-31 * *", lambda t: (t.hour, t.minute) == (1, 30) and t.day >= 29),
    ("0 12 */10 3,MAY *", lambda t: (t.hour, t.minute) == (12, 0) and t.day in (1, 11, 21, 31) and t.month in (3, 5)),
]


@needs_systemd
@pytest.mark.parametrize(("text", "fits"), CASES, ids=[text for text, _ in CASES])
def test_systemd_means_the_same_moments(text: str, fits: Callable[[datetime], bool]) -> None:
    moment, expected = datetime(2026, 2, 11, 0, 0), []
    while len(expected) < 8:
        moment += timedelta(minutes=1)
        if fits(moment):
            expected.append(moment)
    found: set[datetime] = set()
    for line in calendar_lines(parse_cron(text)):
        found |= systemd_moments(line, 8, "2026-02-11 00:00:00")
    assert sorted(found)[:8] == expected


def systemd_moments(calendar: str, count: int, after: str) -> set[datetime]:
    assert SYSTEMD_ANALYZE is not None
    done = subprocess.run(
        [SYSTEMD_ANALYZE, "calendar", f"--iterations={count}", f"--base-time={after}", calendar],
        capture_output=True,
        text=True,
        env={**os.environ, "TZ": "UTC", "LC_ALL": "C"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    stamps = re.findall(r"(?:Next elapse|Iter[^:]*): \w{3} (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)", done.stdout)
    assert len(stamps) == count, done.stdout
    return {datetime.fromisoformat(stamp) for stamp in stamps}
