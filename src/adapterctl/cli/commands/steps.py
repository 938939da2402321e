"""``adapterctl train``, ``evaluate``: single steps of an update."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from adapterctl.cli.output import emit, json_option, say
from adapterctl.cli.session import open_session

if TYPE_CHECKING:
    from rich.console import Console

_MOST_WARNINGS = 5


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
@click.argument("models", metavar="[MODEL]...", nargs=-1)
@click.option("--lang", "langs", metavar="TAG", multiple=True, help="Only this language; may be given again.")
@click.option("--task", "tasks", metavar="NAME", multiple=True, help="Only this task; may be given again.")
@click.option("--split", type=click.Choice(["test", "dev"]), default="test", show_default=True, help="Which rows.")
@click.option(
    "--suite",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Another suite file than evaluation/suite.yaml; its globs start in its folder.",
)
@click.option(
    "--lm-eval",
    "harness",
    metavar="TASKS",
    help="Measure with lm-evaluation-harness instead: names of its tasks or paths of task files, by commas.",
)
@click.option(
    "--engine",
    type=click.Choice(["transformers", "openai"]),
    default="transformers",
    show_default=True,
    help="What answers: a model in this process, or an OpenAI-compatible endpoint such as vLLM's.",
)
@click.option("--url", metavar="URL", help="Base address of the endpoint: http://localhost:8000/v1.")
@click.option("--details", is_flag=True, help="Show every metric with its signature.")
@click.option(
    "--predictions",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write what was answered to every row, one JSON object a line.",
)
@json_option
@click.pass_context
def evaluate(
    ctx: click.Context,
    models: tuple[str, ...],
    langs: tuple[str, ...],
    tasks: tuple[str, ...],
    split: str,
    suite: Path | None,
    harness: str | None,
    engine: str,
    url: str | None,
    details: bool,
    predictions: Path | None,
) -> None:
    """Measure models on the evaluation suite.

    MODEL is base, champion, candidate, previous, a language (its adapter in the champion), ja@champion, ja/3,
    merged/7, combined, or the folder of an adapter; the champion where none is named. Answers are kept: a model is
    asked only what it was not asked before. With --engine openai MODEL is a name that the endpoint serves.

    \b
    Examples:
      adapterctl evaluate
      adapterctl evaluate base ja@champion merged/7 --lang ja
      adapterctl evaluate ./my-adapter --task reasoning --split dev --json
      adapterctl evaluate base --suite suites/general.yaml --predictions answers.jsonl
      adapterctl evaluate champion --lm-eval xcopa_zh,my_tasks/quiz.yaml
      adapterctl evaluate merged-v7 --engine openai --url http://localhost:8000/v1
    """
    from adapterctl.cli import render as show
    from adapterctl.workflows.measure import Question, evaluate_models, require_writable, write_predictions

    if (engine == "openai") != bool(url):
        raise click.UsageError("--engine openai and --url go together")
    asked = tuple(name.strip() for name in (harness or "").split(",") if name.strip())
    if harness is not None and not asked:
        raise click.UsageError("--lm-eval names no task; give some: --lm-eval TASK,TASK or the path of a task file")
    if asked and (url or tasks or suite):
        raise click.UsageError(
            "--lm-eval brings its own tasks: it goes with neither --task, --suite nor --engine openai"
        )
    named = models or (() if url else ("champion",))
    # Not the address, which may hold a password: the subject stands in the books.
    with open_session(ctx, "evaluate", " ".join(named) or "endpoint", data=suite is None) as session:
        wanted = tuple(session.workspace.require_language(lang) for lang in langs)
        question = Question(
            langs=wanted,
            tasks=tasks,
            split=split,
            suite=suite,
            harness=asked,
            url=url or "",
        )
        if predictions is not None:
            require_writable(session, predictions, suite)
        done = evaluate_models(session, named, question)
        if predictions is not None:
            write_predictions(done, predictions)

    def text(console: Console) -> None:
        for card in done.cards:
            of = "lm-evaluation-harness" if harness else f"{split} rows"
            say(console, f"{card.model} on {of}:")
            show.scorecard(console, card)
            if details:
                show.all_metrics(console, card)
        if len(done.cards) > 1:
            show.scorecards(console, done.cards)
        for problem in done.warnings[:_MOST_WARNINGS]:
            say(console, f"warning: {problem}")
        if len(done.warnings) > _MOST_WARNINGS:
            say(console, f"warning: and {len(done.warnings) - _MOST_WARNINGS} more such rows")

    emit(ctx, done, text)
