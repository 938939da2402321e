"""Servers of a team: PostgreSQL from the system's own programs, and MLflow before it or before an sqlite file."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from adapterctl.registry.server import wait_ready


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def initdb() -> str | None:
    """Return PostgreSQL's program that makes a cluster, None where its server is not installed."""
    found = shutil.which("initdb")
    return found or next((str(path) for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")), None)


def missing_postgres() -> str:
    """Return why no PostgreSQL can be had; empty where one can."""
    if initdb() is None:
        return "PostgreSQL's server (initdb) is not installed (Debian: apt-get install postgresql)"
    if importlib.util.find_spec("psycopg") is None:
        return "the driver psycopg is not installed: pip install psycopg[binary]"
    if os.getuid() == 0 and _other_user() is None:
        return "PostgreSQL does not run as root, and there is no user postgres or nobody"
    return ""


def _other_user() -> str | None:
    users = [entry.pw_name for entry in pwd.getpwall() if entry.pw_name in ("postgres", "nobody")]
    return "postgres" if "postgres" in users else (users or [None])[0]


@contextmanager
def postgres() -> Iterator[str]:
    """Run a cluster of its own on the loopback, with a password, as long as the block lasts; give its address."""
    program = initdb()
    assert program is not None
    # PostgreSQL refuses to run as root.
    user = _other_user() if os.getuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="adapterctl-postgres-"))
    group = pwd.getpwnam(user).pw_gid if user else None
    if user:
        shutil.chown(folder, user)
    identity: dict[str, Any] = {"user": user, "group": group, "extra_groups": []} if user else {}
    (folder / "password").write_text("ge/heim")
    (folder / "password").chmod(0o644)
    port = free_port()
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder, **identity}
    options = ["-A", "scram-sha-256", "-U", "me", f"--pwfile={folder}/password", "--no-sync", "-E", "UTF8"]
    subprocess.run([program, "-D", str(folder / "data"), *options], check=True, **quiet)
    control = Path(program).with_name("pg_ctl")
    where = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
    start = [str(control), "-D", str(folder / "data"), "-w", "-l", str(folder / "log"), "-o", where, "start"]
    subprocess.run(start, check=True, **quiet)
    try:
        yield f"postgresql+psycopg://me:ge%2Fheim@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run([str(control), "-D", str(folder / "data"), "-m", "immediate", "stop"], check=True, **quiet)
        shutil.rmtree(folder)


class MlflowServer:
    """An MLflow server that can be stopped, as a crash or an upgrade does, and started again at the same address.

    Args:
        folder: Where its files and its log lie.
        store: Address of its database.
        options: More for ``mlflow server``.
    """

    def __init__(self, folder: Path, store: str, *options: str) -> None:
        self._folder, self._store, self._options = folder, store, options
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        environment = {
            **os.environ,
            "MLFLOW_BACKEND_STORE_URI": self._store,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "PYTHONSAFEPATH": "1",
        }
        environment.pop("MLFLOW_TRACKING_URI", None)
        command = [
            *(sys.executable, "-P", "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)),
            *("--workers", "1", "--default-artifact-root", "mlflow-artifacts:/"),
            *("--artifacts-destination", str(self._folder / "artifacts"), *self._options),
        ]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, env=environment, cwd=self._folder, stdout=log, stderr=log, start_new_session=True
            )
        wait_ready(self.url, self._process, 180)

    def stop(self) -> None:
        """End it as a crash would."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def __enter__(self) -> MlflowServer:
        self._folder.mkdir(parents=True, exist_ok=True)
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
