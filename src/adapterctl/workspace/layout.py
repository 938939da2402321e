"""Where things are: the folder of a workspace, and the state it keeps."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from adapterctl.errors import UsageError
from adapterctl.workspace.config import PROJECT_FILE

WORKSPACE_VARIABLE = "ADAPTERCTL_WORKSPACE"
STATE_VARIABLE = "ADAPTERCTL_STATE_DIR"


@dataclass(frozen=True)
class StatePaths:
    """What a workspace keeps for itself; everything but the entries of the books on their way can be made again.

    Attributes:
        root: The folder of it all: ``.adapterctl`` in the workspace, or ``$ADAPTERCTL_STATE_DIR``.
    """

    root: Path

    def adapter(self, key: str) -> Path:
        """Folder of a trained adapter."""
        return self.root / "adapters" / key

    def merged(self, key: str) -> Path:
        """Folder of a merged adapter."""
        return self.root / "merged" / key

    def pinned(self, content_hash: str) -> Path:
        """Folder of an adapter that was fetched from the registry."""
        return self.fetched / content_hash

    @property
    def fetched(self) -> Path:
        """Folder of everything that was fetched from the registry, also by commands that hold no lock."""
        return self.root / "pinned"

    @property
    def factors(self) -> Path:
        """Folder of what one merge leaves for the next: inner products of factors, and thresholds."""
        return self.root / "factors"

    def scores(self, key: str) -> Path:
        """File of the scores of one model in one language and task."""
        return self.root / "scores" / f"{key}.json"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints of trainings under way."""
        return self.root / "checkpoints"

    @property
    def ledger(self) -> Path:
        """Entries of the books that wait for the registry."""
        return self.root / "ledger.jsonl"

    @property
    def lock(self) -> Path:
        """The lock of whoever changes the workspace."""
        return self.root / "lock"

    @property
    def holder(self) -> Path:
        """Who holds the lock."""
        return self.root / "lock.json"

    @property
    def seen(self) -> Path:
        """What the rows of every language were hashed to, as long as their files are untouched."""
        return self.root / "seen.json"

    @property
    def journal(self) -> Path:
        """What a command has begun and not ended."""
        return self.root / "journal.json"


def state_paths(root: Path) -> StatePaths:
    """Return the state of the workspace at ``root``; the environment variable wins over the usual folder."""
    elsewhere = os.environ.get(STATE_VARIABLE, "").strip()
    return StatePaths(Path(elsewhere).expanduser().absolute() if elsewhere else root / ".adapterctl")


def find_root(path: str | Path | None = None) -> Path:
    """Return the folder of the workspace around ``path``: the nearest one upwards with ``adapterctl.yaml``.

    Args:
        path: Where to begin; ``None``: ``$ADAPTERCTL_WORKSPACE`` where set, else the current folder.

    Raises:
        UsageError: There is none.
    """
    origin = ""
    if path is None:
        path = os.environ.get(WORKSPACE_VARIABLE, "").strip()
        origin = f" ({WORKSPACE_VARIABLE})" if path else ""
    start = Path(path or ".").expanduser().resolve()
    folder = start.parent if start.name == PROJECT_FILE and start.is_file() else start
    for candidate in (folder, *folder.parents):
        if os.path.isfile(candidate / PROJECT_FILE):
            return candidate
    raise UsageError(
        f"there is no {PROJECT_FILE} in {start}{origin} nor in a folder above it",
        hint="make a workspace with: adapterctl init DIR; or go into one",
    )
