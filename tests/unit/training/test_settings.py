from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import ValidationError

from adapterctl.training.settings import LoraSettings, TrainingSettings


def test_defaults_are_valid_and_describe_every_field() -> None:
    for settings in (LoraSettings, TrainingSettings):
        settings()
        assert [name for name, field in settings.model_fields.items() if not field.description] == []


@pytest.mark.parametrize(
    ("settings", "values"),
    [
        (LoraSettings, {"r": 0}),
        (LoraSettings, {"alpha": 0}),
        (LoraSettings, {"dropout": 1.0}),
        (LoraSettings, {"target_modules": []}),
        (LoraSettings, {"target_modules": ["q proj"]}),
        (LoraSettings, {"target_modules": "all"}),
        (LoraSettings, {"rank": 8}),
        (TrainingSettings, {"epochs": 0}),
        (TrainingSettings, {"learning_rate": 0}),
        (TrainingSettings, {"learning_rate": float("nan")}),
        (TrainingSettings, {"batch_size": 0}),
        (TrainingSettings, {"warmup_ratio": 1.0}),
        (TrainingSettings, {"warmup_ratio": 0.1, "warmup_steps": 3}),
        (TrainingSettings, {"mixed_precision": "fp16"}),
        (TrainingSettings, {"optimizer": "sgd"}),
        (TrainingSettings, {"seed": -1}),
        (TrainingSettings, {"threads": 0}),
        (TrainingSettings, {"learning_rte": 1e-3}),
    ],
)
def test_nonsense_is_refused(settings: type[LoraSettings | TrainingSettings], values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        settings.model_validate(values)


def test_scale_of_plain_and_rank_stabilised_lora() -> None:
    assert LoraSettings(r=16, alpha=24.0).scale == 1.5
    assert LoraSettings(r=16, alpha=24.0, rslora=True).scale == 6.0


@pytest.mark.parametrize(
    ("values", "total", "expected"),
    [
        ({"warmup_ratio": 0.1}, 57, 6),
        ({"warmup_ratio": 0.0}, 57, 0),
        ({"warmup_steps": 10}, 57, 10),
        ({"warmup_steps": 99}, 57, 57),
    ],
)
def test_warmup_in_steps(values: dict[str, object], total: int, expected: int) -> None:
    assert TrainingSettings.model_validate(values).warmup_of(total) == expected


def test_settings_survive_a_round_trip() -> None:
    settings = TrainingSettings(warmup_steps=4)
    assert TrainingSettings.model_validate(settings.model_dump(exclude_unset=True)) == settings


def test_configuration_needs_no_torch() -> None:
    code = (
        "import sys, adapterctl.training, adapterctl.training.settings, adapterctl.training.job, "
        "adapterctl.training.result, adapterctl.training.figures;"
        "print([name for name in ('torch', 'transformers', 'matplotlib', 'peft') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
