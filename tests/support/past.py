"""Projects with many releases behind them, whose versions were published but never trained."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from adapterctl.registry.client import Registry
from adapterctl.workflows.session import Session, reading
from adapterctl.workspace.workspace import Workspace

ROWS = {"train": 4, "dev": 2, "test": 2}
PROJECT = "scale"


def scale_benchmark() -> Any:
    """Return the benchmark that makes such projects; it is a script, and imports what lies beside it."""
    folder = str(Path(__file__).parents[2] / "benchmarks")
    sys.path.insert(0, folder)
    try:
        return import_module("registry_scale")
    finally:
        sys.path.remove(folder)


def make_past(root: Path, languages: tuple[str, ...] = ("de", "ja", "zh"), releases: int = 5) -> Path:
    """Make a workspace and its own store: a set-up, then one update after another, every language in turn."""
    benchmark = scale_benchmark()
    benchmark.make_workspace(root, languages, ROWS)
    benchmark.make_store(root, releases)
    return root


def session_of(root: Path, command: str = "test") -> Session:
    """Return a session that reads."""
    return reading(Workspace.open(root), command, quick=True)


def mlflow_registry(root: Path) -> Registry:
    """Return the store reached through MLflow's own client."""
    workspace = Workspace.open(root)
    return Registry.connect(workspace.config.registry.resolve(root), workspace.config.project)
