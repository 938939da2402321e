"""What a person can ask of ``export``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from adapterctl.errors import Problem, UsageError
from adapterctl.registry.names import CHAMPION
from adapterctl.serving.notify import KEY
from adapterctl.serving.targets import TARGETS, Target

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Wanted:
    """What is to be exported, and to whom.

    Attributes:
        to: The folder that holds the exports.
        release: ``champion``, ``candidate``, ``previous``, ``merged/7`` or ``7``.
        target: A name of ``serving.targets.TARGETS``.
        max_lora_rank: What the server is started with; None where that may be chosen.
        fit: Truncate an adapter of a larger rank, instead of refusing it.
        base: Folder of the base model, where the workspace's is another or not in a folder.
        notify: Addresses of running servers.
        name: What servers call the releases, before ``-v`` and the number; the registered name where empty.
        server_path: The path under which the servers see ``to``; empty where it is the same.
        server_base: What the servers call the base model, where nothing tells that it is the same.
        keep_old: Leave earlier releases loaded.
        api_key_env: The environment variable that holds the servers' key.
    """

    to: Path
    release: str = CHAMPION
    target: str = "peft"
    max_lora_rank: int | None = None
    fit: bool = False
    base: Path | None = None
    notify: Sequence[str] = ()
    name: str = ""
    server_path: str = ""
    server_base: str = ""
    keep_old: bool = False
    api_key_env: str = KEY

    @property
    def aim(self) -> Target:
        """The row of what it is for."""
        return TARGETS[self.target]


def require_sense(wanted: Wanted) -> None:
    """Raise where options do not go together.

    Raises:
        UsageError: They do not; with every problem.
    """
    target = wanted.aim
    problems = []
    if wanted.notify and not target.serves_adapters:
        problems.append(Problem("--notify", f"nothing that runs loads --target {target.name}", "--target vllm"))
    if wanted.max_lora_rank is not None and not target.serves_adapters:
        message = f"it is an option of servers, and --target {target.name} is none"
        problems.append(Problem("--max-lora-rank", message, "--target vllm or --target sglang"))
    if wanted.fit and not target.serves_adapters:
        problems.append(Problem("--fit", f"--target {target.name} takes every rank", "leave it out"))
    if wanted.fit and target.name == "sglang" and wanted.max_lora_rank is None:
        problems.append(Problem("--fit", "SGLang takes every rank that it is started for", "give --max-lora-rank too"))
    if wanted.name and not _NAME.fullmatch(wanted.name):
        message = f"{wanted.name!r} cannot be a part of a model's name"
        problems.append(Problem("--name", message, "use letters, digits and . _ - only"))
    if wanted.server_path and not wanted.server_path.startswith("/"):
        problems.append(Problem("--server-path", f"{wanted.server_path} is not absolute", "begin it with /"))
    if problems:
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        raise UsageError(f"this export cannot be done: {count}", problems=problems, hint="adapterctl export --help")
