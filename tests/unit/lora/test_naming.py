from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from tests.support.adapters import change_config, make_adapter, make_family

from adapterctl.errors import AdapterError
from adapterctl.lora.adapter import Adapter
from adapterctl.lora.naming import language_of, name_adapters, open_named, recorded_language, split_argument


class TestArguments:
    def test_a_language_before_the_folder(self, tmp_path: Path) -> None:
        assert split_argument("ja=runs/7") == ("ja", Path("runs/7"))
        assert split_argument("runs/7") == (None, Path("runs/7"))
        assert split_argument("runs/r=16/ja") == (None, Path("runs/r=16/ja"))
        assert split_argument("ja=runs/r=16") == ("ja", Path("runs/r=16"))

    def test_a_folder_whose_name_holds_an_equals_sign(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "lr=1e-4").mkdir()
        assert split_argument("lr=1e-4") == (None, Path("lr=1e-4"))
        assert split_argument("lr=1e-5") == ("lr", Path("1e-5"))


class TestLanguage:
    @pytest.mark.parametrize(
        ("metadata", "expected"),
        [
            ({}, "de"),
            ({"adapterctl.lang": "ja"}, "ja"),
            ({"adapterctl.lang": "zh_hant"}, "zh-Hant"),
            ({"adapterctl": json.dumps({"lang": "ko"})}, "ko"),
            ({"adapterctl": json.dumps({"lang": ["ko"]})}, "de"),
            ({"adapterctl": json.dumps({"key": "x"})}, "de"),
            ({"adapterctl": "ko"}, "de"),
            ({"adapterctl": "[" * 9000}, "de"),
            ({"adapterctl.lang": "no language"}, "de"),
        ],
    )
    def test_recorded_before_called(self, tmp_path: Path, metadata: dict[str, str], expected: str) -> None:
        folder = make_adapter(tmp_path / "de", metadata={"format": "pt", **metadata})
        assert language_of(Adapter.open(folder)) == expected

    @pytest.mark.parametrize(
        ("name", "expected"), [("ja", "ja"), ("zh_CN", "zh-CN"), ("jpn", "ja"), ("adapter", None), ("42", None)]
    )
    def test_what_the_folder_is_called(self, tmp_path: Path, name: str, expected: str | None) -> None:
        assert language_of(Adapter.open(make_adapter(tmp_path / name))) == expected

    def test_the_current_folder_and_one_above(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(make_adapter(tmp_path / "ja"))
        assert language_of(Adapter.open(Path("."))) == "ja"
        assert language_of(Adapter.open(Path(os.curdir) / ".." / "ja" / "")) == "ja"

    def test_tensors_that_cannot_be_read(self, tmp_path: Path) -> None:
        folder = make_adapter(tmp_path / "ja")
        (folder / "adapter_model.safetensors").write_bytes(b"")
        assert recorded_language(Adapter.open(folder)) is None
        assert language_of(Adapter.open(folder)) == "ja"


class TestNaming:
    def test_in_the_order_of_the_arguments(self, tmp_path: Path) -> None:
        folders = make_family(tmp_path, ["de", "fr", "ja"])
        other = make_adapter(tmp_path / "runs-7", seed=9)
        arguments = [str(folders["ja"]), f"zh_CN={other}", f"en={folders['de']}"]
        adapters, problems = name_adapters(arguments)
        assert problems == []
        assert [(adapter.lang, adapter.folder) for adapter in adapters] == [
            ("ja", folders["ja"]),
            ("zh-CN", other),
            ("en", folders["de"]),
        ]
        assert [adapter.lang for adapter in open_named(arguments)] == ["ja", "zh-CN", "en"]

    def test_everything_that_is_wrong_at_once(self, tmp_path: Path) -> None:
        folders = make_family(tmp_path, ["de", "ja"])
        nameless = make_adapter(tmp_path / "checkpoint-300")
        change_config(folders["ja"], use_dora=True)
        told: list[tuple[int, int]] = []
        arguments = [*map(str, folders.values()), f"jp={nameless}", str(nameless), f"de={nameless}", "fr=nowhere"]
        with pytest.raises(AdapterError) as caught:
            open_named(arguments, progress=lambda done, total: told.append((done, total)))
        problems = [f"{problem}" for problem in caught.value.problems]
        assert problems[0] == f"jp={nameless}: 'jp' is not a language tag; did you mean 'ja'?"
        assert problems[1].startswith(f"{nameless}: it does not say its language, and 'checkpoint-300' is no language")
        assert f"write ja={nameless}" in problems[1]
        assert problems[2].startswith("fr=nowhere: no folder nowhere")
        assert problems[3].startswith(f"de: 2 adapters are of this language: {folders['de']}, {nameless}")
        assert any("use_dora" in problem for problem in problems)
        assert told == [(done, 5) for done in range(1, 6)]

    def test_options_are_those_of_the_check(self, tmp_path: Path) -> None:
        whole = make_adapter(tmp_path / "de")
        part = make_adapter(tmp_path / "ja", shapes={"model.layers.0.self_attn.q_proj": (12, 12)})
        with pytest.raises(AdapterError, match="it lacks modules"):
            open_named([str(whole), str(part)])
        assert len(open_named([str(whole), str(part)], missing="zero")) == 2
        with pytest.raises(AdapterError, match="its base model is tiny-base, not other"):
            open_named([str(whole)], base_model="other")
