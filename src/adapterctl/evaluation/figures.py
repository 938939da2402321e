"""Pictures of scorecards and verdicts, as PNG bytes.

Text in them is tags, task and metric names, so no font for Japanese or Chinese is needed. Passing and failing differ
in colour and in shape.
"""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any

from adapterctl.evaluation.scorecard import Scorecard
from adapterctl.evaluation.verdict import CellVerdict, Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DOTS_PER_INCH = 150
_PASSED, _FAILED = "#0072b2", "#d55e00"  # blue and vermilion: told apart with every kind of colour vision
_GREY = "#666666"


def _png(figure: Figure) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = BytesIO()
    FigureCanvasAgg(figure)
    # Without the version of matplotlib in the file: the same values give the same bytes.
    figure.savefig(buffer, format="png", dpi=_DOTS_PER_INCH, metadata={"Software": None})
    return buffer.getvalue()


def heat_map(scorecard: Scorecard, *, title: str = "") -> bytes:
    """Return a scorecard as a heat map, languages × tasks, with the mean of each language."""
    from matplotlib.figure import Figure

    languages, tasks = scorecard.languages, scorecard.tasks
    cells = {(cell.lang, cell.task): cell for cell in scorecard.cells}
    columns = [*tasks, "mean"]
    values = [
        [
            *(cells[lang, task].value if (lang, task) in cells else float("nan") for task in tasks),
            scorecard.language(lang),
        ]
        for lang in languages
    ]
    figure = Figure(figsize=(2.2 + 1.5 * len(columns), 1.7 + 0.5 * len(languages)), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(values, cmap="cividis", vmin=0, vmax=1, aspect="auto")
    metrics = {cell.task: cell.primary for cell in scorecard.cells}
    axes.set_xticks(range(len(columns)), [f"{task}\n{metrics[task]}" for task in tasks] + ["mean"])
    axes.set_yticks(range(len(languages)), languages)
    axes.tick_params(length=0)
    for row, line in enumerate(values):
        for column, value in enumerate(line):
            missing = value != value
            colour = "black" if value > 0.55 or missing else "white"
            axes.text(column, row, "–" if missing else f"{value:.3f}", ha="center", va="center", color=colour)
    axes.axvline(len(tasks) - 0.5, color="white", linewidth=3)
    axes.set_title(title or f"{scorecard.model} (average {scorecard.average:.3f})", fontsize=11)
    figure.colorbar(image, ax=axes, label="metric, 0 to 1", shrink=0.9)
    return _png(figure)


def differences(verdict: Verdict, *, title: str = "") -> bytes:
    """Return a verdict as a forest plot: difference, interval, one-sided bound and margin of every cell."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.5, 2.1 + 0.34 * len(verdict.cells)), layout="constrained")
    axes = figure.add_subplot()
    for place, cell in enumerate(verdict.cells):
        _draw_cell(axes, place, cell)
    for place in range(1, len(verdict.cells)):
        if verdict.cells[place].lang != verdict.cells[place - 1].lang:
            axes.axhline(place - 0.5, color="#dddddd", linewidth=0.8)
    axes.axvline(0, color=_GREY, linewidth=0.8)
    axes.set_yticks(
        range(len(verdict.cells)), [f"{cell.lang}  {cell.task}, {cell.metric} (n={cell.n})" for cell in verdict.cells]
    )
    axes.set_ylim(len(verdict.cells) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(f"candidate − champion, metric points; lines: {verdict.confidence:.0%} interval")
    said = "passed" if verdict.passed else f"failed in {len(verdict.failed)} of {len(verdict.cells)}"
    axes.set_title(title or f"{verdict.candidate} against {verdict.champion}: {said}", fontsize=11)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    figure.legend(handles=_legend(verdict.confidence), loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    return _png(figure)


def _draw_cell(axes: Any, place: int, cell: CellVerdict) -> None:
    colour, shape = (_PASSED, "o") if cell.passed else (_FAILED, "X")
    axes.plot([cell.low, cell.high], [place, place], color=colour, linewidth=1.6, solid_capstyle="butt")
    axes.plot([cell.lower_bound], [place], marker="|", color=colour, markersize=9, markeredgewidth=1.6)
    axes.plot([cell.difference], [place], marker=shape, color=colour, markersize=8, linestyle="none")
    axes.plot([-cell.margin] * 2, [place - 0.5, place + 0.5], color="black", linestyle=(0, (3, 2)), linewidth=1.1)


def _legend(confidence: float) -> list[Any]:
    from matplotlib.lines import Line2D

    return [
        Line2D([], [], marker="o", color=_PASSED, linestyle="none", label="passed"),
        Line2D([], [], marker="X", color=_FAILED, linestyle="none", label="failed"),
        Line2D([], [], marker="|", color=_GREY, markersize=9, linestyle="none", label=f"lower {confidence:.0%} bound"),
        Line2D([], [], color="black", linestyle=(0, (3, 2)), label="margin: the bound must lie to its right"),
    ]
