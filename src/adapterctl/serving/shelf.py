"""The folder that servers read from: immutable versions, each appearing at once, and a pointer to one of them.

    DIR/<project>-merged/
        v3-1f2e3d4c5b6a/         adapter_config.json, adapter_model.safetensors, ..., serving.json
        v3-1f2e3d4c5b6a-gguf/    adapter.gguf, serving.json
        current -> v3-1f2e3d4c5b6a
        current-gguf -> v3-1f2e3d4c5b6a-gguf

A path never holds two contents: vLLM keeps what it has computed by name and path of an adapter.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from adapterctl.errors import LockHeld, StorageError
from adapterctl.files import TEMPORARY_PREFIX, disk_errors, staged_folder, write_json
from adapterctl.fingerprint import file_hash
from adapterctl.lora.untrusted import parse_json, read_small

CARD = "serving.json"
"""Beside the files: what they are, how to serve them, and the hash of each."""
POINTER = "current"

_LOCK = ".lock"
_LONGEST_WAIT = 600.0
_LARGEST_CARD = 1 << 24
_LEFT_BEHIND = 24 * 3600.0
"""Seconds after which unfinished work is that of a killed process: nobody writes a model for a day."""


@dataclass(frozen=True)
class Shelf:
    """The exported versions of one project.

    Attributes:
        root: Their folder.
    """

    root: Path

    @classmethod
    def open(cls, folder: Path, name: str) -> Shelf:
        """Make the folder of a project's exports, which others may read, where it is missing.

        Raises:
            StorageError: The disk is full, read-only or not permitted.
        """
        root = Path(os.path.abspath(folder)) / name
        with disk_errors(root):
            for place in (root.parent, root):
                if not place.is_dir():
                    place.mkdir(parents=True, exist_ok=True)
                    place.chmod(0o755)
        return cls(root)

    def held(self, name: str, head: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the card of a version that is there with every byte; None where it is not, or is damaged.

        Args:
            name: Of the version's folder.
            head: What its ``serving.json`` must say among other things.
        """
        folder = self.root / name
        try:
            card = parse_json(read_small(folder / CARD, _LARGEST_CARD)[0])
            right = all(card[key] == value for key, value in head.items()) and card["files"] == hashes_of(folder)
            readable = all(_readable(path) for path in (folder, *folder.rglob("*")))
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        return card if right and readable else None

    @contextmanager
    def bench(self) -> Iterator[Path]:
        """Give a folder on the same disk to prepare files in; it vanishes.

        Raises:
            StorageError: The disk is full, read-only or not permitted.
        """
        with disk_errors(self.root):
            self._clear()
            folder = Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX, dir=self.root))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def put(self, name: str, files: Path, card: Mapping[str, Any]) -> Path:
        """Let a version appear, all at once, with its card; a damaged one of that name is replaced.

        Args:
            name: Of its folder.
            files: A folder on the bench; it is emptied.
            card: What ``serving.json`` is to say beside the hashes of the files.

        Raises:
            StorageError: The disk is full, read-only or not permitted.
        """
        final = self.root / name
        with staged_folder(final) as staging:
            for path in sorted(files.iterdir()):
                path.replace(staging / path.name)
            write_json(staging / CARD, {**card, "files": hashes_of(staging)})
        return final

    def point(self, pointer: str, name: str) -> Path:
        """Let a pointer lead to a version, in one step: who follows it finds the old version or the new one.

        Raises:
            StorageError: The disk is full, read-only or not permitted, or something else has the pointer's name.
        """
        link = self.root / pointer
        if link.is_symlink() and os.readlink(link) == name:
            return link
        if link.exists() and not link.is_symlink():
            raise StorageError(
                f"cannot let {link} point to {name}: it is there already and is no link", hint="move it away"
            )
        fresh = self.root / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}"
        with disk_errors(link):
            try:
                fresh.symlink_to(name)
                fresh.replace(link)
            except BaseException:
                fresh.unlink(missing_ok=True)
                raise
            descriptor = os.open(self.root, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        return link

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the shelf's lock: two hand-overs of different releases at once would each drop the other's.

        Raises:
            LockHeld: Somebody else has held it for ten minutes.
            StorageError: The disk is full, read-only or not permitted.
        """
        with disk_errors(self.root):
            lock = FileLock(self.root / _LOCK, timeout=_LONGEST_WAIT)
            try:
                lock.acquire()
            except Timeout:
                raise LockHeld(
                    f"another export to {self.root} has been talking to servers for {_LONGEST_WAIT:g} s",
                    hint="wait until it ends, or end it, then run the same command again",
                ) from None
        try:
            yield
        finally:
            lock.release()

    def _clear(self) -> None:
        """Remove what killed processes left; others may be at work here now, so only what is old."""
        for path in self.root.glob(f"{TEMPORARY_PREFIX}*"):
            with suppress(OSError):
                if time.time() - path.lstat().st_mtime < _LEFT_BEHIND:
                    continue
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)


def hashes_of(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file of a version but its card, by relative path."""
    return {
        path.relative_to(folder).as_posix(): file_hash(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / CARD
    }


def _readable(path: Path) -> bool:
    """Tell whether everybody may read a file, or enter a folder."""
    wanted = 0o055 if path.is_dir() else 0o044
    return path.lstat().st_mode & wanted == wanted
