"""A figure as bytes."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import pytest

from adapterctl.pictures import new_figure, png


def drawn(**options: Any) -> Any:
    figure = new_figure(6, 3, **options)
    for axes in figure.subplots(1, 2):
        figure.colorbar(axes.imshow([[0.1, 0.2], [0.3, 0.4]]), ax=axes, label="a name that takes room")
        axes.set_title("a title")
    figure.suptitle("above both")
    return figure


@pytest.mark.parametrize("dpi", [60, 150])
@pytest.mark.parametrize("options", [{}, {"layout": None}], ids=["constrained", "by hand"])
def test_it_is_what_matplotlib_saves(options: dict[str, Any], dpi: int) -> None:
    expected = BytesIO()
    drawn(**options).savefig(expected, format="png", dpi=dpi, metadata={"Software": None})
    found = png(drawn(**options), dpi=dpi)
    assert found == expected.getvalue()
    assert b"atplotlib" not in found
    assert png(drawn(**options), dpi=dpi) == found
