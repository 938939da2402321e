"""A click group whose commands are imported when they are called, not when they are listed."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import Any

import click

from adapterctl.cli.catalogue import Entry

_COMMANDS = "adapterctl.cli.commands"


class LazyGroup(click.Group):
    """Commands in sections, each known by name and help before it is imported."""

    def __init__(self, *args: Any, sections: Mapping[str, Mapping[str, Entry]], **options: Any) -> None:
        super().__init__(*args, **options)
        self.sections = sections
        self.entries = {name: entry for section in sections.values() for name, entry in section.items()}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands in the order of the sections."""
        return list(self.entries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        entry = self.entries.get(cmd_name)
        if entry is None:
            return None
        command: click.Command = getattr(import_module(f"{_COMMANDS}.{entry.module}"), entry.attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that was asked for, or say which one may have been meant."""
        name = args[0]
        if name not in self.entries and not name.startswith("-") and not ctx.resilient_parsing:
            near = get_close_matches(name, self.entries, n=1)
            meant = f" Did you mean '{near[0]}'?" if near else ""
            raise click.UsageError(f"There is no command '{name}'.{meant}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections without importing a command."""
        for title, section in self.sections.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(self._widest), entry.help) for name, entry in section.items()])

    @property
    def _widest(self) -> int:
        return max(map(len, self.entries))
