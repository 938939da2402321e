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
from adapterctl.registry.settings import RegistrySettings


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=20) as answer:
        content: bytes = answer.read()
        return content


def test_the_embedded_store_is_served(tmp_path: Path, make_adapter: Callable[..., Path]) -> None:
    resolved = RegistrySettings(uri="").resolve(tmp_path / "a place")
    registry = Registry.connect(resolved, "pocket")
    with registry.run("train", "train ja") as run:
        run.log_figure("figures/loss.png", b"\x89PNG picture")
        version = registry.publish(
            "pocket-ja", make_adapter(71), content_hash="abc1", run=run, model_type="lora-adapter", description="# ja"
        )
    registry.set_alias("pocket-ja", "champion", version)
    with serve(resolved, port=0, log=tmp_path / "log") as server:
        assert b"<title>MLflow" in get(server.url)
        api = f"{server.url}/ajax-api/2.0/mlflow"
        found: Any = json.loads(get(f"{api}/registered-models/alias?name=pocket-ja&alias=champion"))
        assert (found["model_version"]["version"], found["model_version"]["description"]) == ("1", "# ja")
        assert get(f"{server.url}/get-artifact?run_uuid={run.run_id}&path=figures/loss.png") == b"\x89PNG picture"
        files: Any = json.loads(get(f"{api}/logged-models/{version.model_id}/artifacts/directories"))
        assert {file["path"] for file in files["files"]} >= {"adapter_config.json", "adapter_model.safetensors"}
        # A run written meanwhile is seen.
        with registry.run("more", "more") as more:
            pass
        assert json.loads(get(f"{api}/runs/get?run_id={more.run_id}"))["run"]["info"]["status"] == "FINISHED"
        processes = [psutil.Process(server.process.pid), *psutil.Process(server.process.pid).children(recursive=True)]
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
