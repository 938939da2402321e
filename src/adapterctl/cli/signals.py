"""SIGTERM: a scheduler ends a command, which leaves everything so that the same command goes on, within ten seconds.

The signal becomes an exception in the main thread, so that what is open is closed: runs are marked, locks are given
back, the books take what was used. Neither a registry that does not answer nor a long computation, which hears of no
exception, may keep it: eight seconds later the process ends all the same. Nothing is lost by that; it is what a kill
does.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import NoReturn

TERMINATED = 128 + signal.SIGTERM
_PATIENCE_SECONDS = 8.0


class Terminated(BaseException):
    """Somebody sent SIGTERM."""


def install(last_words: Callable[[], object]) -> None:
    """Let SIGTERM end the process in order.

    Args:
        last_words: Says why the process ends, where it has to be ended without unwinding.
    """
    if threading.current_thread() is not threading.main_thread():
        # Only the main thread hears of signals.
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.signal(signal.SIGTERM, _on_term)
    # Written to at once, also while the main thread is deep in something that is not Python.
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reading, last_words), name="adapterctl-signals", daemon=True).start()


def _on_term(number: int, frame: FrameType | None) -> NoReturn:
    # A second signal must not interrupt what the first one has begun to close.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Terminated


def _watch(reading: int, last_words: Callable[[], object]) -> None:
    while received := os.read(reading, 64):
        if signal.SIGTERM in received:
            break
    time.sleep(_PATIENCE_SECONDS)
    with suppress(Exception):
        last_words()
    _end_children()
    os._exit(TERMINATED)


def _end_children() -> None:
    """End what the process has started: a metric of another program, a server."""
    import psutil

    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            child.kill()
