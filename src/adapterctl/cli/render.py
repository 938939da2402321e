"""How results look to people: tables that several commands share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from adapterctl.cli.output import inert, say

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
        drawn.add_row(*(Text(inert(cell)) for cell in row))
    console.print(drawn)


def number(value: float | None) -> str:
    """Return a metric with three digits; a dash where there is none."""
    return "–" if value is None else f"{value:.3f}"


def _lower(metric: str) -> bool:
    from adapterctl.evaluation.catalogue import metric_of

    return not metric_of(metric).higher_is_better


def scorecard(console: Console, card: Scorecard) -> None:
    """Print a scorecard: languages × tasks, by each task's primary metric."""
    metrics = {cell.task: cell.primary for cell in card.cells}
    averaged = any(cell.averaged for cell in card.cells)
    shown = {task: f"{metric}, lower is better" if _lower(metric) else metric for task, metric in metrics.items()}
    head = ["", *(f"{task} ({shown[task]})" for task in card.tasks), *(["mean"] if averaged else [])]
    rows = []
    for lang in card.languages:
        found = [card.find(lang, task) for task in card.tasks]
        mean = any(cell is not None and cell.averaged for cell in found)
        last = [number(card.language(lang) if mean else None)] if averaged else []
        rows.append([lang, *(number(cell.value if cell else None) for cell in found), *last])
    if averaged:
        rows.append(["average", *([""] * len(card.tasks)), number(card.average)])
    table(console, head, rows)
    for cell in card.cells:
        told = [
            f"{count} of {cell.n} {what}"
            for count, what in (
                (cell.empty, "texts are empty"),
                (cell.cut, "texts were cut at max_new_tokens"),
                (cell.shortened, "rows were too long for the model and lost a part"),
            )
            if count
        ]
        if told:
            say(console, f"  {cell.lang} {cell.task}: {', '.join(told)}")


def all_metrics(console: Console, card: Scorecard) -> None:
    """Print every metric of every cell with the signature that says what it depends on."""
    for cell in card.cells:
        say(console, f"{cell.lang} {cell.task}, {cell.n} rows:")
        for name, value in cell.metrics.items():
            lower = ", lower is better" if _lower(name) else ""
            say(console, f"  {name:<16}{number(value):>8}{lower}  {cell.signatures.get(name, '')}")


def scorecards(console: Console, cards: Sequence[Scorecard]) -> None:
    """Print several models side by side: one line a language and task."""
    places = sorted({(cell.lang, cell.task, cell.primary) for card in cards for cell in card.cells})
    rows = []
    for lang, task, metric in places:
        found = [card.find(lang, task) for card in cards]
        rows.append([lang, task, metric, *(number(cell.value if cell else None) for cell in found)])
    table(console, ["", "task", "metric", *(card.model for card in cards)], rows, words=3)


def verdict(console: Console, found: Verdict, *, names: tuple[str, str] = ("champion", "candidate")) -> None:
    """Print what the gate says: each language with its interval, then every cell that did not pass, and why.

    Args:
        console: Where to.
        found: The verdict.
        names: What the two models are called in the head of the table: what is compared with, and what is compared.
    """
    from adapterctl.evaluation.report import gain_sentence, why

    words = {"pass": "pass", "fail": "FAIL", "inconclusive": "inconclusive"}
    rows = [
        [
            one.lang,
            words[one.outcome],
            number(one.champion),
            number(one.candidate),
            f"{one.difference:+.3f}",
            f"[{one.low:+.3f}, {one.high:+.3f}]",
            "improved" if one.improved else "",
        ]
        for one in found.languages
    ]
    confidence = f"{found.confidence:.0%} interval"
    table(console, ["", "gate", *names, "change", confidence, ""], rows, words=2)
    for cell in found.failed:
        say(console, f"  failed: {why(cell)}")
    for cell in found.undecided:
        say(console, f"  inconclusive: {why(cell)}")
    if found.gain is not None:
        say(
            console,
            f"  {'failed' if found.gain.outcome == 'fail' else found.gain.outcome}: {gain_sentence(found.gain)}",
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
    if made.refused:
        say(
            console,
            f"It is no candidate: {made.refused}. The champion is untouched; a person may promote it all the same: "
            f"adapterctl promote --version {release.version}",
        )
    elif made.promoted:
        say(console, f"Version {release.version} is the champion now.")
    elif release.passed:
        say(console, f"Version {release.version} passed the gate and waits: adapterctl promote")
    elif release.waits:
        say(
            console,
            f"There are too few test rows to decide: version {release.version} waits for a person, the champion is "
            "untouched. Look at it: adapterctl ui; then: adapterctl promote",
        )
    else:
        say(console, f"Version {release.version} stays candidate; the champion is untouched. Look at it: adapterctl ui")


def new_rows(console: Console, made: Candidate) -> None:
    """Print what became of the test rows that the champion was not yet released on."""
    say(console, "Test rows that are new since the champion was released:")
    rows = [
        [
            one.lang,
            one.task,
            one.metric,
            str(one.n),
            number(one.champion),
            number(one.candidate),
            f"{one.difference:+.3f}",
            f"[{one.low:+.3f}, {one.high:+.3f}]",
        ]
        for one in made.new_rows
    ]
    table(console, ["", "task", "metric", "rows", "champion", "candidate", "change", "95% interval"], rows, words=3)


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
