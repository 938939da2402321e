"""``adapterctl setup`` and ``baseline``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from adapterctl.cli.job_options import wait_option
from adapterctl.cli.output import emit, json_option, say
from adapterctl.cli.session import open_session

if TYPE_CHECKING:
    from rich.console import Console

    from adapterctl.workflows.baseline import Kind
    from adapterctl.workflows.candidates import Candidate


def candidate_dict(made: Candidate | None) -> dict[str, Any] | None:
    """Return a candidate as plain values, without its rows."""
    if made is None:
        return None
    return {
        "version": made.release.version,
        "promoted": made.promoted,
        "passed": made.release.passed,
        "outcome": made.verdict.outcome if made.verdict else None,
        "waits": made.release.waits,
        "scale": made.release.scale,
        "scores": made.release.scores,
        "verdict": made.verdict.as_dict() if made.verdict else None,
        "new_rows": [vars(rows) for rows in made.new_rows],
        "refused": made.refused or None,
        "run_id": made.run_id,
    }


@click.command("setup")
@wait_option
@json_option
@click.pass_context
def setup(ctx: click.Context, wait: bool) -> None:
    """Train every language, merge, evaluate, and make the first champion.

    Run it again after an interruption: it goes on where it was.

    \b
    Examples:
      adapterctl setup
      adapterctl -C demo setup --json
    """
    from adapterctl.cli import render as show
    from adapterctl.workflows.setup import setup as run_setup

    with open_session(ctx, "setup", releasing=True, wait=wait) as session:
        outcome = run_setup(session)

    emit(
        ctx,
        {
            "trained": {one.lang: {"steps": one.result.steps, "reused": one.result.reused} for one in outcome.trained},
            "candidate": candidate_dict(outcome.candidate),
        },
        lambda console: show.candidate(console, outcome.candidate),
    )


@click.command("baseline")
@click.option(
    "--kind",
    type=click.Choice(["retrain", "continue", "linear"]),
    default="retrain",
    show_default=True,
    help="retrain: one adapter on all rows; continue: the combined adapter trained on with one language's rows; "
    "linear: the average of the champion's adapters, λ chosen on dev.",
)
@click.option("--lang", metavar="TAG", help="The language that --kind continue goes on with.")
@json_option
@click.pass_context
def baseline(ctx: click.Context, kind: Kind, lang: str | None) -> None:
    """Measure what a release has to stand beside.

    The retrain-all is what updates are compared with, measured from the interpreter's start to the registered adapter.
    The other two are what reviewers ask for: the cheapest update without merging, and the simplest merge. Where there
    is a champion, it is compared with the baseline on the same rows.

    \b
    Examples:
      adapterctl baseline
      adapterctl baseline --kind continue --lang ja
      adapterctl baseline --kind linear --json
    """
    from adapterctl.cli import render as show
    from adapterctl.workflows.baseline import COMMANDS
    from adapterctl.workflows.baseline import baseline as run_baseline

    if (kind == "continue") != (lang is not None):
        raise click.UsageError("--kind continue and --lang go together")
    with open_session(ctx, COMMANDS[kind], "merged" if kind == "linear" else "combined") as session:
        outcome = run_baseline(session, kind, session.workspace.require_language(lang) if lang else None)

    def text(console: Console) -> None:
        if outcome.trained is None:
            say(console, f"The champion's adapters, averaged, λ {outcome.scale:g}:")
        else:
            result, version = outcome.trained.result, outcome.version
            done = "trained already" if result.reused else f"{result.steps} steps, {result.seconds:.0f} s"
            named = f"version {version}" if version else f"continued on {lang}"
            say(console, f"Combined adapter, {named}: {outcome.trained.rows} rows, {done}.")
        show.scorecard(console, outcome.card)
        if outcome.verdict is not None:
            say(console, "The champion beside it; FAIL where it is not shown to be as good within the margin:")
            show.verdict(console, outcome.verdict, names=("baseline", "champion"))

    value = {
        "kind": kind,
        "version": outcome.version,
        "scale": outcome.scale,
        "scores": outcome.card.summary(),
        "verdict": outcome.verdict.as_dict() if outcome.verdict else None,
    }
    emit(ctx, value, text)
