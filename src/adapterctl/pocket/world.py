"""The micro-world: tables of things, judgements and news in five languages, and who may see which of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal, TypeVar

import numpy as np
from ruamel.yaml import YAML

T = TypeVar("T")

Part = Literal["train", "dev", "test", "all", "arrived"]
"""Which entries of a table may be used: three disjoint parts, all of them, or those that only arrive later."""

LANGUAGES = ("en", "de", "fr", "ja", "zh")
LABELS = ("positive", "negative", "neutral")
GROUP, PLACE = 5, 6
NO_SPACES = frozenset({"ja", "zh"})
"""Languages written without spaces between sentences."""

_PARTS: dict[str, tuple[int, ...]] = {"train": (0, 1), "dev": (2,), "test": (3,), "all": (0, 1, 2, 3)}
_REVIEW_TEMPLATES = {"train": slice(0, 4), "dev": slice(4, 6), "test": slice(6, 8)}


@cache
def tables() -> dict[str, Any]:
    """Return ``world.yaml`` as it is written."""
    text = files("adapterctl.pocket").joinpath("world.yaml").read_text(encoding="utf-8")
    content: dict[str, Any] = YAML(typ="safe", pure=True).load(text)
    return content


def part_of(entries: Sequence[T], part: Part) -> list[T]:
    """Return the entries of a table that belong to ``part``: of every four, two train, one dev, one test."""
    return [entry for position, entry in enumerate(entries) if position % 4 in _PARTS[part]]


def pick(random: np.random.Generator, entries: Sequence[T]) -> T:
    """Return one entry, all being equally likely."""
    return entries[int(random.integers(len(entries)))]


def sample(random: np.random.Generator, entries: Sequence[T], count: int) -> list[T]:
    """Return ``count`` different entries in random order."""
    return [entries[int(i)] for i in random.permutation(len(entries))[:count]]


def capital(text: str) -> str:
    """Return ``text`` with its first letter in upper case."""
    return text[0].upper() + text[1:]


def joined(lang: str, sentences: Sequence[str]) -> str:
    """Return sentences as one paragraph, with or without spaces as the language is written."""
    return ("" if lang in NO_SPACES else " ").join(sentences)


def thing_name(lang: str, thing: Sequence[str]) -> str:
    """Return what a thing is called in ``lang``."""
    return str(thing[LANGUAGES.index(lang)])


def things(part: Part) -> list[list[str]]:
    """Return the things of a part: five names, a group, a place."""
    world = tables()
    return list(world["arrived_things"]) if part == "arrived" else part_of(world["things"], part)


def kind_name(lang: str, column: int, key: str) -> str:
    """Return the name of a group (``column`` = GROUP) or of a place (PLACE) in ``lang``."""
    return str(tables()["groups" if column == GROUP else "places"][key][LANGUAGES.index(lang)])


def judgements(lang: str, label: str, part: Part) -> list[str]:
    """Return the words of judgement with this label that a part may use."""
    world = tables()
    if part == "arrived":
        return list(world["arrived_judgements"].get(label, {}).get(lang, []))
    return part_of(world["judgements"][label][lang], part)


def review(random: np.random.Generator, lang: str, label: str, part: Part) -> str:
    """Return a review whose word of judgement has the given label."""
    world = tables()
    first, second = sample(random, world["aspects"][lang], 2)
    templates = world["reviews"][lang]
    template = pick(random, templates[_REVIEW_TEMPLATES[part]] if part in _REVIEW_TEMPLATES else templates)
    word = pick(random, judgements(lang, label, part))
    return str(template.format(a=first, A=capital(first), a2=second, w=word))


@dataclass(frozen=True)
class News:
    """A short report: ``body`` holds ``key``, the sentence with the news, among sentences around it."""

    body: str
    key: str
    around: tuple[str, ...]
    summary: str
    recap: str


def _town(random: np.random.Generator, lang: str) -> str:
    syllables = tables()["town_syllables"][lang]
    name = "".join(pick(random, syllables) for _ in range(int(random.integers(2, 4))))
    return name if lang in NO_SPACES else name.capitalize()


def news(random: np.random.Generator, lang: str, part: Part, *, invented_towns: float = 0.0) -> News:
    """Return a report of something somebody did somewhere.

    Args:
        random: Where the choices come from.
        lang: Language of the report.
        part: Which roles, deeds and cities may be used; ``arrived`` takes deeds that only arrive later.
        invented_towns: Share of reports about a town that does not exist, so that names must be copied.
    """
    world = tables()
    known: Part = "train" if part == "arrived" else part
    who = pick(random, part_of(world["roles"][lang], known))
    deed = pick(random, world["arrived_deeds"][lang] if part == "arrived" else part_of(world["deeds"][lang], part))
    if random.random() < invented_towns:
        city, other = _town(random, lang), _town(random, lang)
    else:
        city = pick(random, part_of(world["cities"][lang], known))
        other = pick(random, [name for name in world["cities"][lang] if name != city])
    slots = {"when": pick(random, world["times"][lang]), "who": who, "Who": capital(who), "deed": deed, "city": city}
    key = pick(random, world["news"][lang]).format(**slots)
    around = [line.format(other=other) for line in sample(random, world["fillers"][lang], 2)]
    sentences = list(around)
    sentences.insert(pick(random, (0, 0, 1, 1, 2)), key)
    return News(
        body=joined(lang, sentences),
        key=key,
        around=tuple(around),
        summary=pick(random, world["summaries"][lang]).format(**slots),
        recap=pick(random, world["recaps"][lang]).format(**slots),
    )


@dataclass(frozen=True)
class Question:
    """A question with three choices, of which the one at ``answer`` is right."""

    text: str
    choices: tuple[str, ...]
    answer: int


def question(random: np.random.Generator, lang: str, thing: Sequence[str], column: int) -> Question:
    """Return a question about the group (``column`` = GROUP) or the place (PLACE) of a thing."""
    world = tables()
    kinds, templates = ("groups", "group_questions") if column == GROUP else ("places", "place_questions")
    right = thing[column]
    keys = [right, *sample(random, [key for key in world[kinds] if key != right], 2)]
    keys = sample(random, keys, 3)
    return Question(
        text=pick(random, world[templates][lang]).format(s=thing_name(lang, thing)),
        choices=tuple(kind_name(lang, column, key) for key in keys),
        answer=keys.index(right),
    )
