import hashlib
import json
from pathlib import Path

import pytest

from adapterctl.errors import AdapterError, RegistryError
from adapterctl.registry.manifest import Manifest, of_folder, parse, unsafe


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_a_folder_is_listed_with_its_hashes(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.json").write_text("one")
    (tmp_path / "sub/b.bin").write_text("two")
    assert of_folder(tmp_path).files == {"a.json": sha("one"), "sub/b.bin": sha("two")}


def test_unfinished_files_and_own_notes_are_left_out(tmp_path: Path) -> None:
    for name in (".adapterctl-tmp-x/a", "adapterctl/manifest.json", "a"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    assert list(of_folder(tmp_path).files) == ["a"]


def test_a_link_to_a_file_counts_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "blob").write_text("one")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a").symlink_to(tmp_path / "blob")
    assert of_folder(folder).files == {"a": sha("one")}


def test_what_cannot_be_published_is_listed_at_once(tmp_path: Path) -> None:
    (tmp_path / "folder").symlink_to("/")
    (tmp_path / "nothing").symlink_to(tmp_path / "missing")
    (tmp_path / "back\\slash").write_text("x")
    with pytest.raises(AdapterError) as caught:
        of_folder(tmp_path)
    assert len(caught.value.problems) == 3


def test_an_empty_or_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="no files"):
        of_folder(tmp_path)
    with pytest.raises(AdapterError, match="no folder"):
        of_folder(tmp_path / "missing")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/etc/passwd",
        "../a",
        "a/../../b",
        "a//b",
        "./a",
        "a/",
        "C:/a",
        "C:a",
        "a\\b",
        "..\\a",
        "a\nb",
        "a\x00",
        " a",
    ],
)
def test_unsafe_names(name: str) -> None:
    assert unsafe(name)


@pytest.mark.parametrize("name", ["a", "adapter_model.safetensors", "sub/a.json", "..a", "日本/モデル.json", "a b"])
def test_safe_names(name: str) -> None:
    assert unsafe(name) == ""


def test_a_manifest_survives_the_way_through_the_store() -> None:
    manifest = Manifest({"b": "2", "a": "1"})
    assert manifest.digest == Manifest({"a": "1", "b": "2"}).digest
    assert parse(manifest.to_json(), sha(manifest.to_json()), "p v1") == manifest


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"files": []}', '{"files": {}}', "nope", json.dumps({"files": {"../x": "0"}})]
)
def test_what_the_store_offers_is_not_trusted(text: str) -> None:
    with pytest.raises(RegistryError, match="p v1"):
        parse(text, sha(text), "p v1")


def test_another_list_than_the_published_one_is_refused() -> None:
    text = Manifest({"a": "1"}).to_json()
    with pytest.raises(RegistryError, match="not the one that was published"):
        parse(text, sha("another"), "p v1")
