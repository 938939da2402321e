"""What a merge says about itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

REPORT_FILE = "merge_report.json"
"""Lies in the merged adapter's folder."""


@dataclass(frozen=True)
class ModuleReport:
    """One merged module.

    Attributes:
        module: Its path.
        rank_in: The rank of every language's delta.
        rank_out: How many components of the result are not zero.
        energy_kept: The share of ‖ΔW‖²_F that the stored rank keeps; 1 where nothing was truncated.
        norm: ‖ΔW‖_F of the result, λ included.
    """

    module: str
    rank_in: Mapping[str, int]
    rank_out: int
    energy_kept: float
    norm: float


@dataclass(frozen=True)
class MergeReport:
    """One merge.

    Attributes:
        folder: Where the merged adapter lies.
        key: The content hash of inputs, recipe and engine under which the result may be kept.
        method: The method's name.
        recipe: The recipe with λ and every language's weight as numbers.
        scale: λ.
        inputs: The content hash of every language's adapter.
        rank: r of the merged adapter.
        energy_kept: Over all modules, the share of ‖ΔW‖²_F that the stored rank keeps.
        merged_norm: ‖ΔW‖_F of the result over all modules, λ included.
        input_norms: ‖ΔW‖_F of every language's adapter over all modules.
        mean_input_norm: Their mean over the languages.
        suggested_scale: The λ at which the merged norm is the mean of the inputs' norms: where a search may start,
            not what it finds. None where the method gives zero.
        modules: Every module.
        seconds: Wall time; not written to the file, whose bytes depend on the inputs alone.
    """

    folder: Path
    key: str
    method: str
    recipe: Mapping[str, Any]
    scale: float
    inputs: Mapping[str, str]
    rank: int
    energy_kept: float
    merged_norm: float
    input_norms: Mapping[str, float]
    mean_input_norm: float
    suggested_scale: float | None
    modules: tuple[ModuleReport, ...]
    seconds: float

    @property
    def weights(self) -> Mapping[str, float]:
        """The weight of every language."""
        weights: Mapping[str, float] = self.recipe["weights"]
        return weights

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages, in alphabetical order."""
        return tuple(self.inputs)

    def as_document(self, provenance: Mapping[str, str]) -> dict[str, Any]:
        """Return what ``merge_report.json`` says: everything that the inputs decide, and where they came from."""
        document = asdict(self)
        del document["folder"], document["seconds"]
        return {**document, "provenance": dict(provenance)}


def read_report(folder: Path) -> MergeReport:
    """Read the report of a finished merge back; ``seconds`` is 0, for nothing was done.

    Raises:
        OSError, ValueError, KeyError, TypeError: There is no report, or not one of this version.
    """
    document = json.loads((folder / REPORT_FILE).read_text(encoding="utf-8"))
    del document["provenance"]
    modules = tuple(ModuleReport(**module) for module in document.pop("modules"))
    return MergeReport(folder=folder, seconds=0.0, modules=modules, **document)
