"""``adapterctl status``, ``history``, ``ui``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from adapterctl.cli.output import emit, json_option, say
from adapterctl.cli.session import open_session

if TYPE_CHECKING:
    from rich.console import Console

    from adapterctl.workflows.summaries import PastRelease

_LONGEST_CELL, _LONGEST_EVENT = 40, 80
_MOST_SHOWN = 50
_GATE_WORDS = {"failed": "FAILED"}


@click.command("status")
@json_option
@click.pass_context
def status(ctx: click.Context) -> None:
    """Show the champion, the candidate and what has changed since.

    \b
    Examples:
      adapterctl status
      adapterctl status --json
    """
    from adapterctl.cli import render as show
    from adapterctl.workflows.review import status as read_status

    with open_session(ctx, "status", writing=False, quick=True, data=False) as session:
        found = read_status(session)

    def text(console: Console) -> None:
        say(console, f"Project {found.project}, registry {found.registry}")
        for name, release in (
            ("champion", found.champion),
            ("candidate", found.candidate),
            ("previous", found.previous),
        ):
            if release is None:
                continue
            gate = "" if release.verdict is None else f", gate {_GATE_WORDS.get(release.gate, release.gate)}"
            say(
                console,
                f"  {name}: version {release.version}, {release.reason}, {release.created}, "
                f"average {show.number(release.scores['average'])}{gate}",
            )
        if found.champion is None:
            say(console, "  no champion yet: adapterctl setup")
        if found.candidate is not None and found.candidate.waits:
            say(console, "  the candidate waits for a person, the test rows were too few: adapterctl promote")
        rows = [
            [
                one.lang,
                one.state,
                f"v{one.version}" if one.version else "–",
                show.number(one.own),
                show.number(one.score),
            ]
            for one in found.languages
        ]
        show.table(console, ["", "rows and settings", "adapter", "own adapter", "champion"], rows, words=3)
        if found.artifacts is not None:
            say(console, f"Figures and tables of the champion: {found.artifacts}")
        for one in found.languages:
            if one.state == "changed" or (one.state == "not served" and found.champion is not None):
                say(console, f"Next: adapterctl update --lang {one.lang}")
            elif one.state == "bad rows":
                say(console, f"The rows of '{one.lang}' cannot be used; what is wrong says: adapterctl doctor")
        if found.pending is not None:
            say(console, f"{found.pending.told} was interrupted; go on with: {found.pending.again}")

    emit(ctx, found, text)


@click.command("history")
@click.option(
    "--limit", type=click.IntRange(min=1), metavar="N", help="Only the newest N.  [default: 50, all with --json]"
)
@json_option
@click.pass_context
def history(ctx: click.Context, limit: int | None) -> None:
    """List the releases.

    Newest first, with what the gate said, what points at each, and who promoted, rejected or rolled it back last.

    \b
    Examples:
      adapterctl history
      adapterctl history --limit 10
      adapterctl history --json
    """
    from adapterctl.cli import render as show
    from adapterctl.markdown import line
    from adapterctl.workflows.review import history as read_history

    with open_session(ctx, "history", writing=False, quick=True, data=False) as session:
        found = read_history(session, limit)

    def text(console: Console) -> None:
        if not found:
            say(console, "No releases yet. Make the first one: adapterctl setup")
            return
        rows = [
            [
                f"v{past.version}",
                past.created[:16].replace("T", " "),
                line(past.reason, _LONGEST_CELL),
                line(past.gate, _LONGEST_CELL),
                past.review,
                line(", ".join(past.aliases), _LONGEST_CELL),
                "–" if past.scale is None else f"{past.scale:g}",
                show.number(past.average),
                _last_event(past),
            ]
            for past in found[: limit or _MOST_SHOWN]
        ]
        head = ["version", "made (UTC)", "by", "gate", "review", "alias", "λ", "average", "decided last"]
        show.table(console, head, rows, words=9)
        if len(found) > len(rows):
            say(console, f"and {len(found) - len(rows)} older ones: adapterctl history --limit {len(found)}")

    emit(ctx, {"releases": [past.as_dict() for past in found]}, text)


def _last_event(past: PastRelease) -> str:
    from adapterctl.markdown import line

    if not past.events:
        return ""
    event = past.events[-1]
    why = f": {event.reason}" if event.reason else ""
    return line(f"{event.what} {event.time[:10]} by {event.by}{why}", _LONGEST_EVENT)


@click.command("ui")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=5000, show_default=True, help="Port; 0 takes a free one."
)
@json_option
@click.pass_context
def ui(ctx: click.Context, host: str, port: int) -> None:
    """Open the registry in a browser.

    Serves MLflow on the workspace's own store until Ctrl-C; names the address where the registry is a server already.

    \b
    Examples:
      adapterctl ui
      adapterctl ui --port 5001
    """
    from adapterctl.cli.session import open_workspace
    from adapterctl.registry.server import serve, ui_url

    workspace = open_workspace(ctx, data=False)
    resolved = workspace.config.registry.resolve(workspace.root)
    there = ui_url(resolved)
    if there is not None:
        emit(ctx, {"url": there}, lambda console: say(console, f"The registry is a server already: {there}"))
        return
    click.echo("Starting MLflow …", err=True)
    with serve(resolved, host, port) as server:
        emit(ctx, {"url": server.url}, lambda console: say(console, f"MLflow is at {server.url} (Ctrl-C ends it)"))
        # Whoever reads the address from a pipe wants it now, not when the server ends.
        sys.stdout.flush()
        try:
            server.process.wait()
        except KeyboardInterrupt:
            click.echo("", err=True)
