"""What every test finds: an environment without the settings of the person who runs it, and no network for models."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest

import adapterctl

# Read by the libraries when they are imported, so before any test is.
os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1")
os.environ.update(HF_HUB_DISABLE_PROGRESS_BARS="1", TOKENIZERS_PARALLELISM="false", MPLBACKEND="agg")


@pytest.fixture(scope="module", autouse=True)
def _little_to_collect() -> None:
    """Spare the collector the libraries and what earlier tests left: every training asks for a full round."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("ADAPTERCTL_", "MLFLOW_")) and name != "ADAPTERCTL_SHARED":
            monkeypatch.delenv(name)
    # Output that goes to no terminal has a width of its own, unless somebody says otherwise.
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture(scope="session")
def pocket_assets() -> Path:
    """The folder of the base model that comes with the package."""
    return Path(adapterctl.__file__).parent / "pocket" / "assets"
