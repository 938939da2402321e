"""Verdicts as Markdown that a reviewer can read; names of languages, tasks and models are never read as markup."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from adapterctl.evaluation.verdict import CellVerdict, GainVerdict, LanguageVerdict, Outcome, Verdict
from adapterctl.markdown import plain, table

_MOST_IDS = 5
_LONGEST_REASON = 600
_WORDS: dict[Outcome, str] = {"pass": "pass", "fail": "**FAIL**", "inconclusive": "*inconclusive*"}


_MINUS = "−"
"""Wider than a hyphen: signs stand one below the other, and no line ends behind it."""


def signed(value: float) -> str:
    """Return a difference with its sign; what rounds to nothing has none."""
    shown = f"{value:+.3f}".replace("-", _MINUS)
    return shown if float(f"{value:.3f}") else "0.000"


def change(one: LanguageVerdict | CellVerdict) -> str:
    """Return a difference behind an arrow: up or down where its interval excludes 0, else ``=``."""
    arrow = "▲" if one.low > 0 else "▼" if one.high < 0 else "="
    return f"{arrow} {signed(one.difference)}"


def worst_and_best(verdict: Verdict, most: int, first: Collection[str] = ()) -> tuple[LanguageVerdict, ...]:
    """Return the languages that a reviewer looks at where not all can be shown.

    Those in ``first`` come first, then who failed, who lost most, and at last who gained most; of two parts of what
    is left of ``most`` the larger goes to the losers.
    """
    named = [one for one in verdict.languages if one.lang in first][:most]
    rest = [one for one in verdict.languages if one.lang not in first]
    order: dict[Outcome, int] = {"fail": 0, "inconclusive": 1, "pass": 2}
    rest.sort(key=lambda one: (order[one.outcome], one.difference))
    left = most - len(named)
    if left >= len(rest):
        return (*named, *rest)
    gained = left // 3
    return (*named, *rest[: left - gained], *rest[len(rest) - gained :])


def change_table(verdict: Verdict, *, trained: Collection[str] = (), most: int | None = None) -> str:
    """Return one line a language: champion, candidate, change, interval and verdict.

    Args:
        verdict: The gate's verdict.
        trained: Languages that were trained anew; they come first, in bold.
        most: How many languages are shown; None shows all.
    """
    shown = worst_and_best(verdict, len(verdict.languages) if most is None else most, trained)
    rows = [
        [
            f"**{plain(one.lang)}**" if one.lang in trained else plain(one.lang),
            f"{one.champion:.3f}",
            f"{one.candidate:.3f}",
            change(one),
            f"{signed(one.low)} … {signed(one.high)}",
            _WORDS[one.outcome] + (", improved" if one.improved else ""),
        ]
        for one in shown
    ]
    head = ["language", "champion", "candidate", "change", f"{verdict.confidence:.0%} interval", "verdict"]
    return table(head, rows, words=1)


def verdict_table(verdict: Verdict) -> str:
    """Return every comparison: values, difference, interval, bound, margin, and what the rows could have shown."""
    rows = [
        [
            plain(cell.lang),
            plain(cell.task),
            plain(cell.metric),
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
    return table(["language", "task", "metric", "verdict", *numbers], rows, words=4)


def language_table(verdict: Verdict) -> str:
    """Return what changed for each language, as the mean over its tasks, and which languages improved."""
    rows = [
        [
            plain(one.lang),
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
    return table(head, rows, words=2)


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
        f"**Gate {answer(verdict)}**: {plain(verdict.candidate)} against {plain(verdict.champion)}.",
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
        parts.append(f"Required gain: {plain(gain_sentence(verdict.gain), 400)}.")
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


def answer(verdict: Verdict) -> str:
    """Return what the gate said, in a word or a few."""
    if verdict.outcome != "inconclusive":
        return "passed" if verdict.passed else "FAILED"
    means = {"fail": "counts as failed", "review": "waits for a person", "pass": "counts as passed"}
    return f"INCONCLUSIVE, which {means[verdict.inconclusive]}"


def _list(head: str, cells: Sequence[CellVerdict]) -> str:
    return "\n".join([head, "", *(f"- {plain(why(cell), _LONGEST_REASON)}" for cell in cells)])


def _unpaired(cell: CellVerdict) -> str:
    more = len(cell.unpaired) - _MOST_IDS
    shown = ", ".join(map(plain, cell.unpaired[:_MOST_IDS])) + (f" and {more} more" if more > 0 else "")
    return f"- {plain(cell.lang)}, {plain(cell.task)}: {shown}"
