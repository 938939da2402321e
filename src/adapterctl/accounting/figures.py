"""A picture of the books."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adapterctl.accounting.comparison import Comparison, Side, format_money, format_seconds
from adapterctl.files import write_bytes
from adapterctl.pictures import new_figure, png

_SHARE_OF_A_LETTER = 0.012
"""Width of a letter as a share of the longer bar; names wider than their segment are told by the legend only."""


def save(figure: Any, path: Path) -> Path:
    """Write a figure as a PNG that is the same for the same picture.

    Raises:
        StorageError: The disk is full, read-only or not permitted.
    """
    write_bytes(path, png(figure))
    return path


def _stack(axis: Any, comparison: Comparison, quantity: str, colours: dict[str, Any]) -> None:
    sides: tuple[Side, Side] = (comparison.update, comparison.retrain)
    longest = max(getattr(side, quantity).value for side in sides) or 1.0
    for row, side in enumerate(sides):
        left = 0.0
        for line in side.lines:
            amount = getattr(line, quantity)
            axis.barh(
                row,
                amount.value,
                left=left,
                color=colours[line.step],
                hatch=None if amount.measured else "///",
                edgecolor="white",
                label=line.step,
            )
            if amount.value >= _SHARE_OF_A_LETTER * (len(line.step) + 1) * longest:
                axis.text(left + amount.value / 2, row, line.step, ha="center", va="center", fontsize=8)
            left += amount.value
        total = getattr(side, quantity)
        shown = format_seconds(total.value) if quantity == "seconds" else format_money(total.value, side.currency)
        axis.text(left + longest * 0.01, row, total.text(shown), ha="left", va="center", fontsize=9)
    axis.set_yticks([0, 1], [side.name for side in sides])
    axis.invert_yaxis()
    axis.set_xlim(0, longest * 1.35)
    axis.locator_params(axis="x", nbins=6)
    axis.spines[["top", "right"]].set_visible(False)


def draw_comparison(comparison: Comparison, path: Path) -> Path:
    """Draw stacked bars of time and money by step, projected parts hatched and labelled, as a PNG.

    Raises:
        StorageError: The disk is full, read-only or not permitted.
    """
    from matplotlib import colormaps
    from matplotlib.patches import Patch

    palette = colormaps["Set2"]
    colours = {step: palette(position % palette.N) for position, step in enumerate(comparison.steps)}
    figure = new_figure(9, 4.2)
    axes = figure.subplots(2, 1)
    _stack(axes[0], comparison, "seconds", colours)
    axes[0].set_xlabel("wall seconds")
    _stack(axes[1], comparison, "money", colours)
    axes[1].set_xlabel(f"cost in {comparison.update.currency}")
    handles = [Patch(facecolor=colour, label=step) for step, colour in colours.items()]
    if not comparison.measured:
        handles.append(Patch(facecolor="lightgrey", edgecolor="white", hatch="///", label="projected, not measured"))
    figure.legend(handles=handles, loc="outside lower center", ncols=min(5, len(handles)), fontsize=8, frameon=False)
    title = f"{comparison.update.name} against {comparison.retrain.name}"
    figure.suptitle(title if comparison.measured else f"{title} (partly projected)")
    return save(figure, path)
