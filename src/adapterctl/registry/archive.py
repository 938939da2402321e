"""The file that a registry is moved with: a plain tar, read as if an enemy had written it.

    registry.json                 the project, its registered models, aliases and tags
    runs/<id>.json                one run: parameters, tags, metrics with their history, inputs and outputs
    runs/<id>/<file>              its files
    models/<id>.json              one logged model: tags, parameters, metrics
    models/<id>/<file>            its files
    versions/<name>/<number>.json one version of a registered model
    manifest.json                 the last member: format, project, and the SHA-256 and size of every other one

Equal registries give equal bytes: members are sorted, and owners, modes and times are those of nobody.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import tempfile
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice, takewhile
from pathlib import Path
from typing import IO, Any

from adapterctl.errors import AdapterError, Problem, UsageError
from adapterctl.files import TEMPORARY_PREFIX, disk_errors
from adapterctl.registry import manifest

FORMAT = 1
REGISTRY = "registry.json"
MANIFEST = "manifest.json"
_LARGEST_JSON = 1 << 28
_MOST_MEMBERS = 1_000_000
_PIECE = 1 << 20
_KINDS = ("runs", "models", "versions")


class Writer:
    """Writes an archive member by member, in the order of their names."""

    def __init__(self, tar: tarfile.TarFile, project: str) -> None:
        self._tar, self._project = tar, project
        self._members: dict[str, dict[str, Any]] = {}

    def add_json(self, name: str, value: Any) -> None:
        """Add a value as JSON."""
        text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
        self._add(name, io.BytesIO(text.encode("utf-8", "surrogatepass")), len(text.encode("utf-8", "surrogatepass")))

    def add_file(self, name: str, path: Path) -> None:
        """Add a file's content."""
        with path.open("rb") as source:
            self._add(name, source, os.fstat(source.fileno()).st_size)

    def _add(self, name: str, source: IO[bytes], size: int) -> None:
        if name in self._members:
            raise ValueError(f"{name} is in the archive already")
        hashing = _Hashing(source)
        self._tar.addfile(_header(name, size), hashing)
        self._members[name] = {"sha256": hashing.digest.hexdigest(), "size": size}

    def digest(self, name: str) -> str:
        """Return the SHA-256 of a member that was added; empty where there is none."""
        return str(self._members.get(name, {}).get("sha256", ""))

    def close(self) -> None:
        """Add the manifest."""
        whole = {"format": FORMAT, "project": self._project, "members": self._members}
        text = json.dumps(whole, indent=1, sort_keys=True, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"
        self._tar.addfile(_header(MANIFEST, len(text)), io.BytesIO(text))


class _Hashing:
    """A file that is hashed while it is read."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source, self.digest = source, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes."""
        piece = self._source.read(size)
        self.digest.update(piece)
        return piece


def _header(name: str, size: int) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.size, header.mode = size, 0o644
    return header


@contextmanager
def writing(path: Path, project: str) -> Iterator[Writer]:
    """Give a writer whose archive appears as ``path`` when the block ends well, whole, or not at all.

    Raises:
        UsageError: There is something of that name, or no folder for it.
        StorageError: The disk is full, read-only or not permitted.
    """
    path = path.absolute()
    if path.exists() or path.is_symlink():
        raise UsageError(f"{path} is there already", hint="name another file, or remove that one first")
    if not path.parent.is_dir():
        raise UsageError(f"there is no folder {path.parent}", hint=f"make it: mkdir -p {path.parent}")
    with disk_errors(path):
        descriptor, name = tempfile.mkstemp(prefix=TEMPORARY_PREFIX, dir=path.parent)
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
                    writer = Writer(tar, project)
                    yield writer
                    writer.close()
                file.flush()
                os.fsync(file.fileno())
            temporary.chmod(0o644)
            try:
                os.link(temporary, path)
            except FileExistsError:
                raise UsageError(f"{path} has come into being meanwhile", hint="name another file") from None
            except OSError:
                # A file system without links.
                temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@dataclass
class Archive:
    """An archive whose every member was read once and is what the manifest says.

    Attributes:
        project: The project that it holds.
        members: Size in bytes of every member by name.
        hashes: SHA-256 of every member by name.
    """

    project: str
    members: Mapping[str, int]
    hashes: Mapping[str, str] = field(repr=False)
    _tar: tarfile.TarFile = field(repr=False)
    _headers: Mapping[str, tarfile.TarInfo] = field(repr=False)

    def names(self, prefix: str, ending: str = "") -> list[str]:
        """Return the members below a folder, sorted."""
        start = bisect_left(self._sorted, prefix)
        below = takewhile(lambda name: name.startswith(prefix), islice(self._sorted, start, None))
        return [name for name in below if name.endswith(ending)]

    @cached_property
    def _sorted(self) -> list[str]:
        return sorted(self.members)

    def json(self, name: str) -> Any:
        """Return a member's value.

        Raises:
            AdapterError: There is none, or it is not JSON.
        """
        if name not in self.members:
            raise damaged(f"{name} is missing")
        if self.members[name] > _LARGEST_JSON:
            raise damaged(f"{name} has {self.members[name]:,} bytes, more than anything of ours")
        target = io.BytesIO()
        self._read(name, target)
        try:
            return json.loads(target.getvalue().decode("utf-8", "surrogatepass"))
        except (ValueError, RecursionError) as error:
            raise damaged(f"{name} is not JSON: {error}") from None

    def copy(self, name: str, path: Path) -> None:
        """Write a member's content to a new file.

        Raises:
            AdapterError: The archive was changed since it was opened.
        """
        with path.open("xb") as target:
            self._read(name, target)

    def _read(self, name: str, target: IO[bytes]) -> None:
        digest = hashlib.sha256()
        try:
            for piece in _pieces(self._tar, self._headers[name]):
                digest.update(piece)
                target.write(piece)
        except tarfile.TarError as error:
            raise damaged(f"{name} was cut off while the archive was read ({error})") from error
        if digest.hexdigest() != self.hashes[name]:
            raise damaged(f"{name} was changed while the archive was read")


def damaged(reason: str, problems: tuple[Problem, ...] = ()) -> AdapterError:
    """Return the error for an archive that cannot be used."""
    return AdapterError(
        f"the archive cannot be imported: {reason}; nothing was written",
        problems=problems,
        hint="make it again: adapterctl registry export FILE, and copy it whole",
    )


@contextmanager
def reading(path: Path) -> Iterator[Archive]:
    """Give an archive, after all of it was checked.

    Raises:
        UsageError: There is no such file.
        AdapterError: It is damaged, or holds what no archive of ours does: links, devices, names that lead out of it,
            members twice or besides the manifest.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise UsageError(f"there is no file {path}", hint="make it: adapterctl registry export FILE") from None
    except IsADirectoryError:
        raise UsageError(f"{path} is a folder", hint="name the file that adapterctl registry export made") from None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    with file:
        try:
            tar = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115 (it is the file that is closed)
            checked = _checked(tar)
        except (tarfile.TarError, EOFError, ValueError, OverflowError, RecursionError, OSError) as error:
            raise damaged(f"it is cut off, or no archive of ours ({error})") from error
        yield checked


def _checked(tar: tarfile.TarFile) -> Archive:
    headers: dict[str, tarfile.TarInfo] = {}
    problems: list[Problem] = []
    for header in tar:
        name = header.name
        if reason := _refusal(header) or ("is there twice" if name in headers else ""):
            problems.append(Problem(repr(name[:200]), reason))
        headers[name] = header
        if len(headers) > _MOST_MEMBERS:
            raise damaged(f"it has more than {_MOST_MEMBERS:,} members")
        if len(problems) >= 20:
            break
    if problems:
        raise damaged("it holds what no archive of ours does", tuple(problems))
    if MANIFEST not in headers:
        raise damaged("it has no manifest: it is cut off, or no archive of ours")
    text = b"".join(_pieces(tar, headers[MANIFEST])) if headers[MANIFEST].size <= _LARGEST_JSON else b""
    project, hashes = _manifest(text)
    for name in sorted(set(hashes) | (set(headers) - {MANIFEST})):
        if name not in headers:
            problems.append(Problem(repr(name[:200]), "is missing"))
        elif name not in hashes:
            problems.append(Problem(repr(name[:200]), "is not in the manifest"))
        else:
            digest = hashlib.sha256()
            for piece in _pieces(tar, headers[name]):
                digest.update(piece)
            if digest.hexdigest() != hashes[name]:
                problems.append(Problem(repr(name[:200]), "is not what was exported"))
    if problems:
        raise damaged(f"{len(problems)} of its members are not as they were", tuple(problems[:20]))
    members = {name: header.size for name, header in headers.items() if name != MANIFEST}
    return Archive(project, members, hashes, tar, headers)


def _refusal(header: tarfile.TarInfo) -> str:
    """Return why a member is none of ours, or the empty text."""
    if header.type != tarfile.REGTYPE or header.issparse():
        return "is a link, a device, a folder or a file with holes"
    if reason := manifest.unsafe(header.name):
        return reason
    known = header.name in (MANIFEST, REGISTRY) or header.name.split("/")[0] in _KINDS
    return "" if known else "is no part of an archive"


def _manifest(text: bytes) -> tuple[str, dict[str, str]]:
    try:
        whole = json.loads(text.decode("utf-8", "surrogatepass"))
        if whole["format"] != FORMAT:
            raise damaged(f"it has the format {whole['format']!r}, and this adapterctl reads {FORMAT}")
        hashes = {str(name): str(member["sha256"]) for name, member in whole["members"].items()}
        return str(whole["project"]), hashes
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise damaged(f"its manifest cannot be read ({type(error).__name__})") from None


def _pieces(tar: tarfile.TarFile, header: tarfile.TarInfo) -> Iterator[bytes]:
    source = tar.extractfile(header)
    assert source is not None
    left = header.size
    while left:
        piece = source.read(min(_PIECE, left))
        if not piece:
            raise damaged(f"{header.name} is cut off")
        left -= len(piece)
        yield piece
