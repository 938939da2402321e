"""Figures and tables. What a figure looks like is judged by eye; here that it is made, and says what it should."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from adapterctl.evaluation import figures
from adapterctl.evaluation.report import language_table, metrics_table, scorecard_table, verdict_report, verdict_table
from adapterctl.evaluation.scorecard import Cell, Scorecard
from adapterctl.evaluation.verdict import CellVerdict, LanguageVerdict, Verdict


def cell(lang: str, task: str, value: float) -> Cell:
    return Cell(lang, task, 12, "accuracy", value, {"accuracy": value, "macro_f1": value / 2}, ())


CARD = Scorecard("merged/7", (cell("de", "label", 0.5), cell("de", "text", 0.75), cell("ja", "label", 0.875)))
GOOD = CellVerdict("de", "label", "accuracy", 12, 0.5, 0.625, 0.125, 0.05, 0.01, 0.2, 0.02, True, 0.3)
LOST = CellVerdict("ja", "text", "rouge_l", 40, 0.75, 0.5, -0.25, -0.3, -0.31, -0.2, 0.1, False, 0.05, tuple("abcdefg"))
FEW = CellVerdict("ja", "label", "accuracy", 9, 0.5, 0.5, 0.0, -0.2, -0.25, 0.25, 0.02, False, 0.4)
VERDICT = Verdict(
    passed=False,
    candidate="merged/8",
    champion="merged/7",
    cells=(GOOD, FEW, LOST),
    languages=(
        LanguageVerdict("de", 0.5, 0.625, 0.125, 0.01, 0.2, True),
        LanguageVerdict("ja", 0.75, 0.5, -0.25, -0.3, -0.2, False),
    ),
    confidence=0.95,
)


def size(png: bytes) -> tuple[int, int]:
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", png[16:24])


@pytest.mark.parametrize("draw", [lambda: figures.heat_map(CARD), lambda: figures.differences(VERDICT)])
def test_figures_are_png_of_a_readable_size_and_reproducible(draw):
    png = draw()
    width, height = size(png)
    assert 500 < width < 2500
    assert 300 < height < 2500
    assert draw() == png


def test_a_verdict_with_more_cells_makes_a_higher_figure():
    more = replace(VERDICT, cells=VERDICT.cells * 5)
    assert size(figures.differences(more))[1] > size(figures.differences(VERDICT))[1]


def test_passing_and_failing_differ_in_colour_and_shape():
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    for place, one in enumerate((GOOD, LOST)):
        figures._draw_cell(axes, place, one)
    points = [line for line in axes.lines if line.get_marker() in ("o", "X")]
    assert [line.get_marker() for line in points] == ["o", "X"]
    assert points[0].get_color() != points[1].get_color()


def test_scorecard_table():
    assert scorecard_table(CARD) == (
        "| language | label accuracy | text accuracy | mean |\n"
        "| --- | ---: | ---: | ---: |\n"
        "| de | 0.500 (12) | 0.750 (12) | 0.625 |\n"
        "| ja | 0.875 (12) | – | 0.875 |\n"
        "| **average** |  |  | **0.750** |"
    )


def test_metrics_table_has_all_metrics():
    assert "| ja | label | 12 | accuracy 0.875, macro_f1 0.438 |" in metrics_table(CARD)


def test_verdict_table():
    lines = verdict_table(VERDICT).splitlines()
    assert lines[2] == (
        "| de | label | accuracy | pass | 12 | 0.500 | 0.625 | +0.125 | +0.010 … +0.200 | +0.050 | -0.020 | 0.300 |"
    )
    assert "**FAIL**" in lines[4]
    assert len({line.count("|") for line in lines}) == 1


def test_language_table():
    assert "| ja | **FAIL** | 0.750 | 0.500 | -0.250 | -0.300 … -0.200 |" in language_table(VERDICT)


def test_the_report_says_why():
    text = verdict_report(VERDICT)
    assert "**Gate FAILED**: merged/8 against merged/7." in text
    assert "- ja, text: rouge_l 0.750 → 0.500; the loss may be 0.300, 0.100 is tolerated\n" in text
    assert "9 rows are too few to tell (they show losses from 0.400)" in text
    assert "- ja, text: a, b, c, d, e and 2 more" in text


def test_the_report_of_a_pass_is_short():
    text = verdict_report(replace(VERDICT, passed=True, cells=(GOOD,), languages=VERDICT.languages[:1]))
    assert "Gate passed" in text
    assert "Not shown" not in text
    assert "not compared" not in text
