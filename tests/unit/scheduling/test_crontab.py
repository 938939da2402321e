"""cron's script, run for real with a program that pretends to be adapterctl."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from tests.support.scheduled import make_job

from adapterctl.scheduling.emit import emit

FAKE = """\
#!/bin/sh
printf '%s\\n' "$@" >>"$CALLS"
echo "URI=${MLFLOW_TRACKING_URI:-} STATE=${ADAPTERCTL_STATE_DIR:-}" >>"$CALLS"
echo "some output of $3"; echo "some error" >&2
case $3 in promote) exit "${PROMOTE:-0}" ;; esac
[ -z "${SLEEP:-}" ] || exec sleep "$SLEEP"
exit "${UPDATE:-0}"
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "bin of 100%" / "adapterctl"
    path.parent.mkdir()
    path.write_text(FAKE, encoding="utf-8")
    path.chmod(0o755)
    return path


class Cron:
    """The two files in a folder, and cron's way to run them."""

    def __init__(self, folder: Path, program: Path, **values: object) -> None:
        self.home = folder / "home"
        self.home.mkdir()
        scripts = folder / "it's 50% off"
        scripts.mkdir()
        self.calls = folder / "calls"
        usual = {"workspace": str(folder / "work $space"), "program": str(program), "folder": str(scripts)}
        self.script, self.crontab = emit(make_job(**{**usual, **values}), "cron")
        path = scripts / self.script.path
        path.write_text(self.script.text, encoding="utf-8")
        path.chmod(0o755)
        (line,) = [line for line in self.crontab.text.splitlines() if not line.startswith("#")]
        *time, command = line.split(" ", 5)
        self.time = " ".join(time)
        assert not re.search(r"(?<!\\)%", command)
        self.command = command.replace(r"\%", "%")
        self.log = self.home / ".local/state/adapterctl/adapterctl-demo.log"

    def run(self, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the line as cron does: a bare environment, /bin/sh, the home as the current folder."""
        bare = {"HOME": str(self.home), "PATH": "/usr/bin:/bin", "SHELL": "/bin/sh", "CALLS": str(self.calls)}
        return subprocess.run(
            ["/bin/sh", "-c", self.command],
            env={**bare, **environment},
            cwd=self.home,
            capture_output=True,
            text=True,
            check=False,
        )

    @property
    def called(self) -> list[str]:
        return self.calls.read_text(encoding="utf-8").splitlines() if self.calls.exists() else []


UPDATE = ["update", "--all-changed", "--if-changed", "--skip-exit-code", "99", "--json"]


def test_a_good_run_says_nothing_and_keeps_a_log(tmp_path: Path, program: Path) -> None:
    cron = Cron(tmp_path, program)
    done = cron.run()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert cron.time == "17 3 * * *"
    assert cron.script.executable
    assert cron.called == ["-C", str(tmp_path / "work $space"), *UPDATE, "URI= STATE="]
    log = cron.log.read_text(encoding="utf-8")
    assert "some output of update\nsome error\n" in log
    assert re.search(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} exit code 0$", log, flags=re.MULTILINE)


def test_nothing_changed_is_no_news(tmp_path: Path, program: Path) -> None:
    done = Cron(tmp_path, program).run(UPDATE="99")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("code", "why"),
    [
        (1, "nobody foresaw"),
        (2, "configuration"),
        (3, "gate said no"),
        (4, "another adapterctl"),
        (5, "registry"),
        (6, "rows"),
        (7, "disk"),
        (143, "interrupted"),
        (137, "nobody foresaw"),
    ],
)
def test_a_failure_is_mailed_with_the_end_of_the_log(tmp_path: Path, program: Path, code: int, why: str) -> None:
    cron = Cron(tmp_path, program)
    cron.run()
    done = cron.run(UPDATE=str(code))
    assert done.returncode == code
    assert f"(exit code {code})" in done.stdout
    assert why in done.stdout.splitlines()[0]
    # The output of this run, not that of the one before.
    assert done.stdout.count("some error") == 1


def test_a_program_that_is_not_there(tmp_path: Path, program: Path) -> None:
    done = Cron(tmp_path, tmp_path / "missing").run()
    assert done.returncode == 127
    assert "not where this script looks" in done.stdout


def test_the_time_limit(tmp_path: Path, program: Path) -> None:
    done = Cron(tmp_path, program, time_limit=1).run(SLEEP="60")
    assert done.returncode == 124
    assert "longer than 1 seconds" in done.stdout


@pytest.mark.parametrize(("code", "updates"), [("0", 1), ("3", 0), ("5", 0)])
def test_the_update_waits_for_the_promotion(tmp_path: Path, program: Path, code: str, updates: int) -> None:
    cron = Cron(tmp_path, program, approve=True)
    assert cron.run(PROMOTE=code).returncode == int(code)
    assert cron.called.count("promote") == 1
    assert cron.called.count("update") == updates


def test_secrets_come_from_a_file(tmp_path: Path, program: Path) -> None:
    secret = tmp_path / "it's secret.env"
    secret.write_text("MLFLOW_TRACKING_URI=http://registry:5000\n", encoding="utf-8")
    cron = Cron(tmp_path, program, secret=str(secret), state_dir="/srv/the state")
    assert cron.run().returncode == 0
    assert cron.called[-1] == "URI=http://registry:5000 STATE=/srv/the state"
    assert "registry:5000" not in cron.script.text + cron.crontab.text
    secret.unlink()
    missing = cron.run()
    assert missing.returncode != 0
    assert "secret.env" in missing.stderr


def test_a_long_log_is_put_aside(tmp_path: Path, program: Path) -> None:
    cron = Cron(tmp_path, program)
    cron.log.parent.mkdir(parents=True)
    with cron.log.open("wb") as handle:
        os.truncate(handle.fileno(), 10_000_001)
    assert cron.run().returncode == 0
    assert cron.log.stat().st_size < 10_000
    assert cron.log.with_name("adapterctl-demo.log.1").stat().st_size == 10_000_001


def test_every_word_of_the_script_is_the_shells_own(tmp_path: Path, program: Path) -> None:
    script = Cron(tmp_path, program, workspace="/srv/`id`/$(id)/'\"").script.text
    (line,) = [line for line in script.splitlines() if line.startswith("step ")]
    assert shlex.split(line)[1:4] == [str(program), "-C", "/srv/`id`/$(id)/'\""]
