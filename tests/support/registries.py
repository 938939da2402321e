"""A registry with a history that nobody trained, and a picture of one that does not depend on MLflow's ids."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import mlflow

from adapterctl.lora.adapter import Adapter
from adapterctl.registry.client import Registry
from adapterctl.registry.versions import Version
from adapterctl.workflows import releases
from adapterctl.workflows.releases import RELEASE_RUN_TAG, Pin, Release, publish_release
from tests.support.adapters import make_adapter

LANGUAGES = ("de", "ja")


def key_of(*words: object) -> str:
    return hashlib.sha256(" ".join(map(str, words)).encode()).hexdigest()


def train(registry: Registry, lang: str, seed: int, folder: Path, parent: Any = None) -> Version:
    """Publish a random adapter as a training would."""
    made = make_adapter(folder / f"{lang}-{seed}", seed=seed, rank=2, alpha=3)
    (made / "notes").mkdir(exist_ok=True)
    (made / "notes" / "読.md").write_text(f"# {lang} {seed}\n", encoding="utf-8")
    key = key_of(lang, seed)
    with registry.run(f"train:{key}", f"train {lang}", parent=parent, tags={"lang": lang}) as run:
        run.log_params({"rows": 10, "lora.r": 2})
        run.log_curve("loss", {1: 3.0, 2: 2.5, 3: float("nan")})
        run.log_input_dataset(f"{lang} rows", key_of(lang), path="adapters", rows=10, context="training")
        run.log_figure("loss.png", b"\x89PNG" + bytes(seed % 7))
        version = registry.publish(
            f"{registry.project}-{lang}",
            made,
            content_hash=Adapter.open(made).content_hash,
            run=run,
            model_type="lora-adapter",
            params={"rows": 10},
            tags={"lang": lang, "adapterctl.training_key": key},
            description=f"adapter of {lang}, <b>seed</b> {seed}",
            metrics={"final_loss": 2.5},
        )
    shutil.rmtree(made)
    return version


def release(registry: Registry, adapters: dict[str, Version], seed: int, folder: Path, run: Any) -> Release:
    """Publish a random merged adapter as the release of these adapters."""
    name = f"{registry.project}-merged"
    made = make_adapter(folder / f"merged-{seed}", seed=1000 + seed, rank=4, alpha=6)
    content = Adapter.open(made).content_hash
    version = registry.publish(
        name,
        made,
        content_hash=content,
        run=run,
        model_type="merged-adapter",
        inputs=[adapters[lang] for lang in sorted(adapters)],
        description=f"release {seed}",
    )
    pins = {
        lang: Pin(
            lang=lang,
            version=found.version,
            content_hash=found.content_hash,
            training_key=found.tags["adapterctl.training_key"],
            inputs_key=key_of("inputs", lang),
        )
        for lang, found in adapters.items()
    }
    told = Release(
        version=version.version,
        created=version.created,
        reason=f"update {seed}",
        base="tiny",
        base_identity=key_of("base"),
        recipe={"method": "linear"},
        scale=1.0,
        adapters=pins,
        content_hash=content,
        merge_key=key_of("merge", seed),
        scores={"languages": dict.fromkeys(adapters, 0.5), "cells": [], "average": 0.5},
        run_id=run.run_id,
    )
    publish_release(run, told, {"scorecard.json": {"rows": [seed]}})
    run.set_note(f"# release {seed}")
    registry.set_version_tags(version, {RELEASE_RUN_TAG: run.run_id, "adapterctl.gate": "passed"})
    shutil.rmtree(made)
    return told


def fill(registry: Registry, folder: Path, updates: int = 2) -> None:
    """Make a first release of two languages, and as many updates of ``ja``; the last two are previous and champion."""
    folder.mkdir(parents=True, exist_ok=True)
    adapters: dict[str, Version] = {}
    before = None
    for seed in range(1, updates + 2):
        with registry.run(f"update:{seed}", f"update {seed}", tags={"adapterctl.command": "update"}) as run:
            for lang in LANGUAGES if not adapters else ("ja",):
                adapters[lang] = train(registry, lang, seed + 100 * LANGUAGES.index(lang), folder, run)
            made = release(registry, adapters, seed, folder, run)
        releases.promote(registry, registry.project, made, expected=before)
        before = made.version
    registry.set_model_description(f"{registry.project}-merged", "what is served")


def client_of(registry: Registry) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(registry.resolved.uri, registry_uri=registry.resolved.uri)


def stored_folder(registry: Registry, version: Version) -> Path:
    """Return where the files of a version lie, in a store whose files are a folder here."""
    location = client_of(registry).get_logged_model(version.model_id).artifact_location
    return Path(unquote(urlsplit(location).path))


def picture(registry: Registry, folder: Path) -> dict[str, Any]:
    """Return all that a registry holds, read with MLflow's own client, with keys in the place of MLflow's ids.

    The tags that an import adds are left out.
    """
    client = client_of(registry)
    runs = list(client.search_runs([registry.experiment_id], max_results=1000))
    names = {run.info.run_id: f"run {run.data.tags['adapterctl.key']}" for run in runs}
    models = {}
    for name in registry.names():
        names |= {v.model_id: f"model {v.name} {v.version}" for v in registry.versions(name)}
        models[name] = {
            "aliases": registry.aliases(name),
            "about": client.get_registered_model(name).description or "",
            "versions": {
                v.version: _version(client, v, names, folder / f"{name}-{v.version}") for v in registry.versions(name)
            },
        }
    return {
        "models": models,
        "runs": {names[run.info.run_id]: _run(client, run.info.run_id, names, folder) for run in runs},
    }


def _tags(tags: Any, names: dict[str, str]) -> dict[str, str]:
    added = ("adapterctl.imported_from", "adapterctl.created", "mlflow.modelVersions")
    return {key: names.get(value, value) for key, value in dict(tags).items() if key not in added}


def _files(client: mlflow.MlflowClient, uri: str, names: dict[str, str], folder: Path) -> dict[str, str]:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    mlflow.artifacts.download_artifacts(uri, dst_path=str(folder), tracking_uri=client.tracking_uri)
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            for own, name in names.items():
                content = content.replace(own.encode(), name.encode())
            found[path.relative_to(folder).as_posix()] = hashlib.sha256(content).hexdigest()
    return found


def _version(client: mlflow.MlflowClient, version: Version, names: dict[str, str], folder: Path) -> dict[str, Any]:
    model = client.get_logged_model(version.model_id)
    return {
        "hash": version.content_hash,
        "created": version.created,
        "tags": _tags(version.tags, names),
        "run": names[version.run_id],
        "about": version.description,
        "status": str(model.status),
        "type": model.model_type,
        "params": dict(model.params),
        "metrics": sorted((m.key, m.value, m.step, m.timestamp) for m in model.metrics or ()),
        "model tags": _tags(model.tags, names),
        "files": _files(client, model.artifact_location, names, folder),
    }


def _run(client: mlflow.MlflowClient, run_id: str, names: dict[str, str], folder: Path) -> dict[str, Any]:
    run = client.get_run(run_id)
    histories = [client.get_metric_history(run_id, key) for key in run.data.metrics]
    files = list(client.list_artifacts(run_id))
    return {
        "name": run.info.run_name,
        "status": run.info.status,
        "times": (run.info.start_time, run.info.end_time),
        "params": dict(run.data.params),
        "tags": _tags(run.data.tags, names),
        "metrics": sorted((p.key, str(p.value), p.step, p.timestamp) for history in histories for p in history),
        "datasets": sorted(
            (d.dataset.name, d.dataset.digest, d.dataset.profile, tuple(sorted((t.key, t.value) for t in d.tags)))
            for d in run.inputs.dataset_inputs
        ),
        "inputs": sorted(names[m.model_id] for m in run.inputs.model_inputs if m.model_id in names),
        "outputs": sorted(names[m.model_id] for m in run.outputs.model_outputs if m.model_id in names),
        "files": _files(client, run.info.artifact_uri, names, folder / run_id) if files else {},
    }
