"""``adapterctl pocket``: the model that comes with adapterctl, made from nothing, and rows for it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from adapterctl.cli.output import emit, json_option, say
from adapterctl.cli.state import state_of
from adapterctl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Collection

    from rich.console import Console


@click.group("pocket")
def pocket() -> None:
    """Make the pocket model and its rows.

    \b
    Examples:
      adapterctl pocket build --out pocket-model
      adapterctl pocket rows --lang ja --split arrived --out arrived.jsonl
    """


@pocket.command("build")
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="DIR", help="A new folder.")
@click.option("--steps", type=click.IntRange(min=1), help="Optimizer steps.  [default: those of the shipped model]")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the text, the tokenizer and the weights.")
@json_option
@click.pass_context
def build(ctx: click.Context, out: Path, steps: int | None, seed: int) -> None:
    """Pre-train the pocket base model from nothing.

    Takes about twenty minutes of one CPU core. The same seed gives the same tokenizer and the same text.

    \b
    Examples:
      adapterctl pocket build --out pocket-model
      adapterctl pocket build --out try --steps 200
    """
    from adapterctl.cli.progress import reporter_for
    from adapterctl.files import disk_errors

    with disk_errors(out):
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UsageError(f"{out} exists and is not an empty folder", hint="name a new folder with --out")

    with reporter_for(state_of(ctx)).stage("pre-train the pocket model") as stage:
        from adapterctl.pocket.pretrain import PretrainPlan, pretrain

        plan = PretrainPlan(seed=seed) if steps is None else PretrainPlan(seed=seed, steps=steps)
        result = pretrain(plan, out, report=lambda step, total, loss, _: stage.advance(step, total, f"loss {loss:.3f}"))

    def render(console: Console) -> None:
        told = f"{result['steps']} steps, {result['tokens']} tokens, loss {result['loss']:.3f}"
        say(console, f"Wrote {out}: {told}.")

    emit(ctx, {"folder": out, "seed": seed, **result}, render)


def _one_of(option: str, value: str, known: Collection[str]) -> None:
    if value not in known:
        raise UsageError(f"{option} {value}: the pocket model has no such thing", hint=f"choose of {', '.join(known)}")


@pocket.command("rows")
@click.option("--lang", required=True, metavar="TAG", help="One of the languages of the pocket model.")
@click.option("--task", default="all", show_default=True, help="sentiment, reasoning, summarization, or all of them.")
@click.option(
    "--split",
    default="train",
    show_default=True,
    help="train, dev, test; or arrived, arrived-dev, arrived-test: about words that no other split holds.",
)
@click.option("--count", type=click.IntRange(min=1), help="Rows a task.  [default: as many as a workspace gets]")
@click.option("--seed", type=int, default=0, show_default=True, help="Another seed draws other rows.")
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="FILE", help="A new JSONL file.")
@json_option
@click.pass_context
def rows(ctx: click.Context, lang: str, task: str, split: str, count: int | None, seed: int, out: Path) -> None:
    """Write rows of the pocket model's tasks.

    \b
    Examples:
      adapterctl pocket rows --lang ja --split arrived --out adapters/data/ja/arrived.train.jsonl
      adapterctl pocket rows --lang de --task sentiment --split test --seed 1 --out more.jsonl
    """
    from adapterctl.files import disk_errors, write_text
    from adapterctl.pocket.rows import ROWS_PER_TASK, TASKS, task_rows
    from adapterctl.pocket.world import LANGUAGES
    from adapterctl.workspace.presets import rows_text

    _one_of("--lang", lang, LANGUAGES)
    _one_of("--task", task, (*TASKS, "all"))
    _one_of("--split", split, ROWS_PER_TASK)
    tasks = TASKS if task == "all" else (task,)
    made = {name: task_rows(lang, name, split, count=count, seed=seed) for name in tasks}
    text = "".join(map(rows_text, made.values()))
    with disk_errors(out):
        if out.exists() and (not out.is_file() or out.read_bytes() != text.encode("utf-8")):
            raise UsageError(f"{out} exists and holds something else", hint="name a new file with --out, or remove it")
    write_text(out, text)
    numbers = {name: len(found) for name, found in made.items()}

    def render(console: Console) -> None:
        told = ", ".join(f"{number} {name}" for name, number in numbers.items())
        say(console, f"Wrote {sum(numbers.values())} rows to {out}: {told}.")

    emit(ctx, {"file": out, "lang": lang, "split": split, "rows": numbers}, render)
