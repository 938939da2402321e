from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.support.adapters import SHAPES, change_config, make_adapter, make_family

from adapterctl.errors import AdapterError
from adapterctl.lora.adapter import Adapter
from adapterctl.lora.compatibility import Missing, check, open_compatible, require_compatible

Q = "model.layers.0.self_attn.q_proj"


def opened(folders: dict[str, Path]) -> list[Adapter]:
    return [Adapter.open(folder, lang) for lang, folder in folders.items()]


def change_tensors(folder: Path, **changes: torch.Tensor | None) -> None:
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    for short, tensor in changes.items():
        name = f"base_model.model.{Q}.{short}.weight"
        if tensor is None:
            del tensors[name]
        else:
            tensors[name] = tensor
    save_file(tensors, path)


def messages(folders: dict[str, Path]) -> str:
    return "\n".join(map(str, check(opened(folders))))


def test_a_family_fits(tmp_path: Path) -> None:
    folders = make_family(tmp_path)
    assert check(opened(folders)) == []
    assert [adapter.lang for adapter in open_compatible(folders)] == ["de", "ja", "zh"]


def test_mixed_ranks_and_scales_fit(tmp_path: Path) -> None:
    folders = {
        "de": make_adapter(tmp_path / "de", rank=2),
        "ja": make_adapter(tmp_path / "ja", rank=5, use_rslora=True),
    }
    assert check(opened(folders)) == []


def test_every_problem_of_every_folder_at_once(tmp_path: Path) -> None:
    folders = make_family(tmp_path, ["de", "en", "fr", "ja", "ko", "zh"])
    change_config(folders["de"], use_dora=True, modules_to_save=["lm_head"])
    (folders["en"] / "adapter_model.safetensors").write_bytes(b"short")
    change_tensors(folders["fr"], lora_A=torch.full((2, 12), torch.nan))
    (folders["ja"] / "adapter_config.json").unlink()
    change_config(folders["ko"], base_model_name_or_path="another")
    with pytest.raises(AdapterError) as caught:
        open_compatible(folders)
    text = str(caught.value)
    for word in (
        "use_dora",
        "modules_to_save",
        "not a complete",
        "24 of 24 numbers",
        "no adapter_config.json",
        "another",
    ):
        assert word in text
    assert len(caught.value.problems) == 6


def test_names_tensor_and_count_of_numbers_that_are_not_finite(tmp_path: Path) -> None:
    folders = make_family(tmp_path)
    values = torch.zeros(2, 12)
    values[0, 3], values[1, 1], values[1, 2] = torch.nan, torch.inf, -torch.inf
    change_tensors(folders["ja"], lora_A=values)
    assert f"{Q}.lora_A.weight: 3 of 24 numbers are NaN or infinite" in messages(folders)


def test_missing_factor(tmp_path: Path) -> None:
    folders = make_family(tmp_path)
    change_tensors(folders["ja"], lora_B=None)
    assert f"{Q} has no lora_B" in messages(folders)


def test_rank_that_differs_from_the_configuration(tmp_path: Path) -> None:
    folders = make_family(tmp_path)
    change_config(folders["ja"], r=3)
    assert f"{Q}: the tensors have rank 2, the configuration says 3" in messages(folders)


def test_shapes_that_do_not_fit(tmp_path: Path) -> None:
    folders = make_family(tmp_path)
    make_adapter(folders["ja"], shapes={**SHAPES, Q: (12, 16)})
    assert "do not have the same shape (de, zh: 12 × 12; ja: 12 × 16)" in messages(folders)


def test_modules_in_only_some_adapters(tmp_path: Path) -> None:
    folders = make_family(tmp_path)
    make_adapter(folders["ja"], shapes={name: shape for name, shape in SHAPES.items() if name != Q})
    assert f"it lacks modules that other adapters have: {Q}" in messages(folders)


@pytest.mark.parametrize("missing", ["zero", "present"])
class TestWhereModulesMayBeMissing:
    def test_only_some_need_have_them(self, tmp_path: Path, missing: Missing) -> None:
        folders = make_family(tmp_path)
        make_adapter(folders["ja"], shapes={name: shape for name, shape in SHAPES.items() if name != Q})
        assert check(opened(folders), missing=missing) == []
        require_compatible(opened(folders), missing=missing)
        assert len(open_compatible(folders, missing=missing)) == 3

    def test_but_those_that_do_must_agree_on_the_shape(self, tmp_path: Path, missing: Missing) -> None:
        folders = make_family(tmp_path)
        make_adapter(folders["ja"], shapes={Q: (12, 16)})
        (problem,) = check(opened(folders), missing=missing)
        assert "do not have the same shape (de, zh: 12 × 12; ja: 12 × 16)" in problem.message


def test_numbers_are_looked_at_unless_told_otherwise(tmp_path: Path) -> None:
    folders = make_family(tmp_path)
    change_tensors(folders["ja"], lora_A=torch.full((2, 12), torch.inf))
    assert len(check(opened(folders))) == 1
    assert check(opened(folders), numbers=False) == []


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_one_bad_number_in_a_large_tensor(tmp_path: Path, dtype: torch.dtype) -> None:
    shapes = {Q: (700_001, 12)}
    folders = {"ja": make_adapter(tmp_path / "ja", shapes=shapes, dtype=dtype)}
    values = torch.ones(700_001, 2, dtype=dtype)
    values[699_999, 1] = -torch.inf
    change_tensors(folders["ja"], lora_B=values)
    assert f"{Q}.lora_B.weight: 1 of 1400002 numbers are NaN or infinite" in messages(folders)


def test_configuration_and_tensors_of_one_adapter_are_both_told(tmp_path: Path) -> None:
    folders = make_family(tmp_path)
    change_config(folders["de"], use_dora=True)
    (folders["de"] / "adapter_model.safetensors").write_bytes(b"")
    told = messages(folders)
    assert "use_dora" in told
    assert "not a complete safetensors file" in told


def test_what_holds_for_every_module_hides_nothing_else(tmp_path: Path) -> None:
    folders = make_family(tmp_path)
    change_config(folders["de"], r=7)
    change_config(folders["ja"], r=9)
    change_config(folders["zh"], base_model_name_or_path="another")
    told = [problem.message for problem in check(opened(folders))]
    assert len(told) == 1 + 2 * len(SHAPES)
    assert "the same base model" in told[0]
    assert [("says 7" in message, "says 9" in message) for message in told[1:5]] == [(True, False), (False, True)] * 2


def test_progress_counts_adapters(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    check(opened(make_family(tmp_path)), progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_two_of_one_language_are_both_compared(tmp_path: Path) -> None:
    one = make_adapter(tmp_path / "a")
    two = make_adapter(tmp_path / "b", base_model="another")
    (problem,) = check([Adapter.open(one, "ja"), Adapter.open(two, "ja")])
    assert "(ja: tiny-base; ja: another)" in problem.message


def test_dora_magnitudes_are_named(tmp_path: Path) -> None:
    folders = make_family(tmp_path)
    path = folders["ja"] / "adapter_model.safetensors"
    save_file({**load_file(path), f"base_model.model.{Q}.lora_magnitude_vector": torch.zeros(2)}, path)
    assert "DoRA magnitudes, which are no part of B·A" in messages(folders)


def test_names_that_are_not_those_of_peft(tmp_path: Path) -> None:
    folders = make_family(tmp_path)
    path = folders["ja"] / "adapter_model.safetensors"
    save_file({name.removeprefix("base_model.model."): tensor for name, tensor in load_file(path).items()}, path)
    assert "do not begin with base_model.model.: model.layers.0.mlp.down_proj.lora_A.weight" in messages(folders)


def test_tensors_that_are_not_lora(tmp_path: Path) -> None:
    folders = make_family(tmp_path)
    path = folders["ja"] / "adapter_model.safetensors"
    save_file({**load_file(path), "base_model.model.lm_head.weight": torch.zeros(2)}, path)
    assert "not A or B of a linear layer: base_model.model.lm_head.weight" in messages(folders)


def test_tensors_that_are_not_numbers_of_a_network(tmp_path: Path) -> None:
    folders = make_family(tmp_path)
    change_tensors(folders["ja"], lora_A=torch.zeros(2, 12, dtype=torch.int8))
    assert "torch.int8, not floating-point" in messages(folders)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"base_model_name_or_path": "b"}, "the same base model (de, zh: tiny-base; ja: b)"),
        ({"revision": "r1"}, "the same revision of the base model (de, zh: None; ja: r1)"),
        ({"task_type": "SEQ_CLS"}, "the same task type"),
        ({"fan_in_fan_out": True}, "the same fan_in_fan_out"),
        ({"base_model_name_or_path": ["odd"]}, "the same base model"),
    ],
)
def test_adapters_of_different_origin(tmp_path: Path, change: dict[str, object], words: str) -> None:
    folders = make_family(tmp_path)
    change_config(folders["ja"], **change)
    assert words in messages(folders)


def test_base_model_that_is_expected(tmp_path: Path) -> None:
    adapters = opened(make_family(tmp_path))
    require_compatible(adapters, base_model="tiny-base")
    with pytest.raises(AdapterError, match="its base model is tiny-base, not other"):
        require_compatible(adapters, base_model="other")
