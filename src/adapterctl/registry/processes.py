"""Telling a process that still runs from one that was killed."""

from __future__ import annotations

import psutil


def process_token(pid: int) -> str:
    """Return what names a process of this machine for good: in containers the same numbers come again and again.

    Raises:
        ProcessLookupError: There is no such process.
    """
    try:
        return f"{pid}@{psutil.Process(pid).create_time():.2f}"
    except psutil.Error as error:
        raise ProcessLookupError(pid) from error


def is_alive(token: str) -> bool:
    """Return whether the process of a token still runs on this machine."""
    pid = token.partition("@")[0]
    try:
        return pid.isdigit() and process_token(int(pid)) == token
    except ProcessLookupError:
        return False
