from __future__ import annotations

import pytest
import torch

from adapterctl.lora.delta import LowRankDelta


def delta(scale: float = 1.5) -> LowRankDelta:
    return LowRankDelta(
        A=torch.tensor([[1.0, 2.0, 0.0], [0.0, 1.0, -1.0]]), B=torch.tensor([[1.0, 0.0], [2.0, 1.0]]), scale=scale
    )


def test_dense_is_scale_times_b_times_a() -> None:
    expected = 1.5 * torch.tensor([[1.0, 2.0, 0.0], [2.0, 5.0, -1.0]])
    torch.testing.assert_close(delta().dense(), expected)


def test_scaled_factors_multiply_to_the_dense_delta() -> None:
    a, b = delta().scaled_factors()
    torch.testing.assert_close(b @ a, delta().dense())


def test_rank_and_shape() -> None:
    assert delta().rank == 2
    assert delta().shape == (2, 3)


@pytest.mark.parametrize("scale", [1.5, -0.25, 0.0])
def test_norm_is_the_frobenius_norm(scale: float) -> None:
    assert delta(scale).norm() == pytest.approx(float(torch.linalg.norm(delta(scale).dense())))


def test_factors_of_two_matrices_are_refused() -> None:
    with pytest.raises(ValueError, match="not factors"):
        LowRankDelta(torch.zeros(2, 3), torch.zeros(4, 5), 1.0)
