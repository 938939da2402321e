"""What each server is told, and which ranks it takes."""

from __future__ import annotations

import pytest

from adapterctl.merging.report import SERVED_RANKS
from adapterctl.serving.targets import SERVERS, TARGETS


@pytest.mark.parametrize(
    ("rank", "least"), [(1, 1), (2, 8), (8, 8), (9, 16), (129, 256), (257, 320), (321, 512), (512, 512), (513, None)]
)
def test_the_ranks_that_vllm_takes(rank: int, least: int | None) -> None:
    assert TARGETS["vllm"].least_rank(rank) == least


def test_merges_and_exports_speak_of_the_same_ranks() -> None:
    assert TARGETS["vllm"].ranks == SERVED_RANKS


def test_sglang_takes_every_rank() -> None:
    assert [TARGETS["sglang"].least_rank(rank) for rank in (1, 7, 900)] == [1, 7, 900]


def test_the_targets() -> None:
    assert list(TARGETS) == ["peft", "vllm", "sglang", "gguf", "model"]
    assert [target.name for target in SERVERS] == ["vllm", "sglang"]


def test_command_lines() -> None:
    kinds = ["down_proj", "q_proj"]
    told = {name: target.arguments(12, kinds) for name, target in TARGETS.items()}
    assert told == {
        "peft": [],
        "vllm": ["--enable-lora", "--max-lora-rank", "16"],
        "sglang": ["--enable-lora", "--max-lora-rank", "12", "--lora-target-modules", "down_proj", "q_proj"],
        "gguf": ["--lora", "adapter.gguf"],
        "model": [],
    }
