"""Figures of matplotlib as PNG bytes: without a window system, and the same bytes for the same picture."""

from __future__ import annotations

from io import BytesIO
from typing import Any, Literal

DOTS_PER_INCH = 150


def new_figure(width: float, height: float, *, layout: Literal["constrained"] | None = "constrained") -> Any:
    """Return an empty ``matplotlib.figure.Figure`` of so many inches.

    pyplot would keep every figure and choose a window system.

    Args:
        width: In inches.
        height: In inches.
        layout: ``constrained`` finds a place for everything; None leaves what was placed by hand where it is.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout=layout)
    FigureCanvasAgg(figure)
    return figure


def png(figure: Any, *, dpi: int = DOTS_PER_INCH) -> bytes:
    """Return a figure as a PNG, which holds no version of matplotlib.

    Args:
        figure: What :func:`new_figure` gave, filled.
        dpi: Dots per inch.
    """
    buffer = BytesIO()
    engine = figure.get_layout_engine()
    if engine is not None:
        # Saving would draw everything once more, on nothing, to let the layout be found.
        figure.set_dpi(dpi)
        engine.execute(figure)
        figure.set_layout_engine("none")
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()
