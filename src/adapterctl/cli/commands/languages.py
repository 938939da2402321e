"""``adapterctl add``, ``remove``, ``pin``, ``unpin``: which languages there are, and which are held still."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from adapterctl.cli.commands.update import emit_update
from adapterctl.cli.job_options import wait_option
from adapterctl.cli.output import emit, json_option, say
from adapterctl.cli.session import open_session, open_workspace

if TYPE_CHECKING:
    from rich.console import Console


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
@wait_option
@json_option
@click.pass_context
def remove(ctx: click.Context, lang: str, wait: bool) -> None:
    """Take a language out of the workspace.

    The other languages are merged again, evaluated and gated, as in an update; nothing is trained. Rows and registered
    versions of the language stay where they are.

    \b
    Examples:
      adapterctl remove --lang ko
      adapterctl remove --lang ko --json
    """
    from adapterctl.languages import require_tag
    from adapterctl.workflows.reshape import remove_language

    # A language without rows can be removed, and one that an interrupted removal has taken out of the file already.
    languages = open_workspace(ctx, data=False).languages
    tag = lang if lang in languages else require_tag(lang)
    with open_session(ctx, "remove", tag, data=False, releasing=True, wait=wait) as session:
        outcome = remove_language(session, tag)
    emit_update(ctx, outcome)


@click.command("pin")
@click.option("--lang", metavar="TAG", required=True, help="The language to hold.")
@click.option(
    "--version", type=click.IntRange(min=1), metavar="N",
    help="The version of its adapter.  [default: the one that is served]",
)  # fmt: skip
@wait_option
@json_option
@click.pass_context
def pin(ctx: click.Context, lang: str, version: int | None, wait: bool) -> None:
    """Hold a language at a version of its adapter.

    Every merge takes that version, and no update trains the language, until `adapterctl unpin`. Where the champion
    serves another version, all languages are merged again, evaluated and gated, as in an update.

    \b
    Examples:
      adapterctl pin --lang ja
      adapterctl pin --lang ja --version 3
    """
    from adapterctl.workflows.reshape import pin_language

    tag = open_workspace(ctx).require_language(lang)
    with open_session(ctx, "pin", tag, releasing=True, wait=wait) as session:
        outcome = pin_language(session, tag, version)
    if outcome.candidate is not None:
        emit_update(ctx, outcome)
        return
    number = outcome.before.adapters[tag].version
    emit(
        ctx,
        {"lang": tag, "version": number, "changed": False},
        lambda console: say(console, f"'{tag}' stays at version {number}, which the champion serves."),
    )


@click.command("unpin")
@click.option("--lang", metavar="TAG", required=True, help="The language to let go.")
@wait_option
@json_option
@click.pass_context
def unpin(ctx: click.Context, lang: str, wait: bool) -> None:
    """Let a language go that was held at a version.

    Nothing is merged: the next update of the language trains it again where its rows are new.

    \b
    Examples:
      adapterctl unpin --lang ja
      adapterctl unpin --lang ja --json
    """
    from adapterctl.workflows.reshape import unpin_language

    tag = open_workspace(ctx, data=False).require_language(lang)
    with open_session(ctx, "unpin", tag, data=False, releasing=True, wait=wait) as session:
        number = unpin_language(session, tag)
    emit(
        ctx,
        {"lang": tag, "version": number},
        lambda console: say(console, f"'{tag}' was pinned to version {number}; updates may train it again."),
    )
