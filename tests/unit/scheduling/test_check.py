"""What a job may not say: each fault named, all at once, before anything is made."""

from __future__ import annotations

import re
from typing import Any

import pytest
from tests.support.scheduled import make_job

from adapterctl.errors import UsageError
from adapterctl.scheduling.cron import parse_cron
from adapterctl.scheduling.emit import emit
from adapterctl.scheduling.job import TARGETS, Target, seconds_of

FAULTS: list[tuple[Target, dict[str, Any], str, str]] = [
    ("cron", {"timezone": "Europe/Berlin"}, "--timezone", "has no meaning for cron"),
    ("cron", {"retries": 3}, "--retries", "has no meaning for cron"),
    ("cron", {"secret": "mlflow.env"}, "--secret", "cannot be used"),
    ("cron", {"program": "adapterctl"}, "--program", "is no absolute path"),
    ("cron", {"workspace": "/srv/a\n* * * * * id"}, "--workspace-path", "a line end"),
    ("cron", {"workspace": "/srv/\udcff"}, "--workspace-path", "a line end or another character"),
    ("cron", {"folder": "/srv/a\\"}, "--out", "a backslash"),
    ("systemd", {"program": "/opt/it's/adapterctl"}, "--program", "a quote"),
    ("systemd", {"user": "me too"}, "--user", "cannot be used"),
    ("systemd", {"user": "root\nExecStart=/bin/id"}, "--user", "cannot be used"),
    ("systemd", {"on_calendar": "daily\nExecStart=x"}, "--on-calendar", "cannot be used"),
    ("systemd", {"secret": "/etc/*.env"}, "--secret", "cannot be used"),
    ("systemd", {"secret": "/etc/a.env\\"}, "--secret", "cannot be used"),
    ("systemd", {"memory": "16GB"}, "--memory", "cannot be used"),
    ("systemd", {"gpu": 1}, "--gpu", "has no meaning for systemd"),
    ("systemd", {"timezone": "Mars/Olympus"}, "--timezone", "is no time zone"),
    ("systemd", {"timezone": "../../etc/passwd"}, "--timezone", "is no time zone"),
    ("systemd", {"name": "../../etc/cron.d/x"}, "--name", "cannot be used"),
    ("systemd", {"name": "a" * 53}, "--name", "longer than 52"),
    ("k8s", {}, "--image", "is missing"),
    ("k8s", {"image": "a b"}, "--image", "cannot be used"),
    ("k8s", {"image": "a", "secret": "Upper_Case"}, "--secret", "cannot be used"),
    ("k8s", {"image": "a", "workspace": "/a:b"}, "--workspace-path", "a colon"),
    ("k8s", {"image": "a", "cpu": "0"}, "--cpu", "cannot be used"),
    ("k8s", {"image": "a", "claim": "c", "storage": "1Gi"}, "--storage", "--claim"),
    ("k8s", {"image": "a", "namespace": "n" * 64}, "--namespace", "longer than 63"),
    ("airflow", {"secret": "a' or 'b"}, "--secret", "cannot be used"),
    ("airflow", {"image": "a"}, "--image", "it is for k8s, github-actions"),
    ("airflow", {"max_age": "30 days"}, "--max-age", "cannot be used"),
    ("github-actions", {}, "--workspace-path", "is not a path in the repository"),
    ("github-actions", {"workspace": ".", "runner": "${{ x }}"}, "--runner", "cannot be used"),
    ("github-actions", {"workspace": ".", "secret": "${{ x }}"}, "--secret", "cannot be used"),
    ("github-actions", {"workspace": ".", "cron": parse_cron("*/4 * * * *")}, "--cron", "every 5 minutes"),
    ("github-actions", {"workspace": ".", "image": "a", "time_limit": 7 * 3600}, "--time-limit", "after 6 hours"),
]


@pytest.mark.parametrize(("target", "values", "where", "message"), FAULTS)
def test_a_fault_is_named(target: Target, values: dict[str, Any], where: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        emit(make_job(**values), target)
    found = [problem for problem in caught.value.problems if problem.where == where]
    assert len(found) == 1, caught.value.problems
    assert message in str(found[0])


def test_all_faults_are_named_at_once() -> None:
    with pytest.raises(UsageError) as caught:
        emit(make_job(name="No", user="a b", gpu=2, retries=1, program="x", secret="y"), "cron")
    assert [problem.where for problem in caught.value.problems] == [
        "--user", "--gpu", "--retries", "--name", "--user", "--secret", "--program",
    ]  # fmt: skip


@pytest.mark.parametrize("target", TARGETS)
def test_a_name_of_letters_digits_and_dashes_is_taken(target: Target) -> None:
    values = {"k8s": {"image": "a"}, "github-actions": {"workspace": "."}}.get(target, {})
    files = emit(make_job(name="0-x9", **values), target)
    assert files
    assert all(re.search(r"0[-_]x9", file.path) for file in files)
    assert not any(file.path.startswith("/") or ".." in file.path for file in files)


@pytest.mark.parametrize(("text", "seconds"), [("90m", 5400), ("12h", 43200), ("45s", 45), ("2d", 172800)])
def test_lengths_of_time(text: str, seconds: int) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "12", "h", "0h", "-1h", "1.5h", "1h30m", "99999999h"])
def test_what_is_no_length_of_time(text: str) -> None:
    with pytest.raises(UsageError, match="is not a length of time"):
        seconds_of(text)
