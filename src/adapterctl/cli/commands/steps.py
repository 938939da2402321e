"""``adapterctl train``, ``evaluate``: single steps of an update."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from adapterctl.cli.output import emit, json_option, say
from adapterctl.cli.session import open_session

if TYPE_CHECKING:
    from rich.console import Console


@click.command("train")
@click.option("--lang", "langs", metavar="TAG", multiple=True, help="A language; give it once for each.")
@click.option("--all", "every", is_flag=True, help="Every language of the workspace.")
@json_option
@click.pass_context
def train(ctx: click.Context, langs: tuple[str, ...], every: bool) -> None:
    """Train adapters and register them.

    The champion stays as it is: `adapterctl update` trains and releases.

    \b
    Examples:
      adapterctl train --lang ja --lang zh
      adapterctl train --all
    """
    from adapterctl.workflows.setup import train_only

    if bool(langs) == every:
        raise click.UsageError("name languages with --lang, or take --all")
    with open_session(ctx, "train", " ".join(langs)) as session:
        wanted = [session.workspace.require_language(lang) for lang in langs] or list(session.workspace.languages)
        trained = train_only(session, wanted)

    def text(console: Console) -> None:
        for adapter, pinned in trained:
            result = adapter.result
            how = "trained already" if result.reused else f"{result.steps} steps, {result.seconds:.1f} s"
            say(console, f"{adapter.lang}: version {pinned.version}, {how}, loss {result.final_loss:.3f}")
            say(console, f"  {adapter.folder}")

    value = {
        adapter.lang: {"version": pinned.version, "folder": adapter.folder, "content_hash": adapter.content_hash}
        for adapter, pinned in trained
    }
    emit(ctx, value, text)


@click.command("evaluate")
@click.option(
    "--model",
    default="champion",
    show_default=True,
    metavar="NAME",
    help="champion, candidate, previous, base, combined, a language, or an adapter's folder.",
)
@click.option("--lang", "langs", metavar="TAG", multiple=True, help="Only this language; may be given again.")
@click.option("--split", type=click.Choice(["test", "dev"]), default="test", show_default=True, help="Which rows.")
@json_option
@click.pass_context
def evaluate(ctx: click.Context, model: str, langs: tuple[str, ...], split: str) -> None:
    """Measure a model on the evaluation suite.

    \b
    Examples:
      adapterctl evaluate
      adapterctl evaluate --model base --split dev
      adapterctl evaluate --model ja --lang ja --lang zh --json
    """
    from adapterctl.cli import render as show
    from adapterctl.workflows.measure import evaluate_model

    with open_session(ctx, "evaluate", model) as session:
        wanted = [session.workspace.require_language(lang) for lang in langs]
        card = evaluate_model(session, model, wanted, split)

    def text(console: Console) -> None:
        say(console, f"{card.model} on {split} rows:")
        show.scorecard(console, card)

    emit(ctx, card.summary(), text)
