"""A task that a never-trained model can learn from a few rows, and jobs on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adapterctl.base_model import BaseModel
from adapterctl.examples import Example
from adapterctl.tasks import TaskSettings
from adapterctl.training.job import TrainingJob
from adapterctl.training.settings import LoraSettings, TrainingSettings

LABELS = ("good", "bad", "fair")
WORDS = {"good": ("warm", "blue", "grass"), "bad": ("night", "fire", "long"), "fair": ("soup", "sea", "green")}
TASKS = {
    "mood": TaskSettings(kind="classification", prompt="Review: {input}\nSentiment:", labels=list(LABELS)),
    "recap": TaskSettings(kind="generation", prompt="{input}\n", separator=""),
}
LORA = LoraSettings(r=4, alpha=12.0, dropout=0.1)
TRAINING = TrainingSettings(
    epochs=2, learning_rate=0.02, batch_size=4, mixed_precision="none", warmup_ratio=0.1, max_length=128, threads=1
)


def rows(count: int = 18, lang: str = "en") -> tuple[Example, ...]:
    """Return rows whose one telling word says the label, with filler of various length around it."""
    made = []
    for i in range(count):
        label = LABELS[i % 3]
        word = WORDS[label][(i // 3) % 3]
        filler = "the " * (1 + i % 5)
        made.append(Example(id=f"m{i}", lang=lang, task="mood", reference=label, input=f"{filler}{word}"))
    return tuple(made)


def job(base: BaseModel, **changes: Any) -> TrainingJob:
    """Return a job of some ten steps; keywords replace its parts, or single settings of ``lora`` and ``training``."""
    lora = {name: changes.pop(name) for name in list(changes) if name in LoraSettings.model_fields}
    training = {name: changes.pop(name) for name in list(changes) if name in TrainingSettings.model_fields}
    parts: dict[str, Any] = {
        "base": base,
        "lang": "en",
        "examples": rows(),
        "tasks": TASKS,
        "lora": LoraSettings.model_validate(LORA.model_dump() | lora),
        "training": with_training(**training),
    }
    return TrainingJob(**(parts | changes))


def with_training(**changes: Any) -> TrainingSettings:
    """Return the settings with some of them replaced."""
    settings = TRAINING.model_dump(exclude_unset=True) | changes
    if "warmup_steps" in changes:
        del settings["warmup_ratio"]
    return TrainingSettings.model_validate(settings)


class Recorder:
    """An observer that keeps what it hears."""

    def __init__(self) -> None:
        self.started: list[tuple[str, int, int]] = []
        self.steps: list[tuple[int, int, float, float, int, float]] = []

    def on_start(self, lang: str, total_steps: int, done_steps: int) -> None:
        self.started.append((lang, total_steps, done_steps))

    def on_step(
        self, step: int, total_steps: int, loss: float, learning_rate: float, tokens: int, seconds: float
    ) -> None:
        self.steps.append((step, total_steps, loss, learning_rate, tokens, seconds))


def folder_bytes(folder: Path) -> dict[str, bytes]:
    """Return the files that must be the same whenever the job is."""
    return {name: (folder / name).read_bytes() for name in ("adapter_config.json", "adapter_model.safetensors")}
