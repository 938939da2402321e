"""A real HTTP server that serves a small model of transformers under the protocol of OpenAI's completions.

It computes by itself, a sequence at a time and by ``generate``, and shares no code with what it is a test of. Faults
come on demand: ``faults`` holds what goes wrong with the next requests for completions, one each; ``always`` what goes
wrong with all of them.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import torch

from tests.support.local_server import LocalServer

STATUSES = {"busy": 429, "broken": 500, "down": 503, "refused": 400, "missing": 404}


class CompletionServer(LocalServer):
    """Serves one model at ``url`` while its ``with`` block runs.

    Attributes:
        bodies: What was asked of ``/v1/completions``, in order.
        keys: The ``Authorization`` header of every request.
        faults, always: ``busy``, ``broken``, ``down``, ``refused`` or ``missing``: a status without answer. ``cut``:
            the connection ends in the middle. ``silent``: nothing comes before the server is closed. ``html``,
            ``list``: no JSON, or another form. ``no-choice``, ``no-logprobs``, ``not-echoed``, ``null``, ``nan``,
            ``abort``: an answer that lacks something.
        said: What a refusal says.
        together: No request is answered before so many are open.
        most_at_once: The most requests that were open together.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        name: str = "tiny",
        *,
        key: str = "",
        context: int | None = None,
        faults: Iterable[str] = (),
        always: str = "",
        said: str = "sorry",
        together: int = 1,
    ) -> None:
        super().__init__(_Handler)
        self.model, self.tokenizer, self.name, self.key, self.context = model, tokenizer, name, key, context
        self.faults, self.always, self.said = deque(faults), always, said
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.most_at_once = 0
        self._open = 0
        self._together = threading.Barrier(together)
        self._lock = threading.Lock()
        self._computing = threading.Lock()

    def opened(self, change: int) -> None:
        with self._lock:
            self._open += change
            self.most_at_once = max(self.most_at_once, self._open)

    def fault(self, body: dict[str, Any]) -> str:
        with self._lock:
            self.bodies.append(body)
            return self.faults.popleft() if self.faults else self.always

    def wait_for_the_end(self) -> None:
        self.closed.wait()

    def wait_for_others(self) -> None:
        self._together.wait(timeout=20)

    def models(self) -> dict[str, Any]:
        entry = {"id": self.name, "object": "model"} | ({"max_model_len": self.context} if self.context else {})
        return {"object": "list", "data": [{"id": "another"}, entry]}

    def complete(self, body: dict[str, Any], fault: str) -> dict[str, Any]:
        prompts = body["prompt"] if isinstance(body["prompt"][0], list) else [body["prompt"]]
        with self._computing:
            choices = [{"index": index, **self._choice(ids, body, fault)} for index, ids in enumerate(prompts)]
        # Nothing says that choices come in the order of their prompts.
        return {"object": "text_completion", "model": self.name, "choices": choices[::-1]}

    @torch.inference_mode()
    def _choice(self, ids: list[int], body: dict[str, Any], fault: str) -> dict[str, Any]:
        settings: dict[str, Any] = {"max_new_tokens": body["max_tokens"], "do_sample": body["temperature"] != 0}
        if "repetition_penalty" in body:
            settings["repetition_penalty"] = body["repetition_penalty"]
        given = torch.tensor([ids])
        made = self.model.generate(given, attention_mask=torch.ones_like(given), **settings)[0].tolist()
        new = made[len(ids) :]
        ended = new[-1] in self.model.generation_config.eos_token_id
        shown = made if body.get("echo") and fault != "not-echoed" else new
        choice: dict[str, Any] = {
            "text": self.tokenizer.decode(shown[:-1] if ended else shown, skip_special_tokens=True),
            "finish_reason": "stop" if ended else "length",
            "logprobs": None,
        }
        if "logprobs" in body:
            logs = self.model(torch.tensor([made])).logits[0].double().log_softmax(-1)
            values: list[float | None] = [None]
            values += [logs[place, token].item() for place, token in enumerate(made[1:])]
            values = values[len(made) - len(shown) :]
            if fault in ("null", "nan"):
                values[len(ids) - 1] = None if fault == "null" else float("nan")
            choice["logprobs"] = {"token_logprobs": values, "tokens": self.tokenizer.convert_ids_to_tokens(shown)}
        if fault == "no-logprobs":
            choice["logprobs"] = None
        if fault == "abort":
            choice["finish_reason"] = "abort"
        return choice


Serve = Callable[..., CompletionServer]
"""Starts a server, with the settings of ``CompletionServer``."""


def ordered(answers: Iterator[tuple[int, Any]], count: int) -> list[Any]:
    """Return an engine's answers in the order of the rows, of which each must be answered exactly once."""
    found = dict(pairs := list(answers))
    assert sorted(index for index, _ in pairs) == list(range(count))
    return [found[index] for index in range(count)]


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server_of: CompletionServer

    def log_message(self, format: str, *values: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        server = self.server_of
        if self._let_in():
            known = self.path == "/v1/models"
            self._answer(200, server.models()) if known else self._answer(404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        server = self.server_of
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self._let_in():
            return
        server.opened(1)
        try:
            self._complete(body, server.fault(body))
        finally:
            server.opened(-1)

    def _complete(self, body: dict[str, Any], fault: str) -> None:
        server = self.server_of
        server.wait_for_others()
        if fault in STATUSES:
            self._answer(STATUSES[fault], {"error": {"message": server.said}}, {"Retry-After": "3"})
        elif fault == "html":
            self._send(200, b"<html>hello</html>", {})
        elif fault == "list":
            self._answer(200, [1, 2])
        elif fault == "no-choice":
            self._answer(200, {"choices": []})
        elif fault == "silent":
            server.wait_for_the_end()
            self.close_connection = True
        elif fault == "cut":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")
            self.close_connection = True
        else:
            self._answer(200, server.complete(body, fault))

    def _let_in(self) -> bool:
        said = self.headers.get("Authorization", "")
        self.server_of.keys.append(said)
        if self.server_of.key and said != f"Bearer {self.server_of.key}":
            self._answer(401, {"error": {"message": f"Incorrect API key provided: {said}"}})
            return False
        return True

    def _answer(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps(value).encode(), headers or {})

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)
