"""Running a command in this process, as the program would."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from os import PathLike
from typing import Any

from adapterctl.cli.main import run


@dataclass(frozen=True)
class Result:
    """What a command left behind."""

    exit_code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as the one JSON object that it must be."""
        return json.loads(self.out)


def invoke(*args: str | PathLike[str]) -> Result:
    """Run ``adapterctl`` with these arguments."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    with redirect_stdout(out), redirect_stderr(err):
        code = run([str(arg) for arg in args])
    texts = (stream.buffer.getvalue().decode("utf-8") for stream in (out, err))
    return Result(code, *texts)
