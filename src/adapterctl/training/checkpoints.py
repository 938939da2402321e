"""Checkpoints: where an interrupted training goes on from.

A checkpoint is a PEFT folder with the optimizer's tensors (safetensors), everything else in JSON and the hash of every
file. It is published in one rename, so a killed process leaves no half of one; the hashes find files that a crash of
the whole machine cut short. Nothing is pickled. No random state is kept: order and dropout are functions of the step.
"""

from __future__ import annotations

import json
import re
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialized

from adapterctl.files import TEMPORARY_PREFIX, disk_errors, staged_folder, write_json
from adapterctl.fingerprint import file_hash
from adapterctl.training.peft_model import write_peft_folder
from adapterctl.training.result import Step

STATE_FILE = "checkpoint.json"
OPTIMIZER_FILE = "optimizer.safetensors"
TRAINER_STATE_FILE = "trainer_state.json"
ATTEMPTS_FILE = "attempts.json"
_KEPT = 2
_NAME = re.compile(r"step-(\d+)")


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint.

    Attributes:
        folder: Where it lies.
        step: How many optimizer steps were done.
        history: These steps.
        optimizer: The optimizer's state without its tensors.
        scheduler: The learning rate schedule's state.
    """

    folder: Path
    step: int
    history: tuple[Step, ...]
    optimizer: dict[str, Any]
    scheduler: dict[str, Any]

    def optimizer_state(self) -> dict[str, Any]:
        """Return what ``optimizer.load_state_dict`` takes."""
        state: dict[str, Any] = _rebuilt(self.optimizer, load_file(self.folder / OPTIMIZER_FILE))
        return state


def save(
    root: Path,
    *,
    key: str,
    model: Any,
    optimizer: Any,
    scheduler: Any,
    trainer_state: Any,
    history: list[Step],
) -> None:
    """Write a checkpoint and remove all but the newest two.

    Raises:
        StorageError: The disk is full, read-only or not permitted.
    """
    tensors: dict[str, torch.Tensor] = {}
    outline = _outlined(optimizer.state_dict(), "", tensors)
    step = int(trainer_state.global_step)
    with staged_folder(root / f"step-{step}") as staging:
        write_peft_folder(model, staging, {})
        (staging / OPTIMIZER_FILE).write_bytes(serialized(tensors))
        trainer_state.save_to_json(str(staging / TRAINER_STATE_FILE))
        write_json(
            staging / STATE_FILE,
            {
                "key": key,
                "step": step,
                "history": [asdict(entry) for entry in history],
                "optimizer": outline,
                "scheduler": scheduler.state_dict(),
                "files": {path.name: file_hash(path) for path in sorted(staging.iterdir())},
            },
        )
    for _, folder in _folders(root)[:-_KEPT]:
        shutil.rmtree(folder, ignore_errors=True)


def newest(root: Path, key: str) -> Checkpoint | None:
    """Return the newest complete checkpoint of the training with this key; remove what is not complete."""
    if not root.is_dir():
        return None
    for leftover in root.glob(f"{TEMPORARY_PREFIX}*"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)
    for _, folder in reversed(_folders(root)):
        if (checkpoint := _read(folder, key)) is not None:
            return checkpoint
        shutil.rmtree(folder, ignore_errors=True)
    return None


def _folders(root: Path) -> list[tuple[int, Path]]:
    found = [(int(match[1]), path) for path in root.iterdir() if (match := _NAME.fullmatch(path.name))]
    return sorted(found)


def _read(folder: Path, key: str) -> Checkpoint | None:
    try:
        state = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
        if state["key"] != key:
            return None
        if any(file_hash(folder / name) != digest for name, digest in state["files"].items()):
            return None
        history = tuple(Step(**entry) for entry in state["history"])
        checkpoint = Checkpoint(folder, state["step"], history, state["optimizer"], state["scheduler"])
        checkpoint.optimizer_state()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError):
        return None
    return checkpoint


def _outlined(value: Any, path: str, tensors: dict[str, torch.Tensor]) -> Any:
    """Return ``value`` fit for JSON: tensors go to ``tensors`` under their path, mappings become lists of pairs.

    Pairs, because the keys of an optimizer's state are whole numbers, which JSON would turn into text.
    """
    if isinstance(value, torch.Tensor):
        # A copy, because 8-bit optimizers share a table between parameters, which safetensors refuses.
        tensors[path] = value.detach().cpu().contiguous().clone()
        return {"tensor": path}
    if isinstance(value, dict):
        return {"pairs": [[name, _outlined(item, f"{path}/{name}", tensors)] for name, item in value.items()]}
    if isinstance(value, list | tuple):
        return {"items": [_outlined(item, f"{path}/{i}", tensors) for i, item in enumerate(value)]}
    return {"value": value}


def _rebuilt(outline: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Any:
    if "tensor" in outline:
        return tensors[outline["tensor"]]
    if "pairs" in outline:
        return {name: _rebuilt(item, tensors) for name, item in outline["pairs"]}
    if "items" in outline:
        return [_rebuilt(item, tensors) for item in outline["items"]]
    return outline["value"]


class Attempts:
    """Wall seconds of all attempts at one training, those that were killed among them."""

    def __init__(self, root: Path) -> None:
        self._path = root / ATTEMPTS_FILE
        self._earlier = self._read()
        self._written = 0.0

    def _read(self) -> list[float]:
        try:
            return [float(seconds) for seconds in json.loads(self._path.read_text(encoding="utf-8"))]
        except (OSError, ValueError, TypeError):
            return []

    def note(self, seconds: float, *, every: float = 5.0) -> None:
        """Keep how long this attempt has taken so far; a killed one loses ``every`` seconds at most.

        Raises:
            StorageError: The disk is full, read-only or not permitted.
        """
        if seconds - self._written >= every:
            write_json(self._path, [*self._earlier, round(seconds, 3)])
            self._written = seconds

    def total(self, seconds: float) -> float:
        """Return the seconds of all attempts, this one having taken ``seconds``."""
        return sum(self._earlier) + seconds


def remove(root: Path) -> None:
    """Remove the checkpoints of a finished training, and the folder around them when it is empty.

    Raises:
        StorageError: The disk is read-only or not permitted.
    """
    with disk_errors(root):
        if root.is_dir():
            shutil.rmtree(root)
    # Another training may have its checkpoints there, or begin just now.
    with suppress(OSError):
        root.parent.rmdir()
