"""What the registry promises, on every kind of store."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest

from adapterctl.errors import RegistryError, UsageError
from adapterctl.registry.client import Registry, RunHandle, Version
from adapterctl.registry.processes import process_token
from adapterctl.registry.settings import ResolvedRegistry

Make = Callable[..., Path]


@pytest.fixture
def registry(store: ResolvedRegistry, project: str) -> Registry:
    return Registry.connect(store, project)


@pytest.fixture
def client(store: ResolvedRegistry) -> mlflow.MlflowClient:
    """MLflow's own client: what a person with nothing else sees."""
    return mlflow.MlflowClient(store.uri, registry_uri=store.uri)


def publish(registry: Registry, run: RunHandle, folder: Path, digest: str = "abc1", **more: Any) -> Version:
    return registry.publish(
        f"{registry.project}-ja", folder, content_hash=digest, run=run, model_type="lora-adapter", **more
    )


def test_a_run_ends_as_its_block_does(registry: Registry, client: mlflow.MlflowClient) -> None:
    def status(handle: RunHandle) -> str:
        return str(client.get_run(handle.run_id).info.status)

    with registry.run("good", "good") as good:
        assert status(good) == "RUNNING"
    assert status(good) == "FINISHED"
    with pytest.raises(ValueError, match="no luck"), registry.run("bad", "bad") as bad:
        raise ValueError("no luck")
    assert status(bad) == "FAILED"
    # Nobody knows what the text of such an error quotes: it stays where the command ran.
    said = client.get_run(bad.run_id).data.tags["adapterctl.error"]
    assert said.startswith("ValueError")
    assert "no luck" not in said
    with pytest.raises(KeyboardInterrupt), registry.run("stopped", "stopped") as stopped:
        raise KeyboardInterrupt
    assert status(stopped) == "KILLED"
    assert mlflow.active_run() is None


def test_a_run_is_found_again_by_its_key(registry: Registry, client: mlflow.MlflowClient) -> None:
    with pytest.raises(ValueError, match="x"), registry.run("k/1:a@b", "first") as first:  # noqa: PT012
        first.log_params({"rank": 4, "alpha": 12})
        first.log_curve("loss", {step: 1.0 / step for step in range(1, 6)})
        first.log_metrics({"accuracy": 0.5})
        raise ValueError("x")
    with registry.run("k/1:a@b", "again") as second:
        assert (second.run_id, second.reopened, second.name) == (first.run_id, True, "first")
        assert client.get_run(second.run_id).info.status == "RUNNING"
        second.log_params({"rank": 8, "new": "yes"})
        assert second.last_step("loss") == 5
        second.log_curve("loss", {step: 1.0 / step for step in range(1, 9)})
        second.log_metrics({"accuracy": 0.5})
    found = client.search_runs([registry.experiment_id])
    assert [run.info.run_id for run in found] == [first.run_id]
    assert found[0].data.params == {"rank": "4", "alpha": "12", "new": "yes"}
    assert "adapterctl.error" not in found[0].data.tags
    assert [point.step for point in client.get_metric_history(first.run_id, "loss")] == list(range(1, 9))
    assert len(client.get_metric_history(first.run_id, "accuracy")) == 1


def test_a_curve_logged_step_by_step(registry: Registry, client: mlflow.MlflowClient) -> None:
    with pytest.raises(KeyboardInterrupt), registry.run("curve", "curve") as run:  # noqa: PT012
        for step in range(1, 8):
            run.log_metrics({"loss": 1 / step, "tokens": step * 100.0}, step=step)
            if step == 4:
                assert run.last_step("loss") == 4
        raise KeyboardInterrupt
    for metric in ("loss", "tokens"):
        assert [point.step for point in client.get_metric_history(run.run_id, metric)] == list(range(1, 8))
    with registry.run("curve", "curve") as again:
        after = again.last_step("loss")
        assert after == 7
        for step in range(after + 1, 10):
            again.log_metrics({"loss": 1 / step}, step=step)
    history = client.get_metric_history(run.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(step, 1 / step) for step in range(1, 10)]


def test_nested_runs_tags_and_notes(registry: Registry, client: mlflow.MlflowClient) -> None:
    with (
        registry.run("outer", "update ja", tags={"adapterctl.lang": "ja"}) as outer,
        registry.run("inner", "train ja", parent=outer) as inner,
    ):
        outer.set_note("# Update\n" + "x" * 9000)
        with pytest.raises(ValueError, match="8000"):
            outer.set_tags({"long": "x" * 8001})
    tags = client.get_run(inner.run_id).data.tags
    assert tags["mlflow.parentRunId"] == outer.run_id
    assert tags["mlflow.runName"] == "train ja"
    outer_tags = client.get_run(outer.run_id).data.tags
    assert outer_tags["adapterctl.lang"] == "ja"
    assert len(outer_tags["mlflow.note.content"]) == 8000
    assert "note.md" in [file.path for file in client.list_artifacts(outer.run_id)]


def test_what_a_run_holds(registry: Registry, client: mlflow.MlflowClient, tmp_path: Path) -> None:
    picture = tmp_path / "p.png"
    picture.write_bytes(b"\x89PNG picture")
    with registry.run("files", "files") as run:
        for _ in range(2):
            run.log_figure("figures/loss.png", picture)
            run.log_figure("figures/gain.png", b"\x89PNG other")
            run.log_json("reports/a.json", {"語": [1, 2]})
            run.log_table("rows.json", {"id": ["a", "b"], "score": [0.5, 1.0]})
            run.log_input_dataset("ja.train", "ab" * 32, path="data/ja.jsonl", rows=120, context="training")
            run.log_params({f"p{i}": "y" * 7000 for i in range(101)})
        run.log_metrics({"inf": math.inf, "nan": math.nan, "one": 1.0})
    assert registry.read_json(run, "reports/a.json") == {"語": [1, 2]}
    assert registry.read_json(run.run_id, "rows.json") == {"columns": ["id", "score"], "data": [["a", 0.5], ["b", 1.0]]}
    assert {file.path for file in client.list_artifacts(run.run_id, "figures")} == {
        "figures/gain.png",
        "figures/loss.png",
    }
    found = client.get_run(run.run_id)
    assert json.loads(found.data.tags["mlflow.loggedArtifacts"]) == [{"path": "rows.json", "type": "table"}]
    assert math.isnan(found.data.metrics["inf"])
    assert math.isnan(found.data.metrics["nan"])
    assert found.data.params["p100"].endswith("(7000 characters)")
    (dataset,) = found.inputs.dataset_inputs
    assert (dataset.dataset.name, dataset.dataset.digest) == ("ja.train", "ab" * 18)
    assert {tag.key: tag.value for tag in dataset.tags} == {
        "mlflow.data.context": "training",
        "sha256": "ab" * 32,
        "rows": "120",
    }
    with pytest.raises(RegistryError):
        registry.read_json(run, "missing.json")


def test_publish_and_load_without_adapterctl(
    registry: Registry, store: ResolvedRegistry, client: mlflow.MlflowClient, make_adapter: Make, tmp_path: Path
) -> None:
    folder = make_adapter(1)
    with registry.run("train", "train") as run:
        version = publish(
            registry, run, folder, params={"r": 4}, tags={"adapterctl.lang": "ja"}, description="# 日本語"
        )
    assert (version.name, version.version, version.content_hash) == (f"{registry.project}-ja", 1, "abc1")
    assert (version.run_id, version.description) == (run.run_id, "# 日本語")
    assert version.tags["adapterctl.lang"] == "ja"
    registry.set_alias(version.name, "champion", version)
    # A person's own MLflow: the address in its place, nothing of ours.
    assert client.get_model_version_by_alias(version.name, "champion").version in (1, "1")
    location = client.get_logged_model(version.model_id).artifact_location
    there = tmp_path / "there"
    there.mkdir()
    mlflow.artifacts.download_artifacts(artifact_uri=location, dst_path=str(there), tracking_uri=store.uri)
    for file in ("adapter_model.safetensors", "adapter_config.json", "notes/読.md"):
        assert next(there.rglob(Path(file).name)).read_bytes() == (folder / file).read_bytes()
    model = client.get_logged_model(version.model_id)
    assert str(model.status) == "READY"
    assert (model.source_run_id, model.params) == (run.run_id, {"r": "4"})
    assert json.loads(model.tags["mlflow.modelVersions"])[0]["name"] == version.name


def test_download_gives_the_published_folder(
    registry: Registry, make_adapter: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_adapter(2)
    with registry.run("train", "train") as run:
        version = publish(registry, run, folder)
    destination = tmp_path / "new" / "adapter"
    monkeypatch.chdir(tmp_path)
    assert registry.download(version, Path("new/adapter")) == destination

    def contents(root: Path) -> dict[str, bytes]:
        return {str(file.relative_to(root)): file.read_bytes() for file in root.rglob("*") if file.is_file()}

    assert contents(destination) == contents(folder)
    # What was downloaded can be published again: the registry's own notes are not in it.
    with registry.run("again", "again") as run:
        assert publish(registry, run, destination, "abc2").version == 2


def test_a_version_is_published_once(registry: Registry, client: mlflow.MlflowClient, make_adapter: Make) -> None:
    folder, other = make_adapter(3), make_adapter(4)
    with registry.run("train", "train") as run:
        first = publish(registry, run, folder, "abc1")
        assert publish(registry, run, folder, "abc1") == first
        second = publish(registry, run, other, "abc2")
    assert [version.version for version in registry.versions(first.name)] == [1, 2]
    assert registry.version_by_hash(first.name, "abc2") == second
    assert registry.version_by_hash(first.name, "abc3") is None
    assert registry.version(first.name, 1) == first
    assert len(client.search_logged_models([registry.experiment_id])) == 2
    assert registry.names() == [first.name]
    with pytest.raises(UsageError, match="no version 7") as caught:
        registry.version(first.name, 7)
    assert "1, 2" in caught.value.hint
    with pytest.raises(UsageError, match="no version 1"):
        registry.version("unheard-of", 1)
    assert registry.versions("unheard-of") == []


def test_lineage_and_metrics(registry: Registry, client: mlflow.MlflowClient, make_adapter: Make) -> None:
    with registry.run("train", "train") as run:
        inputs = [publish(registry, run, make_adapter(seed), f"abc{seed}") for seed in (5, 6)]
    with registry.run("merge", "merge") as run:
        merged = registry.publish(
            f"{registry.project}-merged",
            make_adapter(7),
            content_hash="fff0",
            run=run,
            model_type="merged-adapter",
            inputs=inputs,
            metrics={"dev.accuracy": 0.75},
        )
    found = client.get_run(run.run_id)
    assert {model.model_id for model in found.inputs.model_inputs} == {version.model_id for version in inputs}
    assert [model.model_id for model in found.outputs.model_outputs] == [merged.model_id]
    assert found.data.metrics == {"dev.accuracy": 0.75}
    metrics = client.get_logged_model(merged.model_id).metrics
    assert [(metric.key, metric.value) for metric in metrics] == [("dev.accuracy", 0.75)]
    lineage = registry.read_json(merged, "adapterctl/lineage.json")
    assert [(item["name"], item["version"], item["content_hash"]) for item in lineage["inputs"]] == [
        (f"{registry.project}-ja", 1, "abc5"),
        (f"{registry.project}-ja", 2, "abc6"),
    ]
    assert (lineage["run_id"], lineage["type"]) == (run.run_id, "merged-adapter")
    assert merged.tags["adapterctl.inputs"] == f"{registry.project}-ja:1 {registry.project}-ja:2"


def test_aliases_tags_and_descriptions(registry: Registry, client: mlflow.MlflowClient, make_adapter: Make) -> None:
    with registry.run("train", "train") as run:
        first, second = (publish(registry, run, make_adapter(seed), f"abc{seed}") for seed in (8, 9))
    name = first.name
    assert registry.aliases(name) == {}
    assert registry.aliases("unheard-of") == {}
    registry.set_alias(name, "champion", first)
    registry.set_alias(name, "champion", 2)
    registry.set_alias(name, "champion", 2)
    registry.set_alias(name, "previous", 1)
    assert registry.aliases(name) == {"champion": 2, "previous": 1}
    registry.drop_alias(name, "previous")
    registry.drop_alias(name, "previous")
    assert registry.aliases(name) == {"champion": 2}
    with pytest.raises(UsageError, match="no version 9"):
        registry.set_alias(name, "champion", 9)
    registry.set_version_tags(second, {"adapterctl.gate": "passed", "adapterctl.lang": "ja"})
    registry.set_description(second, "語" * 6000)
    registry.set_model_description(name, "# The adapters of ja")
    again = registry.version(name, 2)
    assert again.tags["adapterctl.gate"] == "passed"
    assert len(again.description) == 5000
    assert again.description.endswith("6000 characters)")
    assert client.get_registered_model(name).description == "# The adapters of ja"


def test_two_projects_in_one_store(store: ResolvedRegistry, project: str, make_adapter: Make) -> None:
    small, big = Registry.connect(store, project), Registry.connect(store, f"{project}-big")
    for registry in (small, big):
        with registry.run("train", "train") as run:
            publish(registry, run, make_adapter(10), "abc1")
    assert small.names() == [f"{project}-ja"]
    assert big.names() == [f"{project}-big-ja"]
    assert small.experiment_id != big.experiment_id


def test_a_name_of_two_projects(
    store: ResolvedRegistry, client: mlflow.MlflowClient, project: str, make_adapter: Make
) -> None:
    first, second = Registry.connect(store, project), Registry.connect(store, f"{project}-big")
    name = f"{project}-big-ja"
    # A person may have made it before, with a description.
    client.create_registered_model(name, description="ours")
    with first.run("train", "train") as run:
        first.publish(name, make_adapter(13), content_hash="abc1", run=run, model_type="lora-adapter")
    assert first.names() == [name]
    with pytest.raises(RegistryError, match=f"belongs to the project {project}"), second.run("train", "train") as run:
        second.publish(name, make_adapter(14), content_hash="abc2", run=run, model_type="lora-adapter")
    assert [version.version for version in second.versions(name)] == [1]


def test_leftovers_are_found_and_swept(registry: Registry, client: mlflow.MlflowClient, make_adapter: Make) -> None:
    killed = client.create_run(
        registry.experiment_id,
        run_name="train ja",
        tags={"adapterctl.key": "k", "adapterctl.host": "another-machine", "adapterctl.process": "1@1.00"},
    )
    model = client.create_logged_model(registry.experiment_id, name="half", source_run_id=killed.info.run_id)
    foreign = client.create_run(registry.experiment_id, run_name="somebody's own")
    with registry.run("alive", "alive") as alive:
        publish(registry, alive, make_adapter(11), "abc1")
        found = registry.leftovers()
        assert {(item.kind, item.id) for item in found} == {("run", killed.info.run_id), ("model", model.model_id)}
        assert {item.host for item in found} == {"another-machine"}
        assert {item.key for item in found} == {"k"}
        assert registry.leftovers(older_than=3600) == []
        registry.sweep(found)
    assert registry.leftovers() == []
    assert client.get_run(killed.info.run_id).info.status == "KILLED"
    assert client.get_run(foreign.info.run_id).info.status == "RUNNING"
    assert client.get_run(alive.run_id).info.status == "FINISHED"
    with registry.run("k", "train ja") as again:
        assert again.run_id == killed.info.run_id


def test_a_run_is_a_leftover_when_its_process_has_ended(registry: Registry, client: mlflow.MlflowClient) -> None:
    with registry.run("mine", "mine") as mine:
        host = client.get_run(mine.run_id).data.tags["adapterctl.host"]
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        tags = {"adapterctl.key": "k", "adapterctl.host": host, "adapterctl.process": process_token(process.pid)}
        other = client.create_run(registry.experiment_id, run_name="of another process", tags=tags)
        assert registry.leftovers() == []
        process.kill()
    assert [item.id for item in registry.leftovers()] == [other.info.run_id]
    # The number may have been given to another process since.
    client.set_tag(other.info.run_id, "adapterctl.process", f"{os.getpid()}@1.00")
    assert [item.id for item in registry.leftovers()] == [other.info.run_id]


def test_nothing_is_said_and_nothing_is_left_behind(
    registry: Registry, make_adapter: Make, capfd: pytest.CaptureFixture[str]
) -> None:
    with registry.run("train", "train") as run:
        version = publish(registry, run, make_adapter(12))
    registry.set_alias(version.name, "champion", version)
    with pytest.raises(UsageError):
        registry.set_alias(version.name, "champion", 99)
    assert capfd.readouterr() == ("", "")
    assert list(Path.cwd().iterdir()) == []
