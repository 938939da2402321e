"""Two commands at once, and Ctrl-C."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

from tests.support.program import Programs, wait_for
from tests.support.store import read_store

Copy = Callable[[Path], Path]
TRAINING = {"at": "adapterctl.training.checkpoints:save", "when": "before", "do": "wait"}


def test_the_second_command_is_refused_and_looking_is_not(
    arrived: Path, copy: Copy, program: Programs, tmp_path: Path
) -> None:
    root, mark = copy(arrived), tmp_path / "training"
    first = program.start(root, "update", "--lang", "ja", "--json", trap={**TRAINING, "mark": str(mark)})
    wait_for(mark)
    second = program(root, "update", "--lang", "de")
    assert (second.exit_code, second.out) == (4, "")
    assert f"process {first.pid} on " in second.err
    assert "'update'" in second.err
    assert program(root, "status", "--json").json["champion"]["version"] == 1
    mark.unlink()
    done = first.wait()
    assert done.exit_code == 0, done.err
    assert done.json["candidate"]["promoted"]


def test_ctrl_c_is_told_and_the_same_command_goes_on(
    arrived: Path, updated: Path, copy: Copy, program: Programs, tmp_path: Path
) -> None:
    root, mark = copy(arrived), tmp_path / "training"
    running = program.start(root, "update", "--lang", "ja", trap={**TRAINING, "mark": str(mark), "call": 1})
    wait_for(mark)
    os.kill(running.pid, signal.SIGINT)
    stopped = running.wait()
    assert (stopped.exit_code, stopped.out) == (130, "")
    assert stopped.err.endswith("Error: interrupted; run the same command again to go on\n")
    assert "Traceback" not in stopped.err
    assert {status for _, status in read_store(root).runs} == {"FINISHED", "KILLED"}
    assert program(root, "status", "--json").json["pending"]["langs"] == ["ja"]
    done = program(root, "update", "--continue", "--json")
    assert done.exit_code == 0, done.err
    store = read_store(root)
    assert store == read_store(updated)
    assert set(store.runs.values()) == {1}
