"""Real processes of the program ``adapterctl`` that start at once: forked from a server that has imported everything.

They may be stopped at named points, as a power cut, a person or a full disk would stop them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.cli import Result

SERVER = Path(__file__).with_name("program_server.py")


@dataclass
class Running:
    """A program that runs."""

    programs: Programs
    pid: int
    folder: Path

    def wait(self) -> Result:
        """Return what it left behind; an exit code below zero is the signal that ended it."""
        code = self.programs.ask({"wait": self.pid})["code"]
        return Result(code, *((self.folder / name).read_text(encoding="utf-8") for name in ("out", "err")))


@dataclass
class Programs:
    """Starts programs."""

    process: subprocess.Popen[str]
    folder: Path
    count: int = field(default=0)

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, "the server of programs has ended"
        return dict(json.loads(answer))

    def start(self, cwd: Path, *args: str, trap: dict[str, Any] | None = None, **environment: str) -> Running:
        """Start ``adapterctl`` with these arguments in a folder.

        Args:
            cwd: The current folder.
            args: Of the program.
            trap: ``at``: what is stopped, as ``module:name``; ``when``: before or after; ``call``: which call; ``do``:
                ``kill``, ``fail`` (an ``OSError`` of ``errno``), ``wait`` (make the file ``mark``, then wait until it
                is gone), ``hang`` (make it, then be deaf for ever), or ``jump`` (the clock moves by ``seconds``).
            environment: Variables to set.
        """
        self.count += 1
        folder = self.folder / str(self.count)
        folder.mkdir()
        order = {"args": list(args), "cwd": str(cwd), "env": environment, "trap": trap, "folder": str(folder)}
        return Running(self, self.ask(order)["pid"], folder)

    def __call__(self, cwd: Path, *args: str, trap: dict[str, Any] | None = None, **environment: str) -> Result:
        """Run ``adapterctl`` and wait for its end."""
        return self.start(cwd, *args, trap=trap, **environment).wait()


@contextmanager
def programs() -> Iterator[Programs]:
    """Give what starts programs, as long as the block lasts."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory(prefix="adapterctl-programs-") as folder:
        server = subprocess.Popen(
            [sys.executable, str(SERVER)], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            yield Programs(server, Path(folder))
        finally:
            server.kill()
            server.communicate()


def wait_for(path: Path, seconds: float = 60.0) -> None:
    """Wait until a file is there."""
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path} never came"
        time.sleep(0.02)
