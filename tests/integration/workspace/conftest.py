import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from adapterctl.workflows.init import init_workspace


@pytest.fixture(scope="session")
def pristine(tmp_path_factory) -> Path:
    """A pocket workspace of two languages; do not change it."""
    return init_workspace(tmp_path_factory.mktemp("pristine") / "workspace", "pocket", languages=["en", "ja"])


@pytest.fixture
def root(pristine, tmp_path, monkeypatch) -> Path:
    """A pocket workspace of two languages to do anything with."""
    monkeypatch.delenv("ADAPTERCTL_WORKSPACE", raising=False)
    monkeypatch.delenv("ADAPTERCTL_STATE_DIR", raising=False)
    return Path(shutil.copytree(pristine, tmp_path / "workspace"))


@pytest.fixture
def edit(root) -> Callable[[str, str, str], None]:
    """Replace a text, that stands there once at least, in a file of the workspace."""

    def replace(file: str, old: str, new: str) -> None:
        text = (root / file).read_text(encoding="utf-8")
        assert old in text
        (root / file).write_text(text.replace(old, new, 1), encoding="utf-8")

    return replace
