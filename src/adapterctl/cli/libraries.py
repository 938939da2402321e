"""Keeping the libraries below quiet: a terminal shows what adapterctl says, not what each of them has to say."""

from __future__ import annotations

import logging
import os
import sys
import time
from typing import TextIO

from adapterctl.masking import mask

_DEFAULTS = {
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "GIT_PYTHON_REFRESH": "quiet",
    "MPLBACKEND": "agg",
}
"""Environment variables that the libraries read when they are imported; what the person has set is kept."""


class _StandardError(logging.StreamHandler[TextIO]):
    """Writes to what is standard error at that moment: a progress display puts itself in front of it."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    def format(self, record: logging.LogRecord) -> str:
        """Return the line without the secrets that a library may have put into it."""
        return mask(super().format(record))

    @property
    def stream(self) -> TextIO:
        """The standard error of now."""
        return sys.stderr

    @stream.setter
    def stream(self, value: TextIO) -> None:
        raise AttributeError("the stream is always the standard error")


def tame(*, debug: bool) -> None:
    """Prepare the process, before any library is imported: log lines to standard error, no telemetry, no bars.

    Args:
        debug: Let warnings and log lines through that otherwise only worry people.
    """
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot write Japanese still gets the rest of the line.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    handler = _StandardError()
    formatter = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%SZ")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    logging.basicConfig(level=logging.INFO if debug else logging.WARNING, handlers=[handler])
    if not debug:
        # PEFT imports it for every adapter, and it then tells what it would like to have for 4-bit weights.
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    # Through the log and not by a filter: several libraries put filters of their own in front when they are imported.
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").setLevel(logging.WARNING if debug else logging.CRITICAL)
