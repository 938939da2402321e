"""``promote``, ``rollback`` and ``export``: what a person does with releases."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapterctl.errors import GateFailed, UsageError
from adapterctl.fingerprint import short
from adapterctl.registry.names import CANDIDATE, CHAMPION, merged_name
from adapterctl.workflows import releases
from adapterctl.workflows.folders import holds
from adapterctl.workflows.releases import Release
from adapterctl.workflows.session import Session

VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM's ``--max-lora-rank`` accepts; an adapter of a smaller rank fits."""


@dataclass(frozen=True)
class Promotion:
    """A change of champion.

    Attributes:
        champion: The champion now.
        before: The champion before; None where there was none.
    """

    champion: Release
    before: Release | None

    def as_dict(self) -> dict[str, Any]:
        """Return the change as plain values."""
        before = self.before.model_dump(mode="json") if self.before else None
        return {"champion": self.champion.model_dump(mode="json"), "before": before}


def promote(session: Session, version: int | None = None, *, force: bool = False) -> Promotion:
    """Make the candidate, or any version of the merged adapter, the champion.

    Args:
        session: The command at work.
        version: Number of a version; the candidate where not given.
        force: Promote although the gate said no.

    Raises:
        UsageError: There is no candidate, or no such version.
        GateFailed: The gate said no, and nothing was forced. What waits for a person is not refused: this is the
            person.
    """
    registry, project = session.registry, session.project
    before = releases.current(registry, project, CHAMPION)
    if version is None:
        release = releases.current(registry, project, CANDIDATE)
        if release is None:
            raise UsageError(
                f"project '{project}' has no candidate",
                hint="make one with: adapterctl update --lang LANG; or name a version: adapterctl promote --version N",
            )
    else:
        release = releases.read_release(registry, registry.version(merged_name(project), version))
    if not (release.passed or release.waits or force):
        few = ": there were too few rows to decide" if release.gate == "inconclusive" else ""
        raise GateFailed(
            f"version {release.version} did not pass the gate{few}",
            hint=f"look at it with: adapterctl ui; then: adapterctl promote --version {release.version} --force",
        )
    releases.promote(registry, project, release)
    return Promotion(release, before)


def rollback(session: Session) -> Promotion:
    """Return to the previous champion.

    Raises:
        UsageError: There is none.
    """
    champion, stepped_down = releases.rollback(session.registry, session.project)
    return Promotion(champion, stepped_down)


@dataclass(frozen=True)
class Export:
    """A release as a folder to serve from.

    Attributes:
        folder: The PEFT folder.
        release: What it is.
        rank: Its rank.
        max_lora_rank: The smallest ``--max-lora-rank`` of vLLM that it fits in; None where it is too large.
    """

    folder: Path
    release: Release
    rank: int
    max_lora_rank: int | None

    def as_dict(self) -> dict[str, Any]:
        """Return the export as plain values."""
        return {
            "folder": str(self.folder),
            "version": self.release.version,
            "content_hash": self.release.content_hash,
            "rank": self.rank,
            "max_lora_rank": self.max_lora_rank,
        }


def export(session: Session, to: Path, alias: str = CHAMPION) -> Export:
    """Write a release as a PEFT folder that serving engines take as it is.

    Every version gets a folder of its own, ``<project>-merged/v<number>-<hash>``: engines that cache by path would go
    on serving the old one otherwise.

    Raises:
        UsageError: The alias is not set.
    """
    from adapterctl.lora.adapter import Adapter

    release = releases.current(session.registry, session.project, alias)
    if release is None:
        raise UsageError(
            f"project '{session.project}' has no {alias}",
            hint="see what there is: adapterctl status; the first champion is made by: adapterctl setup",
        )
    name = merged_name(session.project)
    folder = to / name / f"v{release.version}-{short(release.content_hash)}"
    if not holds(folder, release.content_hash):
        session.registry.download(session.registry.version(name, release.version), folder)
    adapter = Adapter.open(folder)
    rank = max(adapter.rank(module) for module in adapter.modules)
    return Export(folder, release, rank, next((allowed for allowed in VLLM_RANKS if allowed >= rank), None))
