from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.support.adapters import SHAPES, change_config, dense_deltas, make_adapter
from tests.support.tiny_llama import save_tiny_llama, tiny_base

from adapterctl.base_model import load_model
from adapterctl.errors import AdapterError
from adapterctl.lora.attach import attached

TINY = {
    "model.layers.0.self_attn.q_proj": (32, 32),
    "model.layers.1.self_attn.k_proj": (16, 32),
    "model.layers.1.mlp.down_proj": (32, 64),
}
IDS = torch.tensor([[1, 40, 41, 42, 43, 44, 45]])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_model(tiny_base(save_tiny_llama(tmp_path_factory.mktemp("base") / "tiny")))


@pytest.fixture(autouse=True)
def _without_a_trace(model: Any) -> Iterator[None]:
    """Whatever a test does: afterwards the model is what it was, to the last bit."""
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modules = [name for name, _ in model.named_modules()]
    yield
    assert [name for name, _ in model.named_modules()] == modules
    assert not hasattr(model, "peft_config")
    assert not model.training
    after = model.state_dict()
    assert list(after) == list(weights)
    assert all(torch.equal(after[name], weights[name]) for name in weights)


def adapter(folder: Path, **options: Any) -> Path:
    # ΔW of a size with the base weights, so that nothing else can explain the change of the logits.
    return make_adapter(folder, **{"shapes": TINY, "target_modules": list(TINY), "rank": 4, "alpha": 0.7, **options})


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=IDS).logits
    return found


@contextmanager
def added(model: Any, folder: Path, factor: float) -> Iterator[Any]:
    """Add factor·(α/r)·B·A to the weights by hand."""
    weights = dict(model.named_parameters())
    before = {}
    for module, delta in dense_deltas(folder).items():
        weight = weights[f"{module}.weight"]
        before[module] = weight.data
        weight.data = (weight.data.double() + factor * delta).float()
    yield model
    for module, weight in before.items():
        weights[f"{module}.weight"].data = weight


@pytest.mark.parametrize("fold", [False, True])
@pytest.mark.parametrize("factor", [1.0, 0.5, -1.3, 0.0])
def test_logits_are_those_of_the_weights_with_factor_times_the_delta(
    model: Any, tmp_path: Path, fold: bool, factor: float
) -> None:
    folder = adapter(tmp_path / "a")
    base = logits(model)
    with added(model, folder, factor) as changed:
        expected = logits(changed)
    with attached(model, folder, factor, fold=fold) as combined:
        found = logits(combined)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert (float((expected - base).abs().max()) > 0.1) == (factor != 0)
    assert torch.equal(logits(model), base)


def test_rank_stabilised_scale_is_followed(model: Any, tmp_path: Path) -> None:
    plain, stabilised = adapter(tmp_path / "a"), adapter(tmp_path / "b", use_rslora=True)
    # α/√r is α/r times √4 here.
    with attached(model, plain, 2.0) as combined:
        expected = logits(combined)
    with attached(model, stabilised) as combined:
        torch.testing.assert_close(logits(combined), expected, rtol=1e-5, atol=1e-5)


def test_without_an_adapter_it_is_the_base_model(model: Any) -> None:
    with attached(model, None, 0.3, fold=True) as combined:
        assert combined is model


@pytest.mark.parametrize("fold", [False, True])
def test_an_exception_inside_leaves_no_trace_either(model: Any, tmp_path: Path, fold: bool) -> None:
    base = logits(model)
    with pytest.raises(KeyboardInterrupt), attached(model, adapter(tmp_path / "a"), 2.0, fold=fold):
        raise KeyboardInterrupt
    assert torch.equal(logits(model), base)


def test_one_after_the_other_without_warnings(model: Any, tmp_path: Path) -> None:
    folders = [adapter(tmp_path / str(seed), seed=seed) for seed in (1, 2)]
    told = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for folder in (*folders, folders[0]):
            with attached(model, folder, fold=folder is folders[1]) as combined:
                told.append(logits(combined))
    assert torch.equal(told[0], told[2])
    assert not torch.allclose(told[0], told[1])
    assert not [str(w.message) for w in caught if "peft" in str(w.message).lower() or "adapter" in str(w.message)]


def _corrupt(folder: Path) -> None:
    (folder / "adapter_model.safetensors").write_bytes(b"x" * 40)


def _without_weights(folder: Path) -> None:
    (folder / "adapter_model.safetensors").unlink()


def _pickled(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    torch.save(load_file(path), folder / "adapter_model.bin")
    path.unlink()


QUERIES = {f"model.layers.{layer}.self_attn.q_proj": (32, 32) for layer in range(3)}


@pytest.mark.parametrize(
    ("options", "damage", "reason"),
    [
        ({"shapes": SHAPES, "target_modules": ["q_proj", "k_proj", "down_proj"]}, None, "size mismatch"),
        ({"shapes": {"transformer.h.0.c_attn": (32, 32)}, "target_modules": ["c_attn"]}, None, "c_attn"),
        ({"shapes": QUERIES, "target_modules": ["q_proj"]}, None, "no module for .*layers.2.self_attn.q_proj.lora_A"),
        (
            {"shapes": {"model.layers.0.self_attn.q_proj": (32, 32)}, "target_modules": ["q_proj"]},
            None,
            "its weights lack .*layers.1.self_attn.q_proj.lora_A",
        ),
        ({}, _corrupt, "not a complete safetensors file"),
        ({}, _without_weights, "does not fit"),
        ({}, _pickled, "a pickle, which is never loaded"),
        ({}, lambda folder: (folder / "adapter_config.json").write_text("{"), "does not fit"),
        ({}, lambda folder: (folder / "adapter_config.json").write_text("[]"), "does not fit"),
        ({}, lambda folder: change_config(folder, peft_type="NOPE"), "NOPE"),
    ],
)
def test_an_adapter_of_another_model_is_refused_and_leaves_no_trace(
    model: Any, tmp_path: Path, options: dict[str, Any], damage: Any, reason: str
) -> None:
    folder = adapter(tmp_path / "a", **options)
    if damage is not None:
        damage(folder)
    with pytest.raises(AdapterError, match=f"(?s)adapter {folder} .*{reason}") as caught:
        attached(model, folder).__enter__()
    assert caught.value.hint == "check that it was trained on this base model"
