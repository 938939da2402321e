"""``adapterctl doctor``: everything a workspace needs, looked at, with what to do about each."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

import psutil

from adapterctl.errors import AdapterctlError
from adapterctl.files import unfinished
from adapterctl.workflows import ailments
from adapterctl.workflows.ailments import Finding
from adapterctl.workflows.journal import read_pending
from adapterctl.workflows.reporting import Reporter
from adapterctl.workflows.session import Session, reading
from adapterctl.workflows.upkeep import connected
from adapterctl.workspace.data import load_data
from adapterctl.workspace.workspace import Workspace

if TYPE_CHECKING:
    from adapterctl.registry.client import Registry

_HOUR = 3600.0
_SLOW = 3.0
"""So many times longer in bfloat16 than in float32, and float32 is the better choice on a CPU."""
_PACKAGES = ("torch", "transformers", "peft", "mlflow", "bitsandbytes")


def examine(path: str | Path | None = None, *, deep: bool = False, reporter: Reporter | None = None) -> list[Finding]:
    """Look at environment, workspace, base model, data, registry, disk and leftovers; what it finds is never raised.

    Args:
        path: The workspace.
        deep: Read and hash every file in the registry again, not only those of what is served.
        reporter: Who watches.
    """
    findings = [*_environment()]
    try:
        workspace = Workspace.open(path)
    except AdapterctlError as error:
        return [*findings, *_of_error("workspace", error)]
    findings.append(Finding("workspace", "ok", f"{workspace.root}: project '{workspace.config.project}'"))
    findings += [Finding("workspace", "warning", str(problem), problem.hint) for problem in workspace.warnings]
    session = reading(workspace, "doctor", reporter)
    for area, look in (("base model", _base_model), ("training", _precision), ("data", _data), ("disk", _disk)):
        findings += _looked(area, partial(look, session))
    findings += [*_registry(session, deep), *_leftovers(session)]
    if not any(finding.area == "leftovers" for finding in findings):
        findings.append(Finding("leftovers", "ok", "none"))
    return findings


def _registry(session: Session, deep: bool) -> list[Finding]:
    """Look at the registry; where it does not answer, that is said once."""
    try:
        registry = connected(session)
        models = registry.names()
    except AdapterctlError as error:
        return _of_error("registry", error)
    resolved = registry.resolved
    found = [Finding("registry", "ok", f"{resolved.shown} ({resolved.origin}): {len(models)} registered models")]
    for area, look in (
        ("artifact store", lambda: ailments.artifact_store(registry)),
        ("aliases", lambda: ailments.pointers(registry)),
        ("adapters", lambda: ailments.contents(registry, session.reporter, deep=deep)),
        ("lock", lambda: ailments.queue(registry)),
        ("registry", lambda: ailments.interrupted_import(registry)),
        ("books", lambda: _books(session)),
        ("leftovers", lambda: map(ailments.told, registry.leftovers())),
    ):
        found += _looked(area, look)
    return found


def _looked(area: str, look: Callable[[], Iterable[Finding]]) -> list[Finding]:
    found: list[Finding] = []
    try:
        # What was seen before it failed stays.
        for finding in look():
            found.append(finding)
    except AdapterctlError as error:
        found += _of_error(area, error)
    return found


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


def _precision(session: Session) -> Iterator[Finding]:
    """Tell of trainings in bfloat16 on a processor that does not have it."""
    import torch

    if torch.cuda.is_available() and session.workspace.config.base_model.device != "cpu":
        return
    adapters = session.workspace.adapters
    langs = [lang for lang, settings in adapters.items() if settings.training.mixed_precision == "bf16"]
    if not langs:
        return
    from adapterctl.training.precision import bfloat16_slowdown

    slowdown = bfloat16_slowdown()
    if slowdown > _SLOW:
        yield Finding(
            "training",
            "warning",
            f"this CPU takes {slowdown:.0f} times as long in bfloat16 as in float32, "
            f"and training.mixed_precision is bf16 for {', '.join(langs)}",
            "set mixed_precision: none under training in adapterctl.yaml; adapters that exist are trained anew then",
        )


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
    yield ailments.room("disk", session.workspace.root)


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
    """Tell what interrupted commands left in the workspace itself."""
    pending = read_pending(session.workspace)
    if pending is not None:
        yield Finding("leftovers", "warning", f"{pending.told} was interrupted", f"go on with: {pending.again}")
    for path in _temporary(session.workspace):
        mend = f"adapterctl doctor --fix; or, when nothing runs: rm -r {quote(str(path))}"
        yield Finding("leftovers", "warning", f"unfinished {path}", mend)


def _temporary(workspace: Workspace) -> list[Path]:
    folders = [folder for folder in (workspace.root, workspace.state) if folder.is_dir()]
    return sorted({path for folder in folders for path in unfinished(folder)})


def mend(path: str | Path | None = None, *, reporter: Reporter | None = None) -> list[str]:
    """Mend what no decision is needed for, and return what was done, in words.

    What killed processes of this machine, and those of others that are older than a day, left in the registry; aliases
    of versions that are not there; unfinished files. Nothing is promoted, moved, finished or forgotten: that is told.

    Raises:
        UsageError: There is no workspace.
        LockHeld: Somebody works on the workspace or the project; what he does must not be taken for a leftover.
        RegistryError: The registry does not answer.
    """
    workspace = Workspace.open(path, data=False)
    session = reading(workspace, "doctor --fix", reporter)
    done: list[str] = []
    with workspace.lock("doctor --fix"):
        done += _remove_temporary(workspace)
        registry = connected(session)
        stale = [place for place in lease_queue(registry) if place[1]]
        with registry.exclusive("doctor --fix"):
            done += [f"freed the project's lock, which {told} had left" for told, _ in stale]
            done += _deliver(session, registry)
            done += _sweep(registry)
            done += _drop_dangling(registry)
    return done


def _remove_temporary(workspace: Workspace) -> list[str]:
    done, now = [], time.time()
    for path in _temporary(workspace):
        ours = path.is_relative_to(workspace.state) and not path.is_relative_to(workspace.paths.fetched)
        # The lock keeps writers out of the state's folder alone: elsewhere only what is old is surely nobody's.
        if not ours and now - path.lstat().st_mtime < _HOUR:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        if not path.exists():
            done.append(f"removed the unfinished {path}")
    return done


def lease_queue(registry: Registry) -> list[tuple[str, bool]]:
    """Return who stands in the queue of the project's lock, and whether that process is known to have ended."""
    from adapterctl.registry import lease

    return [(place.told, lease.is_dead(place)) for place in lease.queue(registry.connection)]


def _deliver(session: Session, registry: Registry) -> list[str]:
    waiting = len(session.ledger.outbox.read().items)
    if not waiting:
        return []
    session.ledger.deliver(registry)
    return [f"brought {waiting} entries of the books into the registry"]


def _sweep(registry: Registry) -> list[str]:
    done = []
    for leftover in registry.leftovers():
        if not leftover.abandoned:
            continue
        registry.sweep([leftover])
        if leftover.kind == "run":
            done.append(f"marked the run '{leftover.name}', begun {leftover.started}, as killed")
        else:
            done.append(f"removed the unfinished model '{leftover.name}', begun {leftover.started}")
    return done


def _drop_dangling(registry: Registry) -> list[str]:
    done = []
    for name in registry.names():
        there = {version.version for version in registry.versions(name)}
        for alias, number in registry.aliases(name).items():
            if number not in there:
                registry.drop_alias(name, alias)
                done.append(f"removed the alias {alias} of {name}: there is no version {number}")
    return done
