"""``adapterctl promote``, ``rollback``, ``export``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from adapterctl.cli.output import emit, json_option, say
from adapterctl.cli.session import open_session

if TYPE_CHECKING:
    from rich.console import Console

    from adapterctl.workflows.release import Promotion


def _emit_promotion(ctx: click.Context, made: Promotion) -> None:
    def text(console: Console) -> None:
        before = f"; before: version {made.before.version}" if made.before else ""
        say(console, f"Champion: version {made.champion.version} ({made.champion.reason}){before}.")

    emit(ctx, made, text)


@click.command("promote")
@click.option(
    "--version", type=click.IntRange(min=1), help="A version of the merged adapter.  [default: the candidate]"
)
@click.option("--force", is_flag=True, help="Promote although the gate said no.")
@json_option
@click.pass_context
def promote(ctx: click.Context, version: int | None, force: bool) -> None:
    """Make a candidate the champion.

    \b
    Examples:
      adapterctl promote
      adapterctl promote --version 3 --force
    """
    from adapterctl.workflows.release import promote as run_promote

    with open_session(ctx, "promote", "merged", data=False) as session:
        made = run_promote(session, version, force=force)
    _emit_promotion(ctx, made)


@click.command("rollback")
@json_option
@click.pass_context
def rollback(ctx: click.Context) -> None:
    """Return to the previous champion.

    Champion and previous change places, so that a second rollback undoes the first.

    \b
    Examples:
      adapterctl rollback
      adapterctl rollback --json
    """
    from adapterctl.workflows.release import rollback as run_rollback

    with open_session(ctx, "rollback", "merged", data=False) as session:
        made = run_rollback(session)
    _emit_promotion(ctx, made)


@click.command("export")
@click.option("--to", type=click.Path(path_type=Path), required=True, metavar="DIR", help="Where to write it.")
@click.option(
    "--alias",
    type=click.Choice(["champion", "candidate", "previous"]),
    default="champion",
    show_default=True,
    help="Which release.",
)
@json_option
@click.pass_context
def export(ctx: click.Context, to: Path, alias: str) -> None:
    """Write a release as a folder to serve from.

    The folder is a plain PEFT adapter, named after version and content, so that a serving engine never mistakes a new
    release for the old one.

    \b
    Examples:
      adapterctl export --to serving
      adapterctl export --to serving --alias candidate --json
    """
    from adapterctl.workflows.release import export as run_export

    with open_session(ctx, "export", "merged", writing=False, data=False) as session:
        made = run_export(session, to, alias)

    def text(console: Console) -> None:
        say(console, f"{made.folder}")
        say(console, f"Version {made.release.version}, rank {made.rank}.")
        if made.max_lora_rank is None:
            say(console, "Too large for vLLM's largest --max-lora-rank, 512: set merge.rank to 512 or less.")
        else:
            say(console, f"vLLM: --enable-lora --max-lora-rank {made.max_lora_rank}")

    emit(ctx, made, text)
