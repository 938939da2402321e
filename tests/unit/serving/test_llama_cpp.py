"""GGUF files of adapters, read back with llama.cpp's own reader: ΔW is the adapter's, its rows in llama.cpp's order."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.adapters import make_adapter, read_factors
from tests.support.published import SHAPES

from adapterctl.base_layout import Layout
from adapterctl.errors import UsageError
from adapterctl.lora.adapter import Adapter
from adapterctl.serving.llama_cpp import gguf_problems, order_of_rows, require_library, write_gguf

gguf = pytest.importorskip("gguf", reason="needs the package gguf")

LAYOUT = Layout("llama", layers=2, heads=4, key_heads=2, tied=True, modules=SHAPES)
CALLED = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}  # fmt: skip
"""What llama.cpp calls the modules of a layer."""


def back_to_transformers(rows: np.ndarray, heads: int) -> np.ndarray:
    """Return rows of q or k in transformers' order: a head's even rows, then its odd ones."""
    parts = np.split(rows, heads)
    return np.concatenate([half for part in parts for half in (part[0::2], part[1::2])])


def written(folder: Path, out: Path) -> Any:
    out.mkdir()
    return gguf.GGUFReader(write_gguf(Adapter.open(folder), LAYOUT, out, {"general.name": "名前"}))


@pytest.mark.parametrize(
    "options",
    [
        {"rank": 4, "alpha": 6.0},
        {"rank": 4, "alpha": 6.0, "use_rslora": True},
        {"rank": 4, "alpha": 6.0, "alpha_pattern": {"q_proj": 10}},
        {"rank": 4, "alpha": 6.0, "rank_pattern": {"k_proj": 2}, "ranks": {name: 2 for name in SHAPES if "k_" in name}},
        {"rank": 3, "alpha": 0.0},
    ],
    ids=["plain", "rslora", "alphas", "ranks", "nothing"],
)
def test_the_delta_is_the_adapters(tmp_path: Path, options: dict[str, Any]) -> None:
    folder = make_adapter(tmp_path / "a", shapes=SHAPES, **options)
    reader = written(folder, tmp_path / "out")
    alpha = float(reader.fields["adapter.lora.alpha"].contents())
    assert alpha != 0
    tensors = {tensor.name: np.array(tensor.data, dtype=np.float64) for tensor in reader.tensors}
    assert len(tensors) == 2 * len(SHAPES)
    for module, (b, a, scale) in read_factors(folder).items():
        _, _, layer, kind = module.split(".", 3)
        name = f"blk.{layer}.{CALLED[kind]}.weight"
        down, up = tensors[f"{name}.lora_a"], tensors[f"{name}.lora_b"]
        assert down.shape == tuple(a.shape)
        assert up.shape == tuple(b.shape)
        # llama.cpp: alpha / rank, the rank being that of lora_b.
        found = alpha / up.shape[1] * (up @ down)
        heads = {"self_attn.q_proj": 4, "self_attn.k_proj": 2}.get(kind)
        found = back_to_transformers(found, heads) if heads else found
        np.testing.assert_allclose(found, scale * (b @ a).numpy(), rtol=1e-5, atol=1e-6)


def test_what_the_file_says_of_itself(tmp_path: Path) -> None:
    reader = written(make_adapter(tmp_path / "a", shapes=SHAPES), tmp_path / "out")
    told = {name: reader.fields[name].contents() for name in reader.fields if not name.startswith("GGUF")}
    assert told == {
        "general.architecture": "llama",
        "general.type": "adapter",
        "adapter.type": "lora",
        "adapter.lora.alpha": 3.0,
        "general.name": "名前",
    }
    # ne[0] is the width of A and the rank of B.
    shapes = {tensor.name: [int(size) for size in tensor.shape] for tensor in reader.tensors}
    assert shapes["blk.1.attn_k.weight.lora_a"] == [32, 2]
    assert shapes["blk.1.attn_k.weight.lora_b"] == [2, 16]


def test_the_same_adapter_gives_the_same_bytes(tmp_path: Path) -> None:
    folder = make_adapter(tmp_path / "a", shapes=SHAPES)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_gguf(Adapter.open(folder), LAYOUT, tmp_path / name, {})
    one, two = ((tmp_path / name / "adapter.gguf").read_bytes() for name in ("one", "two"))
    assert one == two


def test_the_order_of_rows_by_hand() -> None:
    # Two heads of four: pairs (0, 2), (1, 3), then (4, 6), (5, 7).
    assert order_of_rows(8, 2) == [0, 2, 1, 3, 4, 6, 5, 7]


def test_other_kinds_of_models_are_refused(tmp_path: Path) -> None:
    adapter = Adapter.open(make_adapter(tmp_path / "a", shapes=SHAPES))
    [problem] = gguf_problems(adapter, Layout("qwen3", 2, 4, 2, True, SHAPES), "m v1")
    assert "of the kind qwen3" in problem.message
    assert "convert_lora_to_gguf.py" in problem.hint


def test_modules_that_llama_cpp_does_not_have_are_told(tmp_path: Path) -> None:
    shapes = {**SHAPES, "lm_head": (50, 32), "model.layers.7.mlp.up_proj": (64, 32)}
    adapter = Adapter.open(make_adapter(tmp_path / "a", shapes=shapes))
    [problem] = gguf_problems(adapter, LAYOUT, "m v1")
    assert "no tensor for lm_head, model.layers.7.mlp.up_proj" in problem.message
    [problem] = gguf_problems(adapter, Layout("llama", 2, 4, 2, False, SHAPES), "m v1")
    assert "no tensor for model.layers.7.mlp.up_proj" in problem.message


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(UsageError, match="needs the package gguf") as caught:
        require_library()
    assert "adapterctl[gguf]" in caught.value.hint
