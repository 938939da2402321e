"""The receiver of docs/review.md, run as it is written there: by real POSTs, signed as MLflow signs them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mlflow.webhooks.delivery import _generate_hmac_signature

PAGE = Path(__file__).parents[3] / "docs" / "review.md"
SECRET = "a shared secret"


def snippet() -> str:
    """Return the first piece of Python on the page."""
    found = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    return found[1]


@dataclass
class Receiver:
    """A receiver that runs.

    Attributes:
        port: Where it listens.
        calls: The file to which its command adds a line.
    """

    port: int
    calls: Path

    def post(self, payload: Any, *, secret: str = SECRET, sent: float | None = None, signature: str = "") -> int:
        """Send an event as MLflow does, and return the status."""
        body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        stamp = str(int(time.time() if sent is None else sent))
        signed = signature or _generate_hmac_signature(secret, "delivery 1", stamp, body.decode())
        headers = {
            "Content-Type": "application/json",
            "X-MLflow-Signature": signed,
            "X-MLflow-Delivery-Id": "delivery 1",
            "X-MLflow-Timestamp": stamp,
        }
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/", body, headers)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=20) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    def ran(self, at_least: int) -> int:
        """Return how often the command ran, once it did so often or after some seconds."""
        end = time.monotonic() + 20
        while (found := self.calls.read_text().count("ran") if self.calls.exists() else 0) < at_least:
            if time.monotonic() > end:
                break
            time.sleep(0.05)
        return found


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    script, calls = tmp_path / "receiver.py", tmp_path / "calls"
    script.write_text(snippet(), encoding="utf-8")
    command = [sys.executable, "-c", f"open({str(calls)!r}, 'a').write('ran\\n')"]
    environment = {
        **os.environ,
        "REVIEW_WEBHOOK_SECRET": SECRET,
        "REVIEW_MODEL": "shop-merged",
        "REVIEW_COMMAND": json.dumps(command),
        "PORT": "0",
    }
    process = subprocess.Popen(
        [sys.executable, "-W", "error", str(script)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline().rsplit(" ", 1)[-1])
        yield Receiver(port, calls)
    finally:
        process.kill()
        process.communicate()


def event(**changes: str) -> dict[str, Any]:
    data = {"name": "shop-merged", "version": "7", "key": "review", "value": "approved", **changes}
    return {"entity": "model_version_tag", "action": "set", "timestamp": "2026-01-01T00:00:00+00:00", "data": data}


def test_an_approval_runs_the_command(receiver: Receiver) -> None:
    assert receiver.post(event()) == 204
    assert receiver.ran(1) == 1
    assert receiver.post(event(value="rejected")) == 204
    assert receiver.ran(2) == 2


def test_what_mlflow_did_not_sign_is_refused(receiver: Receiver) -> None:
    assert receiver.post(event(), secret="another") == 401
    assert receiver.post(event(), signature="v1,AAAA") == 401
    assert receiver.post(event(), sent=time.time() - 3600) == 401
    assert receiver.post(b"x" * 200_000) == 413
    # Everything else is none of its business.
    for other in (event(key="note"), event(value="waiting"), event(name="shop-ja"), {"entity": 1}, [], {"data": None}):
        assert receiver.post(other) == 204
    assert receiver.post(b"not json") == 204
    assert receiver.post(event()) == 204
    assert receiver.ran(1) == 1


def test_the_command_of_the_recipe_is_one_that_there_is() -> None:
    import click

    from adapterctl.cli.main import cli

    found = re.search(r'\'(\["adapterctl".*?\])\'', snippet())
    assert found is not None
    words = json.loads(found[1])
    ctx = click.Context(cli)
    command = cli.get_command(ctx, words[1])
    assert command is not None
    command.make_context(words[1], words[2:], parent=ctx)
