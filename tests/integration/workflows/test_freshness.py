"""What the rows of a language were hashed to is remembered, and never believed where a file was touched."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.past import ROWS, scale_benchmark, session_of
from tests.support.small_workspace import change

from adapterctl.training.job import training_key
from adapterctl.workflows import freshness
from adapterctl.workflows.freshness import BAD_ROWS, inputs_keys
from adapterctl.workflows.steps import language_job
from adapterctl.workspace.data import load_data

LANGS = ("de", "ja")
FILE = "adapters/data/ja/topic.train.jsonl"
Reads = Callable[[], list[str]]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A workspace in which nothing was done yet."""
    root = tmp_path / "workspace"
    scale_benchmark().make_workspace(root, LANGS, ROWS)
    return root


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    """Return the languages whose rows were read since it was asked last."""
    seen: list[str] = []
    read = freshness._read
    monkeypatch.setattr(freshness, "_read", lambda session, lang: (seen.append(lang), read(session, lang))[1])
    # The files of the test are as young as the test.
    monkeypatch.setattr(freshness, "_SETTLED_SECONDS", -3600.0)

    def asked() -> list[str]:
        found = seen.copy()
        seen.clear()
        return found

    return asked


def keys(root: Path) -> dict[str, str]:
    return inputs_keys(session_of(root), LANGS)


def expected(root: Path, lang: str) -> str:
    session = session_of(root)
    return training_key(language_job(session, lang, load_data(session.workspace, [lang])[lang].train))


def test_rows_are_read_once(root: Path, reads: Reads) -> None:
    first = keys(root)
    assert first == {lang: expected(root, lang) for lang in LANGS}
    assert reads() == ["de", "ja"]
    assert keys(root) == first
    assert reads() == []


def add_row(root: Path) -> None:
    text = (root / FILE).read_text(encoding="utf-8")
    row = json.loads(text.splitlines()[0]) | {"id": "new", "input": "another"}
    (root / FILE).write_text(text + json.dumps(row) + "\n", encoding="utf-8")


def test_a_new_row_is_seen(root: Path, reads: Reads) -> None:
    first = keys(root)
    reads()
    add_row(root)
    second = keys(root)
    assert reads() == ["ja"]
    assert second["ja"] == expected(root, "ja") != first["ja"]
    assert second["de"] == first["de"]


def test_other_words_of_the_same_length_are_seen_though_the_time_was_put_back(root: Path, reads: Reads) -> None:
    first = keys(root)
    reads()
    before = (root / FILE).stat()
    change(root, FILE, "train 0", "train X")
    os.utime(root / FILE, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (root / FILE).stat().st_size == before.st_size
    assert keys(root)["ja"] != first["ja"]
    assert reads() == ["ja"]


def test_a_file_that_came_or_went_is_seen(root: Path, reads: Reads) -> None:
    first = keys(root)
    reads()
    shutil.copy(root / FILE, root / "adapters/data/ja/more.train.jsonl")
    change(root, "adapters/data/ja/more.train.jsonl", "topic-train-0", "topic-train-more")
    assert keys(root)["ja"] == BAD_ROWS
    (root / "adapters/data/ja/more.train.jsonl").unlink()
    assert keys(root) == first


@pytest.mark.parametrize("split", ["dev", "test"])
def test_rows_that_are_spoilt_later_are_seen(root: Path, reads: Reads, split: str) -> None:
    keys(root)
    (root / f"evaluation/data/ja/topic.{split}.jsonl").write_text("{", encoding="utf-8")
    assert keys(root)["ja"] == BAD_ROWS


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("adapterctl.yaml", "defaults:", "defaults:\n  lora: {r: 2, alpha: 6}"),
        ("adapters/ja.yaml", "# ja", "training: {epochs: 7}"),
        ("evaluation/suite.yaml", "Text: ", "Words: "),
    ],
)
def test_other_settings_are_seen(root: Path, reads: Reads, file: str, old: str, new: str) -> None:
    first = keys(root)
    change(root, file, old, new)
    second = keys(root)
    assert second["ja"] == expected(root, "ja") != first["ja"]


def test_what_was_written_moments_ago_is_read_again(root: Path, reads: Reads, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freshness, "_SETTLED_SECONDS", 3600.0)
    assert keys(root) == keys(root)
    assert reads() == ["de", "ja", "de", "ja"]


def test_what_changes_while_it_is_read_is_not_remembered(
    root: Path, reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = freshness._read

    def read_and_change(session: object, lang: str) -> str:
        key = read(session, lang)  # type: ignore[arg-type]
        if lang == "ja":
            time.sleep(0.01)
            add_row(root)
        return key

    monkeypatch.setattr(freshness, "_read", read_and_change)
    keys(root)
    monkeypatch.setattr(freshness, "_read", read)
    assert keys(root)["ja"] == expected(root, "ja")


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"ja": 7}', '{"ja": ["x"]}', '{"ja": [["a"], {}]}', "[" * 100_000, '{"\\ud800": ["a", "b"]}'],
)
def test_a_damaged_memory_is_no_memory(root: Path, reads: Reads, text: str) -> None:
    path = root / ".adapterctl/seen.json"
    path.parent.mkdir()
    path.write_text(text, encoding="utf-8")
    assert keys(root) == {lang: expected(root, lang) for lang in LANGS}


def test_a_state_that_cannot_be_written_to_does_no_harm(root: Path, reads: Reads) -> None:
    (root / ".adapterctl").write_text("a file", encoding="utf-8")
    assert keys(root) == keys(root) == {lang: expected(root, lang) for lang in LANGS}


def test_without_its_base_model_no_adapter_can_be_compared(root: Path) -> None:
    change(root, "adapterctl.yaml", "path: pocket", "path: nowhere")
    assert keys(root) == dict.fromkeys(LANGS, BAD_ROWS)
