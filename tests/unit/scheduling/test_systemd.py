"""systemd's units, read by systemd itself: its checker, and the dump of what it understood."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from tests.support.scheduled import HOSTILE, make_job

from adapterctl.scheduling.cron import parse_cron
from adapterctl.scheduling.emit import emit
from adapterctl.scheduling.job import Job

SYSTEMD = "/lib/systemd/systemd"
NOBODY = 65534


def lines_of(job: Job) -> tuple[list[str], list[str]]:
    """Return the lines of the service and of the timer."""
    service, timer = emit(job, "systemd")
    assert (service.path, timer.path) == (f"{job.name}.service", f"{job.name}.timer")
    return service.text.splitlines(), timer.text.splitlines()


def values(lines: list[str], key: str) -> list[str]:
    return [line.partition("=")[2] for line in lines if line.startswith(f"{key}=")]


@pytest.fixture
def units() -> Iterator[Path]:
    """A folder that other users may read, as systemd is asked as one of them."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "run").mkdir()
        (folder / "run").chmod(0o777)
        yield folder


def put(job: Job, folder: Path) -> None:
    for file in emit(job, "systemd"):
        (folder / file.path).write_text(file.text, encoding="utf-8")


def test_the_service() -> None:
    service, timer = lines_of(make_job(user="trainer", retries=3))
    assert values(service, "Type") == ["oneshot"]
    assert values(service, "User") == ["trainer"]
    assert values(service, "SuccessExitStatus") == ["99"]
    assert values(service, "Restart") == ["on-failure"]
    assert values(service, "RestartPreventExitStatus") == ["2 3 6 7"]
    assert values(service, "StartLimitBurst") == ["4"]
    assert values(service, "TimeoutStartSec") == ["43200"]
    assert int(values(service, "TimeoutStopSec")[0]) >= 15
    assert values(service, "ReadWritePaths") == ['"/srv/demo"']
    assert values(service, "PrivateTmp") == ["yes"]
    assert values(service, "EnvironmentFile") == []
    assert values(service, "CPUQuota") == values(service, "MemoryMax") == []
    assert values(timer, "OnCalendar") == ["*-*-* 03:17:00"]
    assert values(timer, "Persistent") == ["true"]
    assert values(timer, "WantedBy") == ["timers.target"]


def test_what_else_can_be_asked_for() -> None:
    service, timer = lines_of(
        make_job(
            cpu="1500m",
            memory="32Gi",
            secret="/etc/100%.env",
            timezone="Asia/Tokyo",
            cron=parse_cron("0 4 1 * MON"),
            approve=True,
            state_dir="/var/lib/state 1",
            writable=("/var/lib/state 1",),
            time_limit=3600,
        )
    )
    assert values(service, "CPUQuota") == ["150%"]
    assert values(service, "MemoryMax") == ["32G"]
    assert values(service, "EnvironmentFile") == ["/etc/100%%.env"]
    assert '"ADAPTERCTL_STATE_DIR=/var/lib/state 1"' in values(service, "Environment")
    assert values(service, "ReadWritePaths") == ['"/srv/demo"', '"/var/lib/state 1"']
    assert values(service, "TimeoutStartSec") == ["3600"]
    assert [line.split('"')[7] for line in values(service, "ExecStart")] == ["promote", "update"]
    assert values(timer, "OnCalendar") == ["*-*-01 04:00:00 Asia/Tokyo", "Mon *-*-* 04:00:00 Asia/Tokyo"]


def test_a_time_as_systemd_writes_it() -> None:
    _, timer = lines_of(make_job(cron=None, on_calendar="Mon..Fri 03:17", timezone="Europe/Berlin"))
    assert values(timer, "OnCalendar") == ["Mon..Fri 03:17 Europe/Berlin"]


@pytest.mark.parametrize("text", ["17 3 * * *", "0 * * * *", "*/5 * * * *", "0 3 * * 1"])
@pytest.mark.parametrize("retries", [0, 2, 20])
def test_all_tries_fit_between_two_starts_and_the_count_is_at_0_again(text: str, retries: int) -> None:
    job = make_job(cron=parse_cron(text), retries=retries)
    service, _ = lines_of(job)
    interval, pause = (
        timedelta(seconds=int(values(service, key)[0])) for key in ("StartLimitIntervalSec", "RestartSec")
    )
    assert job.cron is not None
    assert interval < job.cron.shortest_gap
    assert retries * pause < interval
    assert pause >= timedelta(seconds=1)


@pytest.mark.parametrize("path", ["/tmp/demo", "/var/tmp/demo"])
def test_what_lies_in_tmp_is_not_hidden(path: str) -> None:
    service, _ = lines_of(make_job(workspace=path))
    assert values(service, "PrivateTmp") == []


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("workspace", ["/srv/demo", HOSTILE], ids=["plain", "hostile"])
def test_systemd_analyze_finds_nothing_wrong(units: Path, workspace: str) -> None:
    program = units / "odd 50% $HOME" / "adapterctl"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n", encoding="utf-8")
    program.chmod(0o755)
    put(
        make_job(
            workspace=workspace,
            program=str(program),
            approve=True,
            cpu="4",
            memory="8Gi",
            secret="/etc/hosts",
            timezone="Europe/Berlin",
            user="root",
            state_dir="/srv/50%",
        ),
        units,
    )
    found = [str(units / name) for name in ("adapterctl-demo.service", "adapterctl-demo.timer")]
    done = subprocess.run(["systemd-analyze", "verify", *found], capture_output=True, text=True, check=False)
    # It looks at units of the machine too; only lines about ours count.
    about_ours = [line for line in done.stderr.splitlines() if "adapterctl" in line]
    assert (done.returncode, about_ours) == (0, [])


@pytest.mark.skipif(not Path(SYSTEMD).is_file(), reason="systemd is not installed")
def test_systemd_understands_every_word(units: Path) -> None:
    """``systemd --test`` loads units as the manager does and prints what they mean."""
    put(make_job(workspace=HOSTILE, approve=True, program="/bin/true"), units)
    wanted = "[Unit]\nWants=adapterctl-demo.service adapterctl-demo.timer\n"
    (units / "default.target").write_text(wanted, encoding="utf-8")
    root = os.geteuid() == 0
    done = subprocess.run(
        [SYSTEMD, "--user", "--test"],
        env={"SYSTEMD_UNIT_PATH": str(units), "XDG_RUNTIME_DIR": str(units / "run"), "HOME": str(units / "run")},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
        user=NOBODY if root else None,
        group=NOBODY if root else None,
        extra_groups=[] if root else None,
    )
    if "Unit adapterctl-demo.service" not in done.stdout:
        pytest.skip(f"systemd does not dump units here: {done.stderr.strip()[-200:]}")
    commands = re.findall(r"Command Line: (.*)", done.stdout)
    # The dump quotes words as a shell does; $$ becomes $ when the command is run.
    shown = [_words(command) for command in commands]
    assert [word.replace("$$", "$") for word in shown[0]] == [
        "/bin/true", "-C", HOSTILE, "promote", "--approved", "--json",
    ]  # fmt: skip
    assert [word.replace("$$", "$") for word in shown[1]][:4] == ["/bin/true", "-C", HOSTILE, "update"]
    assert re.findall(r"ReadWritePaths: (.*)", done.stdout) == [HOSTILE]
    assert re.findall(r"OnCalendar: (.*)", done.stdout) == ["*-*-* 03:17:00"]


def _words(command: str) -> list[str]:
    """Return the words of a command in the dump, quoted with backslashes inside of double quotes."""
    found = re.findall(r'"((?:[^"\\]|\\.)*)"|(\S+)', command)
    return [re.sub(r"\\(.)", r"\1", quoted) if quoted else bare for quoted, bare in found]
