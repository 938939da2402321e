"""``adapterctl schedule emit``: files by which a scheduler of the house keeps a workspace up to date."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from adapterctl.errors import Problem, UsageError
from adapterctl.files import disk_errors, write_text
from adapterctl.registry.settings import ENVIRONMENT_VARIABLE, ResolvedRegistry
from adapterctl.scheduling.check import LONGEST_NAME
from adapterctl.scheduling.cron import parse_cron
from adapterctl.scheduling.emit import emit, is_untouched
from adapterctl.scheduling.job import EmittedFile, Job, Target
from adapterctl.workspace.layout import STATE_VARIABLE
from adapterctl.workspace.workspace import Workspace

NIGHTLY = "17 3 * * *"
"""At an odd minute: on the hour everybody else's jobs begin."""
IN_A_POD = "/workspace"

_HERE: tuple[Target, ...] = ("cron", "systemd", "airflow")
"""Schedulers that run the program in a workspace that lies on a disk of theirs."""
_SECONDS_TO_ANSWER = 20


@dataclass(frozen=True)
class Emitted:
    """Files for a scheduler.

    Attributes:
        target: Which scheduler.
        name: Of the job.
        files: The files.
        folder: Where they were written to; None where they were only to be shown.
        notes: What the person should know.
    """

    target: Target
    name: str
    files: tuple[EmittedFile, ...]
    folder: Path | None = None
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "target": self.target,
            "name": self.name,
            "folder": self.folder,
            "files": [vars(file) for file in self.files],
            "notes": self.notes,
        }


def emit_schedule(
    workspace: Workspace,
    target: Target,
    wishes: Job,
    *,
    when: str | None = None,
    out: Path | None = None,
    force: bool = False,
) -> Emitted:
    """Make the files by which a scheduler updates a workspace, and write them where ``out`` says.

    Args:
        workspace: The workspace.
        target: The scheduler.
        wishes: What was asked for; an empty name, program or workspace means the usual one.
        when: A time of cron; every night when neither this nor ``wishes.on_calendar`` is given.
        out: The folder to write to; None: write nothing.
        force: Replace files there that are not ours, or that somebody changed.

    Raises:
        UsageError: The wishes cannot be written down for this scheduler, the job would not find its registry, or a file
            would be overwritten.
        StorageError: The disk is full, read-only or not permitted.
    """
    if when is not None and wishes.on_calendar is not None:
        raise UsageError("--on-calendar says when, and so does --cron or --every", hint="give one of them")
    registry = workspace.config.registry.resolve(workspace.root)
    _refuse_lost_registry(workspace, target, wishes, registry)
    job = _completed(workspace, target, wishes, registry, out)
    if wishes.on_calendar is None:
        job = replace(job, cron=parse_cron(when or NIGHTLY))
    files = emit(job, target)
    if job.on_calendar is not None:
        _ask_systemd(job.on_calendar)
    if out is not None:
        _write(files, out, force=force)
    return Emitted(target, job.name, files, out, tuple(_notes(workspace, job)))


def _refuse_lost_registry(workspace: Workspace, target: Target, wishes: Job, registry: ResolvedRegistry) -> None:
    """Refuse a job that would work on another registry than the person who asks for it."""
    said = workspace.config.registry.uri.strip()
    if target == "github-actions":
        if said and registry.is_database:
            raise UsageError(
                f"the registry {registry.shown} is a database, which no runner of GitHub reaches or keeps",
                hint="run an MLflow server and name it in registry.uri, or leave that empty and set the secret "
                f"{ENVIRONMENT_VARIABLE}",
            )
        return
    if not said and not registry.embedded and wishes.secret is None and target != "airflow":
        raise UsageError(
            f"the registry comes from the environment variable {ENVIRONMENT_VARIABLE}, which a scheduled job does not "
            "have: it would begin an empty registry inside the workspace",
            hint="name it in adapterctl.yaml as registry.uri, or say with --secret where the job finds it",
        )


def _completed(workspace: Workspace, target: Target, wishes: Job, registry: ResolvedRegistry, out: Path | None) -> Job:
    root = workspace.root
    places = {"k8s": IN_A_POD, "github-actions": _in_repository(root)}
    there = wishes.workspace or places.get(target, str(root))
    job = replace(
        wishes,
        name=wishes.name or f"adapterctl-{workspace.config.project}"[:LONGEST_NAME].rstrip("-"),
        program=wishes.program or (_program() if target in _HERE else "adapterctl"),
        workspace=there,
        folder=str(out.absolute()) if out is not None else f"{there.rstrip('/')}/schedule",
        server_needed=not workspace.config.registry.uri.strip(),
    )
    if target in _HERE and os.environ.get(STATE_VARIABLE, "").strip():
        job = replace(job, state_dir=str(workspace.state))
    if target == "systemd":
        outside = tuple(path for path in _writes(workspace, registry) if not path.is_relative_to(root))
        job = replace(job, user=wishes.user or _owner(root), writable=tuple(sorted({str(path) for path in outside})))
    return job


def _program() -> str:
    beside = Path(sys.executable).with_name("adapterctl")
    return str(beside) if beside.is_file() else shutil.which("adapterctl") or "adapterctl"


def _owner(folder: Path) -> str:
    try:
        return folder.owner()
    except KeyError:
        # A user without a name, as in containers; systemd takes the number.
        return str(folder.stat().st_uid)


def _in_repository(root: Path) -> str:
    for folder in (root, *root.parents):
        if (folder / ".git").exists():
            return root.relative_to(folder).as_posix()
    return "."


def _writes(workspace: Workspace, registry: ResolvedRegistry) -> list[Path]:
    """Return the folders that commands write."""
    found = [workspace.state]
    if registry.database_file is not None:
        found.append(registry.database_file.parent)
    if registry.artifact_root is not None and (parts := urlsplit(registry.artifact_root)).scheme == "file":
        found.append(Path(unquote(parts.path)))
    return found


def _ask_systemd(calendar: str) -> None:
    """Let systemd read a time, where it is installed."""
    program = shutil.which("systemd-analyze")
    if program is None:
        return
    try:
        answer = subprocess.run(
            [program, "calendar", "--", calendar],
            capture_output=True,
            text=True,
            timeout=_SECONDS_TO_ANSWER,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return
    if answer.returncode != 0:
        said = answer.stderr.strip().splitlines() or ["it says no more"]
        raise UsageError(
            f"'{calendar}' is not a time of systemd: {said[0]}",
            hint="see: man systemd.time, or give a time of cron with --cron",
        )


def _write(files: Sequence[EmittedFile], out: Path, *, force: bool) -> None:
    """Write all files or none: nothing is begun before it is known that nothing foreign is in the way."""
    problems = []
    for file in files:
        path = out / file.path
        with disk_errors(path):
            if path.is_dir():
                problems.append(Problem(str(path), "is a folder", "move it away"))
            elif path.exists() and not force and not _may_replace(path, file):
                problems.append(
                    Problem(str(path), "was not written by this command, or was changed since", "look at it first")
                )
    if problems:
        raise UsageError(
            "files are in the way, and nothing was written", problems=problems, hint="replace them with --force"
        )
    for file in files:
        path = out / file.path
        write_text(path, file.text)
        if file.executable:
            with disk_errors(path):
                path.chmod(0o755)


def _may_replace(path: Path, file: EmittedFile) -> bool:
    if not path.is_file():
        return False
    content = path.read_bytes()
    return content == file.text.encode("utf-8") or is_untouched(content.decode("utf-8", errors="replace"))


def _notes(workspace: Workspace, job: Job) -> list[str]:
    if workspace.config.promotion == "review" and not job.approve:
        return [
            "promotion is 'review': what a person approves in MLflow becomes champion with 'adapterctl promote "
            "--approved'; --approve lets the job do that before every update"
        ]
    return []
