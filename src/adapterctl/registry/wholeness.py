"""Whether what a version points to is still what was published: every file read and hashed again."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from adapterctl.errors import Problem, RegistryError
from adapterctl.fingerprint import file_hash
from adapterctl.registry import manifest, versions
from adapterctl.registry.connection import Connection
from adapterctl.registry.faults import is_away
from adapterctl.registry.names import TAG_MANIFEST
from adapterctl.registry.versions import Version


def faults(
    connection: Connection, version: Version, progress: Callable[[int, int], None] | None = None
) -> list[Problem]:
    """Return what is wrong with the files of a version; nothing where all are as they were published.

    Args:
        connection: The open registry.
        version: Which.
        progress: Is told how many files of how many have been read.

    Raises:
        RegistryError: The registry cannot be reached.
        StorageError: The disk is full, read-only or not permitted.
    """
    try:
        repository = versions.files_of(connection, version)
        with tempfile.TemporaryDirectory() as temporary:
            listing = manifest.fetch(repository, manifest.MANIFEST, Path(temporary)).read_text("utf-8")
        files = manifest.parse(listing, version.tags.get(TAG_MANIFEST, ""), str(version)).files
    except RegistryError as error:
        if is_away(error):
            raise
        return [Problem(str(version), error.message, error.hint)]
    found = []
    for done, (name, digest) in enumerate(sorted(files.items())):
        if progress is not None:
            progress(done, len(files))
        # One at a time: a temporary copy of a large adapter is not kept beside the next.
        with tempfile.TemporaryDirectory() as temporary:
            try:
                same = file_hash(manifest.fetch(repository, name, Path(temporary))) == digest
            except RegistryError as error:
                if is_away(error):
                    raise
                found.append(Problem(f"{version}: {name}", "is missing or cannot be read"))
                continue
        if not same:
            found.append(Problem(f"{version}: {name}", "is not the file that was published"))
    return found


def require(connection: Connection, version: Version) -> None:
    """Make sure that a version is whole; see ``Registry.require_whole``."""
    if problems := faults(connection, version):
        raise RegistryError(
            f"{version} is not what was published: nothing may point to it",
            problems=problems,
            hint="choose another version (adapterctl history); all are checked by: adapterctl registry verify",
        )
