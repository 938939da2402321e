"""A process that is killed while it publishes, and the same call again."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest

from adapterctl.registry.client import Registry
from adapterctl.registry.settings import RegistrySettings, ResolvedRegistry

LOCAL = "LocalArtifactRepository"
PROXY = "HttpArtifactRepository"
POINTS: dict[str, dict[str, Any]] = {
    "run made": {"method": "create_run", "when": "after"},
    "model made": {"method": "create_logged_model", "when": "after"},
    "first file written": {"class": LOCAL, "method": "log_artifact", "when": "after"},
    "notes half written": {"class": LOCAL, "method": "log_artifact", "when": "after", "call": 4},
    "read back": {"class": LOCAL, "method": "get_local_path", "when": "after", "call": 2},
    "metrics noted": {"method": "log_batch", "when": "after"},
    "before ready": {"method": "finalize_logged_model", "when": "before"},
    "ready": {"method": "finalize_logged_model", "when": "after"},
    "output noted": {"method": "log_outputs", "when": "after"},
    "before the version": {"method": "create_model_version", "when": "before"},
    "version made": {"method": "create_model_version", "when": "after"},
    "before the end of the run": {"method": "set_terminated", "when": "before"},
}
SERVER_POINTS: dict[str, dict[str, Any]] = {
    "first file sent": {"class": PROXY, "method": "log_artifact", "when": "after"},
    "before the version": {"method": "create_model_version", "when": "before"},
}


def finish_and_check(resolved: ResolvedRegistry, project: str, folder: Path, tmp_path: Path) -> None:
    """Publish again, and look with MLflow's own client for anything that is there twice or not at all."""
    registry = Registry.connect(resolved, project)
    name = f"{project}-merged"
    (parent,) = registry.versions(f"{project}-ja")
    for _ in range(2):
        with registry.run("step", "step") as run:
            version = registry.publish(
                name,
                folder,
                content_hash="abc1",
                run=run,
                model_type="lora-adapter",
                params={"r": 4},
                metrics={"dev.accuracy": 0.5},
                inputs=[parent],
            )
    client = mlflow.MlflowClient(resolved.uri, registry_uri=resolved.uri)
    assert [found.version for found in registry.versions(name)] == [1]
    (model,) = client.search_logged_models([registry.experiment_id], f"name = '{name}'")
    assert (str(model.status), model.model_id) == ("READY", version.model_id)
    assert [(metric.key, metric.value) for metric in model.metrics] == [("dev.accuracy", 0.5)]
    (found,) = client.search_runs([registry.experiment_id], "tags.`adapterctl.key` = 'step'")
    found = client.get_run(found.info.run_id)
    assert found.info.status == "FINISHED"
    assert len(client.get_metric_history(found.info.run_id, "dev.accuracy")) == 1
    assert [item.model_id for item in found.inputs.model_inputs] == [parent.model_id]
    assert [item.model_id for item in found.outputs.model_outputs] == [model.model_id]
    assert registry.leftovers() == []
    downloaded = registry.download(version, tmp_path / "downloaded")
    files = sorted(file.relative_to(folder) for file in folder.rglob("*") if file.is_file())
    assert sorted(file.relative_to(downloaded) for file in downloaded.rglob("*") if file.is_file()) == files
    assert all((downloaded / file).read_bytes() == (folder / file).read_bytes() for file in files)
    if resolved.is_database:
        stored = {file.name for file in Path(model.artifact_location.removeprefix("file://")).rglob("*")}
        assert not any(name.startswith(".artifact.uploading.") for name in stored)


@pytest.fixture(scope="module")
def folder(make_adapter: Callable[..., Path]) -> Path:
    return make_adapter(21)


def order(resolved: ResolvedRegistry, project: str, folder: Path, point: dict[str, Any]) -> dict[str, Any]:
    return {
        "do": "publish",
        "store": dataclasses.asdict(resolved),
        "project": project,
        "name": f"{project}-merged",
        "input": f"{project}-ja",
        "folder": str(folder),
        "hash": "abc1",
        "kill": point,
    }


def publish_parent(resolved: ResolvedRegistry, project: str, folder: Path) -> None:
    registry = Registry.connect(resolved, project)
    with registry.run("parent", "parent") as run:
        registry.publish(f"{project}-ja", folder, content_hash="abc0", run=run, model_type="lora-adapter")


@pytest.fixture(scope="module")
def killed(
    tmp_path_factory: pytest.TempPathFactory, folder: Path, robot: Callable[..., list[int]]
) -> dict[str, ResolvedRegistry]:
    """One embedded store for every point, each left behind by a process that was killed there."""
    root = tmp_path_factory.mktemp("killed")
    publish_parent(RegistrySettings(uri="").resolve(root / "template"), "pocket", folder)
    stores = {}
    for number, point in enumerate(POINTS):
        shutil.copytree(root / "template", root / str(number))
        stores[point] = RegistrySettings(uri="").resolve(root / str(number))
    codes = robot([order(stores[point], "pocket", folder, kill) for point, kill in POINTS.items()], together=True)
    assert codes == [-9] * len(POINTS)
    return stores


@pytest.mark.parametrize("point", POINTS)
def test_publishing_goes_on_after_a_kill(
    killed: dict[str, ResolvedRegistry], point: str, folder: Path, tmp_path: Path
) -> None:
    registry = Registry.connect(killed[point], "pocket")
    assert {item.key for item in registry.leftovers()} == {"step"}
    finish_and_check(killed[point], "pocket", folder, tmp_path)


def test_publishing_goes_on_after_a_kill_and_a_sweep(
    killed: dict[str, ResolvedRegistry], folder: Path, tmp_path: Path
) -> None:
    root = tmp_path / "copy"
    template = killed["model made"].database_file
    assert template is not None
    shutil.copytree(template.parent.parent.parent / "template", root)
    resolved = RegistrySettings(uri="").resolve(root)
    registry = Registry.connect(resolved, "pocket")
    client = mlflow.MlflowClient(resolved.uri, registry_uri=resolved.uri)
    tags = {"adapterctl.key": "step", "adapterctl.host": "gone", "adapterctl.process": "1@1.00"}
    run = client.create_run(registry.experiment_id, run_name="step", tags=tags)
    client.create_logged_model(registry.experiment_id, name="pocket-merged", source_run_id=run.info.run_id)
    registry.sweep(registry.leftovers())
    finish_and_check(resolved, "pocket", folder, tmp_path)


def test_publishing_to_a_server_goes_on_after_a_kill(
    server_store: ResolvedRegistry, project: str, folder: Path, robot: Callable[..., list[int]], tmp_path: Path
) -> None:
    projects = {point: f"{project}-{number}" for number, point in enumerate(SERVER_POINTS)}
    for name in projects.values():
        publish_parent(server_store, name, folder)
    codes = robot([order(server_store, projects[point], folder, kill) for point, kill in SERVER_POINTS.items()])
    assert codes == [-9] * len(SERVER_POINTS)
    for number, name in enumerate(projects.values()):
        finish_and_check(server_store, name, folder, tmp_path / str(number))
