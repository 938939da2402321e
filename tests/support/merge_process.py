"""A merge in a process of its own that a test stops where it likes."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.support.merge_process", "adapterctl.merging.into_model"])
WRITING = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "shutil.rmtree", "open")
REFUSED = 3
"""The exit code of a merge that ended with an error that a person can read."""


def _is_below(folder: Path, thing: object) -> bool:
    return isinstance(thing, (str, os.PathLike)) and str(thing).startswith(str(folder))


def merge_here(
    folders: Mapping[str, str],
    keys: Mapping[str, Any],
    out: str,
    threads: int,
    kill_at: int,
    barrier: Any,
    base: str | None = None,
) -> None:
    """Merge; called in the new process.

    Args:
        folders: The adapter of every language.
        keys: The recipe.
        out: Where the result appears.
        threads: Of the merge.
        kill_at: End as by a power cut before this touch of the folder in which ``out`` lies; 0: never.
        barrier: Wait here before ``out`` is replaced; None: do not.
        base: The model to merge into; None: into an adapter.
    """
    from adapterctl.errors import AdapterctlError
    from adapterctl.lora.adapter import Adapter
    from adapterctl.merging.engine import merge
    from adapterctl.merging.into_model import merge_into_model
    from adapterctl.merging.recipe import MergeRecipe

    touches, final, met = 0, Path(out), False

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal touches, met
        if event not in WRITING or not any(_is_below(final.parent, thing) for thing in arguments[:2]):
            return
        touches += 1
        if touches == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if barrier is not None and not met and event == "os.rename" and str(final) in map(str, arguments[:2]):
            met = True
            barrier.wait(timeout=60)

    adapters = [Adapter.open(Path(folder), lang) for lang, folder in folders.items()]
    if kill_at or barrier is not None:
        sys.addaudithook(watch)
    try:
        recipe = MergeRecipe.model_validate(keys)
        if base is None:
            merge(adapters, recipe, final, threads=threads)
        else:
            merge_into_model(adapters, recipe, Path(base), final, threads=threads)
    except AdapterctlError:
        os._exit(REFUSED)


def _kill_in_turn(
    folders: Mapping[str, str], keys: Mapping[str, Any], roots: Sequence[str], codes: str, base: str | None
) -> None:
    """Fork a process for each merge, when this one has merged once: all is loaded then."""
    import torch

    torch.set_num_threads(1)
    ended: list[int] = []
    with tempfile.TemporaryDirectory() as folder:
        merge_here(folders, keys, f"{folder}/out", 1, 0, None, base)
        for touch, root in enumerate(roots, start=1):
            child = os.fork()
            if not child:
                try:
                    merge_here(folders, keys, f"{root}/out", 1, touch, None, base)
                    os._exit(0)
                finally:
                    os._exit(1)
            ended.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
            if ended[-1] == 0:
                break
    Path(codes).write_text(json.dumps(ended), encoding="utf-8")


def kill_everywhere(
    folders: Mapping[str, Path],
    keys: Mapping[str, Any],
    roots: Sequence[Path],
    codes: Path,
    *,
    base: Path | None = None,
) -> int:
    """Merge into ``out`` of one root after the other, killed at the first touch, the second, until one comes through.

    Args:
        folders: The adapter of every language.
        keys: The recipe.
        roots: Folders that are there; more of them than there are touches.
        codes: A file to be written.
        base: The model to merge into; None: into an adapter.

    Returns:
        How many were killed: so many roots hold what a kill left, and the next one a result.
    """
    texts = {lang: str(folder) for lang, folder in folders.items()}
    into = None if base is None else str(base)
    process = CONTEXT.Process(target=_kill_in_turn, args=(texts, dict(keys), list(map(str, roots)), str(codes), into))
    process.start()
    process.join()
    *killed, last = json.loads(codes.read_text(encoding="utf-8"))
    assert set(killed) == {-signal.SIGKILL}
    assert last == 0
    return len(killed)


def start(
    folders: Mapping[str, Path],
    keys: Mapping[str, Any],
    out: Path,
    *,
    threads: int = 1,
    barrier: Any = None,
) -> ForkServerProcess:
    """Start a merge in a process of its own."""
    texts = {lang: str(folder) for lang, folder in folders.items()}
    process = CONTEXT.Process(target=merge_here, args=(texts, dict(keys), str(out), threads, 0, barrier))
    process.start()
    return process
