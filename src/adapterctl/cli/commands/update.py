"""``adapterctl update``."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import click

from adapterctl.cli.job_options import Span, skip_option, wait_option
from adapterctl.cli.output import emit, json_option, say
from adapterctl.cli.session import open_session, open_workspace
from adapterctl.errors import GateFailed

if TYPE_CHECKING:
    from rich.console import Console

    from adapterctl.workflows.update import UpdateOutcome


@click.command("update")
@click.option("--lang", "langs", metavar="TAG", multiple=True, help="A language to retrain; may be repeated.")
@click.option("--all-changed", is_flag=True, help="Retrain every language that is due, and merge once at the end.")
@click.option("--continue", "go_on", is_flag=True, help="Go on with the update that was interrupted.")
@click.option(
    "--if-changed", is_flag=True, help="Do nothing where neither rows nor settings, recipe, pins or code changed."
)
@click.option(
    "--min-new-rows", type=click.IntRange(min=0), default=0, metavar="N",
    help="Do not train a language for fewer than N new or changed rows.",
)  # fmt: skip
@click.option(
    "--max-age", type=Span(), metavar="SPAN", help="An adapter older than this does not wait for --min-new-rows: 30d."
)
@click.option(
    "--resume/--no-resume", default=True, show_default=True,
    help="Go on where an interrupted attempt was, or throw its checkpoints away first.",
)  # fmt: skip
@wait_option
@skip_option
@json_option
@click.pass_context
def update(
    ctx: click.Context,
    langs: tuple[str, ...],
    all_changed: bool,
    go_on: bool,
    if_changed: bool,
    min_new_rows: int,
    max_age: timedelta | None,
    resume: bool,
    wait: bool,
    skip_code: int,
) -> None:
    """Retrain languages and make the next release.

    Trains these languages alone, merges all adapters once, evaluates every language, and compares the candidate with
    the champion. Where the gate lets it pass it becomes the champion, or waits for a person with `promotion: review`.
    Where it does not, the champion stays and the exit code is 3. Where there are too few test rows to decide,
    `gate.inconclusive` says what that means; with `review` the candidate waits and the exit code is 0.

    What is finished is found by its content and not done again, so that a killed update is simply run again. A job that
    finds nothing new exits with 0, or with --skip-exit-code.

    \b
    Examples:
      adapterctl update --lang ja
      adapterctl update --lang ja --if-changed --json
      adapterctl update --all-changed --min-new-rows 200 --max-age 30d --skip-exit-code 99
      adapterctl update --continue
    """
    from adapterctl.workflows.triggers import Triggers
    from adapterctl.workflows.update import interrupted_languages
    from adapterctl.workflows.update import update as run_update

    if sum([bool(langs), all_changed, go_on]) != 1:
        raise click.UsageError("name languages with --lang, or use --all-changed, or go on with --continue")
    workspace = open_workspace(ctx)
    tags = interrupted_languages(workspace) if go_on else tuple(map(workspace.require_language, langs))
    triggers = Triggers(if_changed or all_changed, min_new_rows, max_age)
    asked = None if all_changed else tuple(dict.fromkeys(tags))
    with open_session(ctx, "update", " ".join(asked or ()), releasing=True, wait=wait) as session:
        outcome = run_update(session, asked, triggers, resume=resume)
    emit_update(ctx, outcome, skip_code)


def emit_update(ctx: click.Context, outcome: UpdateOutcome, skip_code: int = 0) -> None:
    """Print what an update did, and end with its exit code."""
    from adapterctl.cli.commands.maintain import candidate_dict

    value = {
        "langs": list(outcome.langs),
        "changed": outcome.changed,
        "changes": list(outcome.changes),
        "before": outcome.before.version,
        "candidate": candidate_dict(outcome.candidate),
        "checked": outcome.checked.summary() if outcome.checked else None,
        "due": [vars(one) for one in outcome.due],
        "settled": {"version": outcome.settled.version, "gate": outcome.settled.gate} if outcome.settled else None,
    }
    emit(ctx, value, lambda console: _tell(console, outcome))
    made = outcome.candidate
    if made is not None and (made.refused or not (made.release.passed or made.release.waits)):
        # The result has been printed and says why; the exit code alone is still to be told.
        raise click.exceptions.Exit(GateFailed.exit_code)
    if not outcome.changed and skip_code:
        raise click.exceptions.Exit(skip_code)


def _tell(console: Console, outcome: UpdateOutcome) -> None:
    from adapterctl.cli import render as show

    if outcome.due:
        rows = [[one.lang, "train" if one.due else "leave", one.why] for one in outcome.due]
        show.table(console, ["", "", "why"], rows, words=3)
    if outcome.candidate is not None:
        show.candidate(console, outcome.candidate)
        return
    if outcome.settled is not None:
        settled = outcome.settled
        say(
            console,
            f"Nothing to do: version {settled.version} came of these very inputs before (gate: {settled.gate}); it "
            "waits for a person, or was refused: adapterctl history",
        )
        return
    what = ", ".join(f"'{lang}'" for lang in outcome.langs)
    if any(one.new_rows or one.removed_rows for one in outcome.due):
        say(console, f"Nothing to do: version {outcome.before.version} stays, what is new is too little.")
    else:
        say(
            console,
            f"Nothing to do: version {outcome.before.version} was made from these very rows and settings of {what}.",
        )
    if outcome.checked is not None:
        say(console, "The champion on the present test rows:")
        show.scorecard(console, outcome.checked)
