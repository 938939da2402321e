"""``adapterctl lineage``, ``diff``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adapterctl.cli.output import emit, json_option, say
from adapterctl.cli.session import open_session

if TYPE_CHECKING:
    from rich.console import Console

    from adapterctl.accounting.amounts import Amount
    from adapterctl.workflows.changes import DataChange
    from adapterctl.workflows.diff import Diff, Side
    from adapterctl.workflows.lineage import Ancestor, Descendant, Lineage, Rows

_MOST_SHOWN = 20


@click.command("lineage")
@click.argument("name", default="merged@champion")
@click.option(
    "--plot", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Draw it, too, as a PNG picture."
)
@json_option
@click.pass_context
def lineage(ctx: click.Context, name: str, plot: Path | None) -> None:
    """Say what a version was made from, and what was made from it.

    NAME is a version in the registry: champion, candidate, merged/7, ja@champion, ja/3, combined/1. A merged adapter is
    followed back to the exact adapters, their rows and the base model; an adapter also to the releases it is part of.
    What was deleted or replaced since says so.

    \b
    Examples:
      adapterctl lineage
      adapterctl lineage merged/7 --plot lineage.png
      adapterctl lineage ja@champion --json
    """
    from adapterctl.workflows.lineage import lineage as read_lineage

    with open_session(ctx, "lineage", writing=False, quick=True, data=False) as session:
        found = read_lineage(session, name)
    if plot is not None:
        from adapterctl.files import write_bytes
        from adapterctl.workflows.lineage_figure import draw

        write_bytes(plot, draw(found))

    def text(console: Console) -> None:
        for line in _tree(found):
            say(console, line)
        if plot is not None:
            say(console, f"Picture: {plot}")

    emit(ctx, found.as_dict() | {"picture": str(plot) if plot else None}, text)


def _tree(found: Lineage) -> Iterator[str]:
    subject = found.subject
    gate = f", gate {_text(found.gate)}" if found.gate else ""
    reason = f", {_text(found.reason)}" if found.reason else ""
    yield f"{_named(subject)}{gate}{reason}, {subject.created}{_odd(subject)}"
    if found.recipe:
        yield f"merged with {_text(found.recipe.get('method', '?'))}, λ {_text(found.recipe.get('lambda', '?'))}"
    branches = [f"{_named(one)}{_rows(one.rows)}{_chain(one.continues)}{_odd(one)}" for one in found.inputs]
    if subject.rows is not None:
        branches.append(_rows(subject.rows).removeprefix(" ← "))
    branches += [f"goes on from {_named(one)}{_rows(one.rows)}{_odd(one)}" for one in subject.continues]
    base, identity = subject.base if any(subject.base) else _first_base(found.inputs)
    known = f", identity {_short(identity)}" if identity else ""
    branches.append(f"base model {_text(base)}{known}" if base else "base model: not noted")
    for branch in branches[:-1]:
        yield f"├─ {branch}"
    yield f"└─ {branches[-1]}"
    if found.used_in:
        yield "Used in:"
    for made in found.used_in[:_MOST_SHOWN]:
        yield f"  {_made(made)}"
    if len(found.used_in) > _MOST_SHOWN:
        yield f"  and {len(found.used_in) - _MOST_SHOWN} more; --json gives them all"
    for note in found.notes:
        yield f"Note: {_text(note)}"


def _text(value: Any) -> str:
    from adapterctl.markdown import line

    return line(f"{value:g}" if isinstance(value, float) else str(value))


def _short(digest: str) -> str:
    from adapterctl.fingerprint import short

    return _text(short(digest))


def _pointing(aliases: Sequence[str]) -> str:
    return f" ({', '.join(map(_text, aliases))})" if aliases else ""


def _named(one: Ancestor) -> str:
    content = f" {_short(one.content_hash)}" if one.content_hash else ""
    return f"{_text(one.name)} v{one.version}{_pointing(one.aliases)}{content}"


def _rows(rows: Rows | None) -> str:
    if rows is None:
        return " ← rows not noted"
    count = f"{rows.rows} rows" if rows.rows is not None else "rows"
    return f" ← {count}{' ' + _short(rows.sha256) if rows.sha256 else ''}"


def _chain(continues: Sequence[Ancestor]) -> str:
    shown = ", ".join(f"v{one.version}{' (GONE)' if one.state == 'gone' else ''}" for one in continues[:3])
    more = f" and {len(continues) - 3} before" if len(continues) > 3 else ""
    return f"; goes on from {shown}{more}" if continues else ""


def _odd(one: Ancestor) -> str:
    told = {
        "gone": "; GONE: this version was deleted",
        "replaced": "; REPLACED: another adapter stands under this number now",
    }.get(one.state, "")
    return told + "".join(f"; its {what} {'are' if what == 'files' else 'is'} gone" for what in one.missing)


def _first_base(inputs: Sequence[Ancestor]) -> tuple[str, str]:
    return next((one.base for one in inputs if any(one.base)), ("", ""))


def _made(made: Descendant) -> str:
    gate = f", gate {_text(made.gate)}" if made.gate else ""
    reason = f", {_text(made.reason)}" if made.reason else ""
    how = "" if made.how == "merged" else ", goes on from it"
    return f"{_text(made.name)} v{made.version}{_pointing(made.aliases)}{gate}{reason}{how}, {made.created}"


@click.command("diff")
@click.argument("before")
@click.argument("after")
@json_option
@click.pass_context
def diff(ctx: click.Context, before: str, after: str) -> None:
    """Say what is different between two versions.

    BEFORE and AFTER are two releases (champion, candidate, previous, merged/7), or two adapters of one language (ja/2,
    ja@champion): their adapters, recipe, rows, scores, gate, cost, base model and code.

    \b
    Examples:
      adapterctl diff champion candidate
      adapterctl diff merged/3 merged/7
      adapterctl diff ja/1 ja/2 --json
    """
    from adapterctl.workflows.diff import diff as find_diff

    with open_session(ctx, "diff", writing=False, quick=True, data=False) as session:
        found = find_diff(session, before, after)
    emit(ctx, found, lambda console: _show(console, found))


def _show(console: Console, found: Diff) -> None:
    for name, side in (("before", found.before), ("after", found.after)):
        say(console, f"{name:<7} {_side(side)}")
    if found.same_content:
        say(console, "Both are the same adapter, byte by byte.")
    if not found.same_base:
        names = [f"{_text(side.base[0])} {_short(side.base[1])}".strip() for side in (found.before, found.after)]
        say(console, f"Base model: {names[0]} → {names[1]}; scores of two base models tell nothing about the adapters")
    _show_changes(console, found)
    _show_scores(console, found)
    _show_cost(console, found)
    for note in found.notes:
        say(console, f"Note: {_text(note)}")


def _side(side: Side) -> str:
    gate = f", gate {_text(side.gate)}" if side.gate else ""
    against = f" against v{side.compared_with}" if side.compared_with is not None else ""
    reason = f", {_text(side.reason)}" if side.reason else ""
    content = _short(side.content_hash)
    name = f"{_text(side.name)} v{side.version}{_pointing(side.aliases)}"
    return f"{name}{reason}, {side.created}{gate}{against}, content {content}"


def _show_changes(console: Console, found: Diff) -> None:
    for data in found.data:
        say(console, f"Adapter {_text(data.lang)}: {_versions(data)}; {_data(data)}")
    if not found.data:
        say(console, "Adapters: the same")
    for what, changes in (("Recipe", found.recipe), ("Code", found.code)):
        for change in changes:
            say(console, f"{what} {_text(change.key)}: {_value(change.before)} → {_value(change.after)}")


def _versions(data: DataChange) -> str:
    return f"{_version(data.before)} → {_version(data.after)}"


def _version(number: int | None) -> str:
    return "none" if number is None else f"v{number}"


def _value(value: Any) -> str:
    return "–" if value is None else _text(value)


def _data(data: DataChange) -> str:
    if data.before is None or data.after is None:
        known = data.rows_after if data.before is None else data.rows_before
        return "rows not noted" if known is None else f"{known} rows"
    counts = [str(count) if count is not None else "?" for count in (data.rows_before, data.rows_after)]
    rows = f"{counts[0]} → {counts[1]} rows"
    if data.same:
        return f"{rows}, the same"
    if data.added is None or data.removed is None:
        return rows if data.same is False else f"{rows}; whether they are the same was not noted"
    return f"{rows}: {data.added} added, {data.removed} removed"


def _show_scores(console: Console, found: Diff) -> None:
    from adapterctl.cli import render as show

    if not found.scores:
        return
    rows = []
    for cell in found.scores:
        change = "–" if cell.difference is None else f"{cell.difference:+.3f}"
        names = [_text(cell.lang), _text(cell.task), _text(cell.metric)]
        rows.append([*names, _text(cell.why_not), show.number(cell.before), show.number(cell.after), change])
    average = [show.number(value) for value in found.averages]
    known = [value for value in found.averages if value is not None]
    comparable = len(known) == 2 and not any(cell.why_not for cell in found.scores)
    rows.append(["average", "", "", "", *average, f"{known[1] - known[0]:+.3f}" if comparable else "–"])
    odd = any(cell.why_not for cell in found.scores)
    head = ["", "task", "metric", "not comparable" if odd else "", "before", "after", "change"]
    show.table(console, head, rows, words=4)


def _show_cost(console: Console, found: Diff) -> None:
    from adapterctl.accounting.comparison import format_money, format_seconds

    cost = found.cost

    def shown(amount: Amount | None, text: str) -> str:
        return "not on the books" if amount is None else amount.text(text)

    times = [shown(one, format_seconds(one.value) if one else "") for one in (cost.seconds_before, cost.seconds_after)]
    money = [
        shown(one, format_money(one.value, cost.currency) if one else "")
        for one in (cost.money_before, cost.money_after)
    ]
    say(console, f"Time to make it: {times[0]} → {times[1]}")
    say(console, f"Cost: {money[0]} → {money[1]}")
