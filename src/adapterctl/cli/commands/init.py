"""``adapterctl init``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from adapterctl.cli.output import emit, json_option, say

if TYPE_CHECKING:
    from rich.console import Console


@click.command("init")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option(
    "--preset",
    default="pocket",
    show_default=True,
    help="pocket: the model that comes with adapterctl, with its rows; blank: configuration only.",
)
@click.option("--lang", "languages", metavar="TAG", multiple=True, help="A language; give it once for each.")
@click.option("--project", metavar="NAME", help="Name of the project, part of the names in the registry.")
@json_option
@click.pass_context
def init(ctx: click.Context, directory: Path, preset: str, languages: tuple[str, ...], project: str | None) -> None:
    """Make a new workspace.

    Needs no network. Nothing in DIRECTORY is overwritten.

    \b
    Examples:
      adapterctl init demo
      adapterctl init adapters --preset blank --project support-bot --lang de --lang ja
    """
    from adapterctl.workflows.init import init_workspace
    from adapterctl.workspace.workspace import Workspace

    root = init_workspace(directory, preset, languages=languages or None, project=project)
    workspace = Workspace.open(root, data=False)
    named = ", ".join(workspace.languages) or "no languages yet"

    def render(console: Console) -> None:
        say(console, f"Made the workspace {directory}: project {workspace.config.project}, {named}.")
        say(console, "Next:")
        say(console, f"  cd {directory}")
        steps = ["adapterctl doctor", "adapterctl setup"]
        for step in steps if workspace.languages else ["adapterctl add --lang TAG", *steps]:
            say(console, f"  {step}")

    value = {
        "workspace": root,
        "project": workspace.config.project,
        "preset": preset,
        "languages": workspace.languages,
    }
    emit(ctx, value, render)
