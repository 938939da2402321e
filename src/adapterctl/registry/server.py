"""MLflow's own user interface on the embedded store."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from adapterctl.errors import RegistryError, UsageError
from adapterctl.registry import environment
from adapterctl.registry.settings import ResolvedRegistry

_STOP_SECONDS = 10


@dataclass(frozen=True)
class Server:
    """A running server.

    Attributes:
        url: What to open in a browser.
        process: Its process, the head of a process group of its own.
    """

    url: str
    process: subprocess.Popen[bytes]


def ui_url(resolved: ResolvedRegistry) -> str | None:
    """Return the page of a registry that is a server already, without secrets; ``None`` where one must be started."""
    return resolved.shown if resolved.is_server else None


def ui_command(resolved: ResolvedRegistry, host: str, port: int) -> list[str]:
    """Return the command line that serves the user interface on a database.

    Raises:
        UsageError: The registry is a server: open its address.
    """
    if not resolved.is_database:
        raise UsageError(f"the registry is a server already: {resolved.shown}", hint="open that address in a browser")
    # -P: a folder of the workspace must not stand before Python's own modules.
    return [
        *(sys.executable, "-P", "-m", "mlflow", "server"),
        *("--default-artifact-root", resolved.artifact_root or ""),
        *("--host", host, "--port", str(port), "--workers", "1"),
    ]


def ui_environment(resolved: ResolvedRegistry) -> dict[str, str]:
    """Return the environment of that command: the database, no telemetry, no runner for jobs, no foreign Python path.

    The database's address is not on the command line, where everybody could read its password.
    """
    environment.prepare()
    return {
        **os.environ,
        "MLFLOW_BACKEND_STORE_URI": resolved.uri,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "PYTHONSAFEPATH": "1",
    }


@contextmanager
def serve(
    resolved: ResolvedRegistry,
    host: str = "127.0.0.1",
    port: int = 5000,
    *,
    log: Path | None = None,
    timeout: float = 60.0,
) -> Iterator[Server]:
    """Serve the user interface while the block runs; ``port`` 0 takes a free one.

    Args:
        resolved: An embedded store or another database.
        host: The address to listen on; anything but 127.0.0.1 is open to the network, without a login.
        port: The port.
        log: File for what the server says; thrown away where it is ``None``.
        timeout: Seconds to wait for its first answer.

    Raises:
        UsageError: The port is taken, or the registry is a server already.
        RegistryError: The server does not start.
    """
    from adapterctl.registry.connection import prepare_sqlite

    port = _free_port(host, port)
    command = ui_command(resolved, host, port)
    prepare_sqlite(resolved)
    with (log or Path(os.devnull)).open("wb") as output:
        process = subprocess.Popen(
            command,
            env=ui_environment(resolved),
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    try:
        url = f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}"
        wait_ready(url, process, timeout)
        yield Server(url, process)
    finally:
        _stop(process)


def wait_ready(url: str, process: subprocess.Popen[bytes], timeout: float = 60.0) -> None:
    """Wait for a server's first answer.

    Raises:
        RegistryError: It ended, or gave none within ``timeout`` seconds.
    """
    hint = "free the port or choose another (--port), and see its log; or run: adapterctl doctor"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RegistryError(f"the MLflow server ended at once with code {process.returncode}", hint=hint)
        try:
            with opener.open(f"{url}/health", timeout=2) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            pass
        time.sleep(0.2)
    raise RegistryError(f"the MLflow server at {url} gave no answer within {timeout:.0f} seconds", hint=hint)


def _free_port(host: str, port: int) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise UsageError(
                f"cannot listen on {host}:{port}: {error.strerror}", hint=f"choose another port: --port {port + 1}"
            ) from error
        return int(probe.getsockname()[1])


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the server and its workers."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, how)
        except ProcessLookupError:
            break
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            continue
    process.wait()
