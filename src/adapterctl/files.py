"""Writing so that a killed process leaves either the old thing or the new one, never half of it."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from adapterctl.errors import StorageError

_DISK_ERRORS = {
    errno.ENOSPC: ("the disk is full", "free some space there, then run the same command again"),
    errno.EDQUOT: ("the disk quota is used up", "free some space there, then run the same command again"),
    errno.EROFS: ("the file system is read-only", "choose a folder that can be written to"),
    errno.EACCES: ("permission denied", "change the owner or the mode of the folder"),
    errno.EPERM: ("the operation is not permitted", "change the owner or the mode of the folder"),
    errno.EEXIST: ("a file of that name is in the way", "move that file away"),
    errno.ENOTDIR: ("a part of the path is a file, not a folder", "move that file away"),
    errno.ENAMETOOLONG: ("the name is too long", "choose a shorter one"),
    errno.EBUSY: ("it is in use by the system", "choose another path"),
    errno.EFBIG: ("the file may not get so large", "raise the limit (ulimit -f), or choose another disk"),
    errno.EISDIR: ("there is a folder of that name", "remove the folder, or choose another name"),
    errno.EIO: ("the disk reports an input/output error", "check the disk"),
}

_ATTEMPTS = 20
_HERE = -100
_EXCHANGE = 2
"""Of Linux' renameat2(): paths from the working folder, and two names that change places."""

TEMPORARY_PREFIX = ".adapterctl-tmp-"
"""Names that start so are unfinished work of a process; ``doctor`` finds those left behind."""


def storage_error(error: OSError, path: Path | None = None, doing: str = "use") -> StorageError | None:
    """Return what one of the disk's own errors means to a person, None for every other ``OSError``.

    Args:
        error: What the operating system said.
        path: What was to be used; the file that the error names when not given.
        doing: The verb that fits: ``write``, ``read``.
    """
    if error.errno not in _DISK_ERRORS:
        return None
    reason, mend = _DISK_ERRORS[error.errno]
    thing = path if path is not None else error.filename or "standard output, or a file that was open"
    return StorageError(f"cannot {doing} {thing}: {reason}", hint=mend)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn the disk's own errors while writing ``path`` into a ``StorageError`` that names the mend."""
    try:
        yield
    except OSError as error:
        meant = storage_error(error, path, "write")
        if meant is None:
            raise
        raise meant from error


def _sync(path: Path) -> None:
    """Flush a file or a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, content: bytes, *, sync: bool = True) -> None:
    """Write a file atomically: temporary name, fsync, rename.

    Args:
        path: The file.
        content: What it is to hold.
        sync: Wait until the disk has it. A reader that can tell a torn file from a whole one need not.

    Raises:
        StorageError: The disk is full, read-only or not permitted.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=TEMPORARY_PREFIX, dir=path.parent)
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as handle:
                handle.write(content)
                handle.flush()
                if sync:
                    os.fsync(handle.fileno())
            # mkstemp makes 0600; others must be able to read what a person would have written.
            temporary.chmod(0o644)
            temporary.replace(path)
            if sync:
                _sync(path.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def write_text(path: Path, content: str) -> None:
    """Write a UTF-8 text file atomically.

    Raises:
        StorageError: The disk is full, read-only or not permitted.
    """
    write_bytes(path, content.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON with sorted keys, atomically.

    Raises:
        StorageError: The disk is full, read-only or not permitted.
    """
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def append_line(path: Path, line: str) -> None:
    """Append one line to a log of lines and flush it to the disk.

    A single ``write`` on a file opened for appending: two processes do not mix their lines.

    Raises:
        StorageError: The disk is full, read-only or not permitted.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            content = (line + "\n").encode("utf-8")
            written = os.write(descriptor, content)
            if written < len(content):
                # A nearly full disk takes the first part only: take it back, so that no half line stays.
                os.ftruncate(descriptor, max(0, os.fstat(descriptor).st_size - written))
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def unfinished(folder: Path) -> list[Path]:
    """Return what killed processes left half written below a folder, sorted."""
    return sorted(folder.glob(f"**/{TEMPORARY_PREFIX}*"))


def remove_unfinished(folder: Path, *, keep: Path | None = None) -> None:
    """Remove what killed processes left half written below a folder in which nobody else writes now.

    Args:
        folder: Where to look.
        keep: A folder below it in which others may write all the same.
    """
    for path in unfinished(folder):
        if keep is not None and path.is_relative_to(keep):
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@contextmanager
def staged_folder(final: Path) -> Iterator[Path]:
    """Give a temporary folder that becomes ``final`` when the block ends well, and vanishes when it does not.

    An existing ``final`` is replaced only then.

    Raises:
        StorageError: The disk is full, read-only or not permitted.
    """
    if final.is_symlink():
        # The folder is replaced, not the link to it.
        final = final.resolve()
    with disk_errors(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX, dir=final.parent))
        try:
            yield staging
            for entry in staging.rglob("*"):
                # Engines that serve the folder run under another user than the one that wrote it.
                entry.chmod(0o755 if entry.is_dir() else 0o644)
                _sync(entry)
            staging.chmod(0o755)
            _put_in_place(staging, final)
            _sync(final.parent)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise


def _put_in_place(staging: Path, final: Path) -> None:
    """Give a folder its final name, whoever else does the same at the same time; the last one stays."""
    for attempt in range(_ATTEMPTS):
        try:
            if not final.is_dir():
                staging.replace(final)
            elif _exchange(staging, final):
                shutil.rmtree(staging, ignore_errors=True)
            else:
                _replace_in_steps(staging, final)
            return
        except OSError as error:
            # Another process put its own folder there, or took one away, since we looked.
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT) or attempt == _ATTEMPTS - 1:
                raise


def _exchange(one: Path, other: Path) -> bool:
    """Let two folders change their names in one step; False where the system cannot, or one of them is not there."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    return int(rename(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE)) == 0


def _replace_in_steps(staging: Path, final: Path) -> None:
    """Step a folder aside and another one in: rename() cannot replace a folder that is not empty."""
    aside = Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX, dir=final.parent))
    final.replace(aside)
    try:
        staging.replace(final)
    except BaseException:
        if not final.exists():
            aside.replace(final)
        raise
    shutil.rmtree(aside, ignore_errors=True)
