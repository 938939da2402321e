"""What is worth saying of a merge, taken from its report."""

from __future__ import annotations

from adapterctl.merging.report import MergeReport

MOST_WORST = 5
"""How many modules are named of those that lost most."""

_NEGLIGIBLE = 1e-9


def lossless(energy_kept: float) -> bool:
    """Return whether a share of energy is everything but for rounding."""
    return energy_kept > 1 - _NEGLIGIBLE


def worst_modules(report: MergeReport) -> dict[str, float]:
    """Return the share of energy that the worst modules keep, worst first; empty where nothing was truncated."""
    lossy = sorted((found.energy_kept, found.module) for found in report.modules if not lossless(found.energy_kept))
    return {module: kept for kept, module in lossy[:MOST_WORST]}


def percent(share: float) -> str:
    """Return a share as a percentage that is 100 only where nothing is missing."""
    text = f"{share:.2%}"
    return "just under 100%" if text == "100.00%" and not lossless(share) else text
