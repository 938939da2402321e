"""``adapterctl doctor``: everything a workspace needs, looked at, with what to do about each."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from adapterctl.accounting.pages import OF_A_PROCESS
from adapterctl.errors import AdapterctlError
from adapterctl.files import unfinished
from adapterctl.workflows.journal import read_pending
from adapterctl.workflows.session import Session, reading
from adapterctl.workspace.data import load_data
from adapterctl.workspace.workspace import Workspace

Level = Literal["ok", "warning", "error"]

_PACKAGES = ("torch", "transformers", "peft", "mlflow", "bitsandbytes")
_LEAST_FREE = 2**30


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        area: What: ``python``, ``registry``, ``data``, ...
        level: ``ok``, ``warning`` or ``error``.
        message: What was found.
        mend: What to do about it; empty where nothing is to be done.
    """

    area: str
    level: Level
    message: str
    mend: str = ""


def examine(path: str | Path | None = None) -> list[Finding]:
    """Look at environment, workspace, base model, data, registry, disk and leftovers; what it finds is never raised."""
    findings = [*_environment()]
    try:
        workspace = Workspace.open(path)
    except AdapterctlError as error:
        return [*findings, *_of_error("workspace", error)]
    findings.append(Finding("workspace", "ok", f"{workspace.root}: project '{workspace.config.project}'"))
    findings += [Finding("workspace", "warning", str(problem), problem.hint) for problem in workspace.warnings]
    session = reading(workspace, "doctor")
    for area, look in (
        ("base model", _base_model),
        ("data", _data),
        ("disk", _disk),
        ("registry", _registry),
        ("books", _books),
        ("leftovers", _leftovers),
    ):
        findings += _looked(area, look, session)
    return findings


def _looked(area: str, look: Callable[[Session], Iterator[Finding]], session: Session) -> list[Finding]:
    try:
        return list(look(session))
    except AdapterctlError as error:
        return _of_error(area, error)


def _of_error(area: str, error: AdapterctlError) -> list[Finding]:
    problems = [Finding(area, "error", str(problem)) for problem in error.problems]
    return [Finding(area, "error", error.message, error.hint), *problems]


def _environment() -> Iterator[Finding]:
    yield Finding("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    known = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES)
    yield Finding("packages", "ok", known)
    import torch

    cores = len(psutil.Process().cpu_affinity()) if hasattr(psutil.Process, "cpu_affinity") else os.cpu_count()
    if torch.cuda.is_available():
        yield Finding("device", "ok", f"{torch.cuda.get_device_name()}, {cores} CPU cores")
    else:
        yield Finding("device", "ok", f"CPU only, {cores} cores: enough for the pocket model, slow for large ones")


def _base_model(session: Session) -> Iterator[Finding]:
    base = session.base
    millions = base.parameters / 1e6
    loading = base.settings.quantization if base.settings.quantization != "none" else base.settings.dtype
    yield Finding("base model", "ok", f"{base.name}: {millions:.1f} M parameters outside the embedding, {loading}")


def _data(session: Session) -> Iterator[Finding]:
    for lang, rows in load_data(session.workspace, session.workspace.languages).items():
        counts = f"{len(rows.train)} train, {len(rows.dev)} dev, {len(rows.test)} test rows"
        if not rows.dev and session.workspace.config.merge.lambda_ == "auto":
            yield Finding("data", "warning", f"{lang}: {counts}", "merge.lambda: auto needs dev rows, or set a number")
        else:
            yield Finding("data", "ok", f"{lang}: {counts}")


def _disk(session: Session) -> Iterator[Finding]:
    free = shutil.disk_usage(session.workspace.root).free
    text = f"{free / 2**30:.1f} GiB free"
    if free < _LEAST_FREE:
        yield Finding("disk", "warning", text, "free some space: checkpoints and adapters need it")
    else:
        yield Finding("disk", "ok", text)


def _registry(session: Session) -> Iterator[Finding]:
    resolved = session.registry.resolved
    models = session.registry.names()
    yield Finding("registry", "ok", f"{resolved.shown} ({resolved.origin}): {len(models)} registered models")


def _books(session: Session) -> Iterator[Finding]:
    path, waiting = session.workspace.paths.ledger, len(session.ledger.outbox.read().items)
    contents = session.ledger.read()
    told = f"{len(contents.entries)} entries"
    if waiting:
        told += f"; {waiting} of them wait in {path} for the next command that changes something in the registry"
    yield Finding("books", "ok", told)
    for note in contents.notes:
        yield Finding(
            "books", "warning", note, "what it was about is missing from the costs; nothing else depends on it"
        )


def _leftovers(session: Session) -> Iterator[Finding]:
    pending = read_pending(session.workspace)
    if pending is not None:
        yield Finding(
            "leftovers",
            "warning",
            f"{pending.command} of '{pending.lang}' was interrupted",
            f"go on with: adapterctl {pending.command} --lang {pending.lang}",
        )
    found = session.registry.leftovers()
    for leftover in found:
        what = "unfinished run" if leftover.kind == "run" else "unfinished model"
        text = f"{what} '{leftover.name}', begun {leftover.started} on {leftover.host or 'an unknown machine'}"
        mend = "it goes on when its command is run again"
        if leftover.key.startswith(OF_A_PROCESS):
            mend = "it is finished when the rest of the books is delivered, by the next command that writes"
        yield Finding("leftovers", "warning", text, mend)
    temporary = [
        path
        for folder in (session.workspace.root, session.workspace.state)
        if folder.is_dir()
        for path in unfinished(folder)
    ]
    for path in sorted(set(temporary)):
        yield Finding("leftovers", "warning", f"unfinished {path}", f"remove it when nothing runs: rm -r {path}")
    if pending is None and not found and not temporary:
        yield Finding("leftovers", "ok", "none")
