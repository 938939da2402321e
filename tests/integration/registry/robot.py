"""Not a test: does to a registry what it is ordered to, each order in a process of its own.

Every line of the standard input is a JSON list of orders, and every line of the standard output their exit codes; -9
is a kill. ``kill`` of an order names a method of MLflow and whether the process ends itself with SIGKILL before or
after its n-th call.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

# What every child would import by itself is imported once, before the fork.
import mlflow.store.model_registry.sqlalchemy_store
import mlflow.store.tracking.sqlalchemy_store  # noqa: F401
from mlflow import MlflowClient
from mlflow.store.artifact.http_artifact_repo import HttpArtifactRepository
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

from adapterctl.accounting.entries import Entry
from adapterctl.accounting.ledger import Ledger
from adapterctl.accounting.outbox import Outbox
from adapterctl.errors import AdapterctlError
from adapterctl.registry.client import Registry
from adapterctl.registry.settings import ResolvedRegistry

CLASSES = {kind.__name__: kind for kind in (MlflowClient, LocalArtifactRepository, HttpArtifactRepository, Outbox)}


def set_trap(kill: dict[str, Any]) -> None:
    owner, method = CLASSES[kill.get("class", "MlflowClient")], kill["method"]
    original, calls = getattr(owner, method), 0

    def trapped(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == kill.get("call", 1) and kill["when"] == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*arguments, **named)
        if calls == kill.get("call", 1) and kill["when"] == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, method, trapped)


def enter(registry: Registry, order: dict[str, Any]) -> None:
    """Be the only one inside, and note when that was."""
    with Path(order["log"]).open("a", encoding="utf-8", buffering=1) as log:
        for _ in range(order["times"]):
            with registry.exclusive("enter", wait=True):
                log.write(f"in {os.getpid()}\n")
                if order.get("die"):
                    os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(0.02)
                log.write(f"out {os.getpid()}\n")


def obey(order: dict[str, Any]) -> None:
    if "kill" in order:
        set_trap(order["kill"])
    registry = Registry.connect(ResolvedRegistry(**order["store"]), order["project"])
    if order["do"] == "publish":
        with registry.run("step", "step") as run:
            registry.publish(
                order["name"],
                Path(order["folder"]),
                content_hash=order["hash"],
                run=run,
                model_type="lora-adapter",
                params={"r": 4},
                metrics={"dev.accuracy": 0.5},
                inputs=registry.versions(order["input"]) if "input" in order else (),
            )
    elif order["do"] == "enter":
        enter(registry, order)
    elif order["do"] == "alias":
        registry.set_alias(order["name"], order["alias"], order["version"])
    elif order["do"] == "books":
        ledger = Ledger(Path(order["outbox"]), lambda: registry)
        for together in order["entries"]:
            for values in together:
                ledger.append(Entry.from_dict(values))
            ledger.deliver(registry)


def carry_out(orders: list[dict[str, Any]], together: bool) -> list[int]:
    children, codes = [], {}
    start = time.time() + 0.3
    for order in orders:
        child = os.fork()
        if child == 0:
            try:
                if together:
                    time.sleep(max(0.0, start - time.time()))
                obey(order)
            except AdapterctlError as error:
                sys.stderr.write(f"{error}\n")
                sys.stderr.flush()
                os._exit(error.exit_code)
            except BaseException:
                traceback.print_exc()
                sys.stderr.flush()
                os._exit(99)
            os._exit(0)
        children.append(child)
        if not together:
            codes[child] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    for child in children if together else []:
        codes[child] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return [codes[child] for child in children]


def main() -> None:
    for line in iter(sys.stdin.readline, ""):
        asked = json.loads(line)
        sys.stdout.write(json.dumps(carry_out(asked["orders"], asked["together"])) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
