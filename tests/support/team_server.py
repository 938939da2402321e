"""The team's server as registry/compose.yaml makes it, without containers: PostgreSQL, S3, a login, allowed hosts."""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapterctl.registry.server import wait_ready

REGISTRY = Path(__file__).parents[2] / "registry"
BUCKET = "mlflow"


@dataclass(frozen=True)
class Team:
    """A running server.

    Attributes:
        url: Its address.
        password: Of the user ``admin``.
        storage: The environment that reaches its bucket.
        database: The address of its database.
        log: What the server says.
    """

    url: str
    password: str
    storage: Mapping[str, str]
    database: str
    log: Path

    @property
    def login(self) -> dict[str, str]:
        return {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": self.password}


@contextmanager
def s3(folder: Path, port: int) -> Iterator[dict[str, str]]:
    """Serve S3 on the loopback and give the environment that reaches it."""
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with (folder / "s3.log").open("wb") as log, running(command, dict(os.environ), folder, log):
        yield {
            "MLFLOW_S3_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "mlflow",
            "AWS_SECRET_ACCESS_KEY": "geheim",
            "AWS_DEFAULT_REGION": "us-east-1",
        }


@contextmanager
def running(
    command: list[str], environment: Mapping[str, str], cwd: Path, log: Any
) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        command,
        env=dict(environment),
        cwd=cwd,
        stdout=log,
        stderr=log,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        os.killpg(process.pid, 9)
        process.wait()


def bucket(storage: Mapping[str, str], *words: str) -> str:
    """Run registry/bucket.py as the containers do."""
    done = subprocess.run(
        [sys.executable, str(REGISTRY / "bucket.py"), *words],
        env={**os.environ, **storage},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


@contextmanager
def team_server(folder: Path, database: str, storage: Mapping[str, str], port: int) -> Iterator[Team]:
    """Start MLflow with the options and the file of permissions of compose.yaml."""
    permissions = (REGISTRY / "basic_auth.ini").read_text(encoding="utf-8")
    assert "/var/lib/mlflow" in permissions
    (folder / "basic_auth.ini").write_text(permissions.replace("/var/lib/mlflow", str(folder)), encoding="utf-8")
    password = secrets.token_hex(16)
    environment = {
        **os.environ,
        **storage,
        "MLFLOW_BACKEND_STORE_URI": database,
        "MLFLOW_AUTH_CONFIG_PATH": str(folder / "basic_auth.ini"),
        "MLFLOW_AUTH_ADMIN_PASSWORD": password,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(16),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "PYTHONSAFEPATH": "1",
    }
    command = [sys.executable, "-P", "-m", "mlflow", "server", *options(port)]
    with (folder / "log").open("wb") as log, running(command, environment, folder, log) as process:
        url = f"http://127.0.0.1:{port}"
        wait_ready(url, process, 120)
        yield Team(url, password, storage, database, folder / "log")


def options(port: int) -> list[str]:
    """Return the options of the command in compose.yaml, on another port of the loopback and with one worker."""
    import shlex

    from ruamel.yaml import YAML

    service = YAML(typ="safe").load(REGISTRY / "compose.yaml")["services"]["mlflow"]
    words = shlex.split(re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", service["command"]))
    assert words[:2] == ["mlflow", "server"]
    changed = {"--host": "127.0.0.1", "--port": str(port), "--workers": "1"}
    assert set(changed) <= set(words)
    return [changed.get(words[place + 1], word) for place, word in enumerate(words[2:])]
