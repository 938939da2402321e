"""PEFT as the oracle where it is right, and as the program that has to load what is written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from tests.support.adapters import dense_deltas, make_adapter, relative_error
from transformers import LlamaConfig, LlamaForCausalLM

from adapterctl.lora.adapter import Adapter
from adapterctl.merging.engine import merge
from adapterctl.merging.recipe import MergeRecipe

# PEFT 0.21 asks transformers 5.23 for a property that is to be removed in transformers 6.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

LAYERS = ("model.layers.0", "model.layers.1")
SHAPES = {
    f"{layer}.{kind}": shape
    for layer in LAYERS
    for kind, shape in {
        "self_attn.q_proj": (16, 16),
        "self_attn.k_proj": (8, 16),
        "mlp.gate_proj": (24, 16),
        "mlp.down_proj": (16, 24),
    }.items()
}
WEIGHTS = {"de": 0.9, "ja": 0.5, "zh": 0.3}


def make_base() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=40,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture
def base() -> LlamaForCausalLM:
    return make_base()


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    return {
        lang: make_adapter(tmp_path / lang, seed=index + 1, rank=3, alpha=4 + index, shapes=SHAPES)
        for index, lang in enumerate(WEIGHTS)
    }


def deltas_in(model: PeftModel, name: str) -> Iterator[tuple[str, torch.Tensor]]:
    for module in SHAPES:
        yield module, model.get_submodule(f"base_model.model.{module}").get_delta_weight(name).detach()


@pytest.mark.filterwarnings("ignore:The density 1.0 is greater than or equal to 1:UserWarning")
@pytest.mark.parametrize(
    ("combination", "recipe"),
    [
        ("cat", {"method": "linear"}),
        ("svd", {"method": "core-ta", "rank": "auto"}),
        ("ties_svd", {"method": "ties", "density": 0.4}),
        ("ties_svd", {"method": "ties", "density": 1.0}),
        ("dare_linear_svd", {"method": "dare-linear", "density": 1.0}),
        ("dare_ties_svd", {"method": "dare-ties", "density": 1.0}),
        ("magnitude_prune_svd", {"method": "magnitude-prune", "density": 0.3}),
    ],
)
def test_peft_gives_the_same(
    base: LlamaForCausalLM, folders: dict[str, Path], tmp_path: Path, combination: str, recipe: dict[str, Any]
) -> None:
    languages = list(folders)
    model = PeftModel.from_pretrained(base, folders[languages[0]], adapter_name=languages[0])
    for lang in languages[1:]:
        model.load_adapter(folders[lang], adapter_name=lang)
    options: dict[str, Any] = {"combination_type": combination}
    if combination != "cat":
        options |= {"svd_rank": 16, "svd_full_matrices": False, "density": recipe.get("density")}
    model.add_weighted_adapter(languages, [WEIGHTS[lang] for lang in languages], "merged", **options)

    adapters = [Adapter.open(folder, lang) for lang, folder in folders.items()]
    keys = {"rank": "full", "semantics": "peft", "weights": WEIGHTS, **recipe}
    merge(adapters, MergeRecipe.model_validate(keys), tmp_path / "out")
    found = dense_deltas(tmp_path / "out")
    for module, expected in deltas_in(model, "merged"):
        assert relative_error(found[module], expected.double()) < 1e-5, module


@pytest.mark.parametrize("method", ["linear", "core-tsv", "knots-ties"])
@pytest.mark.parametrize("rslora", [False, True])
def test_peft_loads_the_result_and_computes_the_same_logits(
    base: LlamaForCausalLM, tmp_path: Path, method: str, rslora: bool
) -> None:
    adapters = [
        Adapter.open(
            make_adapter(tmp_path / lang, seed=rank, rank=rank, alpha=0.7, shapes=SHAPES, use_rslora=rslora), lang
        )
        for lang, rank in {"de": 2, "ja": 3}.items()
    ]
    merge(adapters, MergeRecipe.model_validate({"method": method, "density": 0.8}), tmp_path / "out")
    tokens = torch.arange(12).reshape(1, 12)
    with torch.no_grad():
        plain = base(tokens).logits
        by_hand = make_base()
        for module, delta in dense_deltas(tmp_path / "out").items():
            by_hand.get_submodule(module).weight += delta.float()
        expected = by_hand(tokens).logits
        logits = PeftModel.from_pretrained(base, tmp_path / "out")(tokens).logits
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(logits, plain, atol=1e-2)


def test_one_adapter_alone_gives_the_logits_it_gave_before(tmp_path: Path) -> None:
    folder = make_adapter(
        *(tmp_path / "ja",),
        rank=2,
        alpha=0.7,
        shapes=SHAPES,
        ranks=dict.fromkeys([name for name in SHAPES if "k_proj" in name], 3),
        rank_pattern={"k_proj": 3},
        alpha_pattern={"layers.1.mlp.gate_proj": 1.1},
    )
    merge([Adapter.open(folder, "ja")], MergeRecipe(), tmp_path / "out")
    tokens = torch.arange(12).reshape(1, 12)
    with torch.no_grad():
        before, after = (
            PeftModel.from_pretrained(make_base(), path)(tokens).logits for path in (folder, tmp_path / "out")
        )
    torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-4)
