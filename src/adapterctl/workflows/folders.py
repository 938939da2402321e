"""Folders of adapters that are known by their content: here already, or fetched from the registry and checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from adapterctl.errors import AdapterError, RegistryError
from adapterctl.workflows.session import Session

if TYPE_CHECKING:
    from adapterctl.registry.versions import Version


def holds(folder: Path, content_hash: str) -> bool:
    """Tell whether a folder holds the adapter of a content hash, whole."""
    from adapterctl.lora.adapter import Adapter

    try:
        return Adapter.open(folder).content_hash == content_hash
    except AdapterError:
        return False


def checked_folder(
    session: Session, content_hash: str, places: Iterable[Path], find: Callable[[], Version], hint: str
) -> Path:
    """Return a folder that holds the adapter of a content hash.

    Args:
        session: The command at work.
        content_hash: Of the adapter.
        places: Where it may lie already.
        find: Gives the version to fetch where it does not.
        hint: What to do where the registry holds something else.

    Raises:
        RegistryError: The version holds another adapter: its scores would be kept under a wrong name.
    """
    fetched = session.workspace.paths.pinned(content_hash)
    for place in (*places, fetched):
        if holds(place, content_hash):
            return place
    version = find()
    session.registry.download(version, fetched)
    if not holds(fetched, content_hash):
        raise RegistryError(f"{version} does not hold the adapter that its content hash names", hint=hint)
    return fetched
