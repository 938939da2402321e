"""Kinds of bad input: one screen that names the thing and the mend, the right exit code, and nothing half written."""

from __future__ import annotations

import errno
import json
import os
import pickle
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.support.adapters import change_config, make_adapter
from tests.support.disk import small_disk
from tests.support.program import Programs
from tests.support.small_workspace import change, read_lines, tree, write_rows
from tests.support.store import read_store

Change = Callable[[Path], object]
UPDATE = ("update", "--lang", "ja")
TRAIN = "adapters/data/ja/sentiment.train.jsonl"
TEST = "evaluation/data/ja/sentiment.test.jsonl"


@dataclass(frozen=True)
class Case:
    """One kind of bad input.

    Attributes:
        name: What it is.
        spoil: Makes it in a workspace with a champion and new rows.
        args: The command that meets it.
        code: Its exit code.
        says: What the message holds: the thing that is wrong.
        mend: What it holds after that: the command, the key or the place that mends it.
        trap: What goes wrong while the program runs.
    """

    name: str
    spoil: Change
    args: tuple[str, ...]
    code: int
    says: str
    mend: str
    trap: dict[str, Any] | None = field(default=None)


def nothing(_: Path) -> None:
    """Spoil nothing."""


def replaced(file: str, old: str, new: str) -> Change:
    return lambda root: change(root, file, old, new)


def row(file: str = TRAIN, **values: Any) -> Change:
    """Change fields of the second row; None takes a field away."""

    def spoil(root: Path) -> None:
        rows = read_lines(root / file)
        rows[1] = {key: value for key, value in {**rows[1], **values}.items() if value is not None}
        write_rows(root / file, rows)

    return spoil


def line(content: bytes, file: str = TRAIN) -> Change:
    """Replace the second line."""

    def spoil(root: Path) -> None:
        lines = (root / file).read_bytes().splitlines(keepends=True)
        lines[1] = content + b"\n"
        (root / file).write_bytes(b"".join(lines))

    return spoil


def overlapping(root: Path) -> None:
    (first, *rest), (trained, *_) = read_lines(root / TEST), read_lines(root / TRAIN)
    write_rows(root / TEST, [{**first, "input": trained["input"], "reference": trained["reference"]}, *rest])


def of_pocket(root: Path) -> Path:
    """Put a copy of a trained adapter into the workspace."""
    return Path(shutil.copytree(next((root / ".adapterctl" / "adapters").iterdir()), root / "mine"))


def truncated(root: Path) -> None:
    tensors = of_pocket(root) / "adapter_model.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-64])


class Harmful:
    """Would be run by whoever unpickles it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, ("touch harmed",))


def pickled(root: Path) -> None:
    (of_pocket(root) / "adapter_model.safetensors").write_bytes(pickle.dumps(Harmful()))


def dora(root: Path) -> None:
    change_config(of_pocket(root), use_dora=True)


CASES = [
    Case("misspelt key", replaced("adapterctl.yaml", "method:", "metod:"), UPDATE, 2,
         r"adapterctl\.yaml:\d+: merge\.metod: unknown key", r"did you mean 'method'\?"),
    Case("wrong type", replaced("adapterctl.yaml", "epochs: 2", "epochs: two"), UPDATE, 2,
         r"adapterctl\.yaml:\d+: defaults\.training\.epochs: must be a whole number, not 'two'",
         "adapterctl config schema"),
    Case("not YAML", replaced("adapterctl.yaml", "[de, en, ja]", "[de, en, ja"), UPDATE, 2,
         r"adapterctl\.yaml:\d+: is not YAML: a bracket is opened and never closed", "close the bracket"),
    Case("country for language", nothing, ("update", "--lang", "jp"), 2, "'jp' is not a language tag", "'ja'"),
    Case("language that is not there", nothing, ("update", "--lang", "it"), 2,
         "language 'it' is not in this workspace", "adapterctl add --lang it"),
    Case("adapter file missing", lambda root: (root / "adapters/ja.yaml").unlink(), UPDATE, 2,
         "language 'ja' has no adapters/ja.yaml", "adapterctl add --lang ja"),
    Case("suite missing", lambda root: (root / "evaluation/suite.yaml").unlink(), UPDATE, 2,
         r"evaluation/suite\.yaml: is missing", "adapterctl init"),
    Case("no rows", lambda root: shutil.rmtree(root / "adapters/data/ja"), UPDATE, 2,
         "'data/ja/.*' matches no file in adapters/", "put rows of 'ja' there"),
    Case("not UTF-8", line(b'{"id": "\xff"}'), UPDATE, 6, f"{TRAIN}:2: is not UTF-8", "mend or remove these lines"),
    Case("not JSON", line(b"{'id': 1}"), UPDATE, 6, f"{TRAIN}:2: is not JSON", "mend or remove these lines"),
    Case("field missing", row(reference=None), UPDATE, 6, f"{TRAIN}:2: field 'reference' is missing", "mend or"),
    Case("id twice", row(id="sentiment-train-000-ja"), UPDATE, 6,
         f"{TRAIN}:2: id 'sentiment-train-000-ja' of task 'sentiment' stands twice", "mend or remove"),
    Case("wrong language", row(lang="de"), UPDATE, 6,
         f"{TRAIN}:2: the row is in language 'de', the file belongs to 'ja'", "mend or remove"),
    Case("empty reference", row(reference=" "), UPDATE, 6, f"{TRAIN}:2: field 'reference' is empty", "mend or remove"),
    Case("unknown label", row(reference="ok"), UPDATE, 6, f"{TRAIN}:2: reference 'ok' is not one of", "mend or remove"),
    Case("unknown task", row(task="poetry"), UPDATE, 6, f"{TRAIN}:2: task 'poetry' is not in the suite", "it knows"),
    Case("test row trained on", overlapping, UPDATE, 6,
         "ja test: row 'sentiment-test-000-ja' asks the same as training row 'sentiment-train-000-ja'", "mend or"),
    Case("bad row of another language", line(b"{}", "evaluation/data/de/sentiment.test.jsonl"), UPDATE, 6,
         r"evaluation/data/de/sentiment\.test\.jsonl:2", "mend or remove"),
    Case("base model missing", replaced("adapterctl.yaml", "path: pocket", "path: ./models/llama"), UPDATE, 6,
         r"models/llama", r"base_model\.path|base_model"),
    Case("registry damaged", lambda root: (root / "registry/mlflow.db").write_bytes(b"no database " * 99), UPDATE, 5,
         r"registry .*mlflow\.db is damaged or not a database", "backup"),
    Case("registry away", replaced("adapterctl.yaml", 'uri: ""', "uri: http://127.0.0.1:9"), UPDATE, 5,
         r"no MLflow answers at http://127\.0\.0\.1:9", r"registry\.uri"),
    Case("registry of no kind", replaced("adapterctl.yaml", 'uri: ""', "uri: ftp://registry"), UPDATE, 5,
         "ftp", r"registry\.uri"),
    Case("no such version", nothing, ("promote", "--version", "9"), 2, "pocket-merged has no version 9", "versions"),
    Case("no candidate", nothing, ("promote",), 2, "has no candidate", "adapterctl update --lang LANG"),
    Case("nothing to go back to", nothing, ("rollback",), 2, "no previous release", "adapterctl history"),
    Case("no such model", nothing, ("evaluate", "nobody"), 2, "there is no model 'nobody'", "champion"),
    Case("adapter cut off", truncated, ("evaluate", "mine"), 6,
         r"mine/adapter_model\.safetensors is not a complete safetensors file", "copy or train the adapter again"),
    Case("pickle in disguise", pickled, ("evaluate", "mine"), 6,
         "is a pickle with another name; it is never loaded", "safe_serialization=True"),
    Case("adapter of another base", lambda root: make_adapter(root / "mine"), ("evaluate", "mine"), 6,
         "adapter mine does not fit the base model", "trained on this base model"),
    Case("half a DoRA adapter", dora, ("evaluate", "mine"), 6, "mine", "trained|DoRA|magnitude"),
    Case("folder that is no adapter", lambda root: (root / "mine").mkdir(), ("evaluate", "mine"), 6,
         r"mine is not an adapter: it has no adapter_config\.json", "save_pretrained"),
    Case("merge into what is there", lambda root: make_adapter(root / "mine"), ("merge", "--out", "mine"), 2,
         "mine exists already and holds an adapter that was not merged here", "--out"),
    Case("export into a file", lambda root: (root / "mine").write_text(""), ("export", "mine"), 7,
         "cannot write .*mine", "move that file away"),
    Case("no such command", nothing, ("updat",), 2, "There is no command 'updat'", "Did you mean 'update'"),
    Case("no such option", nothing, ("update", "--langs", "ja"), 2, "No such option", "--lang"),
    Case("disk full", nothing, UPDATE, 7, "the disk is full", "free some space",
         {"at": "tempfile:mkdtemp", "when": "before", "do": "fail", "errno": errno.ENOSPC}),
    Case("disk read-only", nothing, UPDATE, 7, "the file system is read-only", "choose a folder",
         {"at": "filelock._unix:UnixFileLock._acquire", "when": "before", "do": "fail", "errno": errno.EROFS}),
]  # fmt: skip


TOLD_IN_JSON = list({case.code: case for case in CASES}.values())
"""One of every exit code."""


def without_registry(case: Case) -> bool:
    return case.name.startswith("registry")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_input_is_told_on_one_screen(arrived: Path, tmp_path: Path, program: Programs, case: Case) -> None:
    root = Path(shutil.copytree(arrived, tmp_path / "workspace"))
    case.spoil(root)
    before = tree(root)
    store = None if without_registry(case) else read_store(root)
    done = program(root, "--quiet", *case.args, trap=case.trap)
    assert (done.exit_code, done.out) == (case.code, ""), done.err
    assert "Traceback" not in done.err
    assert len(done.err.splitlines()) <= 40
    assert len(done.err) <= 4000
    found = re.search(case.says, done.err)
    assert found, done.err
    assert re.search(case.mend, done.err[found.start() :]), done.err
    if case in TOLD_IN_JSON:
        told = program(root, "--quiet", *case.args, "--json", trap=case.trap)
        assert (told.exit_code, told.err) == (case.code, "")
        assert told.json["exit_code"] == case.code
        assert told.json["error"]["message"] in done.err
    after = tree(root)
    if case.trap:
        # It was under way: what it is about is noted, so that the same command goes on.
        after.pop(".adapterctl/journal.json", None)
    assert after == before
    if store is not None:
        now = read_store(root)
        assert (now.versions, now.aliases, now.models) == (store.versions, store.aliases, store.models)
    assert not (root / "harmed").exists()


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for the beginning of an update."""
    with small_disk(tmp_path / "disk", "400k") as folder:
        yield folder


def test_a_disk_that_fills_up_in_training_and_has_room_again(
    arrived: Path, updated: Path, tmp_path: Path, tiny_disk: Path, program: Programs
) -> None:
    root = Path(shutil.copytree(arrived, tmp_path / "workspace"))
    state = tiny_disk / "state"
    full = program(root, "train", "--lang", "ja", ADAPTERCTL_STATE_DIR=str(state))
    assert full.exit_code == 7, full.err
    assert "the disk is full" in full.err
    assert "free some space" in full.err
    assert "Traceback" not in full.err
    assert list(state.glob("adapters/*")) == []
    assert read_store(root).versions == read_store(arrived).versions
    subprocess.run(["mount", "-o", "remount,size=40m", str(tiny_disk)], check=True)
    done = program(root, "train", "--lang", "ja", "--json", ADAPTERCTL_STATE_DIR=str(state))
    assert done.exit_code == 0, done.err
    assert json.loads(done.out)["ja"]["version"] == 2


@pytest.mark.skipif(os.getuid() != 0, reason="this user may not mount a file system")
def test_a_workspace_on_a_read_only_disk(arrived: Path, tmp_path: Path, program: Programs) -> None:
    root = Path(shutil.copytree(arrived, tmp_path / "workspace"))
    if subprocess.run(["mount", "--bind", str(root), str(root)], capture_output=True, check=False).returncode != 0:
        pytest.skip("this user may not mount a file system")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(root)], check=True)
        done = program(root, *UPDATE)
    finally:
        subprocess.run(["umount", "-l", str(root)], check=True)
    assert (done.exit_code, done.out) == (7, ""), done.err
    assert "read-only" in done.err
    assert "Traceback" not in done.err
