"""The registry goes away and comes back, its disk fills up or is read-only, the clock jumps: told, and nothing lost."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.disk import small_disk
from tests.support.program import Programs, wait_for
from tests.support.servers import MlflowServer
from tests.support.small_workspace import change
from tests.support.soundness import check_sound
from tests.support.store import registry_of

from adapterctl.registry.client import Registry
from adapterctl.registry.settings import RegistrySettings

Copy = Callable[[Path], Path]
UPDATE = ("update", "--lang", "ja", "--json")
PUBLISHING = {"at": "mlflow:MlflowClient.create_logged_model", "when": "before", "do": "wait"}
IMPATIENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}


@pytest.fixture
def server(measured: Path, tmp_path: Path) -> Iterator[MlflowServer]:
    """A server on a copy of the workspace's own store."""
    shutil.copytree(measured / "registry", tmp_path / "server" / "registry")
    database = tmp_path / "server" / "registry" / "mlflow.db"
    # Its files are named by where they lie: the copy is put in order as a workspace that was moved is.
    registry_of(tmp_path / "server")
    with MlflowServer(tmp_path / "server", f"sqlite:///{database}") as started:
        yield started


def at(server: MlflowServer) -> Registry:
    return Registry.connect(RegistrySettings(uri=server.url).resolve(Path("/")), "pocket")


@pytest.mark.slow
def test_a_server_that_goes_away_in_the_middle_and_comes_back(
    measured: Path, updated: Path, copy: Copy, program: Programs, server: MlflowServer, tmp_path: Path
) -> None:
    root, mark = copy(measured), tmp_path / "mark"
    change(root, "adapterctl.yaml", '  uri: ""', f'  uri: "{server.url}"')
    running = program.start(root, *UPDATE, trap={**PUBLISHING, "mark": str(mark)}, **IMPATIENT)
    wait_for(mark, 120)
    server.stop()
    mark.unlink()
    ended = running.wait()
    assert ended.exit_code == 5, ended.err
    assert ended.json["error"]["message"].startswith(f"no MLflow answers at {server.url}")
    away = program(root, "status", **IMPATIENT)
    assert away.exit_code == 5
    server.start()
    assert check_sound(at(server)).version == 1
    # The lock of the process that could not give it back does not keep the next one out: it is dead.
    done = program(root, *UPDATE, **IMPATIENT)
    assert done.exit_code == 0, done.err
    assert check_sound(at(server)).content_hash == check_sound(registry_of(updated)).content_hash
    assert at(server).locked_by() == []
    assert at(server).leftovers() == []


@pytest.mark.slow
def test_a_server_that_is_away_for_a_moment_is_not_noticed(
    measured: Path, copy: Copy, program: Programs, server: MlflowServer, tmp_path: Path
) -> None:
    root, mark = copy(measured), tmp_path / "mark"
    change(root, "adapterctl.yaml", '  uri: ""', f'  uri: "{server.url}"')
    patient = {**IMPATIENT, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "7", "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "2"}
    running = program.start(root, *UPDATE, trap={**PUBLISHING, "mark": str(mark)}, **patient)
    wait_for(mark, 120)
    server.stop()
    mark.unlink()
    time.sleep(1)
    server.start()
    ended = running.wait()
    assert ended.exit_code == 0, ended.err
    assert check_sound(at(server)).version == 2


def test_a_store_of_files_that_is_full(
    arrived: Path, updated: Path, copy: Copy, program: Programs, tmp_path: Path
) -> None:
    root = copy(arrived)
    files = root / "registry" / "artifacts"
    size = sum(path.stat().st_size for path in files.rglob("*") if path.is_file())
    moved = files.rename(tmp_path / "moved")
    with small_disk(files, f"{(size + 400_000) // 1024}k"):
        shutil.copytree(moved, files, dirs_exist_ok=True)
        ended = program(root, *UPDATE)
        assert ended.exit_code == 7, ended.err
        assert "the disk is full" in ended.json["error"]["message"]
        assert check_sound(registry_of(root)).version == 1
        shutil.copytree(files, tmp_path / "rescued")
    files.rmdir()
    (tmp_path / "rescued").rename(files)
    done = program(root, *UPDATE)
    assert done.exit_code == 0, done.err
    assert check_sound(registry_of(root)).content_hash == check_sound(registry_of(updated)).content_hash


def test_a_store_of_files_that_is_read_only(
    arrived: Path, updated: Path, copy: Copy, program: Programs, tmp_path: Path
) -> None:
    root = copy(arrived)
    files = root / "registry" / "artifacts"
    moved = files.rename(tmp_path / "moved")
    with small_disk(files, "256m"):
        shutil.copytree(moved, files, dirs_exist_ok=True)
        subprocess.run(["mount", "-o", "remount,ro", str(files)], check=True)
        ended = program(root, *UPDATE)
        assert ended.exit_code == 7, ended.err
        assert "read-only" in ended.json["error"]["message"]
        assert check_sound(registry_of(root)).version == 1
        assert program(root, "status", "--json").json["champion"]["version"] == 1
        subprocess.run(["mount", "-o", "remount,rw", str(files)], check=True)
        done = program(root, *UPDATE)
        assert done.exit_code == 0, done.err
        assert check_sound(registry_of(root)).content_hash == check_sound(registry_of(updated)).content_hash


@pytest.mark.parametrize("hours", [-26, 26])
def test_a_clock_that_jumps(
    arrived: Path, updated: Path, copy: Copy, program: Programs, hours: int
) -> None:  # fmt: skip
    root = copy(arrived)
    jump = {"at": "adapterctl.training.checkpoints:save", "when": "after", "do": "jump", "seconds": hours * 3600}
    done = program(root, *UPDATE, trap=jump)
    assert done.exit_code == 0, done.err
    champion = check_sound(registry_of(root))
    assert champion.content_hash == check_sound(registry_of(updated)).content_hash
    said = json.loads((updated / "said.json").read_text("utf-8"))
    assert done.json["candidate"]["scores"] == said["candidate"]["scores"]
    # What was noted in a future that has not come yet keeps nobody from going on.
    again = program(root, "update", "--all-changed", "--max-age", "1d", "--json")
    assert (again.exit_code, again.json["changed"]) == (0, False)
    assert all(one["age_days"] >= 0 for one in again.json["due"])
    assert program(root, "cost", "report", "--json").exit_code == 0
    assert program(root, "rollback", "--json").json["champion"]["version"] == 1
