"""A lineage as a picture, as PNG bytes: rows, adapters and releases from left to right, one line an adapter.

Texts come from the registry. They are drawn as they are, never read as formulas, and without what the font lacks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from adapterctl.fingerprint import short
from adapterctl.markdown import line
from adapterctl.pictures import new_figure, png

if TYPE_CHECKING:
    from adapterctl.workflows.lineage import Ancestor, Descendant, Lineage, Rows

_DOTS_PER_INCH = 130
_INCHES_A_LINE = 0.52
_MOST_LINES, _MOST_MADE = 100, 20
# Told apart by anybody's eyes, and in grey: by lightness, and what is gone by its dashes.
_ROWS, _ADAPTER, _MERGED, _BASE, _GONE = "#fff3d6", "#d6e8f5", "#cfe9d5", "#e6e6e6", "#ffffff"
_EDGE, _LOST = "#555555", "#b33a00"
_LINE = "#888888"
_LEFT, _MIDDLE, _RIGHT = 1.35, 4.85, 8.55
_BUS = 6.7
_READ_FIRST = 2.0
_WIDTH, _HEIGHT = 2.5, 0.78
_LONGEST = 30


def draw(found: Lineage) -> bytes:
    """Return the picture of a lineage: at most 100 adapters, the newest 20 releases, and how many more there are."""
    merged = bool(found.inputs) or found.source != ""
    lines = found.inputs if merged else (found.subject, *found.subject.continues)
    shown, made = lines[:_MOST_LINES], found.used_in[:_MOST_MADE]
    height = max(len(shown), len(made), 2)
    figure = new_figure(10.2, 0.9 + _INCHES_A_LINE * height, layout=None)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, 10)
    axes.set_ylim(height - 0.4, -2.0)
    _heads(axes, merged, (len(shown), len(lines)), (len(made), len(found.used_in)))
    _base(axes, found, shown)
    for place, one in enumerate(shown):
        _box(axes, _LEFT, place, _rows(one.rows), _ROWS if one.rows else _GONE)
        _box(axes, _MIDDLE, place, _adapter(one), _ADAPTER, lost=_lost(one))
        _arrow(axes, (_LEFT + _WIDTH / 2, place), (_MIDDLE - _WIDTH / 2, place))
    # What belongs together stands at the top, where one begins to read, however long the list is.
    if merged:
        centre = min((height - 1) / 2, _READ_FIRST)
        _box(axes, _RIGHT, centre, _release(found), _MERGED, tall=1.9)
        _bus(axes, range(len(shown)), _MIDDLE + _WIDTH / 2, (_RIGHT - _WIDTH / 2, centre))
    else:
        for place in range(1, len(shown)):
            _arrow(axes, (_MIDDLE, place - _HEIGHT / 2), (_MIDDLE, place - 1 + _HEIGHT / 2))
        for place, descendant in enumerate(made):
            _box(axes, _RIGHT, place, _made(descendant), _MERGED)
            _arrow(axes, (_BUS, place), (_RIGHT - _WIDTH / 2, place))
        if made:
            _line(axes, [_MIDDLE + _WIDTH / 2, _BUS, _BUS], [0, 0, len(made) - 1])
    return png(figure, dpi=_DOTS_PER_INCH)


def _heads(axes: Any, merged: bool, lines: tuple[int, int], made: tuple[int, int]) -> None:
    """Write what the columns are, and how much of each is shown."""
    middle, right = ("adapters", "merged adapter") if merged else ("this adapter, and those before it", "made from it")
    middle += f" ({lines[0]} of {lines[1]})" if lines[0] < lines[1] else ""
    right += f" (the newest {made[0]} of {made[1]})" if made[0] < made[1] else "" if merged or made[1] else ": nothing"
    for across, text in ((_LEFT, "training rows"), (_MIDDLE, middle), (_RIGHT, right)):
        axes.text(across, -0.78, text, ha="center", va="center", fontsize=9.5, fontweight="bold")


def _bus(axes: Any, places: range, start: float, end: tuple[float, float]) -> None:
    """Draw lines that come together in one, which leads to ``end``: a fan of 50 arrows would be one grey field."""
    for place in places:
        _line(axes, [start, _BUS], [place, place])
    if len(places):
        ends = [min(places[0], end[1]), max(places[-1], end[1])]
        _line(axes, [_BUS, _BUS], ends)
        _arrow(axes, (_BUS, end[1]), end)


def _box(
    axes: Any, across: float, place: float, text: str, colour: str, *, lost: bool = False, tall: float = 1.0
) -> None:
    from matplotlib.patches import FancyBboxPatch

    box = FancyBboxPatch(
        (across - _WIDTH / 2, place - _HEIGHT * tall / 2),
        _WIDTH,
        _HEIGHT * tall,
        boxstyle="round,pad=0,rounding_size=0.12",
        facecolor=_GONE if lost else colour,
        edgecolor=_LOST if lost else _EDGE,
        linestyle=(0, (4, 2)) if lost else "solid",
        linewidth=1.4 if lost else 0.8,
        zorder=2,
    )
    axes.add_patch(box)
    # A dollar sign would begin a formula.
    axes.text(across, place, text, ha="center", va="center", fontsize=7.5, linespacing=1.25, parse_math=False, zorder=3)


def _line(axes: Any, across: Sequence[float], down: Sequence[float]) -> None:
    # Where it meets an arrow it is not moved to the next pixel: the two would not meet.
    axes.plot(across, down, color=_LINE, linewidth=0.8, zorder=1, snap=False)


def _arrow(axes: Any, start: tuple[float, float], end: tuple[float, float]) -> None:
    style = {"arrowstyle": "-|>", "color": _LINE, "linewidth": 0.8, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", xy=end, xytext=start, arrowprops=style, zorder=1)


def _base(axes: Any, found: Lineage, shown: Sequence[Ancestor]) -> None:
    bases = {one.base for one in (found.subject, *shown) if any(one.base)}
    texts = sorted(f"{_plain(name)} {_plain(short(identity))}".strip() for name, identity in bases)
    text = f"base model of all: {texts[0]}" if len(texts) == 1 else "base model: not noted"
    if len(texts) > 1:
        text = f"{len(texts)} DIFFERENT base models: {', '.join(texts[:3])}"
    axes.text(
        _MIDDLE,
        -1.5,
        text,
        ha="center",
        va="center",
        fontsize=8.5,
        parse_math=False,
        bbox={"boxstyle": "round,pad=0.4", "facecolor": _BASE, "edgecolor": _LOST if len(texts) > 1 else _EDGE},
    )


def _plain(text: str, longest: int = _LONGEST) -> str:
    """Return a name with a question mark for what is not ASCII: the font lacks most of the world's letters."""
    return line(text, longest).encode("ascii", "replace").decode("ascii")


def _lost(one: Ancestor) -> bool:
    return one.state != "there" or bool(one.missing)


def _rows(rows: Rows | None) -> str:
    if rows is None:
        return "not noted"
    count = f"{rows.rows:,} rows" if rows.rows is not None else "rows"
    return f"{count}\n{_plain(short(rows.sha256))}".rstrip()


def _pointing(aliases: Sequence[str]) -> str:
    return f" ({', '.join(map(_plain, aliases))})"[: _LONGEST + 3] if aliases else ""


def _adapter(one: Ancestor) -> str:
    state = {"gone": "GONE: deleted", "replaced": "REPLACED by another adapter"}.get(one.state, "")
    state = state or (f"its {' and '.join(one.missing)} gone" if one.missing else _plain(short(one.content_hash)))
    return f"{_plain(one.name)} v{one.version}{_pointing(one.aliases)}\n{state}"


def _release(found: Lineage) -> str:
    subject = found.subject
    lines = [f"{_plain(subject.name)} v{subject.version}", _pointing(subject.aliases).strip(" ()")]
    method, scale = found.recipe.get("method", ""), found.recipe.get("lambda", "")
    lines.append(_plain(f"{method}, lambda {scale:g}" if isinstance(scale, float) else str(method)))
    gate = f"gate {found.gate}" if found.gate else ""
    lines.append(_plain(", ".join(part for part in (gate, short(subject.content_hash)) if part), 40))
    return "\n".join(part for part in lines if part)


def _made(one: Descendant) -> str:
    told = f"gate {one.gate}" if one.gate else "goes on from it"
    return f"{_plain(one.name)} v{one.version}{_pointing(one.aliases)}\n{_plain(told)}"
