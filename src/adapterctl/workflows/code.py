"""Versions of what computes results."""

from __future__ import annotations

from adapterctl.training.job import RECIPE_VERSION
from adapterctl.workflows.kept import ANSWERING


def code_versions() -> dict[str, int]:
    """Return the versions of what computes results; a higher one makes other results from the same inputs."""
    from adapterctl.merging.engine import ENGINE_VERSION

    return {"training": RECIPE_VERSION, "merging": ENGINE_VERSION, "scoring": ANSWERING}
