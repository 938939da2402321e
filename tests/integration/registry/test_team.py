"""The team's server: what compose.yaml says, started without containers; login, permissions, backup and restore."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx
import pytest
from ruamel.yaml import YAML
from tests.integration.registry.conftest import free_port
from tests.support.cli import invoke
from tests.support.registries import picture
from tests.support.small_workspace import change
from tests.support.store import registry_of
from tests.support.team_server import BUCKET, REGISTRY, Team, bucket, s3, team_server

from adapterctl.registry.client import Registry
from adapterctl.registry.settings import ResolvedRegistry


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    pytest.importorskip("moto", reason="moto is not installed: pip install 'moto[s3]'")
    folder = tmp_path_factory.mktemp("s3")
    with s3(folder, free_port()) as environment:
        transport = httpx.HTTPTransport(retries=30)
        with httpx.Client(transport=transport, trust_env=False) as client:
            client.get(environment["MLFLOW_S3_ENDPOINT_URL"])
        yield environment


def database(postgres: ResolvedRegistry, name: str) -> str:
    """Make a database of its own in the cluster and return its address."""
    import psycopg

    with psycopg.connect(postgres.uri.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return postgres.uri.rpartition("/")[0] + f"/{name}"


@pytest.fixture(scope="module")
def team(
    tmp_path_factory: pytest.TempPathFactory, postgres_store: ResolvedRegistry, storage: dict[str, str]
) -> Iterator[Team]:
    bucket(storage, "make", BUCKET)
    bucket(storage, "make", BUCKET)
    with team_server(
        tmp_path_factory.mktemp("team"), database(postgres_store, "team"), storage, free_port()
    ) as running:
        yield running


@pytest.fixture
def workspace(root: Path, team: Team) -> Path:
    """A workspace that is to work with the team's server; its own store is the archive that moves there."""
    change(root, "adapterctl.yaml", '  uri: ""', f'  uri: "{team.url}"')
    return root


def log_in(monkeypatch: pytest.MonkeyPatch, name: str, password: str) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", name)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)


def pg(program: str, address: str, *options: str) -> None:
    parts = urlsplit(address)
    environment = {**os.environ, "PGPASSWORD": unquote(parts.password or "")}
    where = ["-h", str(parts.hostname), "-p", str(parts.port), "-U", str(parts.username)]
    subprocess.run([program, *where, *options], env=environment, check=True, capture_output=True)


def test_a_life_on_the_team_s_server(
    workspace: Path,
    team: Team,
    filled: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    postgres_store: ResolvedRegistry,
) -> None:
    # Without a login, and with a wrong one.
    refused = invoke("-C", workspace, "status")
    assert refused.exit_code == 5
    assert "asks who you are" in refused.err
    assert "MLFLOW_TRACKING_USERNAME" in refused.err
    log_in(monkeypatch, "admin", "wrong-and-secret")
    findings = invoke("-C", workspace, "doctor", "--json")
    assert findings.exit_code == 2
    assert any("asks who you are" in found["message"] for found in findings.json["findings"])
    assert "wrong-and-secret" not in findings.out + findings.err

    # The move: everything arrives in PostgreSQL and S3.
    log_in(monkeypatch, "admin", team.password)
    file = tmp_path / "pocket.tar"
    assert invoke("-C", filled, "registry", "export", file).exit_code == 0
    moved = invoke("-C", workspace, "registry", "import", file, "--json")
    assert moved.exit_code == 0, moved.err
    served = Registry.connect(ResolvedRegistry(team.url, None, "the test's server"), "pocket")
    before = picture(registry_of(filled), tmp_path / "p")
    assert picture(served, tmp_path / "p") == before
    health = invoke("-C", workspace, "doctor", "--deep", "--json")
    assert health.exit_code == 0, health.out

    # Another member of the team may do what the work needs; one who is only to look may not.
    with httpx.Client(base_url=team.url, auth=("admin", team.password), trust_env=False, timeout=60) as admin:
        for name in ("ada", "guest"):
            make = {"username": name, "password": f"password of {name}"}
            admin.post("/api/2.0/mlflow/users/create", json=make).raise_for_status()
        for kind in ("experiment", "registered_model"):
            work = {"username": "ada", "permission": "MANAGE", "resource_type": kind, "resource_id": "*"}
            admin.post("/api/3.0/mlflow/users/permissions/grant", json=work).raise_for_status()
    log_in(monkeypatch, "guest", "password of guest")
    assert invoke("-C", workspace, "status").exit_code == 0
    denied = invoke("-C", workspace, "rollback")
    assert denied.exit_code == 5
    assert "does not permit this" in denied.err
    log_in(monkeypatch, "ada", "password of ada")
    rolled = invoke("-C", workspace, "rollback", "--json")
    assert rolled.exit_code == 0, rolled.err
    assert invoke("-C", workspace, "rollback", "--json").exit_code == 0
    assert served.aliases("pocket-merged") == {"champion": 3, "previous": 2}
    promoted = invoke("-C", workspace, "registry", "verify", "--json")
    assert (promoted.exit_code, promoted.json["versions"]) == (0, 7)

    # Backup and restore, with the commands of registry/README.md.
    log_in(monkeypatch, "admin", team.password)
    want = picture(served, tmp_path / "p")
    dump = tmp_path / "mlflow.dump"
    pg("pg_dump", team.database, "--format", "custom", "--file", str(dump), "team")
    assert not bucket(team.storage, "save", BUCKET, str(tmp_path / "bucket")).startswith("0 ")
    again = database(postgres_store, "restored")
    pg("pg_restore", again, "--no-owner", "--dbname", "restored", str(dump))
    assert not bucket(team.storage, "restore", "another", str(tmp_path / "bucket")).startswith("0 ")
    shutil.copytree(team.log.parent, tmp_path / "restored")
    port = free_port()
    source = (REGISTRY / "compose.yaml").read_text()
    assert "s3://${S3_BUCKET:-mlflow}/" in source
    with monkeypatch.context() as patch:
        import tests.support.team_server as module

        whole = module.options

        def elsewhere(port: int) -> list[str]:
            return [word.replace("s3://mlflow/", "s3://another/") for word in whole(port)]

        patch.setattr(module, "options", elsewhere)
        with team_server(tmp_path / "restored", again, team.storage, port) as second:
            # The users came with basic_auth.db: the first server's password is the one that holds.
            found = Registry.connect(ResolvedRegistry(second.url, None, "the restored server"), "pocket")
            assert picture(found, tmp_path / "p") == want
            log_in(monkeypatch, "ada", "password of ada")
            assert found.names() == served.names()


def test_old_versions_go_from_the_bucket(
    workspace: Path, team: Team, filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_in(monkeypatch, "admin", team.password)
    file = tmp_path / "pocket.tar"
    assert invoke("-C", filled, "registry", "export", file).exit_code == 0
    assert invoke("-C", workspace, "registry", "import", file).exit_code == 0
    count = len(objects(team))
    plan = invoke("-C", workspace, "registry", "gc", "--keep", "1", "--json").json
    assert len(plan["doomed"]) == 2
    done = invoke("-C", workspace, "registry", "gc", "--keep", "1", "--apply", plan["plan"], "--json")
    assert done.exit_code == 0, done.err
    # An adapter is config, tensors, a note, and two files of ours; a merge has no note.
    assert count - len(objects(team)) == 5 + 4
    assert invoke("-C", workspace, "registry", "verify").exit_code == 0


def objects(team: Team) -> set[str]:
    import boto3

    names = {"MLFLOW_S3_ENDPOINT_URL": "endpoint_url", "AWS_DEFAULT_REGION": "region_name"}
    names |= {"AWS_ACCESS_KEY_ID": "aws_access_key_id", "AWS_SECRET_ACCESS_KEY": "aws_secret_access_key"}
    s3_client = boto3.client("s3", **{argument: team.storage[name] for name, argument in names.items()})
    pages = s3_client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
    return {item["Key"] for page in pages for item in page.get("Contents", ())}


def compose() -> dict[str, Any]:
    found: dict[str, Any] = YAML(typ="safe").load(REGISTRY / "compose.yaml")
    return found


def test_the_compose_file_is_what_the_specification_says() -> None:
    subprocess.run(
        [
            sys.executable,
            "-m",
            "check_jsonschema",
            "--builtin-schema",
            "vendor.compose-spec",
            REGISTRY / "compose.yaml",
        ],
        check=True,
        capture_output=True,
    )


def test_the_compose_file_holds_together() -> None:
    """What a schema does not see: names that are used and not made, services without a health check, secrets inside."""
    whole = compose()
    services = whole["services"]
    for name, service in services.items():
        assert set(service.get("depends_on", {})) <= set(services)
        assert {item["source"] for item in service.get("configs", ())} <= set(whole["configs"])
        mounted = {volume.partition(":")[0] for volume in service.get("volumes", ())}
        assert mounted <= set(whole["volumes"])
        assert ("healthcheck" in service) != (name == "bucket")
        for other, how in service.get("depends_on", {}).items():
            expected = "service_completed_successfully" if other == "bucket" else "service_healthy"
            assert how["condition"] == expected
        if "image" in service:
            assert ":" in service["image"]
            assert not service["image"].endswith(":latest")
    for config in whole["configs"].values():
        assert "content" in config or (REGISTRY / config["file"]).is_file()
    text = (REGISTRY / "compose.yaml").read_text(encoding="utf-8")
    asked = [
        line.partition("=")[0].lstrip("# ")
        for line in (REGISTRY / ".env.example").read_text().splitlines()
        if "=" in line
    ]
    used = set(re.findall(r"\$\{(\w+)", text))
    assert used == set(asked)
    required = set(re.findall(r"\$\{(\w+):\?", text))
    assert required == {name for name in asked if name.endswith(("PASSWORD", "KEY"))}


def test_the_image_has_the_versions_that_were_tested() -> None:
    lines = (REGISTRY.parent / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {line.partition("==")[0]: line.partition("==")[2] for line in lines if "==" in line}
    build = compose()["services"]["mlflow"]["build"]["dockerfile_inline"]
    assert f'"mlflow[auth]=={pinned["mlflow"]}"' in build
    assert compose()["services"]["mlflow"]["image"] == f"adapterctl-mlflow:{pinned['mlflow']}"
