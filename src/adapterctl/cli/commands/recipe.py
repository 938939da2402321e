"""``adapterctl recipe``: what can be written into a merge recipe, and what is odd about one."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adapterctl.cli.output import emit, json_option, say
from adapterctl.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from adapterctl.merging.methods import Method

_SPACES = {
    "factored": "On the factors: stored without loss at the sum of the ranks",
    "knots": "In the joint left basis of all ΔW (KnOTS): stored without loss at the sum of the ranks",
    "core": "In the core space of all A and B: stored without loss at the sum of the ranks",
    "dense": "On ΔW itself, entry by entry: full rank, then truncated; the report says what that kept",
}
_ALWAYS = "weights, lambda, base_share, layers, modules, missing, rank, precision, dtype"
_LEAST_WIDTH = 40

_SEMANTICS = {
    "scope": "a trim threshold holds for",
    "extra": "entries kept beyond size × density",
    "exact_count": "of entries equal to the threshold",
    "weighted_vote": "signs are elected by",
    "divisor": "agreeing entries are divided by",
    "dare_divisor": "the same after DARE",
    "zero_sign": "sign of a balanced vote",
    "rescale": "DARE scales what is kept",
    "drop_unweighted": "a language of weight 0",
}
_WORDS: dict[str, dict[Any, str]] = {
    "scope": {"model": "the whole model", "module": "each module"},
    "extra": {0: "none", 1: "one"},
    "exact_count": {True: "the first stay", False: "all stay"},
    "weighted_vote": {True: "weight × value", False: "value"},
    "divisor": {"count": "their number", "weight": "their weights", "none": "nothing"},
    "dare_divisor": {"count": "their number", "weight": "their weights", "none": "nothing"},
    "zero_sign": {"majority": "the majority's", "plus": "plus"},
    "rescale": {"density": "by 1/density", "l1": "to the same L1"},
    "drop_unweighted": {True: "takes no part", False: "still votes"},
}


@click.group("recipe")
def recipe() -> None:
    """Show the merge methods, and what is odd about a recipe.

    \b
    Examples:
      adapterctl recipe methods
      adapterctl recipe lint recipe.yaml
    """


@recipe.command("methods")
@click.option("--semantics", is_flag=True, help="Show the table of semantics alone.")
@json_option
@click.pass_context
def methods(ctx: click.Context, semantics: bool) -> None:
    """Show every merge method, and how the three semantics differ.

    \b
    Examples:
      adapterctl recipe methods
      adapterctl recipe methods --semantics
      adapterctl recipe methods --json
    """
    from dataclasses import asdict

    from adapterctl.merging.dialects import DIALECTS
    from adapterctl.merging.methods import METHODS

    def text(console: Console) -> None:
        if not semantics:
            _list_methods(console)
        _list_semantics(console)

    found = [
        {
            "name": row.name,
            "title": row.title,
            "paper": _link(row),
            "space": row.space,
            "exact": row.exact,
            "options": list(row.options),
            "explanation": row.explanation,
        }
        for row in METHODS.values()
    ]
    value = {} if semantics else {"methods": found, "options_of_all": _ALWAYS.split(", ")}
    emit(ctx, {**value, "semantics": [asdict(row) for row in DIALECTS.values()]}, text)


def _link(row: Method) -> str | None:
    return f"https://arxiv.org/abs/{row.paper}" if row.paper else None


def _list_methods(console: Console) -> None:
    from adapterctl.merging.methods import METHODS

    width = max(console.width, _LEAST_WIDTH)
    indent = " " * (max(map(len, METHODS)) + 4)
    for space, title in _SPACES.items():
        say(console, "\n".join(textwrap.wrap(title, width)))
        for row in METHODS.values():
            if row.space != space:
                continue
            parts = [row.title, _link(row) or "no paper"]
            parts += [f"reads {', '.join(row.options)}"] if row.options else []
            told = textwrap.wrap(row.explanation, width - len(indent)) + _joined(parts, width - len(indent))
            say(console, f"  {row.name.ljust(len(indent) - 2)}{told[0]}")
            for line in told[1:]:
                say(console, f"{indent}{line}")
        say(console, "")
    said = f"Every method reads {_ALWAYS} as well. A method that is not exact can be stored without loss by rank: full."
    say(console, "\n".join(textwrap.wrap(said, width)) + "\n")


def _joined(parts: list[str], width: int) -> list[str]:
    """Return parts with dots between them, in lines that break at a dot where they can."""
    lines = [parts[0]]
    for part in parts[1:]:
        if len(lines[-1]) + len(part) + 3 <= width:
            lines[-1] += f" · {part}"
        else:
            lines.append(part)
    return [piece for line in lines for piece in textwrap.wrap(line, width, break_long_words=False)]


def _list_semantics(console: Console) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from adapterctl.merging.dialects import DIALECTS

    said = "What --semantics decides, for methods that drop entries or vote; core: what paper means in core space."
    say(console, "\n".join(textwrap.wrap(said, max(console.width, _LEAST_WIDTH))))
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in ("", *DIALECTS):
        drawn.add_column(name, overflow="fold")
    for key, title in _SEMANTICS.items():
        drawn.add_row(Text(title), *(Text(_WORDS[key][getattr(row, key)]) for row in DIALECTS.values()))
    console.print(drawn)


@recipe.command("lint")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--lang", "langs", metavar="TAG", multiple=True, help="A language that is merged; give it once for each.")
@json_option
@click.pass_context
def lint(ctx: click.Context, file: Path, langs: tuple[str, ...]) -> None:
    """Say what is wrong or idle in a merge recipe.

    Idle settings are warnings, and the exit code stays 0; what cannot be carried out makes it 2. The languages are
    those of --lang, else those of the workspace that the file lies in, else those that the recipe names.

    \b
    Examples:
      adapterctl recipe lint recipe.yaml
      adapterctl recipe lint recipe.yaml --lang de --lang ja --json
      adapterctl recipe lint adapterctl.yaml
    """
    from adapterctl.languages import require_tag
    from adapterctl.workspace.recipes import check_recipe, languages_around, languages_named, read_recipe

    document, problems = read_recipe(file)
    languages = [require_tag(lang) for lang in langs] or languages_around(file) or languages_named(document)
    checked = check_recipe(document, languages)
    told = {(problem.where, problem.message.partition(": ")[0]) for problem in problems}
    # What could not be read is not told a second time as something that is missing.
    problems += [p for p in checked.errors if (p.where, p.message.partition(": ")[0]) not in told]
    warnings = checked.warnings

    def text(console: Console) -> None:
        for problem in problems:
            say(console, f"✗ {problem}")
        for problem in warnings:
            say(console, f"! {problem}")
        named = f" for {', '.join(languages)}" if languages else ""
        count = f"{len(problems)} errors, {len(warnings)} warnings" if problems or warnings else "nothing is odd"
        say(console, f"{file}{named}: {count}.")

    value = {
        "file": file,
        "languages": languages,
        "errors": [vars(problem) for problem in problems],
        "warnings": [vars(problem) for problem in warnings],
    }
    emit(ctx, value, text)
    if problems:
        raise click.exceptions.Exit(ConfigError.exit_code)
