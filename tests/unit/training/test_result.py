from __future__ import annotations

import json
from pathlib import Path

import pytest

from adapterctl.training.figures import loss_curves, smoothed
from adapterctl.training.result import Step, TrainingResult, closing_loss, training_flops


def _steps(count: int, factor: float = 1.0) -> tuple[Step, ...]:
    return tuple(
        Step(i + 1, factor * (3.0 / (i + 1) + 0.1 * (i % 2)), 1e-3, 40 * (i + 1), 0.1 * i) for i in range(count)
    )


def test_flops_of_frozen_and_trained_numbers() -> None:
    assert training_flops(1000, 10, 7) == 7 * (4 * 1000 + 6 * 10)
    # With checkpointing the forward pass, two operations a number, is computed once more.
    assert training_flops(1000, 10, 7, checkpointing=True) == 7 * (6 * 1000 + 8 * 10)
    # All numbers trained and none frozen: the 6·N·T of a full training.
    assert training_flops(0, 1000, 7) == 6 * 1000 * 7


def test_closing_loss_is_the_mean_of_the_last_tenth() -> None:
    steps = _steps(20)
    assert closing_loss(steps) == pytest.approx((steps[18].loss + steps[19].loss) / 2)
    assert closing_loss(steps[:3]) == steps[2].loss


def test_result_survives_storage(tmp_path: Path) -> None:
    result = TrainingResult(
        folder=tmp_path, key="k", steps=2, tokens=80, padded_tokens=90, final_loss=1.5, history=_steps(2), seconds=1.25,
        reused=False, resumed_from_step=1, trainable_parameters=10, flops=5.0,
    )  # fmt: skip
    stored = json.loads(json.dumps(result.as_dict()))
    read = TrainingResult.from_dict(tmp_path, stored)
    assert read.reused
    assert read.as_dict() == result.as_dict()
    assert str(tmp_path) not in json.dumps(stored)


def test_smoothing_keeps_a_constant_and_the_length() -> None:
    assert smoothed([2.0] * 50) == pytest.approx([2.0] * 50)
    assert smoothed([1.0, 3.0]) == [2.0, 2.0]


def test_loss_curves_are_a_png_that_says_the_same_each_time() -> None:
    runs = {"de": _steps(60), "ja": _steps(50, 0.5), "zh": _steps(1), "none": ()}
    picture = loss_curves(runs, title="Loss")
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = (int.from_bytes(picture[i : i + 4], "big") for i in (16, 20))
    assert (width, height) == (960, 540)
    assert loss_curves(runs, title="Loss") == picture
    assert loss_curves({"de": runs["de"]}, title="Loss") != picture


def test_a_picture_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no step"):
        loss_curves({"de": ()})
