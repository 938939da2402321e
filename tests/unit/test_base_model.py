from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from tests.support.tiny_llama import save_tiny_llama, tiny_base

from adapterctl import base_model
from adapterctl.base_model import BaseModel, BaseModelSettings, document_hashes, find, load_model, load_tokenizer
from adapterctl.errors import BaseModelError


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder that no test may change."""
    return save_tiny_llama(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny, tmp_path / "copy"))


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def test_pocket_comes_with_the_package(pocket_assets: Path, tmp_path: Path) -> None:
    found = find(BaseModelSettings(), tmp_path)
    assert (found.name, Path(found.location), found.chat) == ("pocket", pocket_assets, False)


def test_a_relative_path_starts_at_the_workspace(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in ("tiny", "./tiny", "../" + tiny.parent.name + "/tiny", str(tiny)):
        found = find(BaseModelSettings(path=path, prompt_format="chat"), tiny.parent)
        assert (found.name, found.location, found.chat) == (path, str(tiny), True)


def test_a_folder_goes_before_a_hub_name(tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny, tmp_path / "owner" / "model")
    assert find(BaseModelSettings(path="owner/model"), tmp_path).location == str(tmp_path / "owner" / "model")


@pytest.mark.parametrize("path", ["none", "./none", "/none/at/all", "a/b/c", "~nobody-of-that-name/x", "n" * 300, "\0"])
def test_a_folder_that_is_not_there(tmp_path: Path, path: str) -> None:
    with pytest.raises(BaseModelError) as caught:
        find(BaseModelSettings(path=path), tmp_path)
    assert caught.value.message.startswith(f"base model '{path}'")
    assert caught.value.hint == "set base_model.path in adapterctl.yaml to a folder, a hub name, or pocket"


def test_a_hub_name_without_the_hub(tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match="'owner/name' is neither a folder nor to be had from the hub") as caught:
        find(BaseModelSettings(path="owner/name"), tmp_path)
    assert caught.value.hint == "set base_model.path in adapterctl.yaml to a folder, or log in with: hf auth login"


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"null", b'"llama"', b"\xff"])
def test_a_folder_that_is_no_model(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(BaseModelError, match=r"has no readable config\.json") as caught:
        find(BaseModelSettings(path="."), tmp_path)
    assert "save_pretrained" in caught.value.hint


def test_identity_does_not_depend_on_place_or_way_of_loading(tiny: Path, copy: Path) -> None:
    assert tiny_base(copy).identity == tiny_base(tiny).identity == tiny_base(copy, dtype="bfloat16").identity
    (copy / "README.md").write_text("told, not computed with")
    assert tiny_base(copy).identity == tiny_base(tiny).identity


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"])
@pytest.mark.parametrize("position", [-5, -1000])
def test_identity_changes_with_every_byte(tiny: Path, copy: Path, name: str, position: int) -> None:
    flip(copy / name, max(position, -(copy / name).stat().st_size // 2))
    changed = base_model._folder_identity(copy)
    assert changed != tiny_base(tiny).identity


def test_identity_changes_with_files_that_come_go_or_swap_names(tiny: Path, copy: Path) -> None:
    told = {base_model._folder_identity(tiny)}
    (copy / "chat_template.jinja").write_text("{{ messages }}")
    told.add(base_model._folder_identity(copy))
    (copy / "model.safetensors").rename(copy / "other.safetensors")
    told.add(base_model._folder_identity(copy))
    (copy / "other.safetensors").unlink()
    told.add(base_model._folder_identity(copy))
    assert len(told) == 4


def test_large_weights_are_known_by_size_and_header(tiny: Path, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base_model, "_WHOLLY_HASHED", 100)
    identity = base_model._folder_identity(tiny)
    flip(copy / "model.safetensors", -5)
    assert base_model._folder_identity(copy) == identity
    flip(copy / "model.safetensors", 40)
    assert base_model._folder_identity(copy) != identity


def test_what_adapters_record_of_a_base_model(tiny: Path, copy: Path) -> None:
    found = document_hashes(find(BaseModelSettings(path=str(copy)), copy))
    expected = {name: sha256((tiny / name).read_bytes()).hexdigest() for name in ("config.json", "tokenizer.json")}
    assert found == expected
    (copy / "tokenizer.json").unlink()
    assert document_hashes(find(BaseModelSettings(path=str(copy)), copy)).keys() == {"config.json"}


def test_folding_does_not_go_with_quantisation() -> None:
    assert BaseModelSettings(fold_adapters=True).fold_adapters
    for quantization in ("nf4", "int8"):
        with pytest.raises(ValidationError, match="fold_adapters does not go with quantization"):
            BaseModelSettings.model_validate({"fold_adapters": True, "quantization": quantization})


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cpu:0", "cuda:x", "AUTO", ""])
def test_devices_of_other_names_are_refused(device: str) -> None:
    with pytest.raises(ValidationError, match="device"):
        BaseModelSettings(device=device)


def test_parameters_are_the_weights_of_the_layers_matrices(tiny: Path, pocket_assets: Path) -> None:
    for base in (tiny_base(tiny), find(BaseModelSettings(), tiny)):
        model = load_model(base)
        matrices = [m for name, m in model.named_modules() if isinstance(m, torch.nn.Linear) and name != "lm_head"]
        assert base.parameters == sum(matrix.weight.numel() for matrix in matrices)


def test_a_model_is_loaded_frozen_in_the_wanted_format_with_its_tokenizer(tiny: Path) -> None:
    base = tiny_base(tiny, dtype="bfloat16", device="cpu")
    model, tokenizer = load_model(base), load_tokenizer(base)
    stored = load_file(tiny / "model.safetensors")
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    name = "model.layers.1.mlp.up_proj.weight"
    assert torch.equal(model.state_dict()[name], stored[name].to(torch.bfloat16))
    assert tokenizer.pad_token == "<pad>"


def test_a_tokenizer_without_padding_pads_with_the_end(copy: Path) -> None:
    path = copy / "tokenizer_config.json"
    config = {key: value for key, value in json.loads(path.read_text()).items() if key != "pad_token"}
    path.write_text(json.dumps(config))
    assert load_tokenizer(tiny_base(copy)).pad_token == "</s>"


def _rewrite(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


def _half(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _without_a_tensor(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.0.self_attn.q_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("damage", "load", "reason"),
    [
        (_rewrite("model.safetensors", b""), load_model, "header too small"),
        (_rewrite("model.safetensors", b"garbage " * 9), load_model, "header too large"),
        (_half, load_model, "incomplete metadata"),
        (_without_a_tensor, load_model, r"lack the weights model\.layers\.0\.self_attn\.q_proj\.weight"),
        (lambda folder: (folder / "model.safetensors").unlink(), load_model, "no file named model.safetensors"),
        (_rewrite("config.json", b'{"model_type": "llama", "hidden_size": "x"}'), load_model, "hidden_size"),
        (_rewrite("config.json", b'{"model_type": "nosuch"}'), load_model, "nosuch"),
        (_rewrite("config.json", b'{"model_type": "nosuch"}'), lambda base: base.parameters, "nosuch"),
        (_rewrite("tokenizer.json", b"{}"), load_tokenizer, "cannot be loaded"),
        (_rewrite("tokenizer.json", b"[]"), load_tokenizer, "cannot be loaded"),
        (_rewrite("tokenizer.json", b"?"), load_tokenizer, "cannot be loaded"),
    ],
)
def test_damaged_files_are_told(
    copy: Path, damage: Callable[[Path], object], load: Callable[[BaseModel], object], reason: str
) -> None:
    damage(copy)
    base = tiny_base(copy)
    with pytest.raises(BaseModelError, match=reason) as caught:
        load(base)
    assert caught.value.message.startswith("base model 'copy' cannot be loaded: ")
    assert caught.value.hint == "check base_model in adapterctl.yaml with: adapterctl doctor"


def test_pickled_weights_are_never_loaded(copy: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    torch.save(tensors, copy / "pytorch_model.bin")
    with pytest.raises(BaseModelError):
        load_model(tiny_base(copy))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there(tiny: Path) -> None:
    with pytest.raises(BaseModelError, match="cannot be loaded"):
        load_model(tiny_base(tiny, device="cuda"))
