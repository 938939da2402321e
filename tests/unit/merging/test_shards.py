"""The files of a base model: hostile ones, and which of them are copied."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from tests.support.adapters import make_family
from tests.support.base_models import merged, others, weights, write_base
from tests.support.merging import opened

from adapterctl.errors import AdapterctlError, BaseModelError
from adapterctl.merging.into_model import merge_into_model
from adapterctl.merging.recipe import MergeRecipe


class TestHostileBase:
    @pytest.fixture
    def base(self, tmp_path: Path) -> Path:
        return write_base(tmp_path / "base", weights() | others(), shards=2)

    def refusal(self, tmp_path: Path, base: Path) -> str:
        with pytest.raises(AdapterctlError) as caught:
            merged(make_family(tmp_path / "in"), base, tmp_path / "out", method="linear")
        assert isinstance(caught.value, BaseModelError)
        assert not (tmp_path / "out").exists()
        assert "adapter" not in caught.value.hint
        return str(caught.value)

    def name_in_index(self, base: Path, name: object) -> None:
        path = base / "model.safetensors.index.json"
        index = json.loads(path.read_text())
        index["weight_map"]["one"] = name
        path.write_text(json.dumps(index))

    @pytest.mark.parametrize(
        "name",
        [
            "../up/x.safetensors",
            "/etc/x.safetensors",
            "sub/x.safetensors",
            "..",
            "a\\x.safetensors",
            "x.bin",
            "\x1b.safetensors",
            ".x.safetensors",
        ],
    )
    def test_names_that_lead_elsewhere(self, name: str, base: Path, tmp_path: Path) -> None:
        self.name_in_index(base, name)
        told = self.refusal(tmp_path, base)
        assert "not the name of a safetensors file" in told
        assert "\x1b" not in told

    @pytest.mark.parametrize(
        "document", ["[]", "{}", '{"weight_map": {}}', '{"weight_map": {"a": 1}}', "{", '{"a": 1, "a": 2}']
    )
    def test_an_index_that_says_nothing(self, document: str, base: Path, tmp_path: Path) -> None:
        (base / "model.safetensors.index.json").write_text(document)
        assert "index.json" in self.refusal(tmp_path, base)

    def test_all_files_that_cannot_be_used_at_once(self, base: Path, tmp_path: Path) -> None:
        self.name_in_index(base, "gone.safetensors")
        first, second = sorted(base.glob("*.safetensors"))
        first.write_bytes(first.read_bytes()[:-1])
        second.write_bytes(pickle.dumps({"a": 1}, protocol=2))
        told = self.refusal(tmp_path, base)
        assert "3 problems" in told
        assert "no such file" in told
        assert "not a complete safetensors file" in told
        assert "pickle" in told

    def test_a_tensor_that_is_elsewhere(self, base: Path, tmp_path: Path) -> None:
        where = json.loads((base / "model.safetensors.index.json").read_text())["weight_map"]
        self.name_in_index(base, next(name for name in where.values() if name != where["one"]))
        assert "does not hold one" in self.refusal(tmp_path, base)

    def test_pickles_only(self, base: Path, tmp_path: Path) -> None:
        for path in base.glob("model*"):
            path.unlink()
        (base / "pytorch_model.bin").write_bytes(b"\x80\x04.")
        told = self.refusal(tmp_path, base)
        assert "pytorch_model.bin" in told
        assert "save_pretrained" in told

    def test_nothing_at_all(self, base: Path, tmp_path: Path) -> None:
        for path in base.glob("model*"):
            path.unlink()
        assert "neither model.safetensors nor" in self.refusal(tmp_path, base)

    @pytest.mark.parametrize("content", [None, "{", "[]"])
    def test_no_configuration(self, content: str | None, base: Path, tmp_path: Path) -> None:
        (base / "config.json").unlink()
        if content is not None:
            (base / "config.json").write_text(content)
        assert "no readable config.json" in self.refusal(tmp_path, base)

    def test_a_pipe_in_place_of_a_file(self, base: Path, tmp_path: Path) -> None:
        path = sorted(base.glob("*.safetensors"))[0]
        path.unlink()
        os.mkfifo(path)
        assert "it is not a file" in self.refusal(tmp_path, base)

    def test_a_base_that_changes_meanwhile(self, base: Path, tmp_path: Path) -> None:
        path = sorted(base.glob("*.safetensors"))[0]

        def touch(done: int, total: int) -> None:
            os.utime(path, (0, 0))

        with pytest.raises(BaseModelError, match="was changed during the merge"):
            merge_into_model(
                opened(make_family(tmp_path / "in")), MergeRecipe(), base, tmp_path / "out", threads=1, progress=touch
            )
        assert not (tmp_path / "out").exists()


class TestFiles:
    def test_what_is_copied_and_what_is_not(self, tmp_path: Path) -> None:
        base = write_base(tmp_path / "base", weights() | others())
        copied = [
            "generation_config.json",
            "tokenizer.json",
            "tokenizer.model",
            "chat_template.jinja",
            "vocab.txt",
            "LICENSE",
            "own.py",
        ]
        left = [
            "pytorch_model.bin",
            "optimizer.pt",
            "x.pkl",
            "model.onnx",
            "pytorch_model.bin.index.json",
            "other.safetensors",
        ]
        left += [".hidden.json", "adapter_config.json", "LICENSE.bin", "trainer_state.json"]
        for name in (*copied, *left, "README.md", "merge_report.json"):
            (base / name).write_text(f"this is {name} of the base")
        (base / "additional_chat_templates").mkdir()
        (base / "additional_chat_templates" / "tool.jinja").write_text("tool")
        (base / "folder.json").mkdir()
        (tmp_path / "blob").write_text("behind a link")
        (base / "special_tokens_map.json").symlink_to(tmp_path / "blob")
        os.mkfifo(base / "pipe.json")
        out = merged(make_family(tmp_path / "in"), base, tmp_path / "out", method="linear").folder
        for name in copied:
            assert (out / name).read_bytes() == (base / name).read_bytes()
        assert (out / "config.json").read_bytes() == (base / "config.json").read_bytes()
        assert (out / "special_tokens_map.json").read_text() == "behind a link"
        assert not (out / "special_tokens_map.json").is_symlink()
        own = {"model.safetensors", "config.json", "README.md", "merge_report.json"}
        own |= {"special_tokens_map.json", "additional_chat_templates"}
        assert {path.name for path in out.iterdir()} == {*copied, *own}
        assert (out / "additional_chat_templates" / "tool.jinja").read_text() == "tool"
        assert "A full model" in (out / "README.md").read_text()

    def test_one_file_goes_before_an_index(self, tmp_path: Path) -> None:
        base = write_base(tmp_path / "base", weights(), shards=2)
        write_base(base, weights(seed=12))
        out = merged(make_family(tmp_path / "in"), base, tmp_path / "out", method="linear").folder
        assert [path.name for path in out.glob("model*")] == ["model.safetensors"]

    def test_links_as_in_a_hub_cache(self, tmp_path: Path) -> None:
        base = write_base(tmp_path / "base", weights(dtype=torch.bfloat16), shards=2)
        (tmp_path / "snapshot").mkdir()
        for path in base.iterdir():
            (tmp_path / "snapshot" / path.name).symlink_to(path)
        folders = make_family(tmp_path / "in")
        for name in ("base", "snapshot"):
            merged(folders, tmp_path / name, tmp_path / f"from {name}", method="linear")
        for path in (tmp_path / "from base").glob("model*"):
            assert path.read_bytes() == (tmp_path / "from snapshot" / path.name).read_bytes()
            assert not (tmp_path / "from snapshot" / path.name).is_symlink()

    def test_disks_that_the_kernel_does_not_copy_between(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        base = write_base(tmp_path / "base", weights() | others(), shards=2)
        folders = make_family(tmp_path / "in")
        merged(folders, base, tmp_path / "one", method="linear")

        def refuse(*_: object) -> int:
            raise OSError(18, "Invalid cross-device link")

        monkeypatch.setattr(os, "copy_file_range", refuse)
        merged(folders, base, tmp_path / "two", method="linear")
        for path in (tmp_path / "one").glob("model*"):
            assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
