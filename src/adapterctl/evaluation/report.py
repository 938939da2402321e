"""Verdicts as Markdown that a reviewer can read."""

from __future__ import annotations

from collections.abc import Sequence

from adapterctl.evaluation.verdict import CellVerdict, GainVerdict, Outcome, Verdict

_MOST_IDS = 5
_WORDS: dict[Outcome, str] = {"pass": "pass", "fail": "**FAIL**", "inconclusive": "*inconclusive*"}


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], *, words: int) -> str:
    """Return a Markdown table whose first ``words`` columns are text and whose others are numbers."""
    ruler = ["---"] * words + ["---:"] * (len(head) - words)
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, ruler, *rows))


def verdict_table(verdict: Verdict) -> str:
    """Return every comparison: values, difference, interval, bound, margin, and what the rows could have shown."""
    rows = [
        [
            cell.lang,
            cell.task,
            cell.metric,
            _WORDS[cell.outcome],
            str(cell.n),
            f"{cell.champion:.3f}",
            f"{cell.candidate:.3f}",
            f"{cell.difference:+.3f}",
            f"{cell.low:+.3f} … {cell.high:+.3f}",
            f"{cell.lower_bound:+.3f}",
            f"{-cell.margin:+.3f}",
            f"{cell.detectable:.3f}",
        ]
        for cell in verdict.cells
    ]
    percent = f"{verdict.confidence:.0%}"
    numbers = [
        "rows",
        "champion",
        "candidate",
        "difference",
        f"{percent} interval",
        "lower bound",
        "limit",
        "detectable",
    ]
    return _table(["language", "task", "metric", "verdict", *numbers], rows, words=4)


def language_table(verdict: Verdict) -> str:
    """Return what changed for each language, as the mean over its tasks, and which languages improved."""
    rows = [
        [
            one.lang,
            _WORDS[one.outcome],
            f"{one.champion:.3f}",
            f"{one.candidate:.3f}",
            f"{one.difference:+.3f}",
            f"{one.low:+.3f} … {one.high:+.3f}",
            f"{one.p_value:.4f}",
            "**yes**" if one.improved else "not shown",
        ]
        for one in verdict.languages
    ]
    percent = f"{verdict.confidence:.0%}"
    head = ["language", "verdict", "champion", "candidate", "difference", f"{percent} interval", "p", "improved"]
    return _table(head, rows, words=2)


def why(cell: CellVerdict) -> str:
    """Return, for a comparison that did not pass, what was seen, what is tolerated, and what the rows can show."""
    seen = f"{cell.lang}, {cell.task}: {cell.metric} {cell.champion:.3f} → {cell.candidate:.3f}"
    bound = f"the loss may be {max(0.0, -cell.lower_bound):.4f}, {cell.margin:g} is tolerated"
    if cell.outcome == "fail":
        return f"{seen}; {bound}"
    what = "rows" if cell.units == cell.n else "groups of rows"
    if -cell.lower_bound < cell.margin and cell.unseen:
        bound = f"no row lost, but {cell.unseen:.1%} of all rows may lose where {cell.units} {what} show none"
    few = f"{cell.units} {what} are too few to decide (they show losses from {cell.detectable:.3f})"
    return f"{seen}; {bound}; {few}"


def gain_sentence(gain: GainVerdict) -> str:
    """Return whether the updated language gained what it has to, in one sentence."""
    seen = f"{gain.lang}: the mean gained {gain.difference:+.3f}, lower bound {gain.lower_bound:+.3f}"
    if gain.outcome == "pass":
        return f"{seen}; a gain of more than {gain.required:.3f} was required and is shown"
    return f"{seen}; a gain of more than {gain.required:.3f} was required and is not shown"


def verdict_report(verdict: Verdict) -> str:
    """Return the verdict as a Markdown section: the answer, why, and the tables."""
    parts = [
        f"**Gate {_answer(verdict)}**: {verdict.candidate} against {verdict.champion}.",
        f"A cell passes when the one-sided {verdict.confidence:.0%} lower bound of candidate − champion, "
        "on the same rows, lies above the limit (minus the margin). It is inconclusive when there are too few rows to "
        "tell. Detectable is the smallest loss that its rows show with 80 % probability. Differences above 0 are "
        "better, also where a lower metric is.",
    ]
    if verdict.failed:
        parts.append(_list("Not shown to be good enough:", verdict.failed))
    if verdict.undecided:
        parts.append(_list("Too few rows to decide:", verdict.undecided))
    if verdict.gain is not None:
        parts.append(f"Required gain: {gain_sentence(verdict.gain)}.")
    parts += [
        language_table(verdict),
        "p: one-sided paired randomisation test of a gain; improved: after correction for the number of languages "
        "(Benjamini-Hochberg).",
        verdict_table(verdict),
    ]
    apart = [cell for cell in verdict.cells if cell.unpaired]
    if apart:
        parts.append("\n".join(["Rows that only one side has, not compared:", "", *map(_unpaired, apart)]))
    return "\n\n".join(parts) + "\n"


def _answer(verdict: Verdict) -> str:
    if verdict.outcome != "inconclusive":
        return "passed" if verdict.passed else "FAILED"
    means = {"fail": "counts as failed", "review": "waits for a person", "pass": "counts as passed"}
    return f"INCONCLUSIVE, which {means[verdict.inconclusive]}"


def _list(head: str, cells: Sequence[CellVerdict]) -> str:
    return "\n".join([head, "", *(f"- {why(cell)}" for cell in cells)])


def _unpaired(cell: CellVerdict) -> str:
    more = len(cell.unpaired) - _MOST_IDS
    shown = ", ".join(cell.unpaired[:_MOST_IDS]) + (f" and {more} more" if more > 0 else "")
    return f"- {cell.lang}, {cell.task}: {shown}"
