"""``adapterctl doctor``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from adapterctl.cli.output import emit, inert, json_option, say
from adapterctl.cli.state import state_of
from adapterctl.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

_SIGNS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "error": ("✗", "red")}


@click.command("doctor")
@click.option("--fix", is_flag=True, help="Mend what needs no decision, and say what was done.")
@click.option("--deep", is_flag=True, help="Read every file in the registry again, not only those of what is served.")
@json_option
@click.pass_context
def doctor(ctx: click.Context, fix: bool, deep: bool) -> None:
    """Check everything a workspace needs, and say what to do about it.

    Looks at packages, workspace, base model, rows, disk, registry, at the files of what is served, and at what killed
    commands left behind. The exit code is 2 where something must be mended first. With --fix it clears what killed
    commands left, removes aliases of versions that are not there and unfinished files; it never decides which release
    is served.

    \b
    Examples:
      adapterctl doctor
      adapterctl doctor --fix
      adapterctl -C demo doctor --deep --json
    """
    from rich.text import Text

    from adapterctl.cli.progress import reporter_for
    from adapterctl.workflows.doctor import examine, mend

    state = state_of(ctx)
    reporter = reporter_for(state)
    mended = mend(state.workspace, reporter=reporter) if fix else []
    findings = examine(state.workspace, deep=deep, reporter=reporter)
    healthy = all(finding.level != "error" for finding in findings)

    def text(console: Console) -> None:
        for done in mended:
            say(console, f"+ {done}")
        if fix and not mended:
            say(console, "+ nothing to mend")
        for finding in findings:
            sign, colour = _SIGNS[finding.level]
            line = Text.assemble((f"{sign} ", colour), inert(f"{finding.area}: {finding.message}"))
            console.print(line, soft_wrap=True)
            if finding.mend:
                console.print(Text(inert(f"    → {finding.mend}")), soft_wrap=True)

    told = {"healthy": healthy, "findings": [vars(finding) for finding in findings], "mended": mended}
    emit(ctx, told, text)
    if not healthy:
        raise click.exceptions.Exit(ConfigError.exit_code)
