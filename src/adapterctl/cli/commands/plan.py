"""``adapterctl plan``."""

from __future__ import annotations

from math import isnan
from typing import TYPE_CHECKING

import click

from adapterctl.cli.output import emit, json_option, say
from adapterctl.cli.session import open_session

if TYPE_CHECKING:
    from rich.console import Console


@click.command("plan")
@click.option(
    "--lang",
    "langs",
    metavar="TAG",
    multiple=True,
    help="A language to be retrained; without any: a set-up.",
)
@click.option("--all-changed", is_flag=True, help="Plan an update of every language that is due.")
@json_option
@click.pass_context
def plan(ctx: click.Context, langs: tuple[str, ...], all_changed: bool) -> None:
    """Say what an update would do, and what it would cost.

    Nothing is changed. Costs are projected and marked so; a retrain-all is measured where `adapterctl baseline` ran.

    \b
    Examples:
      adapterctl plan --lang ja
      adapterctl plan --all-changed --json
    """
    from adapterctl.accounting.comparison import format_seconds
    from adapterctl.cli import render as show
    from adapterctl.workflows.plan import plan_setup, plan_update

    with open_session(ctx, "plan", writing=False, quick=True) as session:
        tags = None if all_changed else tuple(map(session.workspace.require_language, langs))
        setting_up = tags == ()
        made = plan_setup(session, require_none=True) if setting_up else plan_update(session, tags)

    def text(console: Console) -> None:
        if made.champion is None and not setting_up:
            say(console, "There is no champion yet: this is the plan of `adapterctl setup`, which an update needs.")
        elif not made.changed:
            say(console, f"Nothing to do: version {made.champion} was made from these very rows and settings.")
        rows = [
            [
                step.step,
                step.subject,
                "reuse" if step.reused else "run",
                step.reason,
                step.seconds.text(format_seconds(step.seconds.value)) if step.seconds and not step.reused else "",
            ]
            for step in made.steps
        ]
        show.table(console, ["step", "of", "", "why", "time"], rows, words=4)
        if made.changed:
            show.comparison(console, made.comparison)
            say(console, f"Projected {made.basis}.")
        say(console, "")
        say(console, "Smallest loss the test rows show with 80 % probability (the gate tolerates the margin):")
        shown = [
            [
                cell.lang,
                cell.task,
                str(cell.n),
                show.number(None if isnan(cell.detectable) else cell.detectable),
                show.number(None if isnan(cell.margin) else cell.margin),
                "" if cell.enough else "with a champion" if isnan(cell.detectable) else "few rows",
            ]
            for cell in made.power
        ]
        show.table(console, ["", "task", "rows", "detectable", "margin", ""], shown, words=2)
        if not all(cell.enough for cell in made.power):
            say(
                console,
                "Where it says few rows, even a candidate as good as the champion may not pass: add test rows, or "
                "raise gate.margin (gate.margins for one task); gate.inconclusive says what undecided means.",
            )

    emit(ctx, made, text)
