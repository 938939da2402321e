import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from adapterctl.errors import RegistryError
from adapterctl.registry.settings import RegistrySettings, ResolvedRegistry, mask


@pytest.fixture(autouse=True)
def no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_the_embedded_store_is_the_default(tmp_path: Path) -> None:
    resolved = RegistrySettings().resolve(tmp_path)
    assert resolved.uri == f"sqlite:///{tmp_path}/registry/mlflow.db"
    assert resolved.artifact_root == f"file://{tmp_path}/registry/artifacts"
    assert resolved.embedded
    assert resolved.database_file == tmp_path / "registry/mlflow.db"


def test_the_environment_is_used_where_the_file_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    resolved = RegistrySettings().resolve(tmp_path)
    assert (resolved.uri, resolved.artifact_root) == ("http://mlflow:5000", None)
    assert "MLFLOW_TRACKING_URI" in resolved.origin
    assert resolved.is_server
    assert not resolved.embedded


def test_the_file_goes_before_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    resolved = RegistrySettings(uri="https://other").resolve(tmp_path)
    assert resolved.uri == "https://other"
    assert "adapterctl.yaml" in resolved.origin


def test_a_relative_sqlite_file_is_inside_the_workspace(tmp_path: Path) -> None:
    assert RegistrySettings(uri="sqlite:///a/b.db").resolve(tmp_path).database_file == tmp_path / "a/b.db"
    assert RegistrySettings(uri="sqlite:////srv/b.db").resolve(tmp_path).database_file == Path("/srv/b.db")


@pytest.mark.parametrize(
    ("artifacts", "expected"),
    [(None, "file://{root}/registry/artifacts"), ("files", "file://{root}/files"), ("s3://bucket/x/", "s3://bucket/x")],
)
def test_a_database_needs_a_place_for_files(tmp_path: Path, artifacts: str | None, expected: str) -> None:
    resolved = RegistrySettings(uri="postgresql+psycopg2://h/db", artifacts=artifacts).resolve(tmp_path)
    assert resolved.artifact_root == expected.format(root=tmp_path)
    assert (resolved.scheme, resolved.is_database, resolved.database_file) == ("postgresql", True, None)


@pytest.mark.parametrize("uri", ["mlruns", "./mlruns", "/srv/mlruns", "file:///srv/mlruns"])
def test_a_file_store_is_refused_with_the_way_out(tmp_path: Path, uri: str) -> None:
    with pytest.raises(RegistryError, match="file store") as caught:
        RegistrySettings(uri=uri).resolve(tmp_path)
    assert "migrate-filestore" in caught.value.hint
    assert caught.value.exit_code == 5


@pytest.mark.parametrize("uri", ["sqlite://", "sqlite:///", "sqlite:///:memory:"])
def test_a_database_in_memory_is_refused(tmp_path: Path, uri: str) -> None:
    with pytest.raises(RegistryError, match="names no file"):
        RegistrySettings(uri=uri).resolve(tmp_path)


@pytest.mark.parametrize("name", ["100%", "why?"])
def test_a_path_that_the_address_cannot_hold_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(RegistryError, match="cannot hold"):
        RegistrySettings().resolve(tmp_path / name)


def test_a_misspelt_key_is_an_error() -> None:
    with pytest.raises(ValidationError, match="ur1"):
        RegistrySettings.model_validate({"ur1": "http://x"})


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("postgresql://me:geheim@db:5432/x", "postgresql://***@db:5432/x"),
        ("see https://me@host and http://a:b@c/", "see https://***@host and http://***@c/"),
        ("mysql+pymysql://u:p%40q@h/x?ssl=1", "mysql+pymysql://***@h/x?ssl=1"),
        ("https://host/?token=abc&x=1", "https://host/?token=***&x=1"),
        ("postgresql:///db?user=me&password=geheim", "postgresql:///db?user=me&password=***"),
        ("http://host:5000/a@b", "http://host:5000/a@b"),
    ],
)
def test_secrets_are_masked(text: str, masked: str) -> None:
    assert mask(text) == masked


def test_the_representation_holds_no_password() -> None:
    resolved = ResolvedRegistry("postgresql://me:geheim@db/x", None, "test")
    assert "geheim" not in repr(resolved)
    assert "geheim" not in resolved.shown


def test_the_settings_load_without_mlflow() -> None:
    code = (
        "import sys, adapterctl.registry, adapterctl.registry.settings, adapterctl.registry.names\n"
        "print([name for name in ('mlflow', 'torch', 'sqlalchemy', 'pandas') if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
