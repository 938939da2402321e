"""What a merge says about itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

REPORT_FILE = "merge_report.json"
"""Lies in the merged adapter's folder."""

MEASURED = ("seconds", "peak_memory_bytes", "threads", "device", "reused")
"""What differs between two merges of the same inputs; kept apart in the file."""

SERVED_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The values of ``max_lora_rank`` that vLLM takes."""


@dataclass(frozen=True)
class ModuleReport:
    """One merged module.

    Attributes:
        module: Its path.
        rank_in: The rank of every language's delta.
        rank_out: How many components of the result are stored.
        energy_kept: The share of ‖ΔW‖²_F that the stored rank keeps; 1 where nothing was truncated.
        norm: ‖ΔW‖_F of the result, λ included.
        discard_rate: The share of each language's kept entries that lost the vote; empty where nothing votes.
        gap: The smallest relative gap (σⱼ - σⱼ₊₁)/σ₁ of the singular values that the result depends on: where it is
            tiny, another machine may find another basis, or another truncation. None where none matter.
    """

    module: str
    rank_in: Mapping[str, int]
    rank_out: int
    energy_kept: float
    norm: float
    discard_rate: Mapping[str, float]
    gap: float | None


@dataclass(frozen=True)
class MergeReport:
    """One merge.

    Attributes:
        folder: Where the result lies.
        key: The content hash of inputs, recipe and engine under which the result may be kept.
        method: The method's name.
        recipe: The recipe with λ and every language's weight as numbers.
        scale: λ.
        inputs: The content hash of every language's adapter.
        rank: r of the merged adapter.
        vllm_rank: The least ``max_lora_rank`` of vLLM that serves it; None above the largest.
        energy_kept: Over all modules, the share of ‖ΔW‖²_F that the stored rank keeps.
        merged_norm: ‖ΔW‖_F of the result over all modules, λ included.
        input_norms: ‖ΔW‖_F of every language's adapter over all modules.
        mean_input_norm: Their mean over the languages.
        suggested_scale: The λ at which the merged norm is the mean of the inputs' norms: where a search may start,
            not what it finds. None where the method gives zero.
        discard_rate: Over all modules, the share of each language's kept entries that lost the vote.
        modules: Every module.
        seconds: Wall time.
        peak_memory_bytes: The most memory the process has held since it began.
        threads: Workers.
        device: What computed.
        reused: Inner products and thresholds that were kept from earlier merges, and those computed.
    """

    folder: Path
    key: str
    method: str
    recipe: Mapping[str, Any]
    scale: float
    inputs: Mapping[str, str]
    rank: int
    vllm_rank: int | None
    energy_kept: float
    merged_norm: float
    input_norms: Mapping[str, float]
    mean_input_norm: float
    suggested_scale: float | None
    discard_rate: Mapping[str, float]
    modules: tuple[ModuleReport, ...]
    seconds: float = 0.0
    peak_memory_bytes: int = 0
    threads: int = 1
    device: str = "cpu"
    reused: Mapping[str, int] | None = None

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
        """Return what ``merge_report.json`` says: what the inputs decide, where they came from, and what was measured.

        Only ``measured`` differs between two merges of the same inputs.
        """
        document = asdict(self)
        del document["folder"]
        measured = {name: document.pop(name) for name in MEASURED}
        return {**document, "provenance": dict(provenance), "measured": measured}


def served_rank(rank: int) -> int | None:
    """Return the least ``max_lora_rank`` of vLLM that serves a rank; None above the largest."""
    return next((served for served in SERVED_RANKS if served >= rank), None)


def read_report(folder: Path) -> MergeReport:
    """Read the report of a finished merge back; what was measured then is left out, for nothing was done now.

    Raises:
        OSError, ValueError, KeyError, TypeError: There is no report, or not one of this version.
    """
    document = json.loads((folder / REPORT_FILE).read_text(encoding="utf-8"))
    del document["provenance"], document["measured"]
    modules = tuple(ModuleReport(**module) for module in document.pop("modules"))
    return MergeReport(folder=folder, modules=modules, **document)
