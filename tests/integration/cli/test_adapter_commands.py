"""``adapter check`` and ``adapter inspect``, run as a person runs them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.support.adapters import SHAPES, change_config, dense_deltas, make_adapter, make_family
from tests.support.cli import invoke

from adapterctl.lora.adapter import Adapter

Q = "model.layers.0.self_attn.q_proj"


class TestCheck:
    def test_a_table_of_what_fits(self, tmp_path: Path) -> None:
        folders = make_family(tmp_path, ["de", "ja"], rank=4)
        result = invoke("adapter", "check", *folders.values())
        assert result.exit_code == 0
        assert result.err.splitlines()[0].partition(" ")[2] == "… check 2 adapters"
        lines = result.out.splitlines()
        assert lines[0].split() == [
            *("content", "stored", "as", "base", "model", "rank", "scale", "modules", "layers", "size"),
        ]
        digest = Adapter.open(folders["ja"]).content_hash[:12]
        assert lines[3].split() == ["ja", digest, "float32", "tiny-base", "4", "1", "6", "2", "0.0", "MB"]
        assert lines[2].split()[5] == "0.75"
        assert lines[-1] == "They fit together."

    def test_mixed_ranks_and_the_language_that_is_written(self, tmp_path: Path) -> None:
        k = "model.layers.1.self_attn.k_proj"
        folder = make_adapter(
            *(tmp_path / "run-7",),
            rank=4,
            alpha=6,
            ranks={k: 3},
            rank_pattern={"layers.1.self_attn.k_proj": 3},
            revision="v1",
            dtype=torch.bfloat16,
        )
        (found,) = invoke("adapter", "check", f"zh_hant={folder}", "--json").json["adapters"]
        assert found == {
            "lang": "zh-Hant",
            "folder": str(folder),
            "content_hash": Adapter.open(folder).content_hash,
            "base_model": "tiny-base",
            "revision": "v1",
            "ranks": [3, 4],
            "alphas": [6.0],
            "scales": [1.5, 2.0],
            "rank_stabilised": False,
            "modules": 6,
            "layers": 2,
            "kinds": ["down_proj", "k_proj", "q_proj"],
            "dtypes": ["bfloat16"],
            "size": (folder / "adapter_model.safetensors").stat().st_size,
        }
        told = invoke("--quiet", "adapter", "check", f"zh_hant={folder}")
        assert "3 – 4" in told.out
        assert "1.5 – 2" in told.out
        assert told.out.splitlines()[-1] == "It can be used."

    def test_every_problem_of_every_adapter_at_once(self, tmp_path: Path) -> None:
        folders = make_family(tmp_path, ["de", "en", "fr", "ja"])
        change_config(folders["de"], use_dora=True, bias="all")
        (folders["en"] / "adapter_model.safetensors").write_bytes(b"")
        path = folders["fr"] / "adapter_model.safetensors"
        save_file({name: tensor * torch.inf for name, tensor in load_file(path).items()}, path)
        change_config(folders["ja"], base_model_name_or_path="other", revision="v2")
        result = invoke("--quiet", "adapter", "check", *folders.values(), "jp=nowhere")
        assert (result.exit_code, result.out) == (6, "")
        for word in (
            *("use_dora", "bias is 'all'", "not a complete safetensors file", "NaN or infinite", "ja: other", "ja: v2"),
            *("did you mean 'ja'", "no folder nowhere"),
        ):
            assert word in result.err
        as_json = invoke("adapter", "check", *folders.values(), "jp=nowhere", "--json")
        assert (as_json.exit_code, as_json.json["error"]["type"]) == (6, "AdapterError")
        assert len(as_json.json["error"]["problems"]) == 2 + 1 + 2 * len(SHAPES) + 2 + 2

    @pytest.mark.parametrize(("missing", "code"), [("refuse", 6), ("zero", 0), ("present", 0)])
    def test_modules_that_only_some_have(self, tmp_path: Path, missing: str, code: int) -> None:
        whole, part = make_adapter(tmp_path / "de"), make_adapter(tmp_path / "ja", shapes={Q: (12, 12)})
        assert invoke("adapter", "check", whole, part, "--missing", missing).exit_code == code

    def test_the_base_model_they_must_have(self, tmp_path: Path) -> None:
        folder = make_adapter(tmp_path / "ja")
        assert invoke("adapter", "check", folder, "--base", "tiny-base").exit_code == 0
        result = invoke("adapter", "check", folder, "--base", "meta-llama/Llama-3.1-8B")
        assert result.exit_code == 6
        assert "its base model is tiny-base, not meta-llama/Llama-3.1-8B" in result.err

    def test_without_folders(self) -> None:
        result = invoke("adapter", "check")
        assert (result.exit_code, result.out) == (2, "")
        assert "Missing argument" in result.err


class TestInspect:
    def test_tables_and_what_the_numbers_are(self, tmp_path: Path) -> None:
        folders = make_family(tmp_path, rank=3)
        result = invoke("adapter", "inspect", *folders.values())
        assert result.exit_code == 0
        assert "✓ compare their deltas" in result.err
        for pair in ("de – ja", "de – zh", "ja – zh"):
            assert pair in result.out
        assert "Signs: from all 912 entries of a delta; 0.5 is unrelated." in result.out
        assert "±" not in result.out

    def test_a_sample_says_so(self, tmp_path: Path) -> None:
        folders = make_family(tmp_path, ["de", "ja"], shapes={Q: (100, 120)})
        out = invoke("--quiet", "adapter", "inspect", *folders.values()).out
        assert "Signs: from 4,096 sampled entries of 12,000 of a delta, ± standard error; 0.5 is unrelated." in out
        assert " ± 0.00" in out

    def test_json_has_every_pair_in_every_layer(self, tmp_path: Path) -> None:
        folders = make_family(tmp_path, rank=3)
        found = invoke("adapter", "inspect", *folders.values(), "--json").json
        assert (found["languages"], found["modules"], found["entries"]) == (["de", "ja", "zh"], 6, 912)
        assert [layer["name"] for layer in found["layers"]] == ["0", "1"]
        assert [pair["languages"] for pair in found["layers"][1]["pairs"]] == [["de", "ja"], ["de", "zh"], ["ja", "zh"]]
        dense = {lang: dense_deltas(folder) for lang, folder in folders.items()}
        flat = {lang: torch.cat([delta.flatten() for delta in held.values()]) for lang, held in dense.items()}
        cosine = torch.nn.functional.cosine_similarity(flat["de"], flat["zh"], dim=0).item()
        assert found["whole"]["pairs"][1]["cosine"] == pytest.approx(cosine, rel=1e-10)
        assert found["whole"]["norms"]["ja"] == pytest.approx(float(flat["ja"].norm()), rel=1e-10)
        assert found["plot"] is None

    def test_a_picture(self, tmp_path: Path) -> None:
        folders = make_family(tmp_path, ["de", "ja"])
        picture = tmp_path / "pictures" / "interference.png"
        result = invoke("--quiet", "adapter", "inspect", *folders.values(), "--plot", picture)
        assert (result.exit_code, result.err) == (0, "")
        assert f"Drew {picture}" in result.out
        assert picture.read_bytes().startswith(b"\x89PNG")
        again = invoke("--quiet", "adapter", "inspect", *folders.values(), "--plot", picture, "--json")
        assert json.loads(again.out)["plot"] == str(picture)

    def test_one_alone(self, tmp_path: Path) -> None:
        result = invoke("--quiet", "adapter", "inspect", make_adapter(tmp_path / "ja"))
        assert result.exit_code == 0
        assert "One adapter alone interferes with nothing." in result.out

    def test_modules_that_only_some_have_are_zero_elsewhere(self, tmp_path: Path) -> None:
        whole, part = make_adapter(tmp_path / "de"), make_adapter(tmp_path / "ja", shapes={Q: (12, 12)})
        result = invoke("--quiet", "adapter", "inspect", whole, part)
        assert result.exit_code == 0
        assert result.out.splitlines()[-2].split()[:4] == ["1", "–", "–", "–"]

    def test_adapters_that_do_not_fit(self, tmp_path: Path) -> None:
        one = make_adapter(tmp_path / "de")
        other = make_adapter(tmp_path / "ja", shapes={**SHAPES, Q: (12, 16)})
        result = invoke("--quiet", "adapter", "inspect", one, other, "--json")
        assert result.exit_code == 6
        assert "do not have the same shape" in result.json["error"]["problems"][0]["message"]
