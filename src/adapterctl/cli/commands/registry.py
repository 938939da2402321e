"""``adapterctl registry``: look after the registry, and move it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from adapterctl.cli.output import emit, json_option, say
from adapterctl.cli.session import open_session
from adapterctl.errors import AdapterError, UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from adapterctl.workflows.moving import Transfer

_FILE = click.Path(path_type=Path)


@click.group("registry")
def registry() -> None:
    """Look after the registry: verify it, clear it out, move it to another place.

    \b
    Examples:
      adapterctl registry verify
      adapterctl registry gc --keep 5 --plan
      adapterctl registry export pocket.tar
    """


@registry.command("verify")
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@json_option
@click.pass_context
def verify(ctx: click.Context, models: tuple[str, ...]) -> None:
    """Read every file in the registry again, and compare it with what was published.

    MODEL is merged, combined, a language, or the name of a registered model; each with /VERSION or @ALIAS where only
    that version is meant. Without one, everything is read. The exit code is 6 where something is not whole.

    \b
    Examples:
      adapterctl registry verify
      adapterctl registry verify merged@champion ja
      adapterctl registry verify --json
    """
    from adapterctl.workflows.upkeep import verify as run_verify

    with open_session(ctx, "registry verify", writing=False, data=False) as session:
        made = run_verify(session, models)
    found = made.found

    def text(console: Console) -> None:
        for fault in found.faults:
            say(console, f"✗ {fault.where}: {fault.message}")
            say(console, f"    → {fault.hint}")
        for version in found.foreign:
            say(console, f"- {version} was not registered by adapterctl: nothing says what it should be")
        end = f"{len(found.faults)} faults." if found.faults else "Everything is as it was published."
        say(console, f"{found.versions} versions, {found.files} files, {_size(found.bytes)} read. {end}")

    emit(ctx, made, text)
    if found.faults:
        raise click.exceptions.Exit(AdapterError.exit_code)


@registry.command("gc")
@click.option(
    "--keep",
    type=click.IntRange(min=1),
    required=True,
    metavar="N",
    help="How many of the newest versions of every model stay.",
)
@click.option("--plan", "plan_only", is_flag=True, help="Show what would go, and the plan's id. This is the default.")
@click.option("--apply", "plan_id", metavar="PLAN", help="Delete exactly what the plan of this id shows.")
@click.option("--verbose", is_flag=True, help="Show also what stays, and why.")
@json_option
@click.pass_context
def gc(ctx: click.Context, keep: int, plan_only: bool, plan_id: str | None, verbose: bool) -> None:
    """Delete versions that nobody needs any more, and free the room of their files.

    What stays: the newest N versions of every model, versions with an alias or the tag keep, those approved and not yet
    promoted, and every adapter that a version which stays was made of. Runs, figures and the books stay. First the plan
    is shown; it is carried out by its id, and only if it is still the same.

    \b
    Examples:
      adapterctl registry gc --keep 5 --plan
      adapterctl registry gc --keep 5 --apply 3f0c2a91d7be
    """
    from adapterctl.workflows.upkeep import plan_removal, remove

    if plan_only and plan_id:
        raise UsageError("--plan shows what would go and --apply deletes it: not both", hint="leave one of them out")
    with open_session(ctx, "registry gc", writing=False, data=False) as session:
        plan = remove(session, keep, plan_id) if plan_id else plan_removal(session, keep)
    done = plan_id is not None

    def text(console: Console) -> None:
        for item in plan.doomed:
            what = item.name if item.version is None else f"{item.name} v{item.version}"
            say(console, f"- {what}, {_size(item.bytes)}: {item.why}")
        if verbose:
            for held in plan.kept:
                say(console, f"  {held.name} v{held.version} stays: {held.why}")
        told = f"{len(plan.doomed)} of {len(plan.doomed) + len(plan.kept)}, {_size(plan.bytes)}"
        if not plan.doomed:
            say(console, f"Nothing to delete: all {len(plan.kept)} versions are needed.")
        elif done:
            say(console, f"Deleted {told}.")
        else:
            say(console, f"{told} would go. To delete exactly these:")
            say(console, f"  adapterctl registry gc --keep {keep} --apply {plan.id}")

    emit(ctx, plan.as_dict() | {"applied": done}, text)


@registry.command("export")
@click.argument("file", type=_FILE)
@json_option
@click.pass_context
def export(ctx: click.Context, file: Path) -> None:
    """Write everything that the project has in the registry into one file.

    Versions with their files, aliases and tags, and all runs with parameters, curves, figures and the books: what
    history, costs and a rollback need in another registry. Equal registries give equal bytes.

    \b
    Examples:
      adapterctl registry export pocket.tar
      adapterctl registry export backup/pocket.tar --json
    """
    from adapterctl.workflows.moving import export_registry

    with open_session(ctx, "registry export", writing=False, data=False) as session:
        made = export_registry(session, file)
    _emit(ctx, made, f"Wrote {file}")


@registry.command("import")
@click.argument("file", type=_FILE)
@json_option
@click.pass_context
def import_(ctx: click.Context, file: Path) -> None:
    """Bring everything from a file into the registry of this workspace.

    The whole file is checked before anything is written. What is there already stays: after an interruption the same
    command goes on. A registry that holds the project with other content is refused.

    \b
    Examples:
      adapterctl registry import pocket.tar
      MLFLOW_TRACKING_URI=http://mlflow:5000 adapterctl registry import pocket.tar
    """
    from adapterctl.workflows.moving import import_registry

    with open_session(ctx, "registry import", writing=False, data=False) as session:
        made = import_registry(session, file)
    _emit(ctx, made, "Everything was there already" if made.complete else f"Imported {file}")


def _emit(ctx: click.Context, made: Transfer, done: str) -> None:
    moved = made.moved

    def text(console: Console) -> None:
        champion = f" The champion is version {made.champion}." if made.champion else ""
        told = f"{moved.versions} versions, {moved.runs} runs, {moved.files} files, {_size(moved.bytes)}"
        say(console, f"{done}.{champion}" if made.complete else f"{done}: {told}.{champion}")
        for version in moved.left_out:
            say(console, f"- {version} was left out: adapterctl did not register it")

    emit(ctx, made, text)


def _size(number: float) -> str:
    """Return bytes as people write them."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"
