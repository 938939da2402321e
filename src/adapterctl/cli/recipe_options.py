"""The merge recipe as options of a command."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import click

from adapterctl.errors import Problem

if TYPE_CHECKING:
    from adapterctl.workspace.documents import Document

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class _Option:
    """An option that says one key of the recipe."""

    flag: str
    metavar: str
    help: str
    key: str
    multiple: bool = False

    @property
    def name(self) -> str:
        """What click calls its value."""
        return f"recipe_{self.key}"


_OPTIONS = (
    _Option("--method", "NAME", "How deltas are combined: see adapterctl recipe methods.", "method"),
    _Option("--density", "D", "Share of entries that is kept, above 0, 1 at most.", "density"),
    _Option("--lambda", "L", "Factor on the whole result, or auto.", "lambda"),
    _Option("--weight", "LANG=W", "Weight of a language, used as it is; may be given again.", "weights", True),
    _Option("--base-share", "S", "Share of the base model: the result is multiplied by 1 - S.", "base_share"),
    _Option("--layers", "TEXT", 'Factors by layer: "0-7:0.5,24-31:1.0", "0-7:ja=0.5".', "layers"),
    _Option("--modules", "TEXT", 'Factors by kind of module: "q_proj:0.5,mlp:ja=0.8".', "modules"),
    _Option("--missing", "refuse|zero|present", "What to do with modules that only some adapters have.", "missing"),
    _Option("--rank", "auto|full|N", "Rank of the result; a smaller one is the best truncation.", "rank"),
    _Option("--semantics", "paper|mergekit|peft", "Whose fine print of trimming and voting holds.", "semantics"),
    _Option("--space", "auto|factors", "factors merges A and B apart, as PEFT does.", "space"),
    _Option("--slack", "K", "ties-slack: by how much protected languages may lose a vote.", "slack"),
    _Option("--protect", "LANG", "ties-slack: a protected language; may be given again.", "protect", True),
    _Option("--epsilon", "E", "della: keep probabilities from density - E to density + E.", "epsilon"),
    _Option("--gamma", "G", "breadcrumbs: share of the largest entries that is dropped.", "gamma"),
    _Option("--gram", "LANG=FILE", "regmean: Gram matrices of a language; may be given again.", "grams", True),
    _Option("--seed", "N", "Seed of the random masks.", "seed"),
    _Option("--precision", "fp32|fp64", "What entries are computed in.", "precision"),
    _Option("--dtype", "fp32|bf16", "What the result is stored in.", "dtype"),
)


def recipe_options(command: F) -> F:
    """Give a command an option for every key of the recipe; ``written`` makes a document of their values."""
    for option in reversed(_OPTIONS):
        default = () if option.multiple else None
        decorate = click.option(
            option.flag,
            option.name,
            metavar=option.metavar,
            help=option.help,
            multiple=option.multiple,
            default=default,
        )
        command = decorate(command)
    return command


@dataclass
class _Reading:
    """What options say, each value at the option that said it."""

    values: dict[str, Any] = field(default_factory=dict)
    flags: dict[tuple[str | int, ...], str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def put(self, flag: str, value: Any, *path: str) -> None:
        block = self.values
        for end in range(1, len(path)):
            self.flags.setdefault(path[:end], flag)
            block = block.setdefault(path[end - 1], {})
        self.flags[path] = flag
        block[path[-1]] = value

    def refuse(self, flag: str, message: str, hint: str) -> None:
        self.problems.append(Problem(flag, message, hint))


def written(values: Mapping[str, Any]) -> tuple[Document, list[Problem]]:
    """Return what the options of ``recipe_options`` say as a document, and what is wrong with their form.

    Whether the values can be used is for the recipe to say: its problems name the option then.
    """
    from adapterctl.workspace.documents import Document, Place

    reading = _Reading()
    for option in _OPTIONS:
        value = values[option.name]
        if value is None or value == ():
            continue
        if option.key in ("weights", "grams"):
            _pairs(reading, option, value)
        elif option.key in ("layers", "modules"):
            _schedule(reading, option, value)
        else:
            reading.put(option.flag, list(dict.fromkeys(value)) if option.multiple else value, option.key)
    places = {path: Place(flag, "") for path, flag in reading.flags.items()}
    return Document(reading.values, places), reading.problems


def _pairs(reading: _Reading, option: _Option, texts: Sequence[str]) -> None:
    thing = option.metavar.partition("=")[2]
    given: dict[str, str] = {}
    for text in texts:
        lang, equals, value = (part.strip() for part in text.partition("="))
        flag = f"{option.flag} {text}"
        if not (lang and equals and value):
            example = "ja=1.2" if thing == "W" else "ja=ja.safetensors"
            reading.refuse(flag, f"is not {option.metavar}", f"write it like {option.flag} {example}")
        elif lang in given:
            reading.refuse(flag, f"{lang} is given twice, also as {given[lang]}", "give each language once")
        else:
            given[lang] = value
            reading.put(flag, value, option.key, lang)


def _schedule(reading: _Reading, option: _Option, text: str) -> None:
    example = '"0-7:0.5,24-31:ja=0.8"' if option.key == "layers" else '"q_proj:0.5,mlp:ja=0.8"'
    whole: set[str] = set()
    for item in text.split(","):
        # No name of a module holds a colon, and no range does.
        name, colon, value = (part.strip() for part in item.partition(":"))
        lang, equals, factor = (part.strip() for part in value.partition("="))
        if not (name and colon and value) or (equals and not (lang and factor)):
            reading.refuse(option.flag, f"{item.strip()!r} is not NAME:NUMBER or NAME:LANG=NUMBER", f"write {example}")
            continue
        held = reading.values.get(option.key, {}).get(name)
        if name in whole or (held is not None and (not equals or lang in held)):
            reading.refuse(option.flag, f"{name!r} has two factors", "name each once, or once for each language")
        elif equals:
            reading.put(option.flag, factor, option.key, name, lang)
        else:
            whole.add(name)
            reading.put(option.flag, value, option.key, name)
