from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.support.adapters import make_adapter
from tests.support.tiny_training import TASKS, job, rows

from adapterctl.base_model import BaseModel, BaseModelSettings
from adapterctl.errors import DataError
from adapterctl.tasks import TaskSettings
from adapterctl.training.job import TrainingJob, training_key
from adapterctl.training.settings import OPERATIONAL, LoraSettings, TrainingSettings

BASE = BaseModel(BaseModelSettings(path="base"), "/somewhere", "base", "0" * 64)

OTHER_LORA: dict[str, Any] = {
    "r": 5, "alpha": 13.0, "dropout": 0.2, "target_modules": ["q_proj"], "rslora": True,
}  # fmt: skip
OTHER_TRAINING: dict[str, Any] = {
    "epochs": 7, "learning_rate": 0.03, "schedule": "linear", "warmup_ratio": 0.2, "warmup_steps": 2, "batch_size": 5,
    "gradient_accumulation": 2, "weight_decay": 0.1, "max_grad_norm": 2.0, "max_length": 99, "length_grouped": False,
    "mixed_precision": "bf16", "gradient_checkpointing": True, "seed": 1, "shared_init": False,
    "optimizer": "adamw8bit",
}  # fmt: skip


def test_every_setting_is_tried() -> None:
    assert set(OTHER_LORA) == set(LoraSettings.model_fields)
    assert set(OTHER_TRAINING) | OPERATIONAL == set(TrainingSettings.model_fields)


@pytest.mark.parametrize("name", [*OTHER_LORA, *OTHER_TRAINING])
def test_every_setting_that_shapes_the_adapter_changes_the_key(name: str) -> None:
    value = (OTHER_LORA | OTHER_TRAINING)[name]
    assert training_key(job(BASE, **{name: value})) != training_key(job(BASE))


@pytest.mark.parametrize("change", [{"checkpoint_every_steps": 3}, {"threads": 2}])
def test_how_the_work_is_carried_out_does_not(change: dict[str, int]) -> None:
    assert training_key(job(BASE, **change)) == training_key(job(BASE))


def _base(**settings: str) -> BaseModel:
    return replace(BASE, settings=BaseModelSettings.model_validate({"path": "base", **settings}))


def _tasks(**change: Any) -> dict[str, TaskSettings]:
    return TASKS | {"mood": TaskSettings.model_validate(TASKS["mood"].model_dump() | change)}


@pytest.mark.parametrize(
    "changed",
    [
        job(replace(BASE, identity="1" * 64)),
        job(_base(dtype="bfloat16")),
        job(_base(quantization="nf4")),
        job(_base(prompt_format="chat")),
        job(BASE, lang="combined"),
        job(BASE, examples=rows(17)),
        job(BASE, examples=(replace(rows()[0], reference="bad"), *rows()[1:])),
        job(BASE, tasks=_tasks(prompt="{input}:")),
        job(BASE, tasks=_tasks(separator="")),
        job(BASE, tasks=_tasks(labels=["good", "bad", "fair", "poor"])),
    ],
)
def test_rows_words_and_base_change_the_key(changed: TrainingJob) -> None:
    assert training_key(changed) != training_key(job(BASE))


@pytest.mark.parametrize(
    "same",
    [
        job(BASE, examples=rows()[::-1]),
        job(replace(BASE, location="/elsewhere", name="other")),
        job(_base(device="cpu")),
        job(BASE, tasks=_tasks(metric="accuracy", max_new_tokens=9)),
        job(BASE, tasks=_tasks(metrics=["accuracy", "macro_recall"], calibration="prior")),
        job(BASE, tasks=_tasks(prompt={"en": TASKS["mood"].prompt, "de": "Neu: {input}"})),
        job(BASE, tasks=TASKS | {"recap": TaskSettings(kind="generation", prompt="other {input}")}),
    ],
)
def test_what_no_row_sees_does_not(same: TrainingJob) -> None:
    assert training_key(same) == training_key(job(BASE))


def test_the_adapter_it_starts_from_counts_by_content(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        make_adapter(tmp_path / name, seed=seed)
    keys = [training_key(job(BASE, start_from=tmp_path / name)) for name in "abc"]
    assert keys[0] == keys[1]
    assert len({*keys, training_key(job(BASE))}) == 3


def test_unknown_tasks_are_named() -> None:
    with pytest.raises(DataError, match="mood"):
        training_key(job(BASE, tasks={}))
