"""Addresses where nobody answers, or somebody else does; damaged stores; hostile names."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import mlflow
import pytest
from tests.integration.registry.conftest import free_port

from adapterctl.errors import AdapterError, RegistryError, StorageError
from adapterctl.registry.client import Registry, Version
from adapterctl.registry.settings import RegistrySettings, ResolvedRegistry

Make = Callable[..., Path]


def refused(uri: str, root: Path) -> RegistryError:
    started = time.monotonic()
    with pytest.raises(RegistryError) as caught:
        Registry.connect(RegistrySettings(uri=uri).resolve(root), "pocket")
    assert time.monotonic() - started < 10
    assert caught.value.exit_code == 5
    assert caught.value.hint
    assert "geheim" not in str(caught.value)
    return caught.value


@contextmanager
def answering(status: int, body: str) -> Iterator[int]:
    """A server that gives every question the same answer."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        do_POST = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def test_nobody_listens(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    error = refused(f"http://me:geheim@127.0.0.1:{free_port()}", tmp_path)
    assert "no MLflow answers" in error.message
    assert capfd.readouterr() == ("", "")


def test_somebody_listens_but_never_answers(tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        error = refused(f"http://127.0.0.1:{silent.getsockname()[1]}", tmp_path)
    assert "no MLflow answers" in error.message


def test_the_waiting_times_of_a_person_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        started = time.monotonic()
        refused(f"http://127.0.0.1:{silent.getsockname()[1]}", tmp_path)
    assert time.monotonic() - started < 3
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "1"


def test_the_server_s_own_host_check(
    server_store: ResolvedRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, port = socket.getaddrinfo, server_store.uri.rpartition(":")[2]

    def lookup(host: str, *arguments: Any, **named: Any) -> Any:
        return real("127.0.0.1" if host == "mlflow.corp" else host, *arguments, **named)

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    error = refused(f"http://mlflow.corp:{port}", tmp_path)
    assert f"--allowed-hosts mlflow.corp:{port}" in error.hint


@pytest.mark.parametrize(
    ("status", "body", "hint"),
    [
        (401, "You are not authenticated. Please see ...", "MLFLOW_TRACKING_USERNAME"),
        (403, '{"error_code": "PERMISSION_DENIED", "message": "Permission denied"}', "permission"),
        (404, "<html>nothing here</html>", "browser"),
        (200, "<html>Sign in</html>", "browser"),
        (503, "starting", "start it"),
    ],
)
def test_somebody_else_answers(tmp_path: Path, status: int, body: str, hint: str) -> None:
    with answering(status, body) as port:
        assert hint in refused(f"http://127.0.0.1:{port}", tmp_path).hint


def test_databases_that_do_not_answer(tmp_path: Path) -> None:
    port = free_port()
    assert "no MLflow answers" in refused(f"postgresql://me:geheim@127.0.0.1:{port}/x", tmp_path).message
    assert refused("oracle9://me:geheim@h/x", tmp_path).hint


def test_a_wrong_password_of_a_database(postgres_store: ResolvedRegistry, tmp_path: Path) -> None:
    wrong = postgres_store.uri.replace("ge%2Fheim", "geheim")
    assert "password" in refused(wrong, tmp_path).message
    missing = postgres_store.uri.replace("/postgres", "/nowhere")
    assert "no such database" in refused(missing, tmp_path).message


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_text("this is a diary, " * 100)
    assert "not a database" in refused("sqlite:///x.db", tmp_path).message
    assert (tmp_path / "x.db").read_text().startswith("this is a diary")


def test_a_store_of_an_older_mlflow(tmp_path: Path) -> None:
    import sqlite3
    from contextlib import closing

    resolved = RegistrySettings(uri="sqlite:///x.db").resolve(tmp_path)
    Registry.connect(resolved, "pocket")
    (tmp_path / "x.db").rename(tmp_path / "y.db")
    with closing(sqlite3.connect(tmp_path / "y.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
    assert "mlflow db upgrade" in refused("sqlite:///y.db", tmp_path).hint


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "registry").write_text("in the way")
    with pytest.raises(StorageError) as caught:
        Registry.connect(RegistrySettings(uri="").resolve(tmp_path), "pocket")
    assert caught.value.hint


def test_a_deleted_experiment(tmp_path: Path) -> None:
    resolved = RegistrySettings(uri="sqlite:///x.db", experiment="ours").resolve(tmp_path)
    registry = Registry.connect(resolved, "pocket")
    mlflow.MlflowClient(resolved.uri).delete_experiment(registry.experiment_id)
    with pytest.raises(RegistryError, match=r"'ours'.*deleted") as caught:
        Registry.connect(resolved, "pocket")
    assert "mlflow experiments restore" in caught.value.hint


def test_a_moved_workspace(tmp_path: Path, make_adapter: Make) -> None:
    old, new = tmp_path / "old place", tmp_path / "new"
    registry = Registry.connect(RegistrySettings(uri="").resolve(old), "pocket")
    with registry.run("train", "train") as run:
        run.log_json("a.json", [1])
        version = registry.publish(
            "pocket-ja", make_adapter(41), content_hash="abc1", run=run, model_type="lora-adapter"
        )
    old.rename(new)
    resolved = RegistrySettings(uri="").resolve(new)
    moved = Registry.connect(resolved, "pocket")
    assert moved.read_json(run.run_id, "a.json") == [1]
    assert moved.download(moved.version("pocket-ja", 1), tmp_path / "d").is_dir()
    client = mlflow.MlflowClient(resolved.uri, registry_uri=resolved.uri)
    assert client.get_model_version_download_uri("pocket-ja", "1").startswith(new.as_uri())
    with moved.run("train", "train") as again:
        again.log_json("b.json", [2])
    assert again.run_id == run.run_id
    assert not old.exists()
    assert moved.version_by_hash("pocket-ja", "abc1") == version


@pytest.fixture
def published(sqlite_store: ResolvedRegistry, project: str, make_adapter: Make) -> tuple[Registry, Version, Path]:
    """A version, and the folder where its files lie."""
    registry = Registry.connect(sqlite_store, project)
    with registry.run("train", "train") as run:
        version = registry.publish(
            f"{project}-ja", make_adapter(51), content_hash="abc1", run=run, model_type="lora-adapter"
        )
    client = mlflow.MlflowClient(sqlite_store.uri, registry_uri=sqlite_store.uri)
    location = client.get_logged_model(version.model_id).artifact_location
    return registry, version, Path(location.removeprefix("file://").replace("%20", " ").replace("%C3%A9", "é"))


def forge(registry: Registry, version: Version, stored: Path, files: dict[str, str]) -> Version:
    """Let the registry itself say that a version consists of ``files``."""
    text = json.dumps({"files": files})
    (stored / "adapterctl/manifest.json").write_text(text)
    digest = hashlib.sha256(text.encode()).hexdigest()
    registry.set_version_tags(version, {"adapterctl.manifest_sha256": digest})
    return registry.version(version.name, version.version)


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "a/../../evil", "..\\evil", "C:/evil", "a\nb", ""])
def test_a_hostile_name_is_not_written(published: tuple[Registry, Version, Path], name: str, tmp_path: Path) -> None:
    registry, version, stored = published
    (stored / "evil").write_text("evil")
    hostile = forge(registry, version, stored, {name: hashlib.sha256(b"evil").hexdigest()})
    destination = tmp_path / "inner" / "destination"
    with pytest.raises(AdapterError, match="must not be written"):
        registry.download(hostile, destination)
    assert not destination.exists()
    assert not list(tmp_path.rglob("*evil*"))


@pytest.mark.parametrize("inside", [True, False])
def test_a_link_in_the_store_is_not_followed(
    published: tuple[Registry, Version, Path], tmp_path: Path, inside: bool
) -> None:
    registry, version, stored = published
    secret = (stored if inside else tmp_path) / "secret"
    secret.write_text("secret")
    (stored / "link").symlink_to(secret)
    hostile = forge(registry, version, stored, {"link": hashlib.sha256(b"secret").hexdigest()})
    with pytest.raises(RegistryError, match="is a link" if inside else "outside"):
        registry.download(hostile, tmp_path / "destination")
    assert not (tmp_path / "destination").exists()


def test_a_changed_or_missing_file_is_noticed(published: tuple[Registry, Version, Path], tmp_path: Path) -> None:
    registry, version, stored = published
    model = stored / "adapter_model.safetensors"
    content = model.read_bytes()
    model.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    destination = tmp_path / "destination"
    destination.mkdir()
    (destination / "before").write_text("kept")
    with pytest.raises(AdapterError, match=r"adapter_model\.safetensors .* not the one that was published"):
        registry.download(version, destination)
    model.unlink()
    with pytest.raises(RegistryError, match=r"adapter_model\.safetensors"):
        registry.download(version, destination)
    assert [path.name for path in destination.iterdir()] == ["before"]


def test_what_something_else_registered_is_explained(
    sqlite_store: ResolvedRegistry, project: str, tmp_path: Path
) -> None:
    client = mlflow.MlflowClient(sqlite_store.uri, registry_uri=sqlite_store.uri)
    client.create_registered_model(f"{project}-ja")
    client.create_model_version(f"{project}-ja", source="s3://bucket/adapter")
    registry = Registry.connect(sqlite_store, project)
    (version,) = registry.versions(f"{project}-ja")
    assert version.content_hash == ""
    with pytest.raises(RegistryError, match="was not registered by adapterctl") as caught:
        registry.download(version, tmp_path / "d")
    assert f"models:/{project}-ja/1" in caught.value.hint


def test_a_store_that_gives_back_something_else(
    sqlite_store: ResolvedRegistry, project: str, make_adapter: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

    write = LocalArtifactRepository.log_artifact

    def lossy(self: Any, local_file: str, artifact_path: str | None = None) -> None:
        write(self, local_file, artifact_path)
        if local_file.endswith(".safetensors"):
            stored = Path(self.artifact_dir) / Path(local_file).name
            stored.write_bytes(stored.read_bytes()[:-7])

    registry = Registry.connect(sqlite_store, project)
    folder = make_adapter(61)
    monkeypatch.setattr(LocalArtifactRepository, "log_artifact", lossy)
    with pytest.raises(StorageError, match="gives back another"), registry.run("train", "train") as run:
        registry.publish(f"{project}-ja", folder, content_hash="abc1", run=run, model_type="lora-adapter")
    assert registry.versions(f"{project}-ja") == []
    monkeypatch.undo()
    with registry.run("train", "train") as run:
        version = registry.publish(f"{project}-ja", folder, content_hash="abc1", run=run, model_type="lora-adapter")
    assert version.version == 1


def test_a_full_disk(sqlite_store: ResolvedRegistry, project: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno
    import shutil

    registry = Registry.connect(sqlite_store, project)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(StorageError, match="disk is full") as caught, registry.run("train", "train") as run:  # noqa: PT012
        monkeypatch.setattr(shutil, "copyfileobj", full)
        run.log_text("a.txt", "x")
    assert caught.value.exit_code == 7
