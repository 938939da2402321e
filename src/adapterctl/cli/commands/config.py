"""``adapterctl config``: what can be written into the files of a workspace, and what holds."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import click

from adapterctl.cli.output import emit, json_option
from adapterctl.cli.session import open_workspace
from adapterctl.errors import UsageError
from adapterctl.masking import mask

if TYPE_CHECKING:
    from rich.console import Console


@click.group("config")
def config() -> None:
    """Show what can be configured and what is.

    \b
    Examples:
      adapterctl config show merge
      adapterctl config schema
    """


@config.command("schema")
@click.argument("file", required=False)
@json_option
@click.pass_context
def schema(ctx: click.Context, file: str | None) -> None:
    """Print the JSON schema of the files of a workspace.

    With FILE, such as adapterctl.yaml, the schema of that file alone, for an editor that completes and checks YAML.

    \b
    Examples:
      adapterctl config schema
      adapterctl config schema adapterctl.yaml > adapterctl.schema.json
    """
    from adapterctl.workspace.resolved import json_schema

    schemas = json_schema()
    if file is not None and file not in schemas:
        raise UsageError(f"there is no schema of '{file}'", hint=f"choose one of: {', '.join(schemas)}")
    value = schemas if file is None else schemas[file]
    emit(ctx, value, lambda _: click.echo(json.dumps(value, indent=2, ensure_ascii=False)))


@config.command("show")
@click.argument("key", required=False, default="")
@json_option
@click.pass_context
def show(ctx: click.Context, key: str) -> None:
    """Print every setting that holds and the line it comes from.

    With KEY, such as merge or adapters.ja, only the settings below it.

    \b
    Examples:
      adapterctl config show
      adapterctl config show adapters.ja.training
    """
    from adapterctl.workspace.resolved import resolved_values

    workspace = open_workspace(ctx, data=False)
    values = [
        replace(value, value=mask(value.value)) if isinstance(value.value, str) else value
        for value in resolved_values(workspace)
        if not key or value.key == key or value.key.startswith((f"{key}.", f"{key}["))
    ]
    if not values:
        raise UsageError(f"there is no setting '{key}'", hint="see all of them with: adapterctl config show")

    def render(console: Console) -> None:
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False)
        for title in ("setting", "value", "from"):
            table.add_column(title, overflow="fold")
        for value in values:
            text = value.value if isinstance(value.value, str) else json.dumps(value.value, ensure_ascii=False)
            table.add_row(Text(value.key), Text(text), Text(value.origin, style="dim"))
        console.print(table)

    emit(ctx, {"workspace": workspace.root, "settings": [asdict(value) for value in values]}, render)
