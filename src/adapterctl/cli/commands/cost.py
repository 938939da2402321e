"""``adapterctl cost``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from adapterctl.cli.output import emit, json_option, say
from adapterctl.cli.session import open_session

if TYPE_CHECKING:
    from rich.console import Console


@click.group("cost")
def cost() -> None:
    """Say what the work has cost.

    \b
    Examples:
      adapterctl cost report
      adapterctl cost report --json
    """


@cost.command("report")
@json_option
@click.pass_context
def report(ctx: click.Context) -> None:
    """Compare the last update with retraining everything.

    Every number was measured on this workspace, interpreter start included, unless it says that it is projected.

    \b
    Examples:
      adapterctl cost report
      adapterctl cost report --json
    """
    from adapterctl.cli import render as show
    from adapterctl.workflows.books import cost_report

    with open_session(ctx, "cost report", writing=False, data=False) as session:
        found = cost_report(session)

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

    emit(ctx, found, text)
