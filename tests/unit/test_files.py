from __future__ import annotations

import errno
import json
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from adapterctl import files
from adapterctl.errors import StorageError
from adapterctl.files import (
    TEMPORARY_PREFIX,
    append_line,
    remove_unfinished,
    staged_folder,
    storage_error,
    unfinished,
    write_bytes,
    write_json,
    write_text,
)


def full_disk(*args: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def contents(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def strict_umask():
    before = os.umask(0o077)
    yield
    os.umask(before)


def test_files_are_written_with_their_folders_and_can_be_read_by_others(tmp_path: Path, strict_umask: None) -> None:
    write_bytes(tmp_path / "a" / "b" / "c", b"\x00\xff")
    assert (tmp_path / "a" / "b" / "c").read_bytes() == b"\x00\xff"
    write_text(tmp_path / "t", "日\r\n")
    assert (tmp_path / "t").read_bytes() == "日\r\n".encode()
    write_json(tmp_path / "j", {"b": 1, "a": "ü"})
    assert (tmp_path / "j").read_text(encoding="utf-8") == '{\n  "a": "ü",\n  "b": 1\n}\n'
    assert {mode(tmp_path / name) for name in ("a/b/c", "t", "j")} == {0o644}


@pytest.mark.parametrize("step", ["os.fsync", "pathlib.Path.replace", "pathlib.Path.chmod"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    write_text(tmp_path / "f", "old")
    monkeypatch.setattr(step, full_disk)
    with pytest.raises(StorageError) as caught:
        write_text(tmp_path / "f", "new")
    assert caught.value.message == f"cannot write {tmp_path / 'f'}: the disk is full"
    assert caught.value.hint == "free some space there, then run the same command again"
    assert contents(tmp_path) == {"f": "old"}


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    write_text(tmp_path / "f", "old")
    monkeypatch.setattr("os.fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_text(tmp_path / "f", "new")
    assert contents(tmp_path) == {"f": "old"}


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.EDQUOT, "the disk quota is used up"),
        (errno.EROFS, "the file system is read-only"),
        (errno.EACCES, "permission denied"),
        (errno.EIO, "the disk reports an input/output error"),
    ],
)
def test_what_the_disk_says_is_told(number: int, reason: str) -> None:
    meant = storage_error(OSError(number, "x"), Path("f"), "read")
    assert meant is not None
    assert (meant.message, meant.exit_code) == (f"cannot read f: {reason}", 7)
    named = storage_error(OSError(number, "x", "named"))
    assert named is not None
    assert named.message == f"cannot use named: {reason}"


def test_other_errors_of_the_system_stay_what_they_are(tmp_path: Path) -> None:
    assert storage_error(OSError(errno.ENOENT, "x")) is None
    with pytest.raises(FileNotFoundError), staged_folder(tmp_path / "f"):
        (tmp_path / "none").read_text()


def test_a_file_where_a_folder_should_be(tmp_path: Path) -> None:
    write_text(tmp_path / "f", "old")
    for write in (lambda: write_text(tmp_path / "f" / "g", "x"), lambda: append_line(tmp_path / "f" / "g", "x")):
        with pytest.raises(StorageError, match=r"a file of that name is in the way|a part of the path is a file"):
            write()
    with pytest.raises(StorageError), staged_folder(tmp_path / "f") as folder:
        (folder / "x").write_text("x")
    assert contents(tmp_path) == {"f": "old"}


def test_a_staged_folder_appears_only_at_the_end(tmp_path: Path, strict_umask: None) -> None:
    final = tmp_path / "deep" / "final"
    with staged_folder(final) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "f").write_text("new")
        assert not final.exists()
    assert contents(tmp_path) == {"deep/final/sub/f": "new"}
    assert [mode(final / name) for name in (".", "sub", "sub/f")] == [0o755, 0o755, 0o644]


def test_an_existing_folder_is_replaced_as_a_whole_and_only_at_the_end(tmp_path: Path) -> None:
    write_text(tmp_path / "final" / "old", "old")
    with staged_folder(tmp_path / "final") as folder:
        (folder / "new").write_text("new")
        assert contents(tmp_path / "final") == {"old": "old"}
    assert contents(tmp_path) == {"final/new": "new"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, lambda: full_disk()])
def test_a_block_that_fails_leaves_the_old_folder(tmp_path: Path, error: Callable[[], BaseException]) -> None:
    write_text(tmp_path / "final" / "old", "old")

    def fail() -> None:
        with staged_folder(tmp_path / "final") as folder:
            (folder / "new").write_text("new")
            raise error()

    with pytest.raises((ValueError, KeyboardInterrupt, StorageError)):
        fail()
    assert contents(tmp_path) == {"final/old": "old"}


@pytest.mark.parametrize("failing", [1, 2])
def test_a_swap_that_fails_leaves_the_old_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int) -> None:
    write_text(tmp_path / "final" / "old", "old")
    replace, calls = Path.replace, []

    def nth_fails(self: Path, target: Path) -> Path:
        calls.append(self)
        if len(calls) == failing:
            full_disk()
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", nth_fails)
    # On a system where two folders cannot change their names in one step.
    monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    with pytest.raises(StorageError, match="the disk is full"), staged_folder(tmp_path / "final") as folder:
        (folder / "new").write_text("new")
    assert contents(tmp_path) == {"final/old": "old"}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="names change places in one step on Linux only")
def test_a_folder_that_is_replaced_never_lacks_its_name(tmp_path: Path) -> None:
    final = tmp_path / "final"
    write_text(final / "number", "0")
    stop = threading.Event()
    missing = []

    def watch() -> None:
        while not stop.is_set():
            if not final.is_dir():
                missing.append(True)

    watcher = threading.Thread(target=watch)
    watcher.start()
    for number in range(1, 30):
        with staged_folder(final) as folder:
            (folder / "number").write_text(str(number))
    stop.set()
    watcher.join()
    assert missing == []
    assert contents(tmp_path) == {"final/number": "29"}


def _replace_often(final: Path, name: str) -> None:
    for number in range(40):
        with staged_folder(final) as folder:
            (folder / "who").write_text(f"{name} {number}")


def test_two_processes_replace_one_folder(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    both = [context.Process(target=_replace_often, args=(tmp_path / "final", name)) for name in "ab"]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert contents(tmp_path).keys() == {"final/who"}
    assert contents(tmp_path)["final/who"].endswith(" 39")


def _append_many(path: Path, name: str) -> None:
    for number in range(150):
        append_line(path, json.dumps({"name": name, "number": number, "text": name * 3000}))


def test_two_processes_do_not_mix_their_lines(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "log.jsonl"
    # What forks copies the threads' locks of torch, where it was imported; what spawns does not.
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_append_many, args=(log, name)) for name in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    for name in "ab":
        own = [line for line in lines if line["name"] == name]
        assert [line["number"] for line in own] == list(range(150))
        assert {line["text"] for line in own} == {name * 3000}
    assert len(lines) == 300


def test_a_line_that_fits_only_in_part_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log"
    append_line(log, "first")
    write = os.write
    monkeypatch.setattr("os.write", lambda descriptor, content: write(descriptor, content[:3]))
    with pytest.raises(StorageError, match="the disk is full"):
        append_line(log, "second")
    assert log.read_text() == "first\n"


def test_what_killed_processes_left_is_found_and_removed(tmp_path: Path) -> None:
    for name in ("a/" + TEMPORARY_PREFIX + "x/f", "keep/" + TEMPORARY_PREFIX + "y", TEMPORARY_PREFIX + "z", "a/real"):
        write_text(tmp_path / name, "x")
    assert [path.relative_to(tmp_path).as_posix() for path in unfinished(tmp_path)] == [
        f"{TEMPORARY_PREFIX}z",
        f"a/{TEMPORARY_PREFIX}x",
        f"keep/{TEMPORARY_PREFIX}y",
    ]
    remove_unfinished(tmp_path, keep=tmp_path / "keep")
    assert set(contents(tmp_path)) == {"a/real", f"keep/{TEMPORARY_PREFIX}y"}
