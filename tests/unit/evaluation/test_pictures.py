"""Figures and tables. What a figure looks like is judged by eye; here that it is made, and says what it should."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from adapterctl.evaluation import figures
from adapterctl.evaluation.report import (
    change_table,
    language_table,
    signed,
    verdict_report,
    verdict_table,
    why,
    worst_and_best,
)
from adapterctl.evaluation.scorecard import Cell, Scorecard
from adapterctl.evaluation.verdict import CellVerdict, GainVerdict, LanguageVerdict, Verdict


def cell(lang: str, task: str, value: float) -> Cell:
    return Cell(lang, task, 12, "accuracy", value, {"accuracy": value, "macro_f1": value / 2}, ())


CARD = Scorecard("merged/7", (cell("de", "label", 0.5), cell("de", "text", 0.75), cell("ja", "label", 0.875)))
GOOD = CellVerdict("de", "label", "accuracy", 12, 0.5, 0.625, 0.125, 0.05, 0.01, 0.2, 0.02, "pass", 0.3, 12)
LOST = CellVerdict(
    "ja", "text", "rouge_l", 40, 0.75, 0.5, -0.25, -0.3, -0.31, -0.2, 0.1, "fail", 0.05, 20, unpaired=tuple("abcdefg")
)
FEW = CellVerdict("ja", "label", "accuracy", 9, 0.5, 0.5, 0.0, -0.2, -0.25, 0.25, 0.02, "inconclusive", 0.4, 9)
VERDICT = Verdict(
    candidate="merged/8",
    champion="merged/7",
    cells=(GOOD, FEW, LOST),
    languages=(
        LanguageVerdict("de", 0.5, 0.625, 0.125, 0.01, 0.2, "pass", 0.004, 0.008, True),
        LanguageVerdict("ja", 0.75, 0.5, -0.25, -0.3, -0.2, "fail", 1.0),
    ),
    confidence=0.95,
)

GAIN = GainVerdict("de", 0.05, 0.1, 0.02, "inconclusive")


def size(png: bytes) -> tuple[int, int]:
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", png[16:24])


@pytest.mark.parametrize(
    "draw",
    [
        lambda: figures.heat_map(CARD),
        lambda: figures.differences(VERDICT),
        lambda: figures.changes(VERDICT, trained=["ja"]),
    ],
)
def test_figures_are_png_of_a_readable_size_and_reproducible(draw):
    png = draw()
    width, height = size(png)
    assert 500 < width < 2500
    assert 300 < height < 2500
    assert draw() == png


def test_a_verdict_with_more_cells_makes_a_higher_figure():
    more = replace(VERDICT, cells=VERDICT.cells * 5)
    assert size(figures.differences(more))[1] > size(figures.differences(VERDICT))[1]


def test_the_three_outcomes_differ_in_colour_and_shape():
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    for place, one in enumerate((GOOD, FEW, LOST)):
        figures._draw_cell(axes, place, one)
    points = [line for line in axes.lines if line.get_marker() in ("o", "D", "X")]
    assert [line.get_marker() for line in points] == ["o", "D", "X"]
    assert len({line.get_color() for line in points}) == 3
    assert [handle.get_label() for handle in figures._legend(0.95)[:3]] == ["pass", "inconclusive", "fail"]


def test_other_scales_are_drawn_as_shares_of_the_champion():
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    read = replace(LOST, metric="perplexity", champion=40.0, candidate=44.0, difference=-4.0, margin=0.8)
    figures._draw_cell(axes, 0, read)
    assert axes.lines[2].get_xdata()[0] == pytest.approx(-0.1)
    assert axes.lines[3].get_xdata()[0] == pytest.approx(-0.02)
    assert figures._measured(read) == "perplexity, share"
    assert figures._measured(GOOD) == "accuracy"


@pytest.mark.parametrize(
    ("cells", "gain", "said"),
    [
        ((GOOD,), None, "passed"),
        ((GOOD, LOST, FEW), None, "failed in 1 of 3, inconclusive in 1 of 3"),
        ((GOOD,), GAIN, "required gain not shown"),
    ],
)
def test_the_title_says_the_answer(cells, gain, said):
    assert figures._said(replace(VERDICT, cells=cells, gain=gain)) == said


def test_metrics_that_do_not_go_from_0_to_1_have_no_colour_and_no_mean():
    read = Cell("de", "read", 5, "perplexity", 31.5, {"perplexity": 31.5}, ())
    only = Scorecard("base", (read,))
    assert size(figures.heat_map(only))[0] > 300
    assert figures._line(Scorecard("m", (*CARD.cells, read)), "de") == [
        (0.5, True), (31.5, False), (0.75, True), (0.625, True),
    ]  # fmt: skip


def test_verdict_table():
    lines = verdict_table(VERDICT).splitlines()
    assert lines[2] == (
        "| de | label | accuracy | pass | 12 | 0.500 | 0.625 | +0.125 | +0.010 … +0.200 | +0.050 | -0.020 | 0.300 |"
    )
    assert "*inconclusive*" in lines[3]
    assert "**FAIL**" in lines[4]
    assert len({line.count("|") for line in lines}) == 1


def test_language_table():
    assert "| ja | **FAIL** | 0.750 | 0.500 | -0.250 | -0.300 … -0.200 | 1.0000 | not shown |" in language_table(
        VERDICT
    )
    assert "| de | pass | 0.500 | 0.625 | +0.125 | +0.010 … +0.200 | 0.0040 | **yes** |" in language_table(VERDICT)


def test_the_report_says_why():
    text = verdict_report(VERDICT)
    assert "**Gate FAILED**: merged/8 against merged/7." in text
    assert "- ja, text: rouge_l 0.750 → 0.500; the loss may be 0.3000, 0.1 is tolerated\n" in text
    assert "9 rows are too few to decide (they show losses from 0.400)" in text
    assert text.index("Not shown to be good enough") < text.index("ja, text:") < text.index("Too few rows to decide")
    assert "- ja, text: a, b, c, d, e and 2 more" in text


def test_the_report_of_a_pass_is_short():
    text = verdict_report(replace(VERDICT, cells=(GOOD,), languages=VERDICT.languages[:1]))
    assert "Gate passed" in text
    assert "Too few" not in text
    assert "Required" not in text
    assert "Not shown" not in text
    assert "not compared" not in text


@pytest.mark.parametrize(
    ("policy", "said"), [("fail", "counts as failed"), ("review", "waits for a person"), ("pass", "counts as passed")]
)
def test_the_report_says_what_inconclusive_means(policy, said):
    verdict = replace(VERDICT, cells=(GOOD, FEW), languages=VERDICT.languages[:1], inconclusive=policy)
    assert f"**Gate INCONCLUSIVE, which {said}**" in verdict_report(verdict)


def test_reasons_name_groups_and_what_may_be_unseen():
    grouped = replace(LOST, outcome="inconclusive")
    assert "20 groups of rows are too few" in why(grouped)
    unseen = replace(FEW, lower_bound=0.0, unseen=0.283)
    assert "no row lost, but 28.3% of all rows may lose where 9 rows show none" in why(unseen)


@pytest.mark.parametrize(("outcome", "said"), [("pass", "is shown"), ("inconclusive", "is not shown")])
def test_the_report_names_the_required_gain(outcome, said):
    text = verdict_report(replace(VERDICT, gain=replace(GAIN, outcome=outcome)))
    assert (
        "Required gain: de: the mean gained +0.100, lower bound +0.020; a gain of more than 0.050 was required" in text
    )
    assert said in text


def languages(*differences: float) -> tuple[LanguageVerdict, ...]:
    return tuple(
        LanguageVerdict(f"l{place}", 0.5, 0.5 + value, value, value - 0.1, value + 0.1, "pass")
        for place, value in enumerate(differences)
    )


def test_of_many_languages_the_changed_the_worst_and_the_best_are_shown():
    many = replace(VERDICT, languages=languages(0.0, 0.3, -0.2, 0.1, -0.1, 0.2, 0.05))
    shown = [one.lang for one in worst_and_best(many, 5, ["l6"])]
    # Of the four places that are left three go to the losers.
    assert shown == ["l6", "l2", "l4", "l0", "l1"]
    assert [one.lang for one in worst_and_best(many, 50, ["l6"])] == ["l6", "l2", "l4", "l0", "l3", "l5", "l1"]
    failed = replace(many.languages[5], outcome="fail")
    assert worst_and_best(replace(many, languages=(*many.languages[:5], failed)), 1)[0].lang == "l5"
    assert size(figures.changes(many, most=3)) != size(figures.changes(many))


def test_arrows_stand_for_what_the_rows_show():
    judged = replace(
        VERDICT, languages=(*VERDICT.languages, LanguageVerdict("zh", 0.5, 0.5, 0.0004, -0.1, 0.1, "pass"))
    )
    lines = change_table(judged, trained=["zh"]).splitlines()[2:]
    assert [line.split("|")[1].strip() for line in lines] == ["**zh**", "ja", "de"]
    assert [line.split("|")[4].strip() for line in lines] == ["= 0.000", "▼ −0.250", "▲ +0.125"]


@pytest.mark.parametrize(
    ("value", "said"), [(0.0004, "0.000"), (-0.0004, "0.000"), (-0.0006, "−0.001"), (1.5, "+1.500")]
)
def test_a_difference_has_its_sign_where_it_is_one(value, said):
    assert signed(value) == said


def test_gains_and_losses_differ_in_colour_and_shape():
    handles = figures._change_legend()
    assert len({handle.get_color() for handle in handles}) == len({handle.get_marker() for handle in handles}) == 3


HOSTILE = "<img src=x onerror=alert(1)>|**x**](http://evil.example)\n\n# head"


def test_names_are_never_markup_in_a_report():
    odd = replace(LOST, lang=HOSTILE, task=HOSTILE, metric="rouge_l", unpaired=(HOSTILE,))
    few = replace(FEW, lang=HOSTILE)
    gain = replace(GAIN, lang=HOSTILE)
    text = verdict_report(
        replace(
            VERDICT,
            candidate=HOSTILE,
            champion=HOSTILE,
            cells=(odd, few),
            gain=gain,
            languages=(replace(VERDICT.languages[0], lang=HOSTILE),),
        )
    )
    assert "<" not in text
    assert "](" not in text
    assert "\n# head" not in text
    assert {line.count("|") for line in text.splitlines() if line.startswith("|")} == {9, 13}
