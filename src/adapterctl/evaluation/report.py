"""Scorecards and verdicts as Markdown that a reviewer can read."""

from __future__ import annotations

from collections.abc import Sequence

from adapterctl.evaluation.scorecard import Scorecard
from adapterctl.evaluation.verdict import CellVerdict, Verdict

_MOST_IDS = 5


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], *, words: int) -> str:
    """Return a Markdown table whose first ``words`` columns are text and whose others are numbers."""
    ruler = ["---"] * words + ["---:"] * (len(head) - words)
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, ruler, *rows))


def scorecard_table(scorecard: Scorecard) -> str:
    """Return the primary metrics, languages × tasks, with rows in brackets and the mean of each language."""
    metrics = {cell.task: cell.primary for cell in scorecard.cells}
    rows = []
    for lang in scorecard.languages:
        found = [scorecard.find(lang, task) for task in scorecard.tasks]
        values = [f"{cell.value:.3f} ({cell.n})" if cell is not None else "–" for cell in found]
        rows.append([lang, *values, f"{scorecard.language(lang):.3f}"])
    rows.append(["**average**", *([""] * len(scorecard.tasks)), f"**{scorecard.average:.3f}**"])
    return _table(["language", *(f"{task} {metrics[task]}" for task in scorecard.tasks), "mean"], rows, words=1)


def metrics_table(scorecard: Scorecard) -> str:
    """Return every metric of every cell."""
    rows = [
        [cell.lang, cell.task, str(cell.n), ", ".join(f"{name} {value:.3f}" for name, value in cell.metrics.items())]
        for cell in scorecard.cells
    ]
    return _table(["language", "task", "rows", "metrics"], rows, words=2)


def verdict_table(verdict: Verdict) -> str:
    """Return every comparison: values, difference, interval, bound, margin, and what the rows could have shown."""
    rows = [
        [
            cell.lang,
            cell.task,
            cell.metric,
            "pass" if cell.passed else "**FAIL**",
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
    """Return what changed for each language, as the mean over its tasks."""
    rows = [
        [
            one.lang,
            "pass" if one.passed else "**FAIL**",
            f"{one.champion:.3f}",
            f"{one.candidate:.3f}",
            f"{one.difference:+.3f}",
            f"{one.low:+.3f} … {one.high:+.3f}",
        ]
        for one in verdict.languages
    ]
    head = ["language", "verdict", "champion", "candidate", "difference", f"{verdict.confidence:.0%} interval"]
    return _table(head, rows, words=2)


def _why(cell: CellVerdict) -> str:
    place = f"- {cell.lang}, {cell.task}: {cell.metric} {cell.champion:.3f} → {cell.candidate:.3f}"
    bound = f"the loss may be {-cell.lower_bound:.3f}, {cell.margin:.3f} is tolerated"
    if cell.difference > -cell.margin and cell.detectable > cell.margin:
        return f"{place}; {bound}; {cell.n} rows are too few to tell (they show losses from {cell.detectable:.3f})"
    return f"{place}; {bound}"


def verdict_report(verdict: Verdict) -> str:
    """Return the verdict as a Markdown section: the answer, why, and the tables."""
    answer = "passed" if verdict.passed else "FAILED"
    parts = [
        f"**Gate {answer}**: {verdict.candidate} against {verdict.champion}.",
        f"A cell passes when the one-sided {verdict.confidence:.0%} lower bound of candidate − champion, "
        "on the same rows, lies above the limit (minus the margin).",
    ]
    if verdict.failed:
        parts.append("\n".join(["Not shown to be good enough:", "", *map(_why, verdict.failed)]))
    parts += [language_table(verdict), verdict_table(verdict)]
    apart = [cell for cell in verdict.cells if cell.unpaired]
    if apart:
        parts.append("\n".join(["Rows that only one side has, not compared:", "", *map(_unpaired, apart)]))
    return "\n\n".join(parts) + "\n"


def _unpaired(cell: CellVerdict) -> str:
    more = len(cell.unpaired) - _MOST_IDS
    shown = ", ".join(cell.unpaired[:_MOST_IDS]) + (f" and {more} more" if more > 0 else "")
    return f"- {cell.lang}, {cell.task}: {shown}"
