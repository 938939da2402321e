from __future__ import annotations

from typing import Any

import pytest
from tests.support.tiny_training import job, rows

from adapterctl.base_model import BaseModel, BaseModelSettings
from adapterctl.errors import DataError
from adapterctl.training.rows import TokenRow, refuse_long, token_rows

BASE = BaseModel(BaseModelSettings(path="base"), "/somewhere", "base", "0" * 64)


class Letters:
    """A tokenizer with one token a character."""

    bos_token_id = 1
    eos_token_id = 2
    chat_template = None

    def __call__(self, texts: list[str], add_special_tokens: bool) -> dict[str, list[list[int]]]:
        return {"input_ids": [[ord(letter) for letter in text] for text in texts]}


def _rows(**changes: Any) -> list[TokenRow]:
    return token_rows(job(BASE, **changes), Letters())


def test_a_row_is_prompt_then_answer_then_end() -> None:
    first = min(_rows(), key=lambda row: row.id)
    prompt, answer = "Review: the warm\nSentiment:", " good"
    assert first.id == "m0"
    assert first.ids == (1, *map(ord, prompt), *map(ord, answer), 2)
    assert first.prompt_length == 1 + len(prompt)


def test_rows_stand_in_an_order_of_their_own() -> None:
    assert _rows(examples=rows()[::-1]) == _rows()


def test_no_rows_is_an_error() -> None:
    with pytest.raises(DataError, match="no row to train 'en'"):
        _rows(examples=())


def _of(lengths: list[int]) -> list[TokenRow]:
    return [TokenRow(f"row-{i}", tuple(range(length)), 1) for i, length in enumerate(lengths)]


def test_rows_of_the_very_length_are_taken() -> None:
    refuse_long(_of([8, 12]), "ja", 12, 12)


def test_every_long_row_is_named_longest_first() -> None:
    with pytest.raises(DataError) as caught:
        refuse_long(_of([5, 13, 12, 40]), "ja", 12, 64)
    assert [str(problem) for problem in caught.value.problems] == ["row-3: 40 tokens", "row-1: 13 tokens"]
    assert "2 of 4 rows of 'ja' are longer than 12 tokens, training.max_length" in caught.value.message
    assert "training.max_length to 40" in caught.value.hint


def test_what_the_base_cannot_read_is_not_mended_by_a_setting() -> None:
    with pytest.raises(DataError) as caught:
        refuse_long(_of([5, 13]), "ja", 1000, 12)
    assert "what the base model can read" in caught.value.message
    assert "max_length" not in caught.value.hint


def test_many_long_rows_are_all_named_within_a_screen() -> None:
    with pytest.raises(DataError) as caught:
        refuse_long(_of([20] * 100), "ja", 12, None)
    text = str(caught.value)
    assert all(f"row-{i}" in text for i in range(100))
    assert len(text.splitlines()) < 40
