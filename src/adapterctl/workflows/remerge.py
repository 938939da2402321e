"""``adapterctl merge``: the champion's pinned adapters merged again with the present recipe, unregistered."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapterctl.errors import UsageError
from adapterctl.lora.write import copy_adapter
from adapterctl.merging.scale import ScaleChoice
from adapterctl.workflows import releases
from adapterctl.workflows.candidates import folder_of
from adapterctl.workflows.scoring import Scorer
from adapterctl.workflows.session import Session
from adapterctl.workflows.steps import find_scale, merge_adapters
from adapterctl.workspace.data import load_data

if TYPE_CHECKING:
    from adapterctl.merging.report import MergeReport


@dataclass(frozen=True)
class MergeOutcome:
    """A merge that is not registered.

    Attributes:
        folder: The merged PEFT folder.
        report: What the merge says about itself.
        choice: How λ was chosen.
    """

    folder: Path
    report: MergeReport
    choice: ScaleChoice

    def as_dict(self) -> dict[str, Any]:
        """Return the merge as plain values."""
        return {
            "folder": str(self.folder),
            "method": self.report.method,
            "scale": self.report.scale,
            "rank": self.report.rank,
            "energy_kept": self.report.energy_kept,
            "tried": [list(pair) for pair in self.choice.tried],
        }


def remerge(session: Session, out: Path | None = None) -> MergeOutcome:
    """Merge the adapters that the champion pins with the workspace's recipe.

    Args:
        session: The command at work.
        out: Where to write the merged adapter as well; must not exist.

    Raises:
        UsageError: There is no champion, or ``out`` exists.
    """
    if out is not None and out.exists():
        raise UsageError(f"{out} exists already", hint="name a new folder with --out")
    champion = releases.require_champion(session.registry, session.project, "make one with: adapterctl setup")
    langs = [lang for lang in session.workspace.languages if lang in champion.adapters]
    folders = {lang: folder_of(session, champion.adapters[lang]) for lang in langs}
    choice = find_scale(session, Scorer(session, load_data(session.workspace, langs)), folders, champion.scale)
    folder, _, report = merge_adapters(session, folders, choice.scale)
    if out is not None:
        copy_adapter(folder, out)
    return MergeOutcome(out or folder, report, choice)
