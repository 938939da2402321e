"""Reading the pocket world's rows back with ``world.yaml`` and regular expressions, and nothing of adapterctl."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

import adapterctl

LANGUAGES = ("en", "de", "fr", "ja", "zh")
PARTS = {"train": {0, 1}, "dev": {2}, "test": {3}}
"""Positions, of every four entries of a table, that belong to each split."""


@cache
def world() -> dict[str, Any]:
    path = Path(adapterctl.__file__).parent / "pocket" / "world.yaml"
    content: dict[str, Any] = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    return content


def entries(table: list[Any], split: str) -> list[Any]:
    return [entry for position, entry in enumerate(table) if position % 4 in PARTS[split]]


def one_of(words: Iterable[str]) -> str:
    return "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))


def pattern(template: str, **slots: Iterable[str] | None) -> re.Pattern[str]:
    """Return what a template can say; a slot without words takes any text."""
    parts = re.split(r"\{(\w+)\}", template)
    made = ""
    for index, part in enumerate(parts):
        words = slots.get(part)
        made += f"(?P<{part}>{'.+?' if words is None else one_of(words)})" if index % 2 else re.escape(part)
    return re.compile(made, re.DOTALL)


def capitalised(words: Iterable[str]) -> list[str]:
    return [word[0].upper() + word[1:] for word in words]


@cache
def review_patterns(lang: str) -> tuple[re.Pattern[str], ...]:
    aspects = world()["aspects"][lang]
    words = [w for t in ("judgements", "arrived_judgements") for by in world()[t].values() for w in by.get(lang, [])]
    return tuple(
        pattern(template, a=aspects, a2=aspects, A=capitalised(aspects), w=words)
        for template in world()["reviews"][lang]
    )


def read_review(lang: str, text: str) -> tuple[int, str]:
    """Return which template a review has, and its word of judgement."""
    found = [
        (index, match["w"])
        for index, regex in enumerate(review_patterns(lang))
        if (match := regex.fullmatch(text)) is not None
    ]
    assert len(found) == 1, (lang, text, found)
    return found[0]


@cache
def question_patterns(lang: str) -> tuple[re.Pattern[str], ...]:
    names = [thing[LANGUAGES.index(lang)] for table in ("things", "arrived_things") for thing in world()[table]]
    return tuple(pattern(t, s=names) for kind in ("group", "place") for t in world()[f"{kind}_questions"][lang])


def read_question(lang: str, text: str) -> tuple[str, str]:
    """Return what a question asks for, ``group`` or ``place``, and of which thing."""
    found = [
        ("group" if index < 2 else "place", match["s"])
        for index, regex in enumerate(question_patterns(lang))
        if (match := regex.fullmatch(text)) is not None
    ]
    assert len(found) == 1, (lang, text, found)
    return found[0]


def read_summary(lang: str, text: str) -> dict[str, str]:
    """Return role, deed and city of a summary."""
    deeds = world()["deeds"][lang] + world()["arrived_deeds"][lang]
    (template,) = world()["summaries"][lang]
    match = pattern(template, who=world()["roles"][lang], deed=deeds).fullmatch(text)
    assert match is not None, (lang, text)
    return match.groupdict()


def contains(lang: str, text: str, word: str) -> bool:
    """Whether a word stands in a text and not only inside a longer one; in Chinese that cannot be told apart."""
    if lang == "zh":
        return word in text
    # A word of katakana ends where the katakana end: タコメ is a town and no octopus.
    inside = "[ァ-ヶー]" if lang == "ja" else r"\w"
    before = f"(?<!{inside})" if re.match(inside, word[0]) else ""
    after = f"(?!{inside})" if re.match(inside, word[-1]) else ""
    return word in text and re.search(f"{before}{re.escape(word)}{after}", text) is not None
