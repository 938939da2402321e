"""A picture of how the adapters of several languages interfere, as PNG bytes.

Text in it is language tags and numbers, so no font for Japanese or Chinese is needed. Colours tell apart with every
kind of colour vision, and few languages have their numbers written into the cells.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from adapterctl.merging.interference import Interference, PairInterference, PartInterference
from adapterctl.pictures import new_figure, png

_WRITTEN = 8
"""So many languages at most have their numbers written into the cells."""

_PAIRS = 28
"""So many pairs at most are drawn layer by layer: those whose cosine is largest, whatever its sign."""

_MISSING = "#e6e6e6"
_NAN = float("nan")


def interference_figure(found: Interference, *, title: str = "") -> bytes:
    """Return what was found as heat maps.

    Above: languages × languages, for the cosine of the deltas, the overlap of what their A read and of where their B
    write, and the share of entries with opposite signs. Below: the cosine of every pair in every layer, and how each
    language's energy is spread over the layers.
    """
    count = len(found.languages)
    pairs = _strongest(found)
    side = 1.15 + 0.42 * max(3, min(count, 6)) if pairs else 0.0
    below = [*([0.9 + 0.24 * len(pairs)] if pairs else []), 1.0 + 0.24 * count]
    figure = new_figure(max(4 * (side + 0.75), 10.0), side + sum(below) + 0.9)
    bands: Any = figure.subfigures(2, 1, height_ratios=[side or 0.01, sum(below)])
    panels = bands[1].subplots(len(below), 1, height_ratios=below, squeeze=False)[:, 0]
    if pairs:
        _draw_squares(bands[0], found)
        _draw_cosines(panels[0], found, pairs)
    _draw_energy(panels[-1], found)
    told = f"Interference of {count} adapters" if pairs else f"The adapter of {found.languages[0]}"
    figure.suptitle(title or f"{told}, {found.modules} modules", fontsize=13)
    return png(figure)


def interference_summary(found: Interference, *, title: str = "") -> bytes:
    """Return the two numbers that a reviewer looks at, for every pair of languages: cosine and opposite signs.

    It is drawn in a fraction of the time that the whole figure takes.
    """
    side, names = 0.9 + 0.5 * max(4, min(len(found.languages), 16)), max(map(len, found.languages))
    margin = 0.3 + 0.09 * min(names, 24)
    width, height = 2 * (side + margin) + 0.4, side + margin + 1.6
    # Placed by hand: to find a place for everything takes longer than to draw it.
    figure = new_figure(width, height, layout=None)
    _draw_squares(figure, found, ("cosine of ΔW", "opposite signs (0.5: unrelated)"))
    figure.subplots_adjust(
        left=margin / width, right=1 - 0.2 / width, top=1 - 0.68 / height, bottom=0.1 / height, wspace=margin / side
    )
    told = title or f"Interference of {len(found.languages)} adapters, {found.modules} modules"
    figure.suptitle(told, fontsize=12, y=1 - 0.12 / height, va="top")
    return png(figure)


def _strongest(found: Interference) -> list[tuple[str, str]]:
    ordered = sorted(found.whole.pairs, key=lambda pair: -abs(pair.cosine or 0.0))[:_PAIRS]
    shown = {pair.languages for pair in ordered}
    return [pair.languages for pair in found.whole.pairs if pair.languages in shown]


def _spread(values: Sequence[float], centre: float, least: float) -> float:
    """Return how far a scale around ``centre`` must reach."""
    return max([least, *(abs(value - centre) for value in values if value == value)])


def _draw_squares(band: Any, found: Interference, only: Sequence[str] = ()) -> None:
    whole = found.whole
    far = _spread(_all(found, lambda pair: pair.cosine), 0.0, 0.05)
    wide = _spread([_number(pair.sign_conflict) for pair in whole.pairs], 0.5, 0.05)
    panels: list[tuple[str, Callable[[PairInterference], float | None], str, float, float]] = [
        ("cosine of ΔW", lambda pair: pair.cosine, "RdBu_r", -far, far),
        (f"overlap of A (by chance {_chance(whole, 'chance_a')})", lambda pair: pair.overlap_a, "cividis", 0.0, 1.0),
        (f"overlap of B (by chance {_chance(whole, 'chance_b')})", lambda pair: pair.overlap_b, "cividis", 0.0, 1.0),
        ("opposite signs (0.5: unrelated)", lambda pair: pair.sign_conflict, "PuOr_r", 0.5 - wide, 0.5 + wide),
    ]
    panels = [panel for panel in panels if not only or panel[0] in only]
    for axes, (name, value, colours, low, high) in zip(band.subplots(1, len(panels)), panels, strict=True):
        grid = [[_of_two(whole, one, other, value) for other in found.languages] for one in found.languages]
        image = _grid(axes, grid, colours, low, high, written=len(found.languages) <= _WRITTEN)
        turned = 90 if len(found.languages) > _WRITTEN else 0
        axes.set_xticks(range(len(found.languages)), found.languages, rotation=turned)
        axes.set_yticks(range(len(found.languages)), found.languages)
        axes.set_aspect("equal")
        axes.set_title(name, fontsize=10)
        pad = 0.03 if not only else 0.12
        bar = band.colorbar(image, ax=axes, orientation="horizontal", shrink=0.9, aspect=24, pad=pad)
        bar.ax.tick_params(labelsize=8)
        bar.ax.locator_params(nbins=5)


def _chance(part: PartInterference, name: str) -> str:
    values = [value for pair in part.pairs if (value := getattr(pair, name)) is not None]
    return f"{sum(values) / len(values):.2f}" if values else "–"


def _draw_cosines(axes: Any, found: Interference, pairs: Sequence[tuple[str, str]]) -> None:
    far = _spread(_all(found, lambda pair: pair.cosine), 0.0, 0.05)
    grid = [[_number(layer.pair(*pair).cosine) for layer in found.layers] for pair in pairs]
    image = _grid(axes, grid, "RdBu_r", -far, far, written=False)
    axes.set_yticks(range(len(pairs)), [" – ".join(pair) for pair in pairs], fontsize=8.5)
    _name_layers(axes, found.layers)
    left_out = len(found.whole.pairs) - len(pairs)
    axes.set_title("cosine of ΔW by layer" + (f" ({left_out} weaker pairs left out)" if left_out else ""), fontsize=10)
    axes.figure.colorbar(image, ax=axes, aspect=14, pad=0.01).ax.tick_params(labelsize=8)


def _draw_energy(axes: Any, found: Interference) -> None:
    grid = [[layer.energy[lang] for layer in found.layers] for lang in found.languages]
    image = _grid(axes, grid, "cividis", 0.0, max(map(max, grid), default=1.0) or 1.0, written=False)
    axes.set_yticks(range(len(found.languages)), found.languages, fontsize=8.5)
    _name_layers(axes, found.layers)
    axes.set_title("share of each language's energy ‖ΔW‖² by layer", fontsize=10)
    bar = axes.figure.colorbar(image, ax=axes, aspect=10, pad=0.01)
    bar.ax.yaxis.set_major_formatter(lambda value, _: f"{value:.1%}")
    bar.ax.tick_params(labelsize=8)


def _name_layers(axes: Any, layers: Sequence[PartInterference]) -> None:
    step = max(1, -(-len(layers) // 32))
    places = list(range(0, len(layers), step))
    names = [layers[place].name if layers[place].name.isdigit() else "other" for place in places]
    axes.set_xticks(places, names, fontsize=8.5)
    axes.set_xlabel("layer", fontsize=9)


def _grid(axes: Any, grid: list[list[float]], colours: str, low: float, high: float, *, written: bool) -> Any:
    from matplotlib import colormaps

    palette = colormaps[colours].with_extremes(bad=_MISSING)
    image = axes.imshow(grid, cmap=palette, vmin=low, vmax=high, aspect="auto", interpolation="nearest")
    axes.tick_params(length=0)
    axes.set_xticks([place - 0.5 for place in range(1, len(grid[0]))], minor=True)
    axes.set_yticks([place - 0.5 for place in range(1, len(grid))], minor=True)
    axes.grid(which="minor", color="white", linewidth=0.8)
    axes.tick_params(which="minor", length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    if written:
        for row, line in enumerate(grid):
            for column, value in enumerate(line):
                if value == value:
                    red, green, blue, _ = palette((value - low) / (high - low))
                    dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
                    colour = "white" if dark else "black"
                    axes.text(
                        column,
                        row,
                        f"{value:.2f}".replace("-", "−"),
                        ha="center",
                        va="center",
                        color=colour,
                        fontsize=8.5,
                    )
    return image


def _of_two(part: PartInterference, one: str, other: str, value: Callable[[PairInterference], float | None]) -> float:
    return _NAN if one == other else _number(value(part.pair(one, other)))


def _all(found: Interference, value: Callable[[PairInterference], float | None]) -> list[float]:
    return [_number(value(pair)) for part in (found.whole, *found.layers) for pair in part.pairs]


def _number(value: float | None) -> float:
    return _NAN if value is None else value
