"""``adapterctl setup``, ``update``, ``baseline``, ``add``, ``remove``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from adapterctl.cli.output import emit, json_option, say
from adapterctl.cli.session import open_session, open_workspace
from adapterctl.errors import GateFailed

if TYPE_CHECKING:
    from rich.console import Console

    from adapterctl.workflows.baseline import Kind
    from adapterctl.workflows.candidates import Candidate
    from adapterctl.workflows.update import UpdateOutcome


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
        "run_id": made.run_id,
    }


@click.command("setup")
@json_option
@click.pass_context
def setup(ctx: click.Context) -> None:
    """Train every language, merge, evaluate, and make the first champion.

    Run it again after an interruption: it goes on where it was.

    \b
    Examples:
      adapterctl setup
      adapterctl -C demo setup --json
    """
    from adapterctl.cli import render as show
    from adapterctl.workflows.setup import setup as run_setup

    with open_session(ctx, "setup") as session:
        outcome = run_setup(session)

    emit(
        ctx,
        {
            "trained": {one.lang: {"steps": one.result.steps, "reused": one.result.reused} for one in outcome.trained},
            "candidate": candidate_dict(outcome.candidate),
        },
        lambda console: show.candidate(console, outcome.candidate),
    )


@click.command("update")
@click.option("--lang", metavar="TAG", help="The language to retrain.")
@click.option("--if-changed", is_flag=True, help="Do nothing where neither rows nor settings changed.")
@click.option("--continue", "go_on", is_flag=True, help="Go on with the update that was interrupted.")
@json_option
@click.pass_context
def update(ctx: click.Context, lang: str | None, if_changed: bool, go_on: bool) -> None:
    """Retrain one language and make the next release.

    Trains that language alone, merges all adapters again, evaluates every language, and compares the candidate with the
    champion. Where the gate lets it pass it becomes the champion, or waits for `adapterctl promote` with
    `promotion: manual`. Where it does not, the champion stays and the exit code is 3. Where there are too few test rows
    to decide, `gate.inconclusive` says what that means; with `review` the candidate waits and the exit code is 0.

    \b
    Examples:
      adapterctl update --lang ja
      adapterctl update --lang ja --if-changed --json
      adapterctl update --continue
    """
    from adapterctl.workflows.update import interrupted_language
    from adapterctl.workflows.update import update as run_update

    if (lang is None) == (not go_on):
        raise click.UsageError("name a language with --lang, or go on with --continue")
    workspace = open_workspace(ctx)
    tag = workspace.require_language(lang) if lang else interrupted_language(workspace)
    with open_session(ctx, "update", tag) as session:
        outcome = run_update(session, tag, if_changed=if_changed)
    _emit_update(ctx, outcome)


def _emit_update(ctx: click.Context, outcome: UpdateOutcome) -> None:
    from adapterctl.cli import render as show

    def text(console: Console) -> None:
        if outcome.candidate is not None:
            show.candidate(console, outcome.candidate)
            return
        say(
            console,
            f"Nothing to do: version {outcome.before.version} was made from these very rows and settings of "
            f"'{outcome.lang}'.",
        )
        if outcome.checked is not None:
            say(console, "The champion on the present test rows:")
            show.scorecard(console, outcome.checked)

    emit(
        ctx,
        {
            "lang": outcome.lang,
            "changed": outcome.changed,
            "before": outcome.before.version,
            "candidate": candidate_dict(outcome.candidate),
            "checked": outcome.checked.summary() if outcome.checked else None,
        },
        text,
    )
    if outcome.candidate is not None and not (outcome.candidate.release.passed or outcome.candidate.release.waits):
        # The result has been printed and says why; the exit code alone is still to be told.
        raise click.exceptions.Exit(GateFailed.exit_code)


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


@click.command("add")
@click.option("--lang", metavar="TAG", required=True, help="The language to add.")
@json_option
@click.pass_context
def add(ctx: click.Context, lang: str) -> None:
    """Add a language to the workspace.

    Writes adapters/TAG.yaml and the entry in adapterctl.yaml; nothing is trained yet.

    \b
    Examples:
      adapterctl add --lang ko
      adapterctl add --lang pt-BR
    """
    from adapterctl.languages import require_tag
    from adapterctl.workspace.editing import add_language

    workspace = open_workspace(ctx, data=False)
    tag = require_tag(lang)
    with workspace.lock("add"):
        file = add_language(workspace.root, tag)

    def text(console: Console) -> None:
        say(console, f"Added '{tag}': {file.relative_to(workspace.root)}.")
        say(console, "Next: put its rows where that file and evaluation/suite.yaml say, then")
        say(console, "  adapterctl doctor")
        say(console, f"  adapterctl update --lang {tag}")

    emit(ctx, {"lang": tag, "file": file}, text)


@click.command("remove")
@click.option("--lang", metavar="TAG", required=True, help="The language to take out.")
@json_option
@click.pass_context
def remove(ctx: click.Context, lang: str) -> None:
    """Take a language out of the workspace.

    The other languages are merged again, evaluated and gated, as in an update; nothing is trained. Rows and registered
    versions of the language stay where they are.

    \b
    Examples:
      adapterctl remove --lang ko
      adapterctl remove --lang ko --json
    """
    from adapterctl.languages import require_tag
    from adapterctl.workflows.update import remove_language

    # A language without rows can be removed, and one that an interrupted removal has taken out of the file already.
    languages = open_workspace(ctx, data=False).languages
    tag = lang if lang in languages else require_tag(lang)
    with open_session(ctx, "remove", tag, data=False) as session:
        outcome = remove_language(session, tag)
    _emit_update(ctx, outcome)
