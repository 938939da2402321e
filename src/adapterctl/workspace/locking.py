"""One command at a time may change a workspace."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from adapterctl.errors import LockHeld
from adapterctl.files import disk_errors, write_json
from adapterctl.workspace.layout import StatePaths

_LOOK_SECONDS = 0.2


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
            "another adapterctl works on this workspace",
            hint="wait until it ends (--wait does so), then run the same command again",
        )
    who = f"process {pid} on {machine}, '{holder.get('command')}' since {holder.get('since')}"
    return LockHeld(
        f"another adapterctl works on this workspace: {who}",
        hint=f"wait until it ends (--wait does so), or end it (kill {pid}), then run the same command again",
    )


@contextmanager
def locked(
    paths: StatePaths, command: str, *, wait: bool = False, told: Callable[[str], None] | None = None
) -> Iterator[None]:
    """Hold the workspace's lock; the operating system takes it back from a process that is killed.

    Args:
        paths: The workspace's state.
        command: What the holder does, for whoever finds the lock held.
        wait: Wait until it is free.
        told: Is told, once, whom we wait for.

    Raises:
        LockHeld: Another process holds it, and nobody wants to wait.
        StorageError: The state's folder cannot be written to.
    """
    with disk_errors(paths.lock):
        paths.root.mkdir(parents=True, exist_ok=True)
        lock = FileLock(paths.lock, timeout=0)
        try:
            lock.acquire()
        except Timeout:
            if not wait:
                raise _held(paths) from None
            if told is not None:
                told(f"waiting: {_held(paths).message}")
            lock.acquire(timeout=-1, poll_interval=_LOOK_SECONDS)
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
