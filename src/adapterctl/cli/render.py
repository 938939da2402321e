"""How results look to people: tables that several commands share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from adapterctl.cli.output import say

if TYPE_CHECKING:
    from rich.console import Console

    from adapterctl.accounting.comparison import Comparison
    from adapterctl.evaluation.scorecard import Scorecard
    from adapterctl.evaluation.verdict import Verdict
    from adapterctl.workflows.candidates import Candidate
    from adapterctl.workflows.releases import Release


def table(console: Console, head: Sequence[str], rows: Sequence[Sequence[str]], *, words: int = 1) -> None:
    """Print a table whose first ``words`` columns are text and whose others are numbers."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for place, name in enumerate(head):
        drawn.add_column(name, justify="left" if place < words else "right", overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(cell) for cell in row))
    console.print(drawn)


def number(value: float | None) -> str:
    """Return a metric with three digits; a dash where there is none."""
    return "–" if value is None else f"{value:.3f}"


def scorecard(console: Console, card: Scorecard) -> None:
    """Print a scorecard: languages × tasks, by each task's primary metric."""
    metrics = {cell.task: cell.primary for cell in card.cells}
    head = ["", *(f"{task} ({metrics[task]})" for task in card.tasks), "mean"]
    rows = []
    for lang in card.languages:
        found = [card.find(lang, task) for task in card.tasks]
        rows.append([lang, *(number(cell.value if cell else None) for cell in found), number(card.language(lang))])
    rows.append(["average", *([""] * len(card.tasks)), number(card.average)])
    table(console, head, rows)


def verdict(console: Console, found: Verdict) -> None:
    """Print what the gate says: each language with its interval, then every cell that did not pass."""
    confidence = f"{found.confidence:.0%} interval"
    rows = [
        [
            one.lang,
            "pass" if one.passed else "FAIL",
            number(one.champion),
            number(one.candidate),
            f"{one.difference:+.3f}",
            f"[{one.low:+.3f}, {one.high:+.3f}]",
        ]
        for one in found.languages
    ]
    table(console, ["", "gate", "champion", "candidate", "change", confidence], rows, words=2)
    for cell in found.failed:
        say(
            console,
            f"  failed: {cell.lang} {cell.task}: {cell.metric} {cell.champion:.3f} → {cell.candidate:.3f}; "
            f"the loss may be {-cell.lower_bound:.3f}, {cell.margin:.3f} is tolerated",
        )


def first_scores(console: Console, release: Release) -> None:
    """Print a release's scores beside those of the base model and of each language's own adapter."""
    languages: Mapping[str, Any] = release.scores["languages"]
    rows = [
        [lang, number(release.base_scores.get(lang)), number(release.own_scores.get(lang)), number(value)]
        for lang, value in languages.items()
    ]
    table(console, ["", "base model", "own adapter", "merged"], rows)
    kept = kept_share(release)
    if kept is not None:
        say(console, f"The merge keeps {kept:.0%} of what the languages' own adapters gain over the base model.")


def kept_share(release: Release) -> float | None:
    """Return (merged − base) / (own − base), means over languages; None where not all were measured."""
    languages = list(release.scores["languages"])
    if not all(lang in release.base_scores and lang in release.own_scores for lang in languages):
        return None
    base = sum(release.base_scores[lang] for lang in languages)
    own = sum(release.own_scores[lang] for lang in languages)
    merged = sum(release.scores["languages"][lang] for lang in languages)
    return float((merged - base) / (own - base)) if own > base else None


def candidate(console: Console, made: Candidate) -> None:
    """Print what came of a merge and what became of it."""
    release = made.release
    say(console, f"Version {release.version}: {release.recipe['method']}, λ {release.scale:g}, {release.reason}.")
    if made.verdict is None:
        first_scores(console, release)
    else:
        verdict(console, made.verdict)
    if made.new_rows:
        new_rows(console, made)
    if made.promoted:
        say(console, f"Version {release.version} is the champion now.")
    elif release.passed:
        say(console, f"Version {release.version} passed the gate and waits: adapterctl promote")
    else:
        say(console, f"Version {release.version} stays candidate; the champion is untouched. Look at it: adapterctl ui")


def new_rows(console: Console, made: Candidate) -> None:
    """Print what became of the test rows that the champion was not yet released on."""
    say(console, "Test rows that are new since the champion was released:")
    rows = [
        [
            one.lang,
            one.task,
            str(one.n),
            number(one.champion),
            number(one.candidate),
            f"{one.difference:+.3f}",
            f"[{one.low:+.3f}, {one.high:+.3f}]",
        ]
        for one in made.new_rows
    ]
    table(console, ["", "task", "rows", "champion", "candidate", "change", "95% interval"], rows, words=2)


def comparison(console: Console, found: Comparison) -> None:
    """Print an update beside a retrain-all, step by step; whatever was not measured says so."""
    from adapterctl.accounting.comparison import format_money, format_seconds

    rows = []
    for step in found.steps:
        cells = [step]
        for side in (found.update, found.retrain):
            line = side.line(step)
            if line is None:
                cells += ["–", "–"]
            else:
                cells.append(line.seconds.text(format_seconds(line.seconds.value)))
                cells.append(line.money.text(format_money(line.money.value, side.currency)))
        rows.append(cells)
    totals = ["total"]
    for side in (found.update, found.retrain):
        totals.append(side.seconds.text(format_seconds(side.seconds.value)))
        totals.append(side.money.text(format_money(side.money.value, side.currency)))
    table(console, ["", found.update.name, "cost", found.retrain.name, "cost"], [*rows, totals])
    ratio, money = found.time_ratio, found.money_ratio
    if ratio is not None:
        paid = f" and {money.text(f'{money.value:.0%}')} of the cost" if money is not None else ""
        say(console, f"The {found.update.name} takes {ratio.text(f'{ratio.value:.0%}')} of the time{paid}.")
