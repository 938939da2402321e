"""``adapterctl cost``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from adapterctl.cli.output import emit, json_option, say
from adapterctl.cli.session import open_session

if TYPE_CHECKING:
    from rich.console import Console

    from adapterctl.accounting.audit import Audit, Status
    from adapterctl.accounting.prices import PriceSheet
    from adapterctl.accounting.report import Table
    from adapterctl.workflows.costs import CostComparison

F = TypeVar("F", bound=Callable[..., Any])


@click.group("cost")
def cost() -> None:
    """Say what the work has cost.

    \b
    Examples:
      adapterctl cost report
      adapterctl cost compare --workers 2
      adapterctl cost project --updates 24 --languages 12
      adapterctl cost audit table.csv
    """


def _prices_option(command: F) -> F:
    option = click.option(
        "--prices",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="A price sheet (YAML) to take instead of 'prices' in adapterctl.yaml.",
    )
    return option(command)


def _terms(command: F) -> F:
    """Give a command prices, workers and billing."""
    workers = click.option(
        "--workers",
        type=click.IntRange(1, 10_000),
        metavar="W",
        help="Machines that train at the same time, instead of prices.workers.",
    )
    billing = click.option(
        "--billing",
        type=click.Choice(["busy", "reserved"]),
        help="busy: hours that were worked are paid; reserved: all machines as long as the work lasts.",
    )
    return _prices_option(workers(billing(command)))


@cost.command("report")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write report.html (one file with everything in it), report.md and its pictures there.",
)
@_prices_option
@json_option
@click.pass_context
def report(ctx: click.Context, out: Path | None, prices: Path | None) -> None:
    """Compare the last update with retraining everything.

    Every number was measured on this workspace, interpreter start included, unless it says that it is projected. With
    --out the report also tells set-up, update and added language beside one combined adapter, as `cost compare` does.

    \b
    Examples:
      adapterctl cost report
      adapterctl cost report --out books
      adapterctl cost report --json
    """
    from adapterctl.cli import render as show
    from adapterctl.workflows.books import cost_report
    from adapterctl.workflows.cost_report import last_update_usage, usage_table, write_report
    from adapterctl.workflows.costs import compare_costs, set_prices

    with open_session(ctx, "cost report", writing=False, quick=True, data=False) as session:
        sheet = set_prices(session, prices)
        found = cost_report(session)
        steps = last_update_usage(session)
        files: Sequence[Path] = ()
        if out is not None:
            files = write_report(out, session.project, steps, compare_costs(session), found)

    def text(console: Console) -> None:
        say(console, f"Update of '{found.lang}', {found.time}:")
        show.comparison(console, found.comparison)
        if found.present is not None:
            ratio = found.present.time_ratio
            if ratio is not None:
                say(
                    console,
                    f"Against a retrain-all on the rows there are now: {ratio.text(f'{ratio.value:.0%}')} of the time.",
                )
        if not found.comparison.measured:
            say(console, "Measure the retrain-all with: adapterctl baseline")
        say(console, "")
        say(console, "What it used (energy with ~ is computed, not read from a meter):")
        _table(console, usage_table(steps, sheet).only(_COLUMNS_SHOWN))
        for path in files:
            say(console, f"wrote {path}")

    made = {**found.as_dict(), "usage": [one.as_dict() for one in steps], "files": [str(path) for path in files]}
    emit(ctx, made, text)


_COLUMNS_SHOWN = ("step", "wall", "CPU", "tokens", "FLOPs", "peak memory", "energy", "CO2")


def _table(console: Console, table: Table) -> None:
    from adapterctl.cli import render as show

    show.table(console, table.head, table.rows)


def _money_table(console: Console, table: Table, currency: str) -> None:
    """Print a table whose money has no unit: the currency stands in the head.

    Where the table is too wide, heads and intervals go on below; broken at the line's end they would break anywhere.
    """
    from rich.markup import escape

    from adapterctl.accounting.report import Table

    head = tuple(f"{name}, {escape(currency)}" if name.startswith("money") else name for name in table.head)
    shown = Table(head, table.rows)
    for before, after in ((", ", ",\n"), (" [", "\n["), ("… ", "…\n")):
        if _width(shown) <= console.width:
            break
        shown = Table(
            tuple(name.replace(before, after) for name in shown.head),
            tuple(tuple(cell.replace(before, after) for cell in row) for row in shown.rows),
        )
    _table(console, shown)


def _width(table: Table) -> int:
    """Return how many characters a table takes."""
    columns = zip(table.head, *table.rows, strict=True)
    # Three stand between two columns.
    widths = [max(len(line) for cell in column for line in cell.split("\n")) for column in columns]
    return sum(widths) + 3 * (len(widths) - 1)


def _numbers_alone(sheet: PriceSheet) -> PriceSheet:
    """Return a price sheet whose amounts are written without their currency."""
    return sheet.model_copy(update={"currency": ""})


@cost.command("compare")
@_terms
@json_option
@click.pass_context
def compare(
    ctx: click.Context, prices: Path | None, workers: int | None, billing: Literal["busy", "reserved"] | None
) -> None:
    """Compare merged adapters with one combined adapter.

    Set-up, update and added language, in wall time and money; every number is marked measured or projected, and
    projections say between what they lie. Wall time on several machines is that of their schedule, longest training
    first.

    \b
    Examples:
      adapterctl cost compare
      adapterctl cost compare --workers 2 --billing reserved
      adapterctl cost compare --prices prices.yaml --json
    """
    from adapterctl.workflows.cost_report import scenario_table
    from adapterctl.workflows.costs import compare_costs, set_prices

    with open_session(ctx, "cost compare", writing=False, quick=True, data=False) as session:
        set_prices(session, prices, workers=workers, billing=billing)
        found = compare_costs(session)

    def text(console: Console) -> None:
        _money_table(console, scenario_table(found.scenarios, _numbers_alone(found.sheet)), found.sheet.currency)
        _conclusions(console, found)

    told = found.as_dict()
    emit(ctx, {key: value for key, value in told.items() if key not in ("updates", "growth")}, text)


def _conclusions(console: Console, found: CostComparison) -> None:
    from adapterctl.workflows.cost_report import even_sentence, terms

    for quantity, even in found.break_even.items():
        say(console, even_sentence(quantity, even))
    for one in found.scenarios:
        say(console, f"{one.name}: {one.basis}.")
    say(console, terms(found.sheet))


@cost.command("project")
@click.option(
    "--updates",
    type=int,
    default=12,
    show_default=True,
    metavar="K",
    help="How many updates to look ahead; each is taken to be like the last.",
)
@click.option("--languages", type=int, metavar="T", help="How many languages there are to be; default: five more.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write the pictures there.",
)
@_terms
@json_option
@click.pass_context
def project(
    ctx: click.Context,
    updates: int,
    languages: int | None,
    out: Path | None,
    prices: Path | None,
    workers: int | None,
    billing: Literal["busy", "reserved"] | None,
) -> None:
    """Project what merging costs over many updates and languages.

    Cumulative time and money of merged adapters and of one combined adapter: after K updates, and while languages are
    added one by one.

    \b
    Examples:
      adapterctl cost project --updates 24
      adapterctl cost project --updates 24 --languages 12 --out pictures
      adapterctl cost project --workers 4 --billing reserved --json
    """
    from adapterctl.workflows.cost_report import draw_growth, draw_updates, point_table
    from adapterctl.workflows.costs import compare_costs, set_prices

    with open_session(ctx, "cost project", writing=False, quick=True, data=False) as session:
        set_prices(session, prices, workers=workers, billing=billing)
        found = compare_costs(session, updates=updates, languages=languages)
    files = [draw_updates(found, out / "updates.png"), draw_growth(found, out / "languages.png")] if out else []

    def text(console: Console) -> None:
        sheet = _numbers_alone(found.sheet)
        _money_table(console, point_table(found.updates, "updates", sheet), found.sheet.currency)
        _money_table(console, point_table(found.growth, "languages", sheet), found.sheet.currency)
        _conclusions(console, found)
        for path in files:
            say(console, f"wrote {path}")

    emit(ctx, {**found.as_dict(), "files": [str(path) for path in files]}, text)


def _a_number(ctx: click.Context, option: click.Parameter, value: float | None) -> float | None:
    if value is not None and not isfinite(value):
        raise click.BadParameter(f"{value} is no price.", ctx, option)
    return value


@cost.command("audit")
@click.argument("table", metavar="TABLE", type=click.Path(path_type=Path))
@click.option(
    "--rate",
    type=click.FloatRange(0, min_open=True),
    callback=_a_number,
    metavar="PRICE",
    help="The hourly rate, where known.",
)
@click.option(
    "--workers", type=click.IntRange(1), metavar="W", help="Machines that worked side by side at most, where known."
)
@json_option
@click.pass_context
def audit(ctx: click.Context, table: Path, rate: float | None, workers: int | None) -> None:
    """Check a published table of hours and money.

    Finds the hourly rates that the rows have in common within their rounding, the rows that leave it and what they
    should say, and savings that do not follow. Where several sets of equally many rows agree, the rows that they differ
    in are disputed, and --rate decides. TABLE is .csv or .yaml, with the columns name, hours, money; and where
    wanted kind (busy hours are paid for, wall hours passed while several machines worked), hours_unit and money_unit
    (what was rounded to, where the last digit does not say it), against (the row that savings are measured by),
    time_saved and money_saved (printed savings in per cent). No workspace is needed. The exit code is 0 also where the
    table contradicts itself.

    \b
    In YAML the rows are a list, at the top or under 'rows'; quotes keep a zero:
      - {name: combined, hours: "3.0", money: 94.5}
      - {name: merged, hours: 1.5, money: 47.3, against: combined, time_saved: 50}

    \b
    Examples:
      adapterctl cost audit docs/examples/cost-table.csv
      adapterctl cost audit table.yaml --rate 31.5 --json
    """
    from adapterctl.accounting.audit import audit as check
    from adapterctl.workspace.cost_table import load_table

    found = check(load_table(table), rate=rate, workers=workers)
    emit(ctx, found, lambda console: _audit_text(console, found))


_STATUS: dict[Status, str] = {"ok": "ok", "disputed": "disputed", "contradicts": "CONTRADICTS"}


def _audit_text(console: Console, found: Audit) -> None:
    from adapterctl.cli import render as show

    rows = [
        (
            one.row.name,
            one.row.kind,
            one.row.hours.text,
            one.row.money.text,
            one.rates.text if one.rates else "–",
            one.busy_hours.text,
            _STATUS[one.status],
        )
        for one in found.rows
    ]
    show.table(console, ("", "", "hours", "money", "rates it allows", "busy hours it pays", ""), rows, words=2)
    savings = [
        (
            one.row,
            one.quantity,
            "–" if one.printed is None else f"{one.printed:g} %",
            "–" if one.due is None else f"{one.due:.1f} %",
            "ok" if one.consistent else "CONTRADICTS",
        )
        for one in found.savings
    ]
    if savings:
        show.table(console, ("saves", "", "printed", "follows", ""), savings, words=2)
    if found.rate is not None and len(found.explanations) == 1:
        say(console, f"Rates that most rows have in common: {found.rate.text} an hour.")
    for note in found.notes:
        say(console, note)
    for one in found.rows:
        if one.reason:
            say(console, f"{one.row.name}: {one.reason}.")
    for saving in found.savings:
        if saving.reason:
            say(console, f"{saving.row}, {saving.quantity}: {saving.reason}.")
    if found.consistent:
        say(console, "All numbers agree within their rounding.")
