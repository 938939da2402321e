"""PEFT as the oracle where it is right, and as the program that has to load what is written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.support.adapters import dense_deltas, make_adapter, relative_error
from tests.support.merging import factors_of, is_stable, keys_of, opened, run, write_grams

from adapterctl.merging.engine import merge
from adapterctl.merging.methods import METHODS
from adapterctl.merging.recipe import MergeRecipe

peft = pytest.importorskip("peft", reason="PEFT is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")

pytestmark = [
    # PEFT 0.21 asks transformers 5.23 for a property that is to be removed in transformers 6.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:The density 1.0 is greater than or equal to 1:UserWarning"),
]

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
WEIGHTS = {
    "positive": {"de": 0.9, "ja": 0.5, "zh": 0.3},
    "negative": {"de": 0.9, "ja": -0.5, "zh": 1.3},
    "zero": {"de": 0.9, "ja": 0.0, "zh": 1.3},
}


def make_base() -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = transformers.LlamaConfig(
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
        return transformers.LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("family")
    return {
        lang: make_adapter(root / lang, seed=index + 1, rank=3, alpha=4 + index, shapes=SHAPES)
        for index, lang in enumerate(("de", "ja", "zh"))
    }


@pytest.fixture(scope="module")
def grams(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return write_grams(tmp_path_factory.mktemp("grams"), shapes=SHAPES)


@pytest.fixture(scope="module")
def loaded(folders: dict[str, Path]) -> Any:
    """The base model with all adapters."""
    first, *others = folders
    model = peft.PeftModel.from_pretrained(make_base(), folders[first], adapter_name=first)
    for lang in others:
        model.load_adapter(folders[lang], adapter_name=lang)
    return model


def deltas_in(model: Any, name: str) -> Iterator[tuple[str, torch.Tensor]]:
    for module in SHAPES:
        yield module, model.get_submodule(f"base_model.model.{module}").get_delta_weight(name).detach().double()


ORACLES: list[tuple[str, dict[str, Any]]] = [
    ("cat", {"method": "linear"}),
    ("svd", {"method": "linear", "rank": "full"}),
    ("svd", {"method": "core-ta"}),
    ("svd", {"method": "knots-linear"}),
    ("ties_svd", {"method": "ties", "density": 0.4}),
    ("ties_svd", {"method": "ties", "density": 0.07}),
    ("ties_svd", {"method": "ties", "density": 1.0}),
    ("dare_linear_svd", {"method": "dare-linear", "density": 1.0}),
    ("dare_ties_svd", {"method": "dare-ties", "density": 1.0}),
    ("magnitude_prune_svd", {"method": "magnitude-prune", "density": 0.3}),
    ("linear", {"method": "linear", "space": "factors"}),
    ("ties", {"method": "ties", "density": 0.4, "space": "factors"}),
    ("ties", {"method": "ties", "density": 1.0, "space": "factors"}),
    ("magnitude_prune", {"method": "magnitude-prune", "density": 0.3, "space": "factors"}),
    ("dare_linear", {"method": "dare-linear", "density": 1.0, "space": "factors"}),
    ("dare_ties", {"method": "dare-ties", "density": 1.0, "space": "factors"}),
]


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize(("combination", "recipe"), ORACLES, ids=str)
def test_peft_gives_the_same(
    loaded: Any, folders: dict[str, Path], tmp_path: Path, combination: str, recipe: dict[str, Any], weights: str
) -> None:
    languages, name = list(folders), f"{combination}-{recipe.get('density')}-{weights}".replace(".", "_")
    options: dict[str, Any] = {"combination_type": combination, "density": recipe.get("density")}
    if combination.endswith("svd"):
        options |= {"svd_rank": 16, "svd_full_matrices": False}
    loaded.add_weighted_adapter(languages, [WEIGHTS[weights][lang] for lang in languages], name, **options)
    found = run(opened(folders), tmp_path / "out", semantics="peft", weights=WEIGHTS[weights], **recipe)
    for module, expected in deltas_in(loaded, name):
        assert relative_error(found[module], expected) < 1e-5, module


@pytest.mark.parametrize("rank", [2, 5])
def test_peft_truncates_to_the_same(loaded: Any, folders: dict[str, Path], tmp_path: Path, rank: int) -> None:
    languages, weights = list(folders), WEIGHTS["positive"]
    for combination, method in (("svd", "linear"), ("ties_svd", "ties")):
        name = f"cut-{combination}-{rank}"
        loaded.add_weighted_adapter(
            languages,
            [weights[lang] for lang in languages],
            name,
            combination_type=combination,
            density=0.5,
            svd_rank=rank,
            svd_full_matrices=False,
        )
        keys = {"semantics": "peft", "weights": weights, **keys_of(method, 0.5)}
        found = run(opened(folders), tmp_path / "out", **{**keys, "rank": rank})
        for module, expected in deltas_in(loaded, name):
            assert relative_error(found[module], expected) < 2e-5, module


def test_the_samples_are_stable(folders: dict[str, Path]) -> None:
    for _, recipe in ORACLES:
        if recipe.get("space") != "factors" and not recipe["method"].startswith("dare"):
            assert is_stable(factors_of(folders), {"semantics": "peft", "weights": WEIGHTS["positive"], **recipe})


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("rslora", [False, True])
def test_peft_loads_the_result_and_computes_the_same_logits(
    tmp_path: Path, grams: dict[str, str], method: str, rslora: bool
) -> None:
    folders = {
        lang: make_adapter(tmp_path / lang, seed=rank, rank=rank, alpha=0.7, shapes=SHAPES, use_rslora=rslora)
        for lang, rank in {"ja": 2, "zh": 3}.items()
    }
    keys = keys_of(method, 0.8, {lang: grams[lang] for lang in folders})
    merge(opened(folders), MergeRecipe.model_validate(keys), tmp_path / "out")
    tokens = torch.arange(12).reshape(1, 12)
    base = make_base()
    with torch.no_grad():
        plain = base(tokens).logits
        by_hand = make_base()
        for module, delta in dense_deltas(tmp_path / "out").items():
            by_hand.get_submodule(module).weight += delta.float()
        expected = by_hand(tokens).logits
        logits = peft.PeftModel.from_pretrained(base, tmp_path / "out")(tokens).logits
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(logits, plain, atol=1e-2)


@pytest.mark.parametrize("method", METHODS)
def test_one_adapter_alone_gives_the_logits_it_gave_before(tmp_path: Path, grams: dict[str, str], method: str) -> None:
    folder = make_adapter(
        *(tmp_path / "ja",),
        rank=2,
        alpha=0.7,
        shapes=SHAPES,
        ranks=dict.fromkeys([name for name in SHAPES if "k_proj" in name], 3),
        rank_pattern={"k_proj": 3},
        alpha_pattern={"layers.1.mlp.gate_proj": 1.1},
        use_rslora=True,
    )
    keys = keys_of(method, 1.0, {"ja": grams["ja"]}, weights={"ja": 1.0})
    merge(opened({"ja": folder}), MergeRecipe.model_validate(keys), tmp_path / "out")
    tokens = torch.arange(12).reshape(1, 12)
    with torch.no_grad():
        before, after = (
            peft.PeftModel.from_pretrained(make_base(), path)(tokens).logits for path in (folder, tmp_path / "out")
        )
    torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-4)
