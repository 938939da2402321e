"""Pictures of merged adapters against one combined adapter: scenarios side by side, and cumulative cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from adapterctl.accounting.amounts import Amount
from adapterctl.accounting.figures import save
from adapterctl.accounting.formats import format_money
from adapterctl.accounting.scenarios import BreakEven, Point, Quantity, ScenarioCosts
from adapterctl.pictures import new_figure

MERGED, COMBINED = "merged adapters", "one combined adapter"
_COLOURS = {MERGED: "#1b7f79", COMBINED: "#c8642b"}
_TITLES: dict[Quantity, str] = {"wall": "Time until it is done", "money": "Money"}
_SUMS: dict[Quantity, str] = {"wall": "Waiting time, added up", "money": "Money, added up"}
_TIME_UNITS = ((7200.0, 3600.0, "hours", "h"), (120.0, 60.0, "minutes", "min"), (0.0, 1.0, "seconds", "s"))


@dataclass(frozen=True)
class _Scale:
    """The unit of an axis, and how a single number is written."""

    divisor: float
    label: str
    form: Callable[[float], str]


def _scale(quantity: Quantity, largest: float, currency: str) -> _Scale:
    if quantity == "money":
        return _Scale(1.0, currency, partial(_money, currency=currency))
    _, divisor, name, short = next(unit for unit in _TIME_UNITS if largest >= unit[0])
    # All numbers of a picture in the unit of its axis, so that they can be compared at a glance.
    return _Scale(divisor, name, lambda seconds: f"{_digits(seconds / divisor)} {short}")


def _digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def _money(amount: float, currency: str) -> str:
    return f"{amount:,.0f} {currency}" if amount >= 1000 else format_money(amount, currency)


def _any_above_zero(found: Sequence[Amount]) -> bool:
    return any(amount.value > 0 for amount in found)


def draw_scenarios(costs: Sequence[ScenarioCosts], currency: str, path: Path) -> Path:
    """Draw every scenario in both ways as bars of time and money, projections hatched with their intervals, as a PNG.

    Raises:
        StorageError: The disk is full, read-only or not permitted.
    """
    from matplotlib.patches import Patch

    shown: list[Quantity] = ["wall"]
    if _any_above_zero([one.combined.money for one in costs]):
        shown.append("money")
    figure = new_figure(5.6 * len(shown) + 1.2, 1.6 + 1.25 * len(costs))
    figure.suptitle("Merged adapters against one combined adapter", fontweight="bold")
    axes = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    for axis, quantity in zip(axes, shown, strict=True):
        _bars(axis, costs, quantity, currency)
    axes[0].set_yticks([3 * row + 0.5 for row in range(len(costs))], [one.name for one in costs], fontsize=11)
    axes[0].invert_yaxis()
    handles = [Patch(facecolor=colour, label=name) for name, colour in _COLOURS.items()]
    every = [getattr(cell, quantity) for one in costs for cell in (one.merged, one.combined) for quantity in shown]
    if not all(amount.measured for amount in every):
        handles.append(Patch(facecolor="#d9d9d9", edgecolor="white", hatch="///", label="projected, not measured"))
    if any(amount.has_interval for amount in every):
        handles.append(Patch(facecolor="none", edgecolor="none", label="├─┤ range of the measured speeds"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=9, frameon=False)
    return save(figure, path)


def _bars(axis: Any, costs: Sequence[ScenarioCosts], quantity: Quantity, currency: str) -> None:
    amounts = {MERGED: [getattr(one.merged, quantity) for one in costs]}
    amounts[COMBINED] = [getattr(one.combined, quantity) for one in costs]
    largest = max(amount.most for row in amounts.values() for amount in row) or 1.0
    scale = _scale(quantity, largest, currency)
    for offset, (name, row) in enumerate(amounts.items()):
        for place, amount in enumerate(row):
            at, value = 3 * place + offset, amount.value / scale.divisor
            hatch = None if amount.measured else "///"
            axis.barh(at, value, height=0.9, color=_COLOURS[name], hatch=hatch, edgecolor="white", linewidth=0.5)
            if amount.has_interval:
                ends = [[value - amount.least / scale.divisor], [amount.most / scale.divisor - value]]
                axis.errorbar(value, at, xerr=ends, color="#333333", capsize=3, linewidth=1)
            text = ("" if amount.measured else "~") + scale.form(amount.value)
            saved = _saving(costs[place], quantity) if name == MERGED else ""
            axis.annotate(
                text + saved,
                (amount.most / scale.divisor, at),
                xytext=(5, 0),
                textcoords="offset points",
                va="center",
                fontsize=9,
                fontweight="bold" if saved else "normal",
            )
    axis.set_xlim(0, largest / scale.divisor * 1.5)
    axis.locator_params(axis="x", nbins=5)
    axis.set_xlabel(scale.label)
    axis.set_title(_TITLES[quantity], fontsize=11, loc="left")
    axis.spines[["top", "right"]].set_visible(False)


def _saving(one: ScenarioCosts, quantity: Quantity) -> str:
    saved = one.time_saved if quantity == "wall" else one.money_saved
    if saved is None or abs(saved.value) < 0.0005:
        return ""
    about = "" if saved.measured else "~"
    return f"  ({about}{abs(saved.value) * 100:.0f} % {'less' if saved.value > 0 else 'more'})"


def draw_cumulative(
    series: Mapping[Quantity, Sequence[Point]],
    *,
    title: str,
    axis_label: str,
    start_label: str,
    currency: str,
    path: Path,
    even: Mapping[Quantity, BreakEven] | None = None,
) -> Path:
    """Draw what both ways have cost so far along an axis, measured solid, projected dashed with its band, as a PNG.

    Args:
        series: The points of time and money.
        title: What the picture is called.
        axis_label: What the axis counts.
        start_label: What the first point is.
        currency: Of the money.
        path: The picture's file.
        even: Where merging becomes cheaper, marked where it is inside the picture.

    Raises:
        StorageError: The disk is full, read-only or not permitted.
    """
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    shown: list[Quantity] = [
        quantity for quantity, points in series.items() if _any_above_zero([point.combined for point in points])
    ]
    figure = new_figure(5.6 * len(shown) + 0.8, 4.7)
    figure.suptitle(title, fontweight="bold")
    axes = figure.subplots(1, len(shown), squeeze=False)[0]
    for axis, quantity in zip(axes, shown, strict=True):
        points = series[quantity]
        scale = _scale(quantity, max(max(point.merged.most, point.combined.most) for point in points), currency)
        top = max(max(point.merged.most, point.combined.most) for point in points) / scale.divisor
        axis.set_ylim(0, 1.1 * (top or 1.0))
        for name, side in zip((MERGED, COMBINED), _sides(points[-1], top * scale.divisor), strict=True):
            _curve(axis, points, name, scale, side)
        axis.set_title(_SUMS[quantity], fontsize=11, loc="left")
        axis.set_xlabel(f"{axis_label} (first point: {start_label})")
        axis.set_ylabel(scale.label)
        length = points[-1].at - points[0].at
        axis.set_xlim(points[0].at - 0.02 * length, points[-1].at + 0.42 * length)
        axis.set_xticks(_ticks(points))
        axis.spines[["top", "right"]].set_visible(False)
        if even is not None:
            _mark(axis, points, even[quantity])
    every = [amount for quantity in shown for point in series[quantity] for amount in (point.merged, point.combined)]
    handles: list[Any] = [
        Line2D([], [], color=_COLOURS[name], marker="o", markersize=4, label=name) for name in _COLOURS
    ]
    if not all(amount.measured for amount in every):
        handles.append(Line2D([], [], color="#555555", linestyle="--", label="projected, not measured"))
    if any(amount.has_interval for amount in every):
        handles.append(Patch(facecolor="#555555", alpha=0.18, label="range of the projection"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=9, frameon=False)
    return save(figure, path)


def _sides(last: Point, top: float) -> tuple[str, str]:
    """Return on which side of their curves' ends the names of merged and combined stand, so that both can be read."""
    if abs(last.merged.value - last.combined.value) > 0.16 * top:
        return "center", "center"
    return ("bottom", "top") if last.merged.value > last.combined.value else ("top", "bottom")


def _curve(axis: Any, points: Sequence[Point], name: str, scale: _Scale, side: str) -> None:
    amounts = [point.merged if name == MERGED else point.combined for point in points]
    places, values = [point.at for point in points], [amount.value / scale.divisor for amount in amounts]
    # A sum is measured as long as all its parts are: the measured points come first.
    measured = sum(amount.measured for amount in amounts)
    colour = _COLOURS[name]
    if measured:
        axis.plot(places[:measured], values[:measured], color=colour, linewidth=2.2, zorder=3)
        axis.plot(places[:measured], values[:measured], "o", color=colour, markersize=5, zorder=4)
    start = max(0, measured - 1)
    axis.plot(places[start:], values[start:], color=colour, linewidth=1.8, linestyle="--", zorder=2)
    least, most = ([getattr(amount, end) / scale.divisor for amount in amounts] for end in ("least", "most"))
    axis.fill_between(places, least, most, color=colour, alpha=0.18, linewidth=0)
    last = amounts[-1]
    axis.annotate(
        f"{name}\n{'' if last.measured else '~'}{scale.form(last.value)}",
        (places[-1], values[-1]),
        xytext=(6, 0),
        textcoords="offset points",
        va=side,
        color=colour,
        fontsize=9,
        fontweight="bold",
    )


def _ticks(points: Sequence[Point]) -> list[int]:
    step = max(1, -(-(len(points) - 1) // 8))
    return [point.at for point in points[::step]]


def _mark(axis: Any, points: Sequence[Point], even: BreakEven) -> None:
    if even.first is None or even.first > points[-1].at:
        return
    if even.first == 0:
        text = "merging is ahead from the start" if even.last is None else f"merging is ahead up to update {even.last}"
        axis.text(0.03, 0.96, text, transform=axis.transAxes, fontsize=9, va="top", color="#333333")
        return
    axis.axvline(even.first, color="#888888", linewidth=1, linestyle=":")
    axis.annotate(
        f"merging is ahead\nfrom update {even.first} on",
        # Sums only rise: right of the line and above the axis there is room.
        (even.first, 0),
        xytext=(5, 5),
        textcoords="offset points",
        va="bottom",
        fontsize=9,
        color="#333333",
    )
