"""``registry verify``: everything that can happen to stored files is found, all of it at once, and named."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest
from tests.support.cli import Result, invoke
from tests.support.registries import client_of, stored_folder
from tests.support.store import registry_of

from adapterctl.errors import RegistryError
from adapterctl.registry import verifying
from adapterctl.registry.client import Registry

Change = Callable[[Path, Registry], None]
TENSORS = "adapter_model.safetensors"


def verify(root: Path, *models: str) -> Result:
    return invoke("-C", root, "registry", "verify", *models, "--json")


def flip(path: Path) -> None:
    """Change one bit: the size stays."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_a_whole_registry(root: Path) -> None:
    told = verify(root)
    assert told.exit_code == 0, told.err
    # Two adapters and a merge, then twice one of each; config, tensors, and for adapters a note.
    assert (told.json["versions"], told.json["files"], told.json["faults"]) == (7, 4 * 3 + 3 * 2, [])
    assert told.json["whole"] is True
    text = invoke("-C", root, "registry", "verify")
    assert "7 versions, 18 files" in text.out
    assert "Everything is as it was published" in text.out


def republish(folder: Path, files: dict[str, str], registry: Registry) -> None:
    """Write another list of files, and the tag that vouches for it, as whoever may write to the registry can."""
    text = json.dumps({"files": files})
    (folder / "adapterctl/manifest.json").write_text(text)
    version = registry.version("pocket-ja", 2)
    registry.set_version_tags(version, {"adapterctl.manifest_sha256": hashlib.sha256(text.encode()).hexdigest()})


def swap(folder: Path, registry: Registry) -> None:
    """Let version 2 consist of version 1's files, list and all."""
    other = stored_folder(registry, registry.version("pocket-ja", 1))
    listing = json.loads((other / "adapterctl/manifest.json").read_text())["files"]
    for name in listing:
        (folder / name).write_bytes((other / name).read_bytes())
    republish(folder, listing, registry)


CHANGES: dict[str, tuple[Change, str, str]] = {
    "a bit": (lambda folder, _: flip(folder / TENSORS), "changed", TENSORS),
    "gone": (lambda folder, _: (folder / TENSORS).unlink(), "missing", TENSORS),
    "one more": (lambda folder, _: (folder / "evil.bin").write_text("x") and None, "extra", "evil.bin"),
    "another list": (lambda folder, _: flip(folder / "adapterctl/manifest.json"), "list", "list of files"),
    "no list": (lambda folder, _: (folder / "adapterctl/manifest.json").unlink(), "missing", "manifest.json"),
    "no tag": (
        lambda _, registry: client_of(registry).delete_model_version_tag(
            "pocket-ja", "2", "adapterctl.manifest_sha256"
        ),
        "unlisted",
        "adapterctl.manifest_sha256",
    ),
    "not ready": (
        lambda _, registry: (
            client_of(registry).finalize_logged_model(registry.version("pocket-ja", 2).model_id, "FAILED") and None
        ),
        "unfinished",
        "FAILED",
    ),
    "no model": (
        lambda _, registry: client_of(registry).delete_logged_model(registry.version("pocket-ja", 2).model_id),
        "gone",
        "logged model",
    ),
    "swapped": (swap, "content", "adapterctl.content_hash"),
    "a hostile list": (
        lambda folder, registry: republish(folder, {"../../evil": "0" * 64}, registry),
        "list",
        "must not be written",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_was_changed_is_found(root: Path, name: str) -> None:
    change, kind, words = CHANGES[name]
    registry = registry_of(root)
    change(stored_folder(registry, registry.version("pocket-ja", 2)), registry)
    told = verify(root)
    assert told.exit_code == 6
    found = [(fault["name"], fault["version"], fault["kind"]) for fault in told.json["faults"]]
    assert found == [("pocket-ja", 2, kind)]
    assert words in told.json["faults"][0]["message"]
    assert told.json["faults"][0]["hint"]


def test_links_are_not_followed(root: Path, tmp_path: Path) -> None:
    registry = registry_of(root)
    inside, outside = (stored_folder(registry, registry.version(f"pocket-{lang}", 1)) for lang in ("de", "ja"))
    (inside / TENSORS).rename(inside / "moved")
    (inside / TENSORS).symlink_to(inside / "moved")
    (outside / TENSORS).rename(tmp_path / "moved")
    (outside / TENSORS).symlink_to(tmp_path / "moved")
    faults = verify(root).json["faults"]
    assert {(fault["name"], fault["kind"]) for fault in faults} == {
        ("pocket-de", "changed"),
        ("pocket-de", "extra"),
        ("pocket-ja", "changed"),
    }


def test_all_faults_are_told_at_once(root: Path) -> None:
    registry = registry_of(root)
    for number in (1, 3):
        folder = stored_folder(registry, registry.version("pocket-merged", number))
        flip(folder / TENSORS)
        (folder / "adapter_config.json").unlink()
    faults = verify(root).json["faults"]
    assert [(fault["version"], fault["kind"]) for fault in faults] == [
        (number, kind) for number in (1, 3) for kind in ("missing", "changed")
    ]
    text = invoke("-C", root, "registry", "verify")
    assert text.exit_code == 6
    assert "✗ pocket-merged v3: the file adapter_config.json is missing" in text.out
    assert "4 faults" in text.out


def test_only_what_was_named_is_read(root: Path) -> None:
    registry = registry_of(root)
    flip(stored_folder(registry, registry.version("pocket-ja", 2)) / TENSORS)
    for models, versions, code in (
        (["ja/2"], 1, 6),
        (["ja/1", "ja@champion"], 2, 0),
        (["merged@champion"], 1, 0),
        (["pocket-merged", "de"], 4, 0),
        (["ja"], 3, 6),
    ):
        told = verify(root, *models)
        assert (told.json["versions"], told.exit_code) == (versions, code), models


@pytest.mark.parametrize("name", ["fr", "ja/9", "ja@nobody", "a@b@c", "../x", "<b>"])
def test_a_model_that_is_not_there(root: Path, name: str) -> None:
    told = invoke("-C", root, "registry", "verify", name)
    assert told.exit_code == 2
    assert "To mend it" in told.err


def test_releases_that_nothing_explains(root: Path) -> None:
    registry = registry_of(root)
    run_id = registry.version("pocket-merged", 1).tags["adapterctl.release_run"]
    (Path(registry.artifacts_of(run_id)) / "release.json").write_text("{")
    client_of(registry).delete_model_version("pocket-ja", "2")
    faults = verify(root).json["faults"]
    assert [(fault["name"], fault["version"], fault["kind"]) for fault in faults] == [
        ("pocket-merged", 1, "release"),
        ("pocket-merged", 2, "pin"),
    ]
    assert "ja v2" in faults[1]["message"]
    assert "previous points to it" in faults[1]["message"]


def test_what_something_else_registered_is_told_apart(root: Path) -> None:
    client_of(registry_of(root)).create_model_version("pocket-ja", source="s3://bucket/adapter")
    told = verify(root)
    assert told.exit_code == 0
    assert told.json["foreign"] == ["pocket-ja v4"]
    assert "pocket-ja v4 was not registered by adapterctl" in invoke("-C", root, "registry", "verify").out


def test_a_store_that_is_away_is_no_damage(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = registry_of(root)
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

    def away(*_: object, **__: object) -> None:
        raise mlflow.MlflowException("API request failed: Max retries exceeded")

    monkeypatch.setattr(LocalArtifactRepository, "list_artifacts", away)
    with pytest.raises(RegistryError, match="no MLflow answers"):
        verifying.verify(registry.connection, registry.names())
