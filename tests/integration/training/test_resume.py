"""An interrupted training, called again, ends in the bytes of one that was not interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.tiny_training import Recorder, folder_bytes, job

from adapterctl.base_model import BaseModel
from adapterctl.training.trainer import train

CHILD = """
import os, signal, sys
from pathlib import Path
from adapterctl.training.trainer import train
from tests.support.tiny_llama import tiny_base
from tests.support.tiny_training import Recorder, job

class Killer(Recorder):
    def on_step(self, step, *rest):
        if step == int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)

folder, base, _ = map(Path, sys.argv[1:])
train(job(tiny_base(base), checkpoint_every_steps=3, epochs=3), folder / "out", folder / "checkpoints", Killer())
"""


class Stop(Exception):
    pass


class StopAt(Recorder):
    """An observer that interrupts training in a step."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.at = step

    def on_step(self, step: int, *rest: float) -> None:
        if step == self.at:
            raise Stop


def _child(folder: Path, base: Path, kill_at: int, hash_seed: str) -> int:
    root = Path(__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": f"{root / 'src'}:{root}", "PYTHONHASHSEED": hash_seed}
    return subprocess.run(
        [sys.executable, "-c", CHILD, str(folder), str(base), str(kill_at)], env=environment, check=False
    ).returncode


def test_killed_and_called_again_and_whatever_the_hash_seed(base: BaseModel, base_folder: Path, tmp_path: Path) -> None:
    assert _child(tmp_path / "killed", base_folder, kill_at=8, hash_seed="1") == -signal.SIGKILL
    assert not (tmp_path / "killed" / "out").exists()
    assert _child(tmp_path / "whole", base_folder, kill_at=0, hash_seed="2") == 0
    seen = Recorder()
    killed = tmp_path / "killed"
    resumed = train(job(base, checkpoint_every_steps=3, epochs=3), killed / "out", killed / "checkpoints", seen)
    assert resumed.resumed_from_step == 6
    assert seen.started == [("en", 15, 6)]
    assert folder_bytes(killed / "out") == folder_bytes(tmp_path / "whole" / "out")
    whole = json.loads((tmp_path / "whole" / "out" / "training.json").read_text())
    assert [step.loss for step in resumed.history] == [step["loss"] for step in whole["history"]]
    assert [step.tokens for step in resumed.history] == [step["tokens"] for step in whole["history"]]
    assert not (killed / "checkpoints").exists()


@pytest.mark.parametrize(
    ("changes", "stop_at", "resumed_from"),
    [
        ({"checkpoint_every_steps": 2}, 7, 6),
        ({"checkpoint_every_steps": 0}, 7, 5),
        ({"checkpoint_every_steps": 1, "gradient_accumulation": 2, "batch_size": 3}, 5, 5),
        ({"checkpoint_every_steps": 4, "optimizer": "adamw8bit", "r": 64}, 9, 8),
        ({"checkpoint_every_steps": 0}, 10, 10),
    ],
)
def test_interrupted_anywhere(
    base: BaseModel, tmp_path: Path, changes: dict[str, object], stop_at: int, resumed_from: int
) -> None:
    wanted = job(base, **changes)
    train(wanted, tmp_path / "whole", tmp_path / "checkpoints")
    with pytest.raises(Stop):
        train(wanted, tmp_path / "out", tmp_path / "checkpoints", StopAt(stop_at))
    result = train(wanted, tmp_path / "out", tmp_path / "checkpoints")
    assert result.resumed_from_step == resumed_from
    assert folder_bytes(tmp_path / "out") == folder_bytes(tmp_path / "whole")
    seconds = [step.seconds for step in result.history]
    assert seconds == sorted(seconds)


@pytest.mark.parametrize("damage", ["truncated", "missing", "no state", "changed"])
def test_an_incomplete_checkpoint_is_passed_over(base: BaseModel, tmp_path: Path, damage: str) -> None:
    wanted = job(base, checkpoint_every_steps=2)
    train(wanted, tmp_path / "whole", tmp_path / "checkpoints")
    with pytest.raises(Stop):
        train(wanted, tmp_path / "out", tmp_path / "checkpoints", StopAt(7))
    (root,) = (tmp_path / "checkpoints").iterdir()
    assert sorted(path.name for path in root.iterdir() if path.is_dir()) == ["step-4", "step-6"]
    newest = root / "step-6"
    if damage == "truncated":
        os.truncate(newest / "optimizer.safetensors", 100)
    elif damage == "missing":
        (newest / "adapter_model.safetensors").unlink()
    elif damage == "no state":
        (newest / "checkpoint.json").write_text("{")
    else:
        content = bytearray((newest / "adapter_model.safetensors").read_bytes())
        content[-1] ^= 1
        (newest / "adapter_model.safetensors").write_bytes(content)
    unfinished = root / ".adapterctl-tmp-left"
    unfinished.mkdir()
    (unfinished / "optimizer.safetensors").write_bytes(b"half")
    assert train(wanted, tmp_path / "out", tmp_path / "checkpoints").resumed_from_step == 4
    assert folder_bytes(tmp_path / "out") == folder_bytes(tmp_path / "whole")
    assert not root.exists()


def test_another_job_does_not_go_on_from_it(base: BaseModel, tmp_path: Path) -> None:
    with pytest.raises(Stop):
        train(job(base, checkpoint_every_steps=2), tmp_path / "out", tmp_path / "checkpoints", StopAt(7))
    other = train(job(base, checkpoint_every_steps=2, seed=1), tmp_path / "other", tmp_path / "checkpoints")
    assert other.resumed_from_step == 0
    kept = train(job(base, checkpoint_every_steps=2), tmp_path / "out", tmp_path / "checkpoints")
    assert kept.resumed_from_step == 6


def test_time_of_interrupted_attempts_is_counted(base: BaseModel, tmp_path: Path) -> None:
    with pytest.raises(Stop):
        train(job(base, checkpoint_every_steps=2), tmp_path / "out", tmp_path / "checkpoints", StopAt(7))
    (root,) = (tmp_path / "checkpoints").iterdir()
    (root / "attempts.json").write_text("[100.0, 20.0]")
    result = train(job(base, checkpoint_every_steps=2), tmp_path / "out", tmp_path / "checkpoints")
    assert 120 < result.seconds < 180
    assert result.history[-1].seconds < 60
