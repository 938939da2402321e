"""The folder that servers read: whole or not there, readable, and a pointer that always leads somewhere."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from adapterctl.errors import StorageError
from adapterctl.serving.shelf import CARD, Shelf, hashes_of

HEAD = {"version": 3, "base": {"name": "b"}}


def filled(shelf: Shelf, name: str = "v3-abc", text: str = "hello") -> Path:
    with shelf.bench() as bench:
        (bench / "x").mkdir()
        (bench / "x" / "a.txt").write_text(text)
        (bench / "x" / "a.txt").chmod(0o600)
        return shelf.put(name, bench / "x", {**HEAD, "more": [1]})


def test_what_is_put_is_whole_and_readable(tmp_path: Path) -> None:
    mask = os.umask(0o077)
    try:
        shelf = Shelf.open(tmp_path / "serving", "p-merged")
        folder = filled(shelf)
    finally:
        os.umask(mask)
    for path in (tmp_path / "serving", shelf.root, folder):
        assert path.stat().st_mode & 0o777 == 0o755
    for path in (folder / "a.txt", folder / CARD):
        assert path.stat().st_mode & 0o777 == 0o644
    card = shelf.held("v3-abc", HEAD)
    assert card is not None
    assert card["files"] == {"a.txt": "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"}
    assert card["more"] == [1]
    assert sorted(path.name for path in shelf.root.iterdir()) == ["v3-abc"]


@pytest.mark.parametrize("spoilt", ["changed", "lost", "more", "card", "private", "other"])
def test_what_is_not_whole_is_known(tmp_path: Path, spoilt: str) -> None:
    shelf = Shelf.open(tmp_path, "p-merged")
    folder = filled(shelf)
    if spoilt == "changed":
        (folder / "a.txt").write_text("hellO")
    elif spoilt == "lost":
        (folder / "a.txt").unlink()
    elif spoilt == "more":
        (folder / "adapter_model.bin").write_text("a pickle")
    elif spoilt == "card":
        (folder / CARD).write_text('{"files": ')
    elif spoilt == "private":
        (folder / "a.txt").chmod(0o600)
    assert shelf.held("v3-abc", {**HEAD, "version": 4} if spoilt == "other" else HEAD) is None
    if spoilt != "other":
        filled(shelf)
        assert shelf.held("v3-abc", HEAD) is not None
        assert set(hashes_of(folder)) == {"a.txt"}


def test_the_pointer_moves_in_one_step(tmp_path: Path) -> None:
    shelf = Shelf.open(tmp_path, "p-merged")
    filled(shelf, "v1-a", "one")
    filled(shelf, "v2-b", "two")
    link = shelf.point("current", "v1-a")
    assert os.readlink(link) == "v1-a"
    assert (shelf.point("current", "v2-b") / "a.txt").read_text() == "two"
    assert sorted(path.name for path in shelf.root.iterdir()) == ["current", "v1-a", "v2-b"]


def test_what_is_no_link_is_left_alone(tmp_path: Path) -> None:
    shelf = Shelf.open(tmp_path, "p-merged")
    (shelf.root / "current").mkdir()
    with pytest.raises(StorageError, match="is no link"):
        shelf.point("current", "v1-a")
    assert (shelf.root / "current").is_dir()


def test_what_killed_processes_left_goes_after_a_day(tmp_path: Path) -> None:
    shelf = Shelf.open(tmp_path, "p-merged")
    old, young, link = (shelf.root / f".adapterctl-tmp-{name}" for name in ("old", "young", "link"))
    old.mkdir()
    young.mkdir()
    link.symlink_to("nowhere")
    past = time.time() - 2 * 24 * 3600
    os.utime(old, (past, past))
    os.utime(link, (past, past), follow_symlinks=False)
    with shelf.bench():
        assert not old.exists()
        assert young.exists()
        assert not link.is_symlink()


def test_a_card_that_is_not_ours_is_no_card(tmp_path: Path) -> None:
    shelf = Shelf.open(tmp_path, "p-merged")
    for text in ("[]", "3", json.dumps({"files": {}}), "{" * 5000):
        (shelf.root / "v1").mkdir(exist_ok=True)
        (shelf.root / "v1" / CARD).write_text(text)
        assert shelf.held("v1", HEAD) is None
