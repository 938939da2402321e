import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import adapterctl
from adapterctl.errors import StorageError, UsageError
from adapterctl.pocket import world
from adapterctl.workflows.init import init_workspace
from adapterctl.workspace.data import load_data
from adapterctl.workspace.editing import add_language
from adapterctl.workspace.workspace import Workspace


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_pocket_workspace_is_whole(tmp_path):
    root = init_workspace(tmp_path / "new" / "workspace")
    workspace = Workspace.open(root)
    assert workspace.languages == ("en", "de", "fr", "ja", "zh")
    assert workspace.warnings == ()
    loaded = load_data(workspace, workspace.languages)
    assert all(len(data.train) > 300 and len(data.test) > 100 for data in loaded.values())
    tables = world.tables()
    for task, prompts in tables["prompts"].items():
        assert workspace.suite.tasks[task].prompt == prompts
    assert workspace.suite.tasks["sentiment"].labels_for("ja") == tuple(
        tables["labels"]["ja"][label] for label in ("positive", "negative", "neutral")
    )
    assert "好評" in (root / "adapters/data/ja/sentiment.train.jsonl").read_text(encoding="utf-8")
    assert (root / ".gitignore").is_file()
    assert (root / "registry" / ".gitignore").is_file()


def test_the_new_rows_fit_when_they_are_copied_over(tmp_path):
    import shutil

    root = init_workspace(tmp_path / "workspace", languages=["ja"])
    before = load_data(Workspace.open(root), ["ja"])["ja"]
    shutil.copytree(root / "incoming" / "ja", root, dirs_exist_ok=True)
    after = load_data(Workspace.open(root), ["ja"])["ja"]
    for split in ("train", "dev", "test"):
        assert len(getattr(after, split)) > len(getattr(before, split))


def test_a_blank_workspace_grows_by_add(tmp_path):
    root = init_workspace(tmp_path / "workspace", "blank", project="acme-support")
    workspace = Workspace.open(root)
    assert (workspace.languages, workspace.config.project) == ((), "acme-support")
    add_language(root, "pt-BR")
    assert Workspace.open(root, data=False).languages == ("pt-BR",)
    for name in ("adapters/data/pt-BR/a.train", "evaluation/data/pt-BR/a.dev", "evaluation/data/pt-BR/a.test"):
        path = root / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"prompt": f"{name}: ", "completion": "oi"}) + "\n")
    assert len(load_data(Workspace.open(root), ["pt-BR"])["pt-BR"].train) == 1


def test_other_files_of_the_folder_stay(tmp_path):
    (tmp_path / "README.md").write_text("mine")
    (tmp_path / "adapters").mkdir()
    init_workspace(tmp_path, languages=["ja"])
    assert (tmp_path / "README.md").read_text() == "mine"
    assert Workspace.open(tmp_path).languages == ("ja",)


@pytest.mark.parametrize(
    "name", ["adapters/ja.yaml", "adapters", "evaluation/data/ja/sentiment.dev.jsonl", ".gitignore"]
)
def test_nothing_is_overwritten(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("mine")
    with pytest.raises(UsageError, match=f"would be overwritten: {name}"):
        init_workspace(tmp_path, languages=["ja"])
    assert contents(tmp_path) == {name: b"mine"}


def test_what_cannot_be_made_is_refused(tmp_path):
    with pytest.raises(UsageError, match="there is no preset 'pockets'"):
        init_workspace(tmp_path, "pockets")
    with pytest.raises(UsageError, match="does not speak 'it'"):
        init_workspace(tmp_path, languages=["it"])
    with pytest.raises(UsageError, match="did you mean 'ja'"):
        init_workspace(tmp_path, languages=["jp"])
    with pytest.raises(UsageError, match="cannot name a project"):
        init_workspace(tmp_path, project="a: b")
    assert list(tmp_path.iterdir()) == []
    init_workspace(tmp_path, languages=["ja"])
    with pytest.raises(UsageError, match="is a workspace already"):
        init_workspace(tmp_path, languages=["ja"])


def test_a_file_in_place_of_the_folder_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file, not a folder"):
        init_workspace(tmp_path / "file", languages=["ja"])
    with pytest.raises(StorageError, match="not a folder"):
        init_workspace(tmp_path / "file" / "below", languages=["ja"])


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    real, count = Path.write_text, 0

    def filling(self, *args, **kwargs):
        nonlocal count
        count += 1
        if count == 7:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(self, *args, **kwargs)

    monkeypatch.setattr(Path, "write_text", filling)
    with pytest.raises(StorageError, match="the disk is full"):
        init_workspace(tmp_path, languages=["ja"])
    assert list(tmp_path.iterdir()) == []


KILLED = """
import os, signal, sys
from pathlib import Path
from adapterctl.workflows.init import init_workspace
real, count = Path.replace, 0
def replace(self, target):
    global count
    count += 1
    if count == 9:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, target)
Path.replace = replace
init_workspace(sys.argv[1], languages=["ja"])
"""


def test_a_killed_init_is_no_workspace_and_the_next_one_finishes_it(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(Path(adapterctl.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    assert len([name for name in contents(tmp_path) if not name.startswith(".adapterctl-tmp-")]) == 8
    with pytest.raises(UsageError, match=r"there is no adapterctl\.yaml"):
        Workspace.open(tmp_path)
    init_workspace(tmp_path, languages=["ja"])
    assert Workspace.open(tmp_path).languages == ("ja",)


def test_two_inits_make_the_same(tmp_path):
    first, second = (init_workspace(tmp_path / name, languages=["ja", "en"]) for name in ("a", "b"))
    assert contents(first) == contents(second)
