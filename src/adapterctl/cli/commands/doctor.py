"""``adapterctl doctor``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from adapterctl.cli.output import emit, json_option
from adapterctl.cli.state import state_of
from adapterctl.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

_SIGNS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "error": ("✗", "red")}


@click.command("doctor")
@json_option
@click.pass_context
def doctor(ctx: click.Context) -> None:
    """Check everything a workspace needs, and say what to do about it.

    Looks at packages, workspace, base model, rows, disk, registry, and at what killed commands left behind. The exit
    code is 2 where something must be mended first.

    \b
    Examples:
      adapterctl doctor
      adapterctl -C demo doctor --json
    """
    from rich.text import Text

    from adapterctl.workflows.doctor import examine

    findings = examine(state_of(ctx).workspace)
    healthy = all(finding.level != "error" for finding in findings)

    def text(console: Console) -> None:
        for finding in findings:
            sign, colour = _SIGNS[finding.level]
            line = Text.assemble((f"{sign} ", colour), f"{finding.area}: {finding.message}")
            console.print(line, soft_wrap=True)
            if finding.mend:
                console.print(Text(f"    → {finding.mend}"), soft_wrap=True)

    emit(ctx, {"healthy": healthy, "findings": [vars(finding) for finding in findings]}, text)
    if not healthy:
        raise click.exceptions.Exit(ConfigError.exit_code)
