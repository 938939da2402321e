"""Reading what strangers wrote: bounded, files only, JSON without two meanings, text that a terminal may show."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

Identity = tuple[int, int, int, int, int]
"""Device, inode, size in bytes, and the times of the last change of content and of inode in nanoseconds."""


def identity_of(status: os.stat_result) -> Identity:
    """Return what tells a file from every other and from its former self, without reading it."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def open_regular(path: Path) -> tuple[int, os.stat_result]:
    """Open a file for reading and return its descriptor and status; a symbolic link to a file is followed.

    Raises:
        OSError: It cannot be opened, or is a folder, a pipe or a device.
        ValueError: ``path`` is none.
    """
    # Without waiting: a named pipe would wait for somebody who writes to it.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode):
        return descriptor, status
    os.close(descriptor)
    raise OSError(errno.EINVAL, "it is not a file")


def read_small(path: Path, limit: int) -> tuple[bytes, Identity]:
    """Return the bytes of a file of at most ``limit`` bytes, and its identity.

    Raises:
        OSError: It cannot be read, is not a file, or a larger one.
        ValueError: ``path`` is none.
    """
    descriptor, status = open_regular(path)
    with open(descriptor, "rb") as handle:
        if status.st_size > limit:
            raise OSError(errno.EFBIG, f"it has {status.st_size} bytes, more than the {limit} that are read")
        return handle.read(limit), identity_of(status)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} is there twice")
        found[key] = value
    return found


def parse_json(text: bytes) -> Any:
    """Return what UTF-8 JSON says, where every program reads the same: no key twice, no NaN and no infinity.

    Raises:
        ValueError: It is not such JSON.
        RecursionError: It is nested too deeply.
    """
    return json.loads(text.decode("utf-8"), parse_constant=_refuse_constant, object_pairs_hook=_unique_keys)


def shown(value: Any, longest: int = 200) -> str:
    """Return text, or another value's ``repr``, as a message may hold it: no control characters, and not endless."""
    text = value if isinstance(value, str) else repr(value)
    cut = text if len(text) <= longest else text[: longest - 3] + "..."
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in cut)
