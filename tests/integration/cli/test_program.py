"""The program as a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

import adapterctl

START = [sys.executable, "-c", "from adapterctl.cli.main import main; main()"]


def program(*args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*START, *args], capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )


def test_help_has_every_section() -> None:
    done = program("--help", COLUMNS="100")
    assert (done.returncode, done.stderr) == (0, "")
    titles = [line for line in done.stdout.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert titles == [
        "Options:", "Start:", "Maintain:", "Merge:", "Review & release:", "Unattended:", "Registry:", "Account:",
        "Configure:", "Pocket model:",
    ]  # fmt: skip


def test_version() -> None:
    assert program("--version").stdout == f"adapterctl, version {adapterctl.__version__}\n"


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    with subprocess.Popen([*START, "config", "schema"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_a_terminal_without_utf8_gets_what_it_can_show(tmp_path) -> None:
    out = tmp_path / "rows.jsonl"
    done = program("pocket", "rows", "--lang", "ja", "--count", "1", "--out", str(out), PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert done.stdout == f"Wrote 3 rows to {out}: 1 sentiment, 1 reasoning, 1 summarization.\n"


NOISY = """
import logging, sys, warnings
from adapterctl.cli.libraries import tame
tame(debug="--debug" in sys.argv)
warnings.warn("worrying")
warnings.simplefilter("always")
warnings.warn("worrying still")
logging.getLogger("library").info("chatter")
logging.getLogger("library").warning("matters")
"""


@pytest.mark.parametrize(
    ("args", "lines"), [([], ["matters"]), (["--debug"], ["worrying", "worrying still", "chatter"])]
)
def test_libraries_are_kept_quiet(args: list[str], lines: list[str]) -> None:
    done = subprocess.run([sys.executable, "-c", NOISY, *args], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert all(line in done.stderr for line in lines)
    assert ("chatter" in done.stderr) == bool(args)
    assert ("worrying" in done.stderr) == bool(args)


def test_an_interrupted_program_says_how_to_go_on(tmp_path) -> None:
    args = ["pocket", "build", "--out", str(tmp_path / "model")]
    # A shell that starts the tests in the background lets them ignore the signal, and children inherit that.
    heeding = f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler); {START[-1]}"
    with subprocess.Popen([*START[:-1], heeding, *args], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline().partition(" ")[2] == "… pre-train the pocket model\n"
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
    assert process.returncode == 130
    assert said.endswith("Error: interrupted; run the same command again to go on\n")
    assert list(tmp_path.iterdir()) == []
