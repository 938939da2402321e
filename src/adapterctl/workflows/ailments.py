"""What can be wrong in a registry that answers: each with its own words, what mends it, and whether that is safe.

``doctor`` tells all of it; ``doctor --fix`` does what no decision is needed for.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from shutil import disk_usage
from typing import TYPE_CHECKING, Literal
from urllib.parse import unquote, urlsplit

from adapterctl.accounting.pages import OF_A_PROCESS
from adapterctl.errors import RegistryError
from adapterctl.files import TEMPORARY_PREFIX, disk_errors
from adapterctl.registry.names import ALIASES, CANDIDATE, PINNED, adapter_name, merged_name
from adapterctl.workflows.releases import RETURNING, read_release
from adapterctl.workflows.reporting import Reporter
from adapterctl.workflows.upkeep import raise_if_away, unexplained

if TYPE_CHECKING:
    from adapterctl.registry.client import Registry
    from adapterctl.registry.settings import ResolvedRegistry
    from adapterctl.registry.sweeping import Leftover

Level = Literal["ok", "warning", "error"]

LEAST_FREE = 2**30
"""Bytes below which a disk is said to be nearly full."""
_FULL = 2**26
_FIX = "adapterctl doctor --fix"


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


def room(area: str, folder: Path) -> Finding:
    """Say how much room is left on the disk of a folder."""
    free = disk_usage(folder).free
    text = f"{free / 2**30:.1f} GiB free in {folder}"
    if free < _FULL:
        return Finding(area, "error", f"the disk is full: {text}", "free some space there: nothing can be written")
    if free < LEAST_FREE:
        return Finding(area, "warning", text, "free some space: checkpoints and adapters need it")
    return Finding(area, "ok", text)


def store_folder(resolved: ResolvedRegistry) -> Path | None:
    """Return the folder where the files of a registry lie; None where a server or a bucket has them."""
    parts = urlsplit(resolved.artifact_root or "")
    return Path(unquote(parts.path)) if parts.scheme == "file" else None


def artifact_store(registry: Registry) -> Iterator[Finding]:
    """Say whether the registry's own files can be written.

    Raises:
        StorageError: They cannot.
    """
    folder = store_folder(registry.resolved)
    if folder is None or not folder.is_dir():
        return
    found = room("artifact store", folder)
    if found.level != "error":
        # Permissions, quotas and file systems that became read-only show themselves only so.
        with disk_errors(folder), tempfile.NamedTemporaryFile(prefix=TEMPORARY_PREFIX, dir=folder) as probe:
            probe.write(bytes(65536))
            probe.flush()
    yield found


def pointers(registry: Registry) -> Iterator[Finding]:
    """Tell of aliases that point nowhere, and of what is between two states."""
    from adapterctl.registry.verifying import dangling

    merged = merged_name(registry.project)
    for name in registry.names():
        pointing = registry.aliases(name)
        faults = dangling(name, pointing, [version.version for version in registry.versions(name)])
        for fault in faults:
            yield Finding("aliases", "error", f"{name}: {fault.message}", f"{_FIX} removes it")
        if name == merged:
            nowhere = {
                alias for alias, number in pointing.items() if any(f"alias {alias} " in f.message for f in faults)
            }
            yield from _releases(registry, name, pointing, nowhere)


def _releases(registry: Registry, name: str, pointing: dict[str, int], nowhere: set[str]) -> Iterator[Finding]:
    for alias in sorted(set(pointing) & {*ALIASES} - nowhere):
        number = pointing[alias]
        try:
            read_release(registry, registry.version(name, number))
        except RegistryError as error:
            raise_if_away(error)
            mend = "adapterctl reject --reason TEXT" if alias == CANDIDATE else "adapterctl promote --version N"
            text = f"{alias} points to version {number}, which is no release: it has no readable release.json"
            yield Finding("aliases", "error", text, f"move it away: {mend} (see adapterctl history)")
    if RETURNING in pointing:
        text = f"a rollback to version {pointing[RETURNING]} was interrupted"
        yield Finding("aliases", "warning", text, "finish it: adapterctl rollback; or undo it: adapterctl promote")


def contents(registry: Registry, reporter: Reporter, *, deep: bool) -> Iterator[Finding]:
    """Read and hash again what is served, what waits, what a rollback returns to, and the adapters in them; or all."""
    from adapterctl.registry import verifying

    only = None if deep else _served(registry)
    with reporter.stage("verify the registry" if deep else "verify what is served") as stage:
        found = verifying.verify(registry.connection, registry.names(), only=only, progress=stage.advance)
        stage.advance(1, 1, f"{found.versions} versions")
    faults = [fault for fault in found.faults if fault.kind != "alias"]
    faults += [fault for fault in unexplained(registry, registry.project, only) if fault.kind == "pin"]
    for fault in faults:
        yield Finding("adapters", "error", f"{fault.where}: {fault.message}", fault.hint)
    what = "all" if deep else "champion, candidate, previous and their adapters"
    if not faults and found.versions:
        yield Finding("adapters", "ok", f"{found.versions} versions are as they were published ({what})")


def _served(registry: Registry) -> dict[str, list[int]]:
    merged = merged_name(registry.project)
    there = {version.version: version for version in registry.versions(merged)}
    numbers = {number for alias, number in registry.aliases(merged).items() if alias in ALIASES and number in there}
    only: dict[str, set[int]] = {merged: numbers}
    for number in numbers:
        try:
            release = read_release(registry, there[number])
        except RegistryError as error:
            raise_if_away(error)
            continue
        for lang, pinned in release.adapters.items():
            only.setdefault(adapter_name(registry.project, lang), set()).add(pinned.version)
    for name in registry.names():
        held = registry.aliases(name).get(PINNED)
        if held is not None:
            only.setdefault(name, set()).add(held)
    return {name: sorted(chosen) for name, chosen in only.items()}


def queue(registry: Registry) -> Iterator[Finding]:
    """Tell of places in the project's lock that nobody holds any more."""
    from adapterctl.registry import lease

    for place in lease.queue(registry.connection):
        if lease.is_dead(place):
            yield Finding("lock", "warning", f"the project's lock was left by {place.told}, which has ended", _FIX)
        elif lease.is_silent(place):
            text = f"the project's lock is held by {place.told}, which gave no sign of life for a minute"
            yield Finding("lock", "warning", text, "the next command that needs it takes it over")


def interrupted_import(registry: Registry) -> Iterator[Finding]:
    """Tell of an import that has begun and not ended."""
    from adapterctl.registry.exporting import TAG_IMPORTING

    if TAG_IMPORTING in registry.connection.client.get_experiment(registry.experiment_id).tags:
        text = "an import into this registry was interrupted: it is not complete"
        yield Finding("registry", "error", text, "run it again: adapterctl registry import FILE")


def told(leftover: Leftover) -> Finding:
    """Say what a killed process left behind."""
    what = "unfinished run" if leftover.kind == "run" else "unfinished model"
    text = f"{what} '{leftover.name}', begun {leftover.started} on {leftover.host or 'an unknown machine'}"
    mend = "it goes on when its command is run again"
    if leftover.key.startswith(OF_A_PROCESS):
        mend = "it is finished when the rest of the books is delivered, by the next command that writes"
    if leftover.abandoned:
        mend += f"; or: {_FIX}"
    else:
        mend += ": it may still be at work there; after a day it counts as ended"
    return Finding("leftovers", "warning", text, mend)
