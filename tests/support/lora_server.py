"""A real HTTP server that behaves like vLLM 0.33 or SGLang where adapters are loaded and dropped while it runs.

Written from what those programs say and answer, and sharing no code with what it is a test of. It reads the folders it
is given, and its answers depend on the bytes that it loaded: what it has computed is kept by name and path, as vLLM
keeps it, so that other bytes under a known name and path give the old answer. Faults come on demand.
"""

from __future__ import annotations

import hashlib
import json
import math
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from safetensors import safe_open

from tests.support.local_server import LocalServer


class LoraServer(LocalServer):
    """Serves a base model and adapters at ``url`` while its ``with`` block runs.

    Attributes:
        loaded: The adapters by name, each with its path.
        asked: Every request, as method, path and body.
        keys: The ``Authorization`` header of every request.
        faults: What goes wrong, by path: ``html`` (200 and no JSON), ``broken`` (500), ``silent`` (no answer before the
            server is closed), ``lost`` (done, but the connection ends before the answer), ``elsewhere`` (the list shows
            another root), ``wrong-model`` (a completion by the base), ``no-choice``.
    """

    def __init__(
        self,
        base: str,
        *,
        name: str = "",
        kind: str = "vllm",
        max_rank: int = 16,
        key: str = "",
        dynamic: bool = True,
        below: Path | None = None,
    ) -> None:
        """Prepare a server.

        Args:
            base: Path of the base model, as the server was started with.
            name: What it calls the base model; the path where empty.
            kind: ``vllm`` or ``sglang``.
            max_rank: Its ``--max-lora-rank``.
            key: The key it asks for.
            dynamic: Whether it was started so that adapters can be loaded.
            below: The folder that the server sees as ``/adapters``.
        """
        super().__init__(_Handler)
        self.base, self.name, self.kind = base, name or base, kind
        self.max_rank, self.key, self.dynamic, self.below = max_rank, key, dynamic, below
        self.loaded: dict[str, str] = {}
        self.content: dict[str, str] = {}
        self.kept: dict[tuple[str, str], str] = {}
        self.asked: list[tuple[str, str, Any]] = []
        self.keys: list[str] = []
        self.faults: dict[str, str] = {}

    def did(self) -> list[str]:
        """Return what was asked, in order, without the bodies: ``load pocket-merged-v1`` and the like."""
        said = []
        for _, path, body in self.asked:
            what = path.rsplit("/", 1)[-1].removesuffix("_lora_adapter")
            said.append(f"{what} {body['lora_name']}" if body and "lora_name" in body else what)
        return said

    def preload(self, name: str, path: Path | str) -> None:
        """Have an adapter loaded already."""
        assert self.load({"lora_name": name, "lora_path": str(path)})[0] == 200

    def models(self) -> dict[str, Any]:
        cards: list[dict[str, Any]] = [{"id": self.name, "object": "model", "root": self.base, "parent": None}]
        for name, path in self.loaded.items():
            root = "/elsewhere" if self.faults.get("/v1/models") == "elsewhere" else path
            cards.append({"id": name, "object": "model", "root": root, "parent": self.name})
        return {"object": "list", "data": cards}

    def load(self, body: dict[str, Any]) -> tuple[int, Any]:
        name, path = body.get("lora_name"), body.get("lora_path")
        if not name or not path:
            return 400, _error("Both 'lora_name' and 'lora_path' must be provided.")
        if name in self.loaded:
            return 400, _error(f"The lora adapter '{name}' has already been loaded.")
        folder = self.below / path.partition("/adapters/")[2] if self.below else Path(path)
        seen = path.startswith("/adapters/") or not self.below
        if not seen or not (folder / "adapter_config.json").is_file():
            return 404, _error(f"Loading lora {name} failed: No adapter found for {path}")
        if reason := self._refusal(folder):
            return 500 if self.kind == "vllm" else 400, _error(reason)
        self.loaded[name] = path
        self.content[name] = hashlib.sha256((folder / "adapter_model.safetensors").read_bytes()).hexdigest()
        return 200, f"Success: LoRA adapter '{name}' added successfully."

    def _refusal(self, folder: Path) -> str:
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        with safe_open(folder / "adapter_model.safetensors", "np") as file:
            rank = max(file.get_slice(name).get_shape()[0] for name in file.keys() if "lora_A" in name)  # noqa: SIM118
        if rank > self.max_rank:
            return f"LoRA rank {rank} is greater than max_lora_rank {self.max_rank}."
        return "vLLM does not yet support DoRA." if config.get("use_dora") else ""

    def unload(self, body: dict[str, Any]) -> tuple[int, Any]:
        name = body.get("lora_name")
        if name not in self.loaded:
            status = 404 if self.kind == "vllm" else 400
            return status, _error(f"The lora adapter '{name}' cannot be found.")
        del self.loaded[name]
        return 200, f"Success: LoRA adapter '{name}' removed successfully."

    def complete(self, body: dict[str, Any]) -> tuple[int, Any]:
        name = body.get("lora_path") if self.kind == "sglang" else body["model"]
        known = {self.name, *self.loaded}
        if name not in known or body["model"] not in known:
            return 404, _error(f"The model `{name}` does not exist.")
        fault = self.faults.get("/v1/completions")
        if fault == "no-choice":
            return 200, {"model": body["model"], "choices": []}
        text = self.kept.setdefault((name, self.loaded.get(name, "")), self.content.get(name, "base")[:8])
        return 200, {
            "model": self.name if fault == "wrong-model" else body["model"],
            "choices": [{"index": 0, "text": text, "finish_reason": "length"}],
            "usage": {"completion_tokens": math.ceil(body["max_tokens"])},
        }


def _error(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "InvalidUserInput", "code": 400}}


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server_of: LoraServer

    def log_message(self, format: str, *values: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        if self._let_in(None):
            self._answer(200, self.server_of.models()) if self.path == "/v1/models" else self._answer(404, {})

    def do_POST(self) -> None:
        server = self.server_of
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self._let_in(body):
            return
        fault = server.faults.get(self.path)
        if fault == "silent":
            server.closed.wait()
            self.close_connection = True
            return
        if fault == "broken":
            self._answer(500, _error(f"sorry, {self.headers.get('Authorization', '')}"))
            return
        prefix = "/v1" if server.kind == "vllm" else ""
        doing = {f"{prefix}/load_lora_adapter": server.load, f"{prefix}/unload_lora_adapter": server.unload}
        if self.path == "/v1/completions":
            self._answer(*server.complete(body))
        elif self.path in doing and server.dynamic:
            status, said = doing[self.path](body)
            if fault == "lost":
                self.close_connection = True
                return
            self._answer(status, said)
        else:
            self._answer(404, {"detail": "Not Found"})

    def _let_in(self, body: Any) -> bool:
        server = self.server_of
        server.asked.append((self.command, self.path, body))
        said = self.headers.get("Authorization", "")
        server.keys.append(said)
        if server.key and said != f"Bearer {server.key}":
            self._answer(401, {"error": f"Unauthorized: {said}"})
            return False
        if server.faults.get(self.path) == "html":
            self._send(200, b"<html><script>alert(1)</script></html>", "text/html")
            return False
        return True

    def _answer(self, status: int, value: Any) -> None:
        # vLLM says in plain text that it has loaded an adapter.
        text = isinstance(value, str)
        self._send(
            status, value.encode() if text else json.dumps(value).encode(), "text/plain" if text else "application/json"
        )

    def _send(self, status: int, content: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
