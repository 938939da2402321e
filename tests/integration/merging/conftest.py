"""A disk that fills up."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.disk import small_disk


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for a part of the result."""
    with small_disk(tmp_path / "disk", "72k") as folder:
        yield folder
