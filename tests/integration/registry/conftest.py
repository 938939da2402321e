"""Real stores for the registry: an sqlite file, an MLflow server, and PostgreSQL where it is installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from tests.support.registries import fill
from tests.support.servers import free_port, missing_postgres, postgres
from tests.support.store import registry_of

from adapterctl.registry.connection import prepare_sqlite
from adapterctl.registry.server import ui_command, ui_environment, wait_ready
from adapterctl.registry.settings import RegistrySettings, ResolvedRegistry
from adapterctl.workflows.init import init_workspace

ROBOT = Path(__file__).with_name("robot.py")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No address from outside, and a working folder in which nothing may appear."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)


@pytest.fixture(scope="session")
def make_adapter(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a maker of tiny PEFT folders with random tensors; r = 4, alpha = 12."""

    def make(seed: int = 0, parent: Path | None = None) -> Path:
        folder = (parent or tmp_path_factory.mktemp("adapter")) / f"adapter-{seed}"
        folder.mkdir(parents=True)
        random = np.random.default_rng(seed)
        module = "base_model.model.model.layers.0.self_attn.q_proj"
        tensors = {
            f"{module}.lora_A.weight": random.normal(size=(4, 64)).astype(np.float32),
            f"{module}.lora_B.weight": random.normal(size=(64, 4)).astype(np.float32),
        }
        save_file(tensors, folder / "adapter_model.safetensors")
        config = {"peft_type": "LORA", "r": 4, "lora_alpha": 12, "target_modules": ["q_proj"]}
        (folder / "adapter_config.json").write_text(json.dumps(config))
        (folder / "notes").mkdir()
        (folder / "notes" / "読.md").write_text("# notes", encoding="utf-8")
        return folder

    return make


@pytest.fixture(scope="session")
def sqlite_store(tmp_path_factory: pytest.TempPathFactory) -> ResolvedRegistry:
    return RegistrySettings(uri="sqlite:///store.db").resolve(tmp_path_factory.mktemp("a store é"))


@pytest.fixture(scope="session")
def served_store(tmp_path_factory: pytest.TempPathFactory) -> ResolvedRegistry:
    """The embedded store of a workspace, on which the server runs."""
    return RegistrySettings(uri="").resolve(tmp_path_factory.mktemp("a workspace"))


@pytest.fixture(scope="session")
def server_store(
    served_store: ResolvedRegistry, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ResolvedRegistry]:
    """An MLflow server on the loopback, started as the user interface is, but with new files behind its own proxy."""
    folder, port = tmp_path_factory.mktemp("server"), free_port()
    prepare_sqlite(served_store)
    command = [
        *ui_command(served_store, "127.0.0.1", port),
        *("--default-artifact-root", "mlflow-artifacts:/", "--artifacts-destination", str(folder / "artifacts")),
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, env=ui_environment(served_store), cwd=folder, stdout=log, stderr=log, start_new_session=True
        )
    try:
        wait_ready(f"http://127.0.0.1:{port}", process, 120)
        yield ResolvedRegistry(f"http://127.0.0.1:{port}", None, "the test's server")
    finally:
        os.killpg(process.pid, 9)
        process.wait()


@pytest.fixture(scope="session")
def postgres_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ResolvedRegistry]:
    """A PostgreSQL cluster of its own, on the loopback, with a password."""
    if reason := missing_postgres():
        pytest.skip(reason)
    with postgres() as uri:
        yield RegistrySettings(uri=uri).resolve(tmp_path_factory.mktemp("postgres"))


@pytest.fixture(params=["sqlite", "server", "postgres"])
def store(request: pytest.FixtureRequest) -> ResolvedRegistry:
    """Every kind of store in turn."""
    resolved: ResolvedRegistry = request.getfixturevalue(f"{request.param}_store")
    return resolved


@pytest.fixture
def project() -> str:
    """A project's name of its own for every test, so that the stores can be shared."""
    return f"p{uuid.uuid4().hex[:10]}"


@pytest.fixture(scope="session")
def robot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., list[int]]]:
    """Run ``robot.py``: several processes that do something to a registry and may kill themselves at named points."""
    log = tmp_path_factory.mktemp("robot") / "log"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            [sys.executable, str(ROBOT)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        questions, answers = process.stdin, process.stdout

        def ask(orders: list[dict[str, Any]], *, together: bool = False) -> list[int]:
            questions.write(json.dumps({"orders": orders, "together": together}) + "\n")
            questions.flush()
            answer = answers.readline()
            assert answer, log.read_text()
            codes = [int(code) for code in json.loads(answer)]
            assert 99 not in codes, log.read_text()
            return codes

        yield ask
        process.kill()


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace of two languages with three releases; not to be changed."""
    root = init_workspace(tmp_path_factory.mktemp("filled") / "workspace", "pocket", languages=["de", "ja"])
    fill(registry_of(root), tmp_path_factory.mktemp("adapters"))
    return Path(root)


@pytest.fixture
def root(filled: Path, tmp_path: Path) -> Path:
    """A copy of that workspace."""
    return Path(shutil.copytree(filled, tmp_path / "workspace"))
