"""Pictures of scorecards and verdicts, as PNG bytes.

Text in them is tags, task and metric names, so no font for Japanese or Chinese is needed. The outcomes of the gate
differ in colour and in shape.
"""

from __future__ import annotations

from collections.abc import Collection
from math import isnan
from typing import Any

from adapterctl.evaluation.catalogue import metric_of
from adapterctl.evaluation.report import worst_and_best
from adapterctl.evaluation.scorecard import Scorecard
from adapterctl.evaluation.verdict import CellVerdict, Outcome, Verdict
from adapterctl.pictures import new_figure, png

# Blue, vermilion and amber with different shapes: told apart with every kind of colour vision, and in grey.
_MARKS: dict[Outcome, tuple[str, str]] = {
    "pass": ("#0072b2", "o"),
    "inconclusive": ("#b8860b", "D"),
    "fail": ("#d55e00", "X"),
}
_GREY = "#666666"
_GAINED = ("#0072b2", "^", None)
_LOST = ("#d55e00", "v", "////")
_OPEN = ("#666666", "s", None)
_NAN = float("nan")
_DARK_BELOW = 0.55


def heat_map(scorecard: Scorecard, *, title: str = "") -> bytes:
    """Return a scorecard as a heat map, languages × tasks, with the mean of each language.

    Metrics that do not go from 0 to 1 stand in it as numbers without a colour.
    """
    languages, tasks = scorecard.languages, scorecard.tasks
    columns = [*tasks, "mean"]
    values = [_line(scorecard, lang) for lang in languages]
    coloured = [[value if counts else _NAN for value, counts in line] for line in values]
    figure = new_figure(2.2 + 1.5 * len(columns), 1.7 + 0.5 * len(languages))
    axes = figure.add_subplot()
    image = axes.imshow(coloured, cmap="cividis", vmin=0, vmax=1, aspect="auto")
    metrics = {cell.task: cell.primary for cell in scorecard.cells}
    axes.set_xticks(range(len(columns)), [f"{task}\n{metrics[task]}" for task in tasks] + ["mean"])
    axes.set_yticks(range(len(languages)), languages)
    axes.tick_params(length=0)
    for row, line in enumerate(values):
        for column, (value, counts) in enumerate(line):
            colour = "white" if counts and value <= _DARK_BELOW else "black"
            axes.text(column, row, "–" if isnan(value) else f"{value:.3f}", ha="center", va="center", color=colour)
    axes.axvline(len(tasks) - 0.5, color="white", linewidth=3)
    average = f" (average {scorecard.average:.3f})" if any(cell.averaged for cell in scorecard.cells) else ""
    axes.set_title(title or f"{scorecard.model}{average}", fontsize=11)
    figure.colorbar(image, ax=axes, label="metric, 0 to 1", shrink=0.9)
    return png(figure)


def _line(scorecard: Scorecard, lang: str) -> list[tuple[float, bool]]:
    """Return a language's values and its mean, each with whether it goes from 0 to 1; NaN where there is none."""
    found = [scorecard.find(lang, task) for task in scorecard.tasks]
    line = [(_NAN, False) if cell is None else (cell.value, cell.averaged) for cell in found]
    averaged = any(counts for _, counts in line)
    return [*line, (scorecard.language(lang) if averaged else _NAN, averaged)]


def differences(verdict: Verdict, *, title: str = "") -> bytes:
    """Return a verdict as a forest plot: difference, interval, one-sided bound and margin of every cell.

    Metrics that do not go from 0 to 1 are drawn as shares of the champion's value.
    """
    figure = new_figure(8.5, 2.1 + 0.34 * len(verdict.cells))
    axes = figure.add_subplot()
    for place, cell in enumerate(verdict.cells):
        _draw_cell(axes, place, cell)
    for place in range(1, len(verdict.cells)):
        if verdict.cells[place].lang != verdict.cells[place - 1].lang:
            axes.axhline(place - 0.5, color="#dddddd", linewidth=0.8)
    axes.axvline(0, color=_GREY, linewidth=0.8)
    axes.set_yticks(
        range(len(verdict.cells)),
        [f"{cell.lang}  {cell.task}, {_measured(cell)} (n={cell.n})" for cell in verdict.cells],
    )
    axes.set_ylim(len(verdict.cells) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(f"candidate − champion, metric points; lines: {verdict.confidence:.0%} interval")
    axes.set_title(title or f"{verdict.candidate} against {verdict.champion}: {_said(verdict)}", fontsize=11)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    figure.legend(handles=_legend(verdict.confidence), loc="outside lower center", ncols=5, frameon=False, fontsize=8)
    return png(figure)


def changes(verdict: Verdict, *, trained: Collection[str] = (), most: int = 60, title: str = "") -> bytes:
    """Return what changed for every language as bars with intervals, the largest gain on top.

    Shape and hatching tell a gain from a loss as well as the colour does; grey is what the rows do not show.

    Args:
        verdict: The gate's verdict.
        trained: Languages whose adapter is another one; they are marked.
        most: How many languages are drawn; the worst and the best where there are more.
        title: What stands above.
    """
    shown = sorted(worst_and_best(verdict, most, trained), key=lambda one: -one.difference)
    figure = new_figure(8.5, 1.9 + 0.3 * max(3, len(shown)))
    axes = figure.add_subplot()
    for place, one in enumerate(shown):
        gained, lost = one.low > 0, one.high < 0
        colour, shape, hatch = _GAINED if gained else _LOST if lost else _OPEN
        axes.barh(place, one.difference, height=0.62, color=colour, alpha=0.45, hatch=hatch, edgecolor=colour, lw=0.6)
        axes.plot([one.low, one.high], [place, place], color=colour, linewidth=1.8, solid_capstyle="butt")
        axes.plot([one.difference], [place], marker=shape, color=colour, markersize=7, linestyle="none")
    names = [f"{one.lang}  (changed)" if one.lang in trained else one.lang for one in shown]
    axes.axvline(0, color=_GREY, linewidth=0.8)
    axes.set_yticks(range(len(shown)), names)
    for label, one in zip(axes.get_yticklabels(), shown, strict=True):
        label.set_fontweight("bold" if one.lang in trained else "normal")
    # Room on both sides: a bar that begins at the border looks cut.
    low, high = min([0.0, *(one.low for one in shown)]), max([0.0, *(one.high for one in shown)])
    room = max(0.12 * (high - low), 0.004)
    axes.set_xlim(low - room, high + room)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(f"candidate − champion, mean over tasks; lines: {verdict.confidence:.0%} interval")
    left_out = len(verdict.languages) - len(shown)
    told = title or f"Change by language: {verdict.candidate} against {verdict.champion}"
    axes.set_title(told + (f" ({left_out} between them left out)" if left_out else ""), fontsize=11)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    figure.legend(handles=_change_legend(), loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    return png(figure)


def _change_legend() -> list[Any]:
    from matplotlib.lines import Line2D

    told = {"better": _GAINED, "worse": _LOST, "not shown: the interval holds 0": _OPEN}
    return [
        Line2D([], [], marker=shape, color=colour, linestyle="none", label=name)
        for name, (colour, shape, _) in told.items()
    ]


def _said(verdict: Verdict) -> str:
    counted = {"failed": len(verdict.failed), "inconclusive": len(verdict.undecided)}
    told = [f"{word} in {count} of {len(verdict.cells)}" for word, count in counted.items() if count]
    if verdict.gain is not None and verdict.gain.outcome != "pass":
        told.append("required gain not shown")
    return ", ".join(told) or "passed"


def _draw_cell(axes: Any, place: int, cell: CellVerdict) -> None:
    colour, shape = _MARKS[cell.outcome]
    whole = 1.0 if metric_of(cell.metric).averaged else abs(cell.champion) or 1.0
    low, bound, value, high, limit = (
        one / whole for one in (cell.low, cell.lower_bound, cell.difference, cell.high, -cell.margin)
    )
    axes.plot([low, high], [place, place], color=colour, linewidth=1.6, solid_capstyle="butt")
    axes.plot([bound], [place], marker="|", color=colour, markersize=9, markeredgewidth=1.6)
    axes.plot([value], [place], marker=shape, color=colour, markersize=8, linestyle="none")
    axes.plot([limit] * 2, [place - 0.5, place + 0.5], color="black", linestyle=(0, (3, 2)), linewidth=1.1)


def _measured(cell: CellVerdict) -> str:
    return cell.metric if metric_of(cell.metric).averaged else f"{cell.metric}, share"


def _legend(confidence: float) -> list[Any]:
    from matplotlib.lines import Line2D

    return [
        *(
            Line2D([], [], marker=shape, color=colour, linestyle="none", label=outcome)
            for outcome, (colour, shape) in _MARKS.items()
        ),
        Line2D([], [], marker="|", color=_GREY, markersize=9, linestyle="none", label=f"lower {confidence:.0%} bound"),
        Line2D([], [], color="black", linestyle=(0, (3, 2)), label="margin: the bound must lie to its right"),
    ]
