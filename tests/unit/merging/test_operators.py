from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adapterctl.merging import operators
from adapterctl.randomness import generator


def tensor(*numbers: float) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def test_trim_keeps_entries_at_the_threshold() -> None:
    assert operators.trim(tensor(-3, 2, 1.9, 0), 2.0).tolist() == [-3, 2, 0, 0]


def test_elect_by_hand() -> None:
    parts = [tensor(4, -1, 2, 0, 1), tensor(-1, -3, 2, 0, -1), tensor(2, 5, 0, 0, 0)]
    elected = operators.elect(parts, [1, 1, 1], weighted=False, divisor="count", zero_sign=-1)
    # Sums 5, 1, 4, 0, 0: mean of 4 and 2; 5 alone; mean of 2 and 2; nothing; the balanced vote takes -1.
    assert elected.tolist() == [3, 5, 2, 0, -1]


def test_elect_with_weights_after_or_before_the_vote() -> None:
    parts = [tensor(4.0), tensor(-3.0)]
    after = operators.elect(parts, [0.5, 1.0], weighted=False, divisor="count", zero_sign=1)
    before = operators.elect(parts, [0.5, 1.0], weighted=True, divisor="weight", zero_sign=1)
    assert after.tolist() == [2.0]
    assert before.tolist() == [-3.0]


def test_elect_divisors() -> None:
    parts = [tensor(4.0), tensor(2.0)]
    by = {
        divisor: operators.elect(parts, [0.5, 0.25], weighted=True, divisor=divisor, zero_sign=1).item()
        for divisor in ("count", "weight", "none")
    }
    assert by == {"count": 1.25, "weight": pytest.approx(10 / 3), "none": 2.5}


@given(st.lists(st.floats(-1e300, 1e300) | st.sampled_from([0.0, -0.0, 1.0, -1.0, 5e-324]), min_size=1), st.data())
def test_kth_largest_is_exact(numbers: list[float], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(numbers)))
    cut = data.draw(st.integers(0, len(numbers)))
    blocks = [[tensor(*numbers[:cut])], [tensor(*numbers[cut:])]]
    assert operators.kth_largest(lambda: blocks, lambda size: k) == [sorted(map(abs, numbers))[-k]]


def test_kth_largest_of_each_language() -> None:
    numbers = np.random.default_rng(5).normal(size=(3, 1000))
    blocks = [tuple(torch.from_numpy(part[piece]) for part in numbers) for piece in (slice(0, 7), slice(7, None))]
    sizes = []
    found = operators.kth_largest(lambda: blocks, lambda size: sizes.append(size) or 250)  # type: ignore[func-returns-value]
    assert found == [np.sort(np.abs(part))[-250] for part in numbers]
    assert sizes == [1000, 1000, 1000]


def test_dare_mask_does_not_depend_on_blocks() -> None:
    whole = operators.dare_mask(generator("x"), (10, 4), 0.3)
    numbers = generator("x")
    blocks = [operators.dare_mask(numbers, (rows, 4), 0.3) for rows in (3, 6, 1)]
    assert torch.equal(torch.cat(blocks), whole)


def test_dare_mask_keeps_the_share_it_should() -> None:
    mask = operators.dare_mask(generator("y"), (400, 500), 0.3)
    assert float(mask.double().mean()) == pytest.approx(0.3, abs=0.005)


def test_tsv_of_equal_languages_is_that_language() -> None:
    part = torch.from_numpy(np.random.default_rng(1).normal(size=(6, 5)))
    torch.testing.assert_close(operators.tsv([part, part], [1.0, 1.0]), part)


def test_tsv_of_languages_that_do_not_meet_is_their_sum() -> None:
    one, two = torch.zeros(2, 4, 4, dtype=torch.float64)
    one[0, 0], two[1, 1] = 3.0, -2.0
    torch.testing.assert_close(operators.tsv([one, two], [1.0, 0.5]), one + 0.5 * two)


def test_everything_takes_zero() -> None:
    zero = torch.zeros(3, 4, dtype=torch.float64)
    for function in (operators.tsv, operators.isotropic, operators.weighted_sum):
        assert torch.equal(function([zero, zero], [1.0, 1.0]), zero)


def test_row_blocks() -> None:
    assert list(operators.row_blocks(7, 3)) == [slice(0, 3), slice(3, 6), slice(6, 7)]
