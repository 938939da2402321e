"""What holds for the files of all schedulers: no marks left, no secrets, and a mark that knows its own text."""

from __future__ import annotations

import re
from typing import Any

import pytest
from tests.support.scheduled import make_job

from adapterctl.scheduling.emit import emit, is_untouched
from adapterctl.scheduling.job import TARGETS, EmittedFile, Job, Target

MORE: dict[Target, dict[str, Any]] = {
    "cron": {"secret": "/etc/adapterctl.env"},
    "systemd": {"secret": "/etc/adapterctl.env"},
    "k8s": {"image": "a", "secret": "mlflow"},
    "airflow": {"secret": "mlflow"},
    "github-actions": {"workspace": ".", "secret": "nightly"},
}


def made(target: Target, **values: Any) -> tuple[EmittedFile, ...]:
    return emit(make_job(**{**MORE[target], **values}), target)


@pytest.mark.parametrize("target", TARGETS)
def test_no_mark_is_left(target: Target) -> None:
    for file in made(target, approve=True):
        assert re.findall(r"@[a-z_]+@", file.text) == []
        assert not re.search(r"[ \t]+$", file.text, flags=re.MULTILINE)
        assert file.text.endswith("\n")
        assert not file.text.endswith("\n\n")


@pytest.mark.parametrize("target", TARGETS)
def test_one_file_says_what_exit_codes_mean_and_how_to_install_it(target: Target) -> None:
    text = "".join(file.text for file in made(target))
    for code in (0, 1, 2, 3, 4, 5, 6, 7, 99):
        assert re.search(rf"^# {code} +\w", text, flags=re.MULTILINE)
    assert "# Install" in text
    assert re.search(r"^#.*[Ll]ogs?\b", text, flags=re.MULTILINE)


@pytest.mark.parametrize("target", TARGETS)
def test_the_mark_knows_whether_somebody_changed_the_text(target: Target) -> None:
    for file in made(target):
        assert is_untouched(file.text)
        assert not is_untouched(file.text + "# mine\n")
        assert not is_untouched(file.text.replace("adapterctl-demo", "adapterctl-other"))
        first = file.text.splitlines()[0]
        assert first.startswith(("#!/bin/sh", "# Written by: adapterctl schedule emit ("))
    assert not is_untouched("")
    assert not is_untouched("# Written by: adapterctl schedule emit (0123456789abcdef)\n")


@pytest.mark.parametrize("target", TARGETS)
def test_the_same_job_gives_the_same_bytes(target: Target) -> None:
    assert made(target) == made(target)


UPDATE = ["adapterctl", "-C", "/w", "update", "--all-changed", "--if-changed"]


def test_the_command() -> None:
    job = Job(name="a", program="adapterctl", workspace="/w")
    assert list(job.update()) == [*UPDATE, "--skip-exit-code", "99", "--json"]
    assert list(job.update(skip=False)) == [*UPDATE, "--json"]
    assert job.commands() == (job.update(),)


def test_the_command_with_all_that_can_be_asked_of_it() -> None:
    job = Job(name="a", program="adapterctl", workspace="/w", max_age="30d", min_new_rows=200, approve=True)
    promotion, update = job.commands()
    assert list(promotion) == ["adapterctl", "-C", "/w", "promote", "--approved", "--json"]
    extra = ["--max-age", "30d", "--min-new-rows", "200", "--skip-exit-code", "99", "--json"]
    assert list(update) == [*UPDATE, *extra]
