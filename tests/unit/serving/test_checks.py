"""What is refused, with every reason at once, and what no server would notice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.support.adapters import SHAPES, make_adapter

from adapterctl.lora.adapter import Adapter
from adapterctl.serving.checks import is_the_base, layout_problems, rank_of, rank_problems, refusals
from adapterctl.serving.targets import TARGETS

VLLM, SGLANG = TARGETS["vllm"], TARGETS["sglang"]


def messages(target: Any, folder: Path) -> str:
    return "\n".join(map(str, refusals(target, Adapter.open(folder), "m v1")))


def rename(folder: Path, old: str, new: str) -> None:
    path = folder / "adapter_model.safetensors"
    save_file({name.replace(old, new): tensor for name, tensor in load_file(path).items()}, path)


def test_a_plain_adapter_is_accepted(tmp_path: Path) -> None:
    folder = make_adapter(tmp_path / "a")
    assert messages(VLLM, folder) == messages(SGLANG, folder) == ""


def test_every_reason_is_told_at_once(tmp_path: Path) -> None:
    folder = make_adapter(
        tmp_path / "a",
        use_dora=True,
        lora_bias=True,
        bias="all",
        modules_to_save=["lm_head"],
        init_lora_weights="pissa",
    )
    told = messages(VLLM, folder)
    for reason in ("use_dora", "lora_bias", "bias is 'all'", "modules_to_save", "init_lora_weights is 'pissa'"):
        assert reason in told
    assert all(line.startswith("m v1: ") for line in told.splitlines())


@pytest.mark.parametrize("start", ["pissa", "olora", "corda", "loftq"])
def test_initialisations_that_change_the_base_are_refused(tmp_path: Path, start: str) -> None:
    assert "changes the base weights" in messages(VLLM, make_adapter(tmp_path / "a", init_lora_weights=start))


def test_a_wrong_prefix_is_told(tmp_path: Path) -> None:
    folder = make_adapter(tmp_path / "a")
    rename(folder, "base_model.model.", "")
    assert "do not begin with base_model.model." in messages(VLLM, folder)


def test_numbers_that_are_none_are_told(tmp_path: Path) -> None:
    folder = make_adapter(tmp_path / "a")
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    tensors[next(iter(tensors))][0, 0] = torch.nan
    save_file(tensors, path)
    assert "1 of" in messages(VLLM, folder)
    assert "NaN" in messages(VLLM, folder)


@pytest.mark.parametrize(
    "config", [{"use_rslora": True}, {"alpha_pattern": {"q_proj": 9}}, {"rank_pattern": {"q_proj": 2}}]
)
def test_scales_that_sglang_would_get_wrong_are_refused_for_it_alone(tmp_path: Path, config: dict[str, Any]) -> None:
    folder = make_adapter(tmp_path / "a", **config)
    assert messages(VLLM, folder) == ""
    assert next(iter(config)) in messages(SGLANG, folder)


@pytest.mark.parametrize("config", [{"r": "many"}, {"rank_pattern": {"(": 2}}, {"rank_pattern": 3}, {"r": None}])
def test_a_configuration_that_means_nothing_is_told(tmp_path: Path, config: dict[str, Any]) -> None:
    folder = make_adapter(tmp_path / "a", **config)
    assert next(iter(config)) in messages(VLLM, folder)
    assert rank_of(Adapter.open(folder)) == 2


def test_a_pickle_beside_it_is_told(tmp_path: Path) -> None:
    folder = make_adapter(tmp_path / "a")
    (folder / "adapter_model.bin").write_bytes(b"cos\nsystem\n")
    assert "adapter_model.bin: a server may load a pickle" in messages(VLLM, folder)


def test_ranks() -> None:
    assert rank_problems(VLLM, 64, None, "m") == rank_problems(VLLM, 64, 64, "m") == []
    [small] = rank_problems(VLLM, 64, 16, "m")
    assert "its rank is 64, and the server takes 16 at most" in str(small)
    assert "merge.rank: 16" in small.hint
    assert "--max-lora-rank 64" in small.hint
    odd, small = rank_problems(VLLM, 64, 48, "m")
    assert odd.where == "--max-lora-rank"
    assert "1, 8, 16, 32, 64, 128, 256, 320, 512" in odd.hint
    [large] = rank_problems(VLLM, 600, None, "m")
    assert "vLLM takes 512 at most" in large.message
    assert rank_problems(SGLANG, 600, None, "m") == []
    assert len(rank_problems(SGLANG, 600, 599, "m")) == 1


def test_modules_that_the_base_does_not_have(tmp_path: Path) -> None:
    adapter = Adapter.open(make_adapter(tmp_path / "a"))
    assert layout_problems(adapter, SHAPES, "base", "m") == []
    moved = {f"language_{path}": shape for path, shape in SHAPES.items()}
    [problem] = layout_problems(adapter, moved, "base", "m")
    assert "the base model base has no module model.layers.0.mlp.down_proj" in problem.message
    assert "in silence" in problem.hint


def test_another_vocabulary_is_another_shape(tmp_path: Path) -> None:
    adapter = Adapter.open(make_adapter(tmp_path / "a", shapes={"lm_head": (50, 12)}))
    [problem] = layout_problems(adapter, {"lm_head": (51, 12)}, "base", "m")
    assert problem.message == "lm_head: ΔW is 50 × 12, the base model's weight is 51 × 12"


@pytest.mark.parametrize(
    ("told", "same"),
    [
        (("meta-llama/Llama-3.1-8B", "x"), True),
        (("x", "/srv/models/Llama-3.1-8B/"), True),
        (("x", "/srv/models/Llama-3.1-8B-Instruct"), False),
        (("llama-3.1-8b",), False),
        (("", ""), False),
    ],
)
def test_names_of_the_base_model(told: tuple[str, ...], same: bool) -> None:
    assert is_the_base(told, ("meta-llama/Llama-3.1-8B", "")) is same


def test_the_folder_of_the_base_model_must_be_the_very_one() -> None:
    assert is_the_base(("x", "/srv/assets"), ("pocket",), "/srv/assets")
    assert not is_the_base(("x", "/other/assets"), ("pocket",), "/srv/assets")
