"""MLflow's user interface on the embedded store."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.integration.registry.conftest import free_port

from adapterctl.errors import RegistryError
from adapterctl.registry.client import Registry
from adapterctl.registry.server import serve, wait_ready
from adapterctl.registry.settings import RegistrySettings, ResolvedRegistry


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=20) as answer:
        content: bytes = answer.read()
        return content


def test_the_embedded_store_is_shown(
    served_store: ResolvedRegistry, server_store: ResolvedRegistry, project: str, make_adapter: Callable[..., Path]
) -> None:
    registry = Registry.connect(served_store, project)
    name = f"{project}-ja"
    with registry.run("train", "train ja") as run:
        run.log_figure("figures/loss.png", b"\x89PNG picture")
        version = registry.publish(
            name, make_adapter(71), content_hash="abc1", run=run, model_type="lora-adapter", description="# ja"
        )
    registry.set_alias(name, "champion", version)
    assert b"<title>MLflow" in get(server_store.uri)
    api = f"{server_store.uri}/ajax-api/2.0/mlflow"
    found: Any = json.loads(get(f"{api}/registered-models/alias?name={name}&alias=champion"))
    assert (found["model_version"]["version"], found["model_version"]["description"]) == ("1", "# ja")
    assert get(f"{server_store.uri}/get-artifact?run_uuid={run.run_id}&path=figures/loss.png") == b"\x89PNG picture"
    files: Any = json.loads(get(f"{api}/logged-models/{version.model_id}/artifacts/directories"))
    assert {file["path"] for file in files["files"]} >= {"adapter_config.json", "adapter_model.safetensors"}
    assert json.loads(get(f"{api}/runs/get?run_id={run.run_id}"))["run"]["info"]["status"] == "FINISHED"


SERVER_WITH_A_WORKER = """
import subprocess, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()
HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def test_the_server_ends_with_its_block_and_its_workers_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def command(_: ResolvedRegistry, __: str, port: int) -> list[str]:
        return [sys.executable, "-c", SERVER_WITH_A_WORKER, str(port)]

    monkeypatch.setattr("adapterctl.registry.server.ui_command", command)
    resolved = RegistrySettings(uri="").resolve(tmp_path)
    with serve(resolved, port=0, log=tmp_path / "log") as server:
        assert get(f"{server.url}/health") == b""
        head = psutil.Process(server.process.pid)
        processes = [head, *head.children(recursive=True)]
        assert len(processes) == 2
        assert resolved.database_file is not None
        assert resolved.database_file.exists()
    assert not [process for process in processes if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize(
    ("code", "says"), [("raise SystemExit(3)", "with code 3"), ("input()", "no answer within 1 sec")]
)
def test_a_server_that_does_not_start(code: str, says: str) -> None:
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as process:
        with pytest.raises(RegistryError, match=says) as caught:
            wait_ready(f"http://127.0.0.1:{free_port()}", process, 1)
        process.kill()
    assert "--port" in caught.value.hint
