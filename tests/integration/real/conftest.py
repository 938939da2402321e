"""Real rows and a base model that was pre-trained on real text, from a folder beside the repository."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.support.adapters import shared_folder

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with ``base-real`` and ``data``."""
    folder = shared_folder()
    for part in ("base-real/model.safetensors", "data/topic/ja.train.jsonl", "data/sentiment/ja.train.jsonl"):
        if not (folder / part).is_file():
            pytest.skip(f"real rows and their base model are not there: no {folder / part} (see docs/real-data.md)")
    return folder


class RealWorkspace:
    """A workspace that is worked on by the program, each command in a process of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("ADAPTERCTL_", "MLFLOW_"))}
        self.environment = {**kept, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "HF_HUB_OFFLINE": "1"}

    def run(self, *args: str) -> Any:
        """Run ``adapterctl ARGS --json`` and return what it says."""
        command = [sys.executable, "-m", "adapterctl", "-C", str(self.root), *args, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=self.environment)
        assert done.returncode == 0, done.stderr[-4000:] + done.stdout[-2000:]
        return json.loads(done.stdout)

    def rows(self, pattern: str) -> list[dict[str, Any]]:
        """Return the rows of the files that match, in the order of their names."""
        files = sorted(self.root.glob(pattern))
        return [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]


def make_workspace(root: Path, shared: Path, *options: str) -> RealWorkspace:
    """Make a workspace with the script that people use."""
    script = REPOSITORY / "scripts" / "make_real_workspace.py"
    command = [sys.executable, str(script), str(root), "--shared", str(shared), *options]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return RealWorkspace(root)
