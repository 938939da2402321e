import socket
import sys
from pathlib import Path

import pytest

from adapterctl.errors import UsageError
from adapterctl.registry.server import serve, ui_command, ui_environment, ui_url
from adapterctl.registry.settings import RegistrySettings, ResolvedRegistry


def test_the_command_serves_the_store(tmp_path: Path) -> None:
    resolved = RegistrySettings(uri="sqlite:///x.db").resolve(tmp_path)
    command = ui_command(resolved, "127.0.0.1", 5001)
    assert command[0] == sys.executable
    assert command[command.index("--port") + 1] == "5001"
    assert ui_environment(resolved)["MLFLOW_BACKEND_STORE_URI"] == f"sqlite:///{tmp_path}/x.db"
    assert ui_environment(resolved)["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_no_password_is_on_the_command_line(tmp_path: Path) -> None:
    resolved = RegistrySettings(uri="postgresql://me:geheim@db/x").resolve(tmp_path)
    assert not any("geheim" in word for word in ui_command(resolved, "127.0.0.1", 5001))


def test_a_server_is_not_served_again() -> None:
    resolved = ResolvedRegistry("http://me:geheim@host:5000", None, "test")
    assert ui_url(resolved) == "http://***@host:5000"
    with pytest.raises(UsageError, match="server already"):
        ui_command(resolved, "127.0.0.1", 5001)


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        resolved = RegistrySettings(uri="sqlite:///x.db").resolve(tmp_path)
        with pytest.raises(UsageError, match=str(port)) as caught, serve(resolved, port=port):
            pass
    assert "--port" in caught.value.hint
    assert not (tmp_path / "x.db").exists()
