from __future__ import annotations

import math
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapterctl.lora.patterns import LARGEST_EFFORT, effort
from adapterctl.lora.peft_config import pattern_value

MODULE = "model.layers.31.self_attn.q_proj_of_a_rather_long_name_indeed_.x"


@pytest.mark.parametrize(
    "pattern",
    [
        "q_proj",
        "model.layers.0.mlp.gate_proj",
        r"layers\.[01]\.mlp\..*",
        r".*layers.*attn.*q_proj",
        r"model\.layers\.(0|1|2|3)\.self_attn\.(q|k|v)_proj",
        r"layers\.(1[0-9]|2[0-9]|3[01])\..*",
        r"layers\.(" + "|".join(map(str, range(80))) + r")\.mlp\..*",
        r"^model.layers.\d+.mlp",
        r"[()*+]{1}x",
        r"(?:a|b)c",
        r"\(a+\)+",
    ],
)
def test_what_people_write_is_quick(pattern: str) -> None:
    assert effort(pattern) <= LARGEST_EFFORT


@pytest.mark.parametrize(
    "pattern", [r"(a+)+$", r"(a|aa)*x", r"(?:\w+\.?)+x", r"(a?){40}x", r"((a+)b)*", r"(a{2,}){3}", ".*" * 9, "a?" * 40]
)
def test_what_never_ends_is_told(pattern: str) -> None:
    assert effort(pattern) > LARGEST_EFFORT


def test_a_group_that_repeats_is_without_bound() -> None:
    assert effort("(a+)+") == math.inf
    assert effort("((a)|(b))+") == math.inf


@pytest.mark.filterwarnings("ignore:Possible (nested )?set:FutureWarning")
@settings(max_examples=150, deadline=None)
@given(st.text(alphabet=r"a.\w()|*+?{}1,[]^$", max_size=24))
def test_whatever_is_let_through_is_matched_in_no_time(pattern: str) -> None:
    try:
        re.compile(rf"(.*\.)?({pattern})$")
    except (re.error, OverflowError):
        return
    if effort(pattern) <= LARGEST_EFFORT:
        started = time.process_time()
        pattern_value({pattern: 1}, "a." * 20 + "a" * 24, 0)
        pattern_value({pattern: 1}, MODULE, 0)
        assert time.process_time() - started < 2
