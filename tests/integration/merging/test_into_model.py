"""A merged model in transformers, on the command line, and after kill -9 or on a full disk."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from tests.support.adapters import make_family
from tests.support.base_models import others, weights, write_base
from tests.support.merge_command import done
from tests.support.merge_process import kill_everywhere
from tests.support.merging import opened
from tests.support.tiny_llama import save_tiny_llama
from transformers import AutoModelForCausalLM, AutoTokenizer

from adapterctl.errors import StorageError
from adapterctl.files import TEMPORARY_PREFIX
from adapterctl.merging.engine import merge
from adapterctl.merging.into_model import merge_into_model
from adapterctl.merging.recipe import MergeRecipe

LLAMA = {
    f"model.layers.{layer}.{name}": shape
    for layer in range(2)
    for name, shape in {
        "self_attn.q_proj": (32, 32),
        "self_attn.k_proj": (16, 32),
        "mlp.gate_proj": (64, 32),
        "mlp.down_proj": (32, 64),
    }.items()
}
LARGE = {f"model.layers.{layer}.mlp.up_proj": (256, 192) for layer in range(3)}
KEYS = {"method": "linear"}
OTHER = {"method": "core-tsv"}


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("llama") / "base")


def logits(model: torch.nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(tokens).logits  # type: ignore[no-any-return]


@pytest.mark.parametrize("keys", [KEYS, OTHER, {"method": "ties", "density": 0.4, "rank": "full"}], ids=str)
def test_transformers_computes_what_peft_does_with_the_merged_adapter(
    keys: dict[str, object], llama: Path, tmp_path: Path
) -> None:
    folders = make_family(tmp_path / "in", shapes=LLAMA, rank=3)
    recipe = MergeRecipe.model_validate(keys)
    merge(opened(folders), recipe, tmp_path / "adapter", scale=0.05)
    merge_into_model(opened(folders), recipe, llama, tmp_path / "model", scale=0.05)
    base = AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    tokens = tokenizer("the soup was warm, the sea is blue", return_tensors="pt")["input_ids"]
    plain = logits(base, tokens)
    expected = logits(PeftModel.from_pretrained(base, tmp_path / "adapter"), tokens)
    model, told = AutoModelForCausalLM.from_pretrained(
        tmp_path / "model", dtype=torch.float32, output_loading_info=True
    )
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]
    found = logits(model, tokens)
    assert float((found - expected).abs().max()) < 1e-4 < 0.1 < float((plain - expected).abs().max())


def test_on_the_command_line(llama: Path, tmp_path: Path) -> None:
    folders = make_family(tmp_path / "in", shapes=LLAMA, rank=3)
    out = tmp_path / "model"
    result = done(*folders.values(), "--to-model", llama, "--out", out, "--method", "linear", "--lambda", "0.1")
    assert f"transformers: AutoModelForCausalLM.from_pretrained('{out}')" in result.out
    merge_into_model(opened(folders), MergeRecipe(method="linear"), llama, tmp_path / "here", scale=0.1)
    assert (out / "model.safetensors").read_bytes() == (tmp_path / "here" / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_family(tmp_path_factory.mktemp("in"), shapes=LARGE, rank=4)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = weights(LARGE, torch.bfloat16) | others()
    return write_base(tmp_path_factory.mktemp("base") / "base", made, shards=2)


class TestInterrupted:
    @staticmethod
    def content(folder: Path) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "merge_report.json"}

    def merged(
        self, folders: dict[str, Path], base: Path, out: Path, keys: dict[str, object] | None = None
    ) -> dict[str, bytes]:
        merge_into_model(opened(folders), MergeRecipe.model_validate(keys or KEYS), base, out, threads=1)
        return self.content(out)

    @pytest.mark.parametrize("replacing", [False, True], ids=["new", "replacing"])
    def test_killed_at_every_touch_of_the_folder(
        self, folders: dict[str, Path], base: Path, tmp_path: Path, replacing: bool
    ) -> None:
        expected = self.merged(folders, base, tmp_path / "expected")
        before = self.merged(folders, base, tmp_path / "before", OTHER)
        roots = [tmp_path / f"{touch}" for touch in range(1, 100)]
        for root in roots:
            root.mkdir()
            if replacing:
                shutil.copytree(tmp_path / "before", root / "out")
        killed = kill_everywhere(folders, KEYS, roots, tmp_path / "codes", base=base)
        assert killed > 8
        for root in roots[:killed]:
            assert all(path.name == "out" or path.name.startswith(TEMPORARY_PREFIX) for path in root.iterdir())
            if (root / "out").exists():
                assert self.content(root / "out") in (expected, before)
        assert self.content(roots[killed] / "out") == expected
        assert [path.name for path in roots[killed].iterdir()] == ["out"]

    def test_a_full_disk_is_known_before_the_work(self, folders: dict[str, Path], base: Path, tiny_disk: Path) -> None:
        steps: list[int] = []
        with pytest.raises(StorageError, match="the disk is full"):
            merge_into_model(
                opened(folders),
                MergeRecipe.model_validate(KEYS),
                base,
                tiny_disk / "out",
                progress=lambda done, total: steps.append(done),
            )
        assert not steps
        assert list(tiny_disk.iterdir()) == []
        subprocess.run(["mount", "-o", "remount,size=20m", str(tiny_disk)], check=True)
        # Another kind of disk than the base's.
        expected = self.merged(folders, base, tiny_disk.parent / "expected")
        assert self.merged(folders, base, tiny_disk / "out") == expected
