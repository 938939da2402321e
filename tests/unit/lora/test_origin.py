from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.support.adapters import make_adapter

from adapterctl.lora.adapter import Adapter
from adapterctl.lora.compatibility import check
from adapterctl.lora.origin import BASE_CONFIG_KEY, TOKENIZER_KEY, origin_problems

TOKENIZER = {"model": {"vocab": {"a": 0, "b": 1}}, "truncation": None, "padding": None}


def family(folder: Path, *metadata: dict[str, str]) -> list[Adapter]:
    return [
        Adapter.open(make_adapter(folder / lang, seed=place, metadata={"format": "pt", **told}), lang)
        for place, (lang, told) in enumerate(zip(["de", "ja", "zh"], metadata, strict=False))
    ]


@pytest.mark.parametrize(
    ("key", "what"), [(BASE_CONFIG_KEY, "configuration of the base model"), (TOKENIZER_KEY, "tokenizer")]
)
class TestRecorded:
    def test_one_and_the_same(self, tmp_path: Path, key: str, what: str) -> None:
        assert check(family(tmp_path, {key: "x"}, {key: "x"}, {})) == []

    def test_different_ones(self, tmp_path: Path, key: str, what: str) -> None:
        (problem,) = check(family(tmp_path, {key: "x"}, {key: "y"}, {}))
        assert problem.message == f"the adapters do not have the same {what} (de: x; ja: y)"
        assert "train the others on it again" in problem.hint


class TestTokenizerInTheFolder:
    def put(self, adapter: Adapter, text: str) -> None:
        (adapter.folder / "tokenizer.json").write_text(text, encoding="utf-8")

    def test_the_same_with_other_spaces_and_other_rows_behind_it(self, tmp_path: Path) -> None:
        adapters = family(tmp_path, {}, {}, {})
        self.put(adapters[0], json.dumps(TOKENIZER))
        self.put(adapters[2], json.dumps({**TOKENIZER, "truncation": {"max_length": 512}}, indent=2))
        assert origin_problems(adapters) == []

    def test_another(self, tmp_path: Path) -> None:
        adapters = family(tmp_path, {}, {}, {})
        self.put(adapters[0], json.dumps(TOKENIZER))
        self.put(adapters[2], json.dumps({**TOKENIZER, "model": {"vocab": {"a": 1, "b": 0}}}))
        (problem,) = origin_problems(adapters)
        assert problem.message.startswith("the adapters do not have the same tokenizer in tokenizer.json (de: ")
        assert "; zh: " in problem.message

    def test_what_is_no_tokenizer(self, tmp_path: Path) -> None:
        adapters = family(tmp_path, {}, {}, {})
        self.put(adapters[0], json.dumps(TOKENIZER))
        self.put(adapters[1], "[]")
        self.put(adapters[2], "{")
        (problem,) = origin_problems(adapters)
        assert "ja: not a tokenizer: it is not a JSON object; zh: not a tokenizer: Expecting" in problem.message

    def test_a_recorded_one_is_not_compared_with_a_file(self, tmp_path: Path) -> None:
        adapters = family(tmp_path, {TOKENIZER_KEY: "x"}, {})
        self.put(adapters[1], json.dumps(TOKENIZER))
        assert origin_problems(adapters) == []
