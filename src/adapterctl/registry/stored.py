"""What lies in a place of files that the registry knows: names and sizes, and copies one after another.

Names come from the store and are trusted by nobody: whoever writes one as a path asks ``manifest.unsafe`` before.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from adapterctl.errors import RegistryError
from adapterctl.registry import manifest

_DEEPEST = 40
_MOST = 100_000
_LOOK = "look at it in the store"


def files(repository: Any) -> dict[str, int]:
    """Return the size in bytes of every stored file by its name, sorted; 0 where the store does not know it.

    Raises:
        RegistryError: There are more files, or deeper folders, than anything of ours has.
    """
    found: dict[str, int] = {}
    waiting: list[str | None] = [None]
    while waiting:
        folder = waiting.pop()
        if folder is not None and folder.count("/") >= _DEEPEST:
            raise RegistryError(f"the stored folder {folder[:200]!r} is nested too deeply", hint=_LOOK)
        for entry in repository.list_artifacts(folder):
            if entry.is_dir:
                waiting.append(entry.path)
            else:
                found[entry.path] = int(entry.file_size or 0)
        if len(found) + len(waiting) > _MOST:
            raise RegistryError(f"there are more than {_MOST:,} files in one place", hint=_LOOK)
    return dict(sorted(found.items()))


@contextmanager
def copy(repository: Any, name: str, folder: Path) -> Iterator[Path]:
    """Give a local copy of a stored file, below ``folder``; it is gone after the block, a local store's own file stays.

    Raises:
        RegistryError: There is no such file, or it is a link.
    """
    path = manifest.fetch(repository, name, folder)
    try:
        yield path
    finally:
        if path.is_relative_to(folder):
            path.unlink(missing_ok=True)


def delete(repository: Any) -> None:
    """Remove every file of a place; nothing happens where there is none."""
    repository.delete_artifacts()
