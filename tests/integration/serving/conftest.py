"""A workspace with two releases, to be copied by every test that does something to it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.published import make_workspace, publish

Copy = Callable[[], Path]


@pytest.fixture(scope="session")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace whose champion is version 2, and previous version 1; do not change it."""
    folder = tmp_path_factory.mktemp("released")
    root = make_workspace(folder / "workspace")
    publish(root, folder / "first", "previous", seed=1)
    publish(root, folder / "second", "champion", seed=2)
    return root


@pytest.fixture
def root(released: Path, tmp_path: Path) -> Path:
    """A copy of that workspace, to do anything with it."""
    return Path(shutil.copytree(released, tmp_path / "workspace"))
