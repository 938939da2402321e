from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch

from adapterctl.accounting import throughput
from adapterctl.accounting.throughput import EFFICIENCY, arithmetic_speed, projected_training


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def test_a_training_takes_four_operations_a_weight_and_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throughput, "arithmetic_speed", lambda: 1e9)
    usage = projected_training(2_000_000, 1000.4, row_epochs=30)
    # 4 · 2e6 · 1000.4 operations at 0.4 of 1e9 a second
    assert EFFICIENCY == 0.4
    assert usage.flops == pytest.approx(8.0032e9)
    assert usage.wall_seconds == usage.cpu_seconds == pytest.approx(20.008)
    assert (usage.tokens, usage.row_epochs, usage.device_seconds) == (1000, 30, 0.0)


def test_no_tokens_take_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throughput, "arithmetic_speed", lambda: 1e9)
    assert projected_training(10**11, 0).wall_seconds == 0.0


@pytest.mark.skipif(torch.cuda.is_available(), reason="the reference below is one on the CPU")
def test_the_speed_is_that_of_a_matrix_product_on_this_machine() -> None:
    matrix = torch.ones(512, 512)
    seconds = min(timed(lambda: matrix @ matrix) for _ in range(9))
    # Other work on the machine disturbs both; an error of units would be a factor of a thousand.
    assert 1 / 30 < arithmetic_speed() / (2 * 512**3 / seconds) < 30


def test_a_projection_holds_the_accelerator_that_it_would_run_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throughput, "arithmetic_speed", lambda: 1e9)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "NVIDIA H200")
    # 4 · 1e6 · 100 operations at 0.4 of 1e9 a second
    assert projected_training(1_000_000, 100).devices == {"NVIDIA H200": pytest.approx(1.0)}
