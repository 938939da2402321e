"""What takes long to make and every test process needs: made by the first of them, copied by the others."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Return a copy of its own, for this process, of the folder that ``make`` fills.

    Args:
        factory: Of temporary folders.
        name: Of the folder; the same in every process.
        make: Fills a folder that is not there yet.
    """
    everybody = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        everybody = everybody.parent
    folder = everybody / "made once" / name
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        if not (folder / "made").exists():
            shutil.rmtree(folder / "workspace", ignore_errors=True)
            make(folder / "workspace")
            (folder / "made").touch()
    return Path(shutil.copytree(folder / "workspace", factory.mktemp(name) / "workspace"))
