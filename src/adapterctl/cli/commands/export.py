"""``adapterctl export``: a release for servers, and servers told of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from adapterctl.cli.output import emit, json_option, say
from adapterctl.cli.session import open_session
from adapterctl.serving.targets import TARGETS

if TYPE_CHECKING:
    from rich.console import Console

    from adapterctl.workflows.export import Export

_FOLDER = click.Path(path_type=Path)


@click.command("export")
@click.argument("to", metavar="DIR", type=_FOLDER)
@click.option(
    "--release",
    default="champion",
    show_default=True,
    metavar="NAME",
    help="Which one: champion, candidate, previous, or a version such as merged/7.",
)
@click.option(
    "--target", type=click.Choice(list(TARGETS)), default="peft", show_default=True, help="Who is to read it."
)
@click.option(
    "--max-lora-rank", type=click.IntRange(min=1), metavar="N", help="What the server was started with, where it was."
)
@click.option("--fit", is_flag=True, help="Truncate a release whose rank is larger, instead of refusing it.")
@click.option(
    "--base", type=_FOLDER, metavar="DIR", help="Folder of the base model, where the workspace names no folder."
)
@click.option(
    "--notify", multiple=True, metavar="URL", help="A running vLLM or SGLang that is to load it; may be repeated."
)
@click.option("--name", default="", metavar="NAME", help="What servers call it, before -vN.  [default: PROJECT-merged]")
@click.option("--server-path", default="", metavar="DIR", help="The path under which the servers see DIR.")
@click.option("--server-base", default="", metavar="NAME", help="What the servers call the base model.")
@click.option(
    "--unload-old/--keep-old", default=True, show_default=True, help="Drop earlier releases from the servers."
)
@click.option(
    "--api-key-env",
    default="VLLM_API_KEY",
    show_default=True,
    metavar="VARIABLE",
    help="The environment variable that holds the servers' key.",
)
@json_option
@click.pass_context
def export(
    ctx: click.Context,
    to: Path,
    release: str,
    target: str,
    max_lora_rank: int | None,
    fit: bool,
    base: Path | None,
    notify: tuple[str, ...],
    name: str,
    server_path: str,
    server_base: str,
    unload_old: bool,
    api_key_env: str,
) -> None:
    """Write a release as a folder to serve from.

    Every release gets a folder of its own below DIR, named after version and content, that appears at once and never
    changes; the link `current` beside it leads to the latest. What the server would refuse is refused here, with every
    reason; so is another base model, which no server notices. serving.json in the folder says how to start a server.

    With --notify, running servers load the release under a new name, are asked whether it answers, and then drop the
    earlier ones. Where one fails, the earlier ones stay loaded everywhere and the exit code is 5.

    \b
    Examples:
      adapterctl export serving
      adapterctl export serving --release candidate --target vllm --max-lora-rank 64 --json
      adapterctl export serving --target vllm --notify http://localhost:8000
      adapterctl export serving --target gguf
      adapterctl export serving --target model
    """
    from adapterctl.workflows.export import export as run_export
    from adapterctl.workflows.export_options import Wanted

    wanted = Wanted(
        to,
        release,
        target,
        max_lora_rank,
        fit,
        base,
        notify,
        name,
        server_path,
        server_base,
        not unload_old,
        api_key_env,
    )
    with open_session(ctx, "export", "merged", writing=False, quick=True, data=False) as session:
        made = run_export(session, wanted)
    emit(ctx, made, lambda console: _tell(console, made))


def _tell(console: Console, made: Export) -> None:
    say(console, f"{made.folder}")
    say(console, f"Version {made.release.version}, rank {made.rank}; {made.pointer.name} leads to it now.")
    if made.arguments:
        say(console, f"{made.target.title}: {' '.join(made.arguments)}")
    for one in made.notified:
        loaded = "loaded" if one.loaded else "loaded already"
        dropped = f"; dropped {', '.join(one.unloaded)}" if one.unloaded else ""
        kept = f"; still loaded: {', '.join(one.kept)}" if one.kept else ""
        say(console, f"{one.url}: {one.name} {loaded}, and answers{dropped}{kept}.")
    for note in made.notes:
        say(console, f"Note: {note}.")
