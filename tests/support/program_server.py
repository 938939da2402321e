"""Not a test: starts the program ``adapterctl`` as often as it is told to, each time in a process of its own.

Reads one JSON object a line: an order to start, or a process to wait for. Answers with one line each.
"""

from __future__ import annotations

import ctypes
import datetime
import gc
import json
import os
import signal
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Any

from adapterctl.cli.libraries import tame

# What every program would import by itself is imported once, as quietly as the program would.
tame(debug=False)
import matplotlib.pyplot  # noqa: E402, F401
import mlflow.store.model_registry.sqlalchemy_store  # noqa: E402
import mlflow.store.tracking.sqlalchemy_store  # noqa: E402, F401
import peft  # noqa: E402, F401
import rouge_score.rouge_scorer  # noqa: E402, F401
import sklearn.metrics  # noqa: E402, F401
import torch  # noqa: E402
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast, Trainer  # noqa: E402, F401

import adapterctl.accounting.figures  # noqa: E402
import adapterctl.cli.commands.maintain  # noqa: E402
import adapterctl.evaluation.figures  # noqa: E402
import adapterctl.evaluation.metrics  # noqa: E402
import adapterctl.merging.engine  # noqa: E402
import adapterctl.training.loop  # noqa: E402
import adapterctl.workflows.update  # noqa: E402, F401
from adapterctl.cli.main import main  # noqa: E402
from adapterctl.registry.client import Registry  # noqa: E402
from adapterctl.registry.settings import RegistrySettings  # noqa: E402


def jump(seconds: float) -> None:
    """Let the clock of this process be another one from now on, as when a machine sets its time."""
    now, now_ns, moments = time.time, time.time_ns, datetime.datetime
    time.time = lambda: now() + seconds
    time.time_ns = lambda: now_ns() + int(seconds * 1e9)

    class Moments(moments):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return moments.now(tz) + datetime.timedelta(seconds=seconds)

    for module in list(sys.modules.values()):
        if getattr(module, "datetime", None) is moments and module.__name__.startswith("adapterctl"):
            module.datetime = Moments


def stop(trap: dict[str, Any]) -> None:
    if trap["do"] == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if trap["do"] == "fail":
        raise OSError(trap["errno"], os.strerror(trap["errno"]))
    if trap["do"] == "jump":
        jump(trap["seconds"])
        return
    mark = Path(trap["mark"])
    mark.touch()
    if trap["do"] == "hang":
        # A wait below Python, which no signal interrupts and no exception reaches.
        mutex, library = ctypes.create_string_buffer(64), ctypes.CDLL(None)
        library.pthread_mutex_lock(mutex)
        library.pthread_mutex_lock(mutex)
    while mark.exists():
        time.sleep(0.02)


def set_trap(trap: dict[str, Any]) -> None:
    module, _, path = trap["at"].partition(":")
    *owners, name = path.split(".")
    owner: Any = import_module(module)
    for part in owners:
        owner = getattr(owner, part)
    original, calls = getattr(owner, name), 0

    def trapped(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        here = calls == trap.get("call", 1)
        if here and trap["when"] == "before":
            stop(trap)
        result = original(*arguments, **named)
        if here and trap["when"] == "after":
            stop(trap)
        return result

    setattr(owner, name, trapped)


def be_the_program(order: dict[str, Any]) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(order["cwd"])
    os.environ.update(order["env"])
    folder = Path(order["folder"])
    for descriptor, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT), descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    torch.set_num_threads(1)
    if order["trap"]:
        set_trap(order["trap"])
    sys.argv = ["adapterctl", *order["args"]]
    code: Any = 98
    try:
        main()
    except SystemExit as end:
        code = end.code
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 0)


def warm_up() -> None:
    """Use MLflow once, so that not every program has to configure its tables by itself."""
    with tempfile.TemporaryDirectory() as folder:
        registry = Registry.connect(RegistrySettings(uri="").resolve(Path(folder)), "warm")
        with registry.run("key", "name") as run:
            run.log_metrics({"loss": 1.0})
            run.log_json("file.json", {})
        registry.versions("warm-ja")
        registry.aliases("warm-ja")
        registry.leftovers()


def serve() -> None:
    warm_up()
    # What is there now stays: no child needs to look through it for garbage, and touch every page of it.
    gc.collect()
    gc.freeze()
    for line in iter(sys.stdin.readline, ""):
        asked = json.loads(line)
        if "wait" in asked:
            answer = {"code": os.waitstatus_to_exitcode(os.waitpid(asked["wait"], 0)[1])}
        else:
            answer = {"pid": os.fork()}
            if answer["pid"] == 0:
                be_the_program(asked)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
