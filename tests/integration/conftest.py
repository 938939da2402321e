"""One small workspace that has been set up, to be copied by every test that does something to it."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.made_once import made_once
from tests.support.program import Programs, programs
from tests.support.small_workspace import bring_new_rows, make_small_workspace

Copy = Callable[[Path], Path]


@pytest.fixture(scope="session")
def program() -> Iterator[Programs]:
    """Run the program in processes of its own."""
    with programs() as started:
        yield started


@pytest.fixture(scope="session")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small workspace in which nothing has been done; do not change it."""
    return made_once(tmp_path_factory, "fresh", make_small_workspace)


@pytest.fixture(scope="session")
def served(fresh: Path, program: Programs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a first champion; do not change it."""

    def make(root: Path) -> None:
        shutil.copytree(fresh, root)
        done = program(root, "setup")
        assert done.exit_code == 0, done.err

    return made_once(tmp_path_factory, "served", make)


@pytest.fixture(scope="session")
def arrived(served: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a champion and new Japanese rows; do not change it."""
    root = Path(shutil.copytree(served, tmp_path_factory.mktemp("arrived") / "workspace"))
    bring_new_rows(root)
    return root


@pytest.fixture(scope="session")
def updated(arrived: Path, program: Programs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace after an update that nothing interrupted; do not change it."""

    def make(root: Path) -> None:
        shutil.copytree(arrived, root)
        done = program(root, "update", "--lang", "ja", "--json")
        assert done.exit_code == 0, done.err
        (root / "said.json").write_text(done.out, encoding="utf-8")

    return made_once(tmp_path_factory, "updated", make)


@pytest.fixture(scope="session")
def measured(arrived: Path, program: Programs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace of which all is made and measured that the gate compares; do not change it."""

    def make(root: Path) -> None:
        shutil.copytree(arrived, root)
        trap = {"at": "adapterctl.evaluation.gate:gate", "when": "before", "do": "kill"}
        assert program(root, "update", "--lang", "ja", trap=trap).exit_code == -signal.SIGKILL

    return made_once(tmp_path_factory, "measured", make)


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    """Copy a workspace, to do anything with it."""
    return lambda root: Path(shutil.copytree(root, tmp_path / "workspace"))
