"""Archives as an enemy would write them: refused before anything of them is used."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapterctl.errors import AdapterError, UsageError
from adapterctl.registry import archive

CONTENT = b"content"


def write(path: Path, members: list[tuple[str, bytes]], manifest: Any = None, **header: Any) -> Path:
    """Write a tar whose manifest is right, unless one is given; ``header`` changes the first member's."""
    named = {name: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)} for name, data in members}
    whole = {"format": 1, "project": "pocket", "members": named} if manifest is None else manifest
    text = whole if isinstance(whole, bytes) else json.dumps(whole).encode()
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for number, (name, data) in enumerate([*members, ("manifest.json", text)]):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            if number == 0:
                for key, value in header.items():
                    setattr(info, key, value)
            tar.addfile(info, io.BytesIO(data))
    return path


def refused(path: Path) -> AdapterError:
    with pytest.raises(AdapterError) as caught, archive.reading(path):
        pass
    assert "nothing was written" in caught.value.message
    assert caught.value.hint
    return caught.value


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(CONTENT)
    with archive.writing(tmp_path / "a.tar", "pocket") as writer:
        writer.add_json("registry.json", {"ß": ["日本", 1.5, None]})
        writer.add_file("runs/r1/日本/x.bin", tmp_path / "file")
    with archive.reading(tmp_path / "a.tar") as opened:
        assert opened.project == "pocket"
        assert opened.members == {"registry.json": opened.members["registry.json"], "runs/r1/日本/x.bin": 7}
        assert opened.json("registry.json") == {"ß": ["日本", 1.5, None]}
        opened.copy("runs/r1/日本/x.bin", tmp_path / "copy")
        assert opened.names("runs/") == ["runs/r1/日本/x.bin"]
    assert (tmp_path / "copy").read_bytes() == CONTENT
    assert {path.name for path in tmp_path.iterdir()} == {"file", "copy", "a.tar"}


def test_others_read_it_too(tmp_path: Path) -> None:
    write(tmp_path / "a.tar", [("registry.json", b"{}")])
    with archive.reading(tmp_path / "a.tar") as opened:
        assert opened.json("registry.json") == {}


def test_an_interrupted_export_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError), archive.writing(tmp_path / "a.tar", "pocket") as writer:
        writer.add_json("registry.json", object())
    assert list(tmp_path.iterdir()) == []


def test_an_archive_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(CONTENT)
    with pytest.raises(UsageError, match="is there already"), archive.writing(tmp_path / "a.tar", "pocket"):
        pass
    with pytest.raises(UsageError, match="no folder") as caught, archive.writing(tmp_path / "x" / "a.tar", "pocket"):
        pass
    assert "mkdir" in caught.value.hint
    assert (tmp_path / "a.tar").read_bytes() == CONTENT


NAMES = ["../evil", "/etc/evil", "runs/../../evil", "runs\\evil", "C:/evil", "runs/a\nb", "other/evil", "evil.json"]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_leads_out(tmp_path: Path, name: str) -> None:
    error = refused(write(tmp_path / "a.tar", [(name, CONTENT)]))
    assert repr(name) in error.problems[0].where


HEADERS: list[dict[str, Any]] = [
    {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd", "size": 0},
    {"type": tarfile.LNKTYPE, "linkname": "manifest.json", "size": 0},
    {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3, "size": 0},
    {"type": tarfile.FIFOTYPE, "size": 0},
    {"type": tarfile.DIRTYPE, "size": 0},
    {"type": tarfile.CONTTYPE},
]


@pytest.mark.parametrize("header", HEADERS, ids=["symlink", "hard link", "device", "pipe", "folder", "continued"])
def test_what_is_no_plain_file(tmp_path: Path, header: dict[str, Any]) -> None:
    refused(write(tmp_path / "a.tar", [("registry.json", CONTENT)], **header))


def test_holes_that_become_a_large_file(tmp_path: Path) -> None:
    sparse = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(1 << 50)}
    sparse |= {"GNU.sparse.name": "registry.json"}
    data = b"1\n0\n0\n".ljust(512, b"\0")
    refused(write(tmp_path / "a.tar", [("registry.json", data)], pax_headers=sparse))


def test_a_size_that_is_a_lie(tmp_path: Path) -> None:
    refused(write(tmp_path / "a.tar", [("registry.json", CONTENT)], pax_headers={"size": str(1 << 60)}))


def digest(data: bytes) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}


MANIFESTS: list[Any] = [
    b"",
    b"[]",
    b"{",
    b"[" * 100_000,
    b"\xff\xfe",
    {"format": 2, "project": "pocket", "members": {}},
    {"format": 1, "project": "pocket", "members": []},
    {"format": 1, "project": "pocket", "members": {"registry.json": "x"}},
    {"format": 1, "project": "pocket", "members": {}},
    {"format": 1, "project": "pocket", "members": {"registry.json": digest(b"other")}},
    {"format": 1, "project": "pocket", "members": {"registry.json": digest(CONTENT), "runs/x.json": digest(b"")}},
]


@pytest.mark.parametrize("manifest", MANIFESTS)
def test_a_manifest_that_does_not_fit(tmp_path: Path, manifest: Any) -> None:
    refused(write(tmp_path / "a.tar", [("registry.json", CONTENT)], manifest))


def test_a_member_twice(tmp_path: Path) -> None:
    error = refused(write(tmp_path / "a.tar", [("registry.json", CONTENT), ("registry.json", b"other")]))
    assert "twice" in error.problems[0].message


@pytest.mark.parametrize("cut", [lambda size: 0, lambda size: 100, lambda size: 700, lambda size: size // 2])
def test_an_archive_that_is_cut_off(tmp_path: Path, cut: Callable[[int], int]) -> None:
    path = write(tmp_path / "a.tar", [("registry.json", CONTENT), ("runs/x/a", b"x" * 5000)])
    whole = path.read_bytes()
    path.write_bytes(whole[: cut(len(whole))])
    refused(path)


@pytest.mark.parametrize(
    "content", [b"this is a diary, " * 100, b"\x1f\x8b" + bytes(1000), bytes(2048), b"\xff" * 1024]
)
def test_what_is_no_archive(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.tar").write_bytes(content)
    refused(tmp_path / "a.tar")


def test_headers_upon_headers(tmp_path: Path) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 0
    (tmp_path / "a.tar").write_bytes(info.tobuf(tarfile.USTAR_FORMAT) * 5000)
    refused(tmp_path / "a.tar")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "a.tar", tmp_path):
        with pytest.raises(UsageError) as caught, archive.reading(path):
            pass
        assert caught.value.hint


def test_an_archive_that_changes_while_it_is_read(tmp_path: Path) -> None:
    # More than a file that is open keeps in memory.
    path = write(tmp_path / "a.tar", [("registry.json", b'{"a": 1}' + b" " * 500_000)])
    with archive.reading(path) as opened:
        path.write_bytes(path.read_bytes().replace(b'{"a": 1}', b'{"a": 2}'))
        with pytest.raises(AdapterError, match="was changed"):
            opened.json("registry.json")
