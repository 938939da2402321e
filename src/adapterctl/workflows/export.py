"""``export``: a release as a folder that servers read, checked against what they accept, and servers told of it.

find the release · whole on the shelf already? ── yes ──▶ ┐
  │ no                                                    │
download · content hash · what the target refuses ·       │
truncate, convert or fold in · appear at once ──────────▶ ┤
                                                          ▼
    servers: load the new · verify (all of them) · pointer · servers: drop the old
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapterctl.errors import AdapterctlError, RegistryError, UsageError
from adapterctl.registry.names import ALIASES, merged_name
from adapterctl.serving.notify import Notice, Notified, Server, servers
from adapterctl.serving.shelf import POINTER
from adapterctl.serving.targets import Target
from adapterctl.workflows import releases, review_tags
from adapterctl.workflows.export_base import ServingBase, find_base
from adapterctl.workflows.export_folder import Made, Work, on_the_shelf
from adapterctl.workflows.export_options import Wanted, require_sense
from adapterctl.workflows.releases import Release
from adapterctl.workflows.session import Session

if TYPE_CHECKING:
    from adapterctl.registry.versions import Version

_NUMBER = re.compile(r"(?:merged/|v)?([1-9][0-9]{0,8})")
FORMS = "champion, candidate, previous, or a version: merged/7"


@dataclass(frozen=True)
class Export:
    """A release as a folder to serve from.

    Attributes:
        folder: The files.
        pointer: The link that leads to the folder now.
        target: What it is for.
        release: What it is.
        rank: Its rank; that of the release for a whole model.
        max_lora_rank: The smallest ``--max-lora-rank`` that serves it, where the target has one.
        model: What a server is to call it.
        arguments: What the server's command line needs.
        reused: Whether the folder was there already, whole.
        energy_kept: The share of ‖ΔW‖² that truncating kept; None where nothing was truncated.
        notified: What became of the servers.
        notes: What a person should know.
    """

    folder: Path
    pointer: Path
    target: Target
    release: Release
    rank: int
    max_lora_rank: int | None
    model: str
    arguments: tuple[str, ...]
    reused: bool
    energy_kept: float | None = None
    notified: tuple[Notified, ...] = ()
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the export as plain values."""
        return {
            "folder": str(self.folder),
            "pointer": str(self.pointer),
            "target": self.target.name,
            "version": self.release.version,
            "content_hash": self.release.content_hash,
            "rank": self.rank,
            "max_lora_rank": self.max_lora_rank,
            "model": self.model,
            "arguments": list(self.arguments),
            "reused": self.reused,
            "energy_kept": self.energy_kept,
            "notified": [vars(one) for one in self.notified],
            "notes": list(self.notes),
        }


def export(session: Session, wanted: Wanted) -> Export:
    """Write a release as a folder that servers take as it is, and tell running servers of it.

    Every version gets a folder of its own, ``<project>-merged/v<number>-<hash>``, that appears at once and never
    changes: engines that keep results by path would go on serving the old one otherwise. The pointer ``current`` moves
    when the folder is whole and every server has answered with the new release; only then are old ones dropped. The
    call may be killed at any point and repeated.

    Raises:
        UsageError: There is no such release, the options do not go together, or the base model is another.
        AdapterError: The target would refuse the release; ``problems`` has every reason.
        RegistryError: The registry does not hold what it should.
        LockHeld: Another export to the same folder talks to servers, and does not end.
        EndpointError: A server cannot be reached, or does not take the release; the old one stays loaded there.
        StorageError: The disk is full, read-only or not permitted.
    """
    target = wanted.aim
    require_sense(wanted)
    if target.kind == "gguf":
        from adapterctl.serving.llama_cpp import require_library

        require_library()
    with servers(wanted.notify, target, api_key_env=wanted.api_key_env) as running:
        version, release = _find(session, wanted.release)
        work = Work(session, wanted, version, release)
        if not (release.passed or release.waits):
            work.notes.append(f"{version} did not pass the gate")
        if review_tags.decision(version.tags) == review_tags.REJECTED:
            work.notes.append(f"{version} was rejected by a reviewer, or by a rollback")
        base = (
            find_base(session, release, wanted.base, required=target.kind != "adapter")
            if target.name != "peft"
            else None
        )
        if base is not None and base.missing:
            work.notes.append(f"its modules were not compared with the base model's: {base.missing}")
        made = on_the_shelf(work, base)
        return _handed_over(work, base, made, running)


def _find(session: Session, named: str) -> tuple[Version, Release]:
    registry, name = session.registry, merged_name(session.project)
    if match := _NUMBER.fullmatch(named):
        version = registry.version(name, int(match[1]))
    elif named in ALIASES:
        number = registry.aliases(name).get(named)
        if number is None:
            raise UsageError(
                f"project '{session.project}' has no {named}",
                hint="see what there is: adapterctl status; the first champion is made by: adapterctl setup",
            )
        version = registry.version(name, number)
    else:
        raise UsageError(f"there is no release '{named}'", hint=f"name one of: {FORMS}")
    release = releases.read_release(registry, version)
    if (release.version, release.content_hash) != (version.version, version.content_hash):
        raise RegistryError(
            f"the notes of {version} are those of another release (version {release.version})",
            hint="somebody changed them; choose another version: adapterctl history",
        )
    return version, release


def _handed_over(work: Work, base: ServingBase | None, made: Made, running: Sequence[Server]) -> Export:
    """Tell the servers, move the pointer, drop what is old."""
    release, wanted, target = work.release, work.wanted, work.target
    rank: int = made.card["rank"]
    registered = merged_name(work.session.project)
    model = made.card["model"].replace(registered, wanted.name, 1) if wanted.name else made.card["model"]
    notified = []
    path = made.shelf.root / made.name
    seen = posixpath.join(wanted.server_path, registered, made.name) if wanted.server_path else str(path)
    names = tuple(filter(None, (release.base, wanted.server_base)))
    notice = Notice(model, seen, wanted.name or registered, names, base.location if base is not None else "")
    with made.shelf.alone() if running else nullcontext():
        # All servers have the new release before any loses its old one.
        for server in running:
            with work.session.reporter.stage(f"load {model} at {server.shown}"):
                notified.append(server.load(notice))
        kind = "" if target.kind == "adapter" else f"-{target.kind}"
        pointer = made.shelf.point(f"{POINTER}{kind}", made.name)
        for place, server in enumerate(running):
            gone = () if wanted.keep_old else server.unload_earlier(notice)
            kept = server.earlier(notice) if wanted.keep_old else ()
            notified[place] = Notified(server.shown, model, notified[place].loaded, gone, kept)
    if wanted.release in ALIASES:
        # All is done: a registry that cannot be asked any more changes nothing.
        with suppress(AdapterctlError):
            now = work.session.registry.aliases(registered).get(wanted.release)
            if now != release.version:
                work.notes.append(f"meanwhile {wanted.release} has become version {now}: export it again")
    return Export(
        folder=path,
        pointer=pointer,
        target=target,
        release=release,
        rank=rank,
        max_lora_rank=target.least_rank(rank) if target.serves_adapters else None,
        model=model,
        arguments=tuple(target.arguments(rank, made.card["modules"])),
        reused=made.reused,
        energy_kept=made.card["energy_kept"],
        notified=tuple(notified),
        notes=tuple(work.notes),
    )
