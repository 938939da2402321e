"""What a published folder consists of: the SHA-256 of every file, checked after writing and after reading."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from adapterctl.errors import AdapterError, Problem, RegistryError, StorageError
from adapterctl.files import TEMPORARY_PREFIX
from adapterctl.fingerprint import file_hash

OWN_FOLDER = "adapterctl"
"""Folder beside the published files for what the registry notes about them."""
MANIFEST = f"{OWN_FOLDER}/manifest.json"
LINEAGE = f"{OWN_FOLDER}/lineage.json"


@dataclass(frozen=True)
class Manifest:
    """The files of a published folder.

    Attributes:
        files: SHA-256 by relative path with ``/``.
    """

    files: Mapping[str, str]

    def to_json(self) -> str:
        """Return the text that is stored; equal folders give equal texts."""
        return json.dumps({"format": 1, "files": dict(self.files)}, indent=1, sort_keys=True, ensure_ascii=False) + "\n"

    @property
    def digest(self) -> str:
        """SHA-256 of the stored text: the tag by which the manifest itself is checked."""
        return hashlib.sha256(self.to_json().encode("utf-8")).hexdigest()


def of_folder(folder: Path) -> Manifest:
    """Return the manifest of what is to be published.

    Unfinished files and the registry's own notes of an earlier publication are left out.

    Raises:
        AdapterError: The folder is missing or empty, or holds a link to a folder or a name that cannot be stored.
    """
    if not folder.is_dir():
        raise AdapterError(f"there is no folder {folder} to publish")
    files: dict[str, str] = {}
    problems: list[Problem] = []
    for entry in sorted(folder.rglob("*")):
        name = entry.relative_to(folder).as_posix()
        if name.split("/")[0] == OWN_FOLDER or any(part.startswith(TEMPORARY_PREFIX) for part in name.split("/")):
            continue
        if entry.is_symlink() and not entry.is_file():
            problems.append(
                Problem(str(entry), "is a link to a folder or to nothing", "replace it by the folder itself")
            )
        elif entry.is_file():
            if reason := unsafe(name):
                problems.append(Problem(str(entry), f"its name {reason}", "rename the file"))
            files[name] = file_hash(entry)
    if problems:
        raise AdapterError(f"the folder {folder} cannot be published", problems=problems)
    if not files:
        raise AdapterError(f"the folder {folder} holds no files to publish")
    return Manifest(files)


def unsafe(name: str) -> str:
    """Return why a name that comes from elsewhere is not one of a file below a folder, or the empty text."""
    if not name or name != name.strip():
        return "is empty or begins or ends with a space"
    if any(ord(character) < 32 or ord(character) == 127 for character in name):
        return "holds a control character"
    if "\\" in name:
        return "holds a backslash"
    if PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive:
        return "is absolute"
    if any(part in ("", ".", "..") for part in name.split("/")):
        return "leads out of the folder"
    return ""


def parse(text: str, digest: str, place: str) -> Manifest:
    """Return the manifest of a version, trusting nothing in it.

    Args:
        text: What the store holds.
        digest: What the version's tag says that its hash is.
        place: The version, for messages.

    Raises:
        RegistryError: The text is not the one that was published, or names files outside the folder.
    """
    again = "publish it again from its source, or choose another version"
    if hashlib.sha256(text.encode("utf-8")).hexdigest() != digest:
        raise RegistryError(f"the list of files of {place} is not the one that was published", hint=again)
    try:
        files = json.loads(text)["files"]
        entries = {str(name): str(value) for name, value in files.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RegistryError(f"the list of files of {place} cannot be read: {error}", hint=again) from error
    problems = [Problem(repr(name), reason) for name in entries if (reason := unsafe(name))]
    if problems or not entries:
        raise RegistryError(
            f"the registry offers files of {place} that must not be written here", problems=problems, hint=again
        )
    return Manifest(entries)


def size(repository: Any, name: str) -> int:
    """Return how large a stored file is, in bytes, without fetching it; 0 where the store does not tell."""
    if repository.get_local_path(name):
        return 0
    found = {entry.path: entry.file_size for entry in repository.list_artifacts(_parent(name))}
    return int(found.get(name) or 0)


def fetch(repository: Any, name: str, folder: Path) -> Path:
    """Return a local copy, below ``folder``, of the stored file ``name``; or its place where the store is local.

    Raises:
        RegistryError: There is no such file, or it is a link.
    """
    local = repository.get_local_path(name)
    path = Path(local or repository.download_artifacts(name, dst_path=str(folder)))
    if path.is_symlink() or not path.is_file():
        raise RegistryError(f"the stored file {name} is a link or a folder", hint="publish the adapter again")
    return path


def store(repository: Any, folder: Path, manifest: Manifest, notes: Mapping[str, str]) -> None:
    """Write the files of a folder and the registry's notes to the store, then read all of them back.

    Raises:
        StorageError: What is read back is not what was written.
    """
    for name in sorted(manifest.files):
        repository.log_artifact(str(folder / name), _parent(name))
    expected = dict(manifest.files)
    with tempfile.TemporaryDirectory() as temporary:
        for name, text in {**notes, MANIFEST: manifest.to_json()}.items():
            note = Path(temporary) / "notes" / name
            note.parent.mkdir(parents=True, exist_ok=True)
            note.write_text(text, encoding="utf-8")
            repository.log_artifact(str(note), _parent(name))
            expected[name] = file_hash(note)
        for name, digest in expected.items():
            if file_hash(fetch(repository, name, Path(temporary))) != digest:
                raise StorageError(
                    f"the registry's store gives back another {name} than was written",
                    hint="check the disk or the bucket of the registry, then run the same command again",
                )


def _parent(name: str) -> str | None:
    return name.rpartition("/")[0] or None
