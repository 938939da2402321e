"""``adapterctl export``: exact bytes, refused where a server would refuse, whole whatever happens."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.support.adapters import dense_deltas, relative_error
from tests.support.disk import small_disk
from tests.support.program import Programs
from tests.support.published import SHAPES, make_workspace, publish
from tests.support.small_workspace import change
from tests.support.store import registry_of
from tests.support.tiny_llama import save_tiny_llama

from adapterctl import Workspace
from adapterctl.errors import AdapterError, UsageError
from adapterctl.lora.adapter import Adapter

ADAPTER = ("README.md", "adapter_config.json", "adapter_model.safetensors")


def current(root: Path, name: str = "current") -> Path:
    return root / "serving" / "pocket-merged" / name


def source(released: Path, name: str) -> Path:
    """Return the folder that a release was published from."""
    return released.parent / name


@pytest.mark.parametrize("target", ["peft", "vllm", "sglang"])
def test_the_files_are_those_that_were_published(released: Path, root: Path, program: Programs, target: str) -> None:
    made = program(root, "export", "serving", "--target", target, "--json").json
    folder = Path(made["folder"])
    assert folder.parent == root / "serving" / "pocket-merged"
    assert folder.name == f"v2-{made['content_hash'][:12]}"
    assert os.readlink(current(root)) == folder.name
    for name in ADAPTER:
        assert (folder / name).read_bytes() == (source(released, "second") / name).read_bytes()
    assert sorted(path.name for path in folder.iterdir()) == [*ADAPTER, "serving.json"]
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o644}
    assert (made["version"], made["rank"], made["model"]) == (2, 4, "pocket-merged-v2")
    assert made["max_lora_rank"] == {"peft": None, "vllm": 8, "sglang": 4}[target]
    assert ("--enable-lora" in made["arguments"]) is (target != "peft")
    again = program(root, "export", "serving", "--target", target, "--json").json
    assert again == {**made, "reused": True}


def test_one_folder_serves_all_and_says_how(root: Path, program: Programs) -> None:
    made = [
        program(root, "export", "serving", "--target", target, "--json").json for target in ("peft", "vllm", "sglang")
    ]
    assert len({one["folder"] for one in made}) == 1
    card = json.loads((current(root) / "serving.json").read_text(encoding="utf-8"))
    assert card["servers"]["vllm"]["arguments"] == made[1]["arguments"]
    assert card["servers"]["sglang"]["arguments"] == made[2]["arguments"]
    assert card["base"]["name"] == "base"


@pytest.mark.parametrize(("named", "version"), [("previous", 1), ("merged/1", 1), ("1", 1), ("champion", 2)])
def test_releases_by_name(root: Path, program: Programs, named: str, version: int) -> None:
    assert program(root, "export", "serving", "--release", named, "--json").json["version"] == version


def test_the_api_says_the_same(root: Path) -> None:
    made = Workspace.open(root).export(root / "serving", "previous", "vllm", max_lora_rank=16)
    assert made.release.version == 1
    assert made.arguments == ("--enable-lora", "--max-lora-rank", "8")


@pytest.mark.parametrize("spoilt", ["cut", "lost", "private", "card"])
def test_what_was_damaged_is_written_again(root: Path, program: Programs, spoilt: str) -> None:
    made = program(root, "export", "serving", "--json").json
    tensors = Path(made["folder"]) / "adapter_model.safetensors"
    whole = tensors.read_bytes()
    if spoilt == "cut":
        tensors.write_bytes(whole[:-10])
    elif spoilt == "lost":
        tensors.unlink()
    elif spoilt == "private":
        tensors.chmod(0o600)
    else:
        (tensors.parent / "serving.json").write_text("{")
    assert program(root, "export", "serving", "--json").json == made
    assert tensors.read_bytes() == whole
    assert tensors.stat().st_mode & 0o777 == 0o644


def test_a_base_that_has_no_such_modules_is_not_served(root: Path, tmp_path: Path) -> None:
    shapes = {f"model.language_{path.removeprefix('model.')}": shape for path, shape in SHAPES.items()}
    publish(root, tmp_path / "odd", "candidate", seed=3, shapes=shapes)
    with pytest.raises(AdapterError, match="cannot be exported for vLLM: 1 reason") as caught:
        Workspace.open(root).export(root / "serving", "candidate", "vllm")
    assert "has no module model.language_layers.0.mlp.down_proj" in str(caught.value)
    assert not current(root).exists()


def test_every_reason_is_told(root: Path, tmp_path: Path) -> None:
    publish(root, tmp_path / "odd", "candidate", seed=3, use_dora=True, bias="all", base_model="another", rank=12)
    with pytest.raises(AdapterError, match="4 reasons") as caught:
        Workspace.open(root).export(root / "serving", "candidate", "vllm", max_lora_rank=8)
    told = str(caught.value)
    for reason in ("use_dora", "bias", "records the base model another", "its rank is 12"):
        assert reason in told
    assert Workspace.open(root).export(root / "serving", "candidate").folder.is_dir()


def test_a_rank_that_is_too_large_is_refused_or_truncated(released: Path, root: Path, program: Programs) -> None:
    refused = program(root, "export", "serving", "--target", "vllm", "--max-lora-rank", "1")
    assert refused.exit_code == 6
    assert "its rank is 4, and the server takes 1 at most" in refused.err
    assert "merge.rank: 1" in refused.err
    assert not current(root).exists()
    args = ("export", "serving", "--target", "vllm", "--max-lora-rank", "1", "--fit", "--json")
    made = program(root, *args).json
    assert (made["rank"], made["model"]) == (1, "pocket-merged-v2-r1")
    assert made["folder"].endswith("-r1")
    assert "the gate has not measured this adapter" in made["notes"][0]
    whole, fitted = dense_deltas(source(released, "second")), dense_deltas(Path(made["folder"]))
    kept = total = 0.0
    for module, delta in whole.items():
        left, values, right = torch.linalg.svd(delta)
        best = values[0] * torch.outer(left[:, 0], right[0])
        assert relative_error(fitted[module], best) < 1e-5
        kept, total = kept + float(values[0] ** 2), total + float((values**2).sum())
    assert made["energy_kept"] == pytest.approx(kept / total, rel=1e-6)
    assert program(root, *args).json == {**made, "reused": True}


def test_fit_leaves_alone_what_fits(root: Path, program: Programs) -> None:
    made = program(root, "export", "serving", "--target", "vllm", "--fit", "--json").json
    assert (made["rank"], made["energy_kept"], made["notes"]) == (4, None, [])


def test_the_whole_model_computes_the_same(released: Path, root: Path, program: Programs) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    made = program(root, "export", "serving", "--target", "model", "--json").json
    assert os.readlink(current(root, "current-model")) == Path(made["folder"]).name
    model = AutoModelForCausalLM.from_pretrained(made["folder"]).eval()
    beside = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(released / "base"), str(source(released, "second"))
    ).eval()
    ids = torch.tensor([AutoTokenizer.from_pretrained(made["folder"])("the sea is blue")["input_ids"]])
    with torch.inference_mode():
        found, expected = model(ids).logits, beside(ids).logits
        assert not torch.allclose(found, AutoModelForCausalLM.from_pretrained(released / "base")(ids).logits, atol=0.1)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    assert program(root, "export", "serving", "--target", "model", "--json").json == {**made, "reused": True}


def test_an_adapter_for_llama_cpp(released: Path, root: Path, program: Programs) -> None:
    gguf = pytest.importorskip("gguf", reason="needs the package gguf")
    made = program(root, "export", "serving", "--target", "gguf", "--json").json
    assert made["arguments"] == ["--lora", "adapter.gguf"]
    reader = gguf.GGUFReader(current(root, "current-gguf") / "adapter.gguf")
    tensors = {tensor.name: np.array(tensor.data, dtype=np.float64) for tensor in reader.tensors}
    found = 6.0 / 4 * tensors["blk.1.ffn_up.weight.lora_b"] @ tensors["blk.1.ffn_up.weight.lora_a"]
    expected = dense_deltas(source(released, "second"))["model.layers.1.mlp.up_proj"].numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    # Pointers of different forms do not get into each other's way.
    program(root, "export", "serving", "--release", "previous")
    assert os.readlink(current(root)).startswith("v1-")
    assert os.readlink(current(root, "current-gguf")).startswith("v2-")


def test_another_base_model_is_refused(root: Path, program: Programs) -> None:
    save_tiny_llama(root / "other", seed=6)
    change(root, "adapterctl.yaml", "path: base", "path: other")
    for target in ("vllm", "gguf", "model"):
        done = program(root, "export", "serving", "--target", target)
        assert done.exit_code == 2
        assert "was made on another base model (base) than adapterctl.yaml names now (other)" in done.err
    shutil.copytree(root / "base", root / "elsewhere")
    done = program(root, "export", "serving", "--target", "vllm", "--base", "elsewhere", "--json")
    assert done.exit_code == 0, done.err
    done = program(root, "export", "serving", "--target", "vllm", "--base", "other")
    assert "than the one in other" in done.err


def test_a_base_model_out_of_reach_is_told(root: Path, program: Programs) -> None:
    (root / "base").rename(root / "gone")
    done = program(root, "export", "serving", "--target", "vllm", "--json")
    assert "its modules were not compared with the base model's" in done.json["notes"][0]
    assert program(root, "export", "serving", "--target", "model").exit_code == 6


def files_of(root: Path, number: int) -> Path:
    """Return where the store keeps the files of a version."""
    version = registry_of(root).version("pocket-merged", number)
    [path] = root.glob(f"registry/**/{version.model_id}/artifacts/adapter_model.safetensors")
    return path


def test_swapped_files_are_not_exported(released: Path, root: Path) -> None:
    Workspace.open(root).export(root / "serving")
    before = os.readlink(current(root))
    shutil.copyfile(source(released, "second") / "adapter_model.safetensors", files_of(root, 1))
    with pytest.raises(AdapterError, match="is not the one that was published"):
        Workspace.open(root).export(root / "serving", "previous", "vllm")
    assert os.readlink(current(root)) == before
    assert list((root / "serving").rglob(".adapterctl-tmp-*")) == []


BAD: dict[str, tuple[tuple[str, ...], int, str]] = {
    "no release": (("--release", "nobody"), 2, "there is no release 'nobody'"),
    "no candidate": (("--release", "candidate"), 2, "has no candidate"),
    "a path as a release": (("--release", "../../etc"), 2, "there is no release"),
    "no version": (("--release", "merged/9"), 2, "has no version 9"),
    "notify nobody": (("--notify", "http://127.0.0.1:1"), 2, "nothing that runs loads --target peft"),
    "no address": (("--target", "vllm", "--notify", "localhost"), 2, "is not an address"),
    "a rank for a model": (("--target", "model", "--max-lora-rank", "8"), 2, "it is an option of servers"),
    "a rank vllm has not": (("--target", "vllm", "--max-lora-rank", "48"), 6, "vLLM does not take 48"),
    "a rank of nothing": (("--target", "vllm", "--max-lora-rank", "0"), 2, "x>=1"),
    "fit for sglang": (("--target", "sglang", "--fit"), 2, "give --max-lora-rank too"),
    "a name with a slash": (("--name", "a/b"), 2, "cannot be a part of a model's name"),
    "a relative server path": (("--server-path", "x"), 2, "is not absolute"),
    "no base there": (("--target", "vllm", "--base", "nowhere"), 6, "there is no such folder"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(released: Path, program: Programs, tmp_path: Path, case: str) -> None:
    args, code, said = BAD[case]
    done = program(released, "export", str(tmp_path / "out"), *args)
    assert (done.exit_code, done.out) == (code, ""), done.err
    assert said in done.err
    assert "Traceback" not in done.err
    assert list(tmp_path.rglob("current")) == []


def test_where_a_file_is_in_the_way(root: Path, program: Programs) -> None:
    (root / "mine").write_text("")
    done = program(root, "export", "mine")
    assert done.exit_code == 7
    assert "mine" in done.err


def test_a_full_disk_leaves_what_was_there(root: Path, program: Programs, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "48k") as disk:
        out = str(disk / "serving")
        made = program(root, "export", out, "--release", "previous", "--json").json
        for target in ("peft", "gguf", "model"):
            full = program(root, "export", out, "--target", target)
            assert (full.exit_code, full.out) == (7, "")
            assert f"cannot write {out}" in full.err
            assert "the disk is full" in full.err
        shelf = disk / "serving" / "pocket-merged"
        assert sorted(path.name for path in shelf.iterdir()) == ["current", Path(made["folder"]).name]
        assert Adapter.open(shelf / "current").content_hash == made["content_hash"]


def test_a_release_that_failed_the_gate_is_exported_with_a_word(tmp_path: Path) -> None:
    root = make_workspace(tmp_path / "workspace")
    verdict: dict[str, Any] = {"passed": False, "outcome": "fail"}
    publish(root, tmp_path / "bad", "candidate", verdict=verdict)
    made = Workspace.open(root).export(root / "serving", "candidate")
    assert made.notes == ("pocket-merged v1 did not pass the gate",)
    with pytest.raises(UsageError, match="has no champion"):
        Workspace.open(root).export(root / "serving")


def test_two_exports_at_once_end_well(root: Path, program: Programs) -> None:
    started = [program.start(root, "export", "serving", "--target", "vllm", "--json") for _ in range(4)]
    started += [program.start(root, "export", "serving", "--release", "previous", "--json") for _ in range(2)]
    done = [one.wait() for one in started]
    assert [one.exit_code for one in done] == [0] * 6, [one.err for one in done]
    shelf = root / "serving" / "pocket-merged"
    assert len([path for path in shelf.iterdir() if path.is_dir() and not path.is_symlink()]) == 2
    for one in done:
        assert Adapter.open(Path(one.json["folder"])).content_hash == one.json["content_hash"]
    assert (current(root) / "adapter_config.json").is_file()


MOMENTS = [
    ("os:fsync", call, "before") for call in range(1, 11, 3)
] + [
    ("adapterctl.registry.client:Registry.download", 1, "after"),
    ("pathlib:Path.replace", 1, "before"),
    ("pathlib:Path.replace", 4, "after"),
    ("pathlib:Path.symlink_to", 1, "after"),
]  # fmt: skip


@pytest.mark.parametrize(("at", "call", "when"), MOMENTS)
def test_a_kill_leaves_the_pointer_at_a_whole_version(
    released: Path, root: Path, program: Programs, at: str, call: int, when: str
) -> None:
    Workspace.open(root).export(root / "serving", "previous")
    trap = {"at": at, "when": when, "call": call, "do": "kill"}
    done = program(root, "export", "serving", trap=trap)
    assert done.exit_code == -9, "the trap was never met"
    here = current(root).resolve()
    name = "first" if here.name.startswith("v1-") else "second"
    for file in ADAPTER:
        assert (here / file).read_bytes() == (source(released, name) / file).read_bytes()
    assert program(root, "export", "serving", "--json").json["version"] == 2
    here = current(root).resolve()
    assert Adapter.open(here).content_hash == Adapter.open(source(released, "second")).content_hash
