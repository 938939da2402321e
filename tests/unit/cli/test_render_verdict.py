"""What the gate's verdict looks like on a terminal."""

from __future__ import annotations

from dataclasses import replace

from rich.console import Console

from adapterctl.cli import render
from adapterctl.evaluation.verdict import CellVerdict, GainVerdict, LanguageVerdict, Verdict

LOST = CellVerdict("ja", "text", "rouge_l", 40, 0.75, 0.5, -0.25, -0.3, -0.31, -0.2, 0.1, "fail", 0.05, 40)
FEW = replace(LOST, task="label", n=9, units=9, lower_bound=-0.2, outcome="inconclusive", detectable=0.4)
VERDICT = Verdict(
    candidate="merged/8",
    champion="merged/7",
    cells=(FEW, LOST),
    languages=(
        LanguageVerdict("de", 0.5, 0.625, 0.125, 0.01, 0.2, "pass", 0.004, 0.008, improved=True),
        LanguageVerdict("ja", 0.75, 0.5, -0.25, -0.3, -0.2, "fail"),
    ),
    confidence=0.95,
    gain=GainVerdict("ja", 0.05, -0.25, -0.3, "fail"),
)


def printed(verdict: Verdict) -> list[str]:
    console = Console(width=120, highlight=False)
    with console.capture() as captured:
        render.verdict(console, verdict)
    return [" ".join(line.split()) for line in captured.get().splitlines()]


def test_every_cell_that_did_not_pass_is_told_with_its_reason() -> None:
    lines = printed(VERDICT)
    assert "de pass 0.500 0.625 +0.125 [+0.010, +0.200] improved" in lines
    assert "ja FAIL 0.750 0.500 -0.250 [-0.300, -0.200]" in lines
    assert "failed: ja, text: rouge_l 0.750 → 0.500; the loss may be 0.3000, 0.1 is tolerated" in lines
    (undecided,) = (line for line in lines if line.startswith("inconclusive"))
    assert undecided.endswith("9 rows are too few to decide (they show losses from 0.400)")
    assert lines[-1].startswith("failed: ja: the mean gained -0.250")


def test_a_language_without_enough_rows_is_inconclusive() -> None:
    languages = (replace(VERDICT.languages[1], outcome="inconclusive"),)
    lines = printed(replace(VERDICT, cells=(FEW,), languages=languages, gain=None))
    assert "ja inconclusive 0.750 0.500 -0.250 [-0.300, -0.200]" in lines
    assert not any(line.startswith("failed") for line in lines)
