"""Small adapters to merge, and a current folder that is no workspace."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.adapters import make_family


@pytest.fixture(scope="session")
def family(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three adapters in folders called by their languages; do not change them."""
    return make_family(tmp_path_factory.mktemp("family"), ("de", "ja", "zh"))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is no workspace, as the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
