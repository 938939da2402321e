"""One command at a time may change a workspace."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from adapterctl.errors import LockHeld
from adapterctl.files import disk_errors, write_json
from adapterctl.workspace.layout import StatePaths


def read_holder(path: Path) -> dict[str, Any]:
    """Return who wrote the side file of the lock last; nothing where it cannot be read."""
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return holder if isinstance(holder, dict) else {}


def _held(paths: StatePaths) -> LockHeld:
    holder = read_holder(paths.holder)
    pid, machine = holder.get("pid"), holder.get("machine")
    if not isinstance(pid, int) or (machine == socket.gethostname() and not psutil.pid_exists(pid)):
        # The holder has not written its name yet; what stands there was left by one that was killed.
        return LockHeld(
            "another adapterctl works on this workspace", hint="wait until it ends, then run the same command again"
        )
    who = f"process {pid} on {machine}, '{holder.get('command')}' since {holder.get('since')}"
    return LockHeld(
        f"another adapterctl works on this workspace: {who}",
        hint=f"wait until it ends, or end it (kill {pid}), then run the same command again",
    )


@contextmanager
def locked(paths: StatePaths, command: str) -> Iterator[None]:
    """Hold the workspace's lock; the operating system takes it back from a process that is killed.

    Args:
        paths: The workspace's state.
        command: What the holder does, for whoever finds the lock held.

    Raises:
        LockHeld: Another process holds it.
        StorageError: The state's folder cannot be written to.
    """
    with disk_errors(paths.lock):
        paths.root.mkdir(parents=True, exist_ok=True)
        lock = FileLock(paths.lock, timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise _held(paths) from None
    try:
        write_json(
            paths.holder,
            {
                "pid": os.getpid(),
                "machine": socket.gethostname(),
                "command": command,
                "since": datetime.now(UTC).isoformat(timespec="seconds"),
            },
        )
        yield
    finally:
        paths.holder.unlink(missing_ok=True)
        lock.release()
