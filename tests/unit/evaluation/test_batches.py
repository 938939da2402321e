from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapterctl.evaluation.batches import Size, batches, left_padded

UNLIMITED = {"most_rows": 4096, "most_tokens": 10**9, "most_logits": 10**9}


def split(sizes: list[Size], **limits: int) -> list[list[int]]:
    return list(batches(sizes, **(UNLIMITED | limits)))


def test_the_longest_come_first_and_rows_of_similar_length_together():
    sizes = [Size(length) for length in (3, 9, 5, 8)]
    assert split(sizes, most_rows=2) == [[1, 3], [2, 0]]


@pytest.mark.parametrize(
    ("most_tokens", "wanted"),
    [
        (36, [[0, 1, 2, 3]]),
        (35, [[0, 1, 2], [3]]),
        (18, [[0, 1], [2, 3]]),
        (17, [[0], [1, 2], [3]]),
        (1, [[0], [1], [2], [3]]),
    ],
)
def test_rows_times_padded_length_stay_under_the_budget_and_one_row_always_goes(most_tokens, wanted):
    assert split([Size(9), Size(8), Size(7), Size(6)], most_tokens=most_tokens) == wanted


def test_a_row_counts_as_often_as_its_candidates_are_read():
    assert split([Size(5, copies=2), Size(4, copies=3)], most_tokens=25) == [[0, 1]]
    assert split([Size(5, copies=2), Size(4, copies=3)], most_tokens=24) == [[0], [1]]


def test_logits_have_a_budget_of_their_own():
    sizes = [Size(9, logits=2), Size(8, logits=5), Size(7, logits=1)]
    assert split(sizes, most_logits=15) == [[0, 1, 2]]
    assert split(sizes, most_logits=10) == [[0, 1], [2]]
    assert split(sizes, most_logits=9) == [[0], [1], [2]]


def test_kinds_are_not_mixed():
    assert split([Size(1, kind=1), Size(9, kind=0), Size(5, kind=1)]) == [[2, 0], [1]]


def test_no_rows_make_no_batch():
    assert split([]) == []


SIZES = st.builds(Size, st.integers(1, 50), st.integers(1, 5), st.integers(1, 9), st.integers(0, 2))


@given(st.lists(SIZES, max_size=40), st.integers(1, 8), st.integers(1, 400), st.integers(1, 60))
def test_every_row_is_in_one_batch_and_no_batch_of_several_breaks_a_limit(sizes, most_rows, most_tokens, most_logits):
    made = split(sizes, most_rows=most_rows, most_tokens=most_tokens, most_logits=most_logits)
    assert sorted(index for batch in made for index in batch) == list(range(len(sizes)))
    for batch in (batch for batch in made if len(batch) > 1):
        rows = [sizes[index] for index in batch]
        copies = sum(row.copies for row in rows)
        assert len(batch) <= most_rows
        assert copies * max(row.length for row in rows) <= most_tokens
        assert copies * max(row.logits for row in rows) <= most_logits
        assert len({row.kind for row in rows}) == 1


def test_padding_is_on_the_left_and_positions_count_from_each_rows_own_beginning():
    import torch

    made = left_padded([[5, 6, 7], [8]], 0, torch.device("cpu"))
    assert made.ids.tolist() == [[5, 6, 7], [0, 0, 8]]
    assert made.mask.tolist() == [[1, 1, 1], [0, 0, 1]]
    assert made.positions.tolist() == [[0, 1, 2], [0, 0, 0]]
