"""What a workspace's MLflow holds, read with MLflow's own client."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow

from adapterctl.accounting.ledger import Ledger
from adapterctl.registry.client import Registry
from adapterctl.registry.settings import RegistrySettings
from adapterctl.workspace.workspace import Workspace


@dataclass(frozen=True)
class Store:
    """What counts in the store, in a form that two stores can be compared by.

    Attributes:
        versions: Content hashes by registered model and version.
        aliases: Of the merged adapter.
        runs: How many runs of each key and status there are, but for those of the books alone: every command has one.
        models: How many logged models of each name and status there are.
        doubled: Curves with two points at one step, as run key and metric.
        leftovers: What looks as if somebody still worked on it.
    """

    versions: dict[str, dict[int, str]]
    aliases: dict[str, int]
    runs: Counter[tuple[str, str]]
    models: Counter[tuple[str, str]]
    doubled: list[tuple[str, str]]
    leftovers: list[Any]


def registry_of(root: Path) -> Registry:
    """Return the own store of a pocket workspace, whose configuration may be spoilt."""
    return Registry.connect(RegistrySettings(uri="").resolve(root), "pocket")


def read_store(root: Path) -> Store:
    registry = registry_of(root)
    client = mlflow.MlflowClient(registry.resolved.uri, registry_uri=registry.resolved.uri)
    found = client.search_runs([registry.experiment_id], max_results=1000)
    doubled = []
    for run in found:
        for metric in run.data.metrics:
            if metric.startswith("cost."):
                # Every attempt adds to what the update cost.
                continue
            steps = [point.step for point in client.get_metric_history(run.info.run_id, metric)]
            if len(set(steps)) < len(steps):
                doubled.append((run.data.tags["adapterctl.key"], metric))
    return Store(
        versions={name: {v.version: v.content_hash for v in registry.versions(name)} for name in registry.names()},
        aliases=registry.aliases(f"{registry.project}-merged"),
        runs=Counter(
            (run.data.tags["adapterctl.key"], run.info.status)
            for run in found
            if not run.data.tags["adapterctl.key"].startswith("books:")
        ),
        models=Counter(
            (model.name, str(model.status)) for model in client.search_logged_models([registry.experiment_id])
        ),
        doubled=doubled,
        leftovers=registry.leftovers(),
    )


def ledger_of(root: Path) -> Ledger:
    """Return the books of a pocket workspace: those in its own store, and those on their way there."""
    return Ledger(Workspace.open(root).paths.ledger, lambda: registry_of(root))


def delivered_ids(registry: Registry) -> Counter[str]:
    """Return how often each entry of the books stands in the tags of the runs, read with MLflow's own client."""
    client = mlflow.MlflowClient(registry.resolved.uri, registry_uri=registry.resolved.uri)
    found = client.search_runs([registry.experiment_id], max_results=1000)
    tags = [tags for run in found for tags in run.data.tags.items()]
    return Counter(
        entry["id"] for name, text in tags if name.startswith("adapterctl.books.") for entry in json.loads(text)
    )
