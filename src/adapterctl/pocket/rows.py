"""Rows of the three tasks: sentiment, multiple choice about the world, one-sentence summaries."""

from __future__ import annotations

from typing import Any

import numpy as np

from adapterctl.pocket import corpus, world
from adapterctl.pocket.world import LABELS, Part
from adapterctl.randomness import generator

TASKS = ("sentiment", "reasoning", "summarization")
ROWS_PER_TASK = {"train": 160, "dev": 60, "test": 150, "arrived": 40, "arrived-dev": 12, "arrived-test": 40}
"""Rows a task has in each split of a pocket workspace, per language. Small worlds may hold fewer different ones."""

_FEWER = {("summarization", "dev"): 24}
"""Generated text takes longest to score, and dev rows are scored for every λ that is tried."""

GENERAL_ROWS = 60
"""Documents of general text per language."""

_MOST_TRIES = 40
_INVENTED_TOWNS_WHEN_TRAINING = 0.6


def _sentiment(random: np.random.Generator, lang: str, part: Part, index: int) -> dict[str, Any]:
    labels = [label for label in LABELS if world.judgements(lang, label, part)]
    label = labels[index % len(labels)]
    return {
        "input": world.review(random, lang, label, part),
        "reference": world.tables()["labels"][lang][label],
    }


def _reasoning(random: np.random.Generator, lang: str, part: Part, index: int) -> dict[str, Any]:
    column = (world.GROUP, world.PLACE)[index % 2]
    asked = world.question(random, lang, world.pick(random, world.things(part)), column)
    return {
        "question": asked.text,
        "choices": list(asked.choices),
        "answer_index": asked.answer,
        "reference": "ABC"[asked.answer],
    }


def _summarization(random: np.random.Generator, lang: str, part: Part, index: int) -> dict[str, Any]:
    # Only training rows invent towns: they teach to copy a name; the held-out rows ask for names never trained on.
    share = _INVENTED_TOWNS_WHEN_TRAINING if part == "train" else 0.0
    report = world.news(random, lang, part, invented_towns=share)
    return {"input": report.body, "reference": report.summary}


_MAKERS = {"sentiment": _sentiment, "reasoning": _reasoning, "summarization": _summarization}


def _identity(row: dict[str, Any]) -> tuple[Any, ...]:
    return (row.get("input"), row.get("question"), tuple(sorted(row.get("choices", ()))))


def task_rows(lang: str, task: str, split: str, *, count: int | None = None, seed: int = 0) -> list[dict[str, Any]]:
    """Return the rows of one task, language and split; the same arguments give the same rows.

    Args:
        lang: One of ``world.LANGUAGES``.
        task: One of ``TASKS``.
        split: ``train``, ``dev``, ``test``: made of disjoint words, things, deeds, cities and review templates; or
            ``arrived``, ``arrived-dev``, ``arrived-test``: about words and things no other split holds, the three
            asking about the same words in different rows.
        count: How many rows; those of a pocket workspace when not given. Fewer come when the world has no
            more different ones.
        seed: Another seed draws other rows of the same kind.
    """
    wanted = _FEWER.get((task, split), ROWS_PER_TASK[split]) if count is None else count
    part: Part = "arrived" if split.startswith("arrived") else split  # type: ignore[assignment]
    taken: set[tuple[Any, ...]] = set()
    if split.startswith("arrived-"):
        earlier = ["arrived"] if split == "arrived-dev" else ["arrived", "arrived-dev"]
        taken = {_identity(row) for name in earlier for row in task_rows(lang, task, name, seed=seed)}
    random = generator("pocket rows", lang, task, split, seed)
    rows: list[dict[str, Any]] = []
    for attempt in range(wanted * _MOST_TRIES):
        if len(rows) == wanted:
            break
        # Normally the kind of row follows the rows made; once a kind is used up, the attempts move on to the next.
        index = len(rows) if attempt < wanted * 4 else attempt
        row = _MAKERS[task](random, lang, part, index)
        if _identity(row) in taken:
            continue
        taken.add(_identity(row))
        rows.append({"id": f"{task}-{split}-{len(rows):03d}-{lang}", "lang": lang, "task": task, **row})
    return rows


def general_rows(lang: str, *, count: int = GENERAL_ROWS, seed: int = 0) -> list[dict[str, Any]]:
    """Return text about the world, drawn like the base model's pre-training text, that no adapter is trained on.

    Args:
        lang: One of ``world.LANGUAGES``.
        count: How many documents.
        seed: Another seed draws others.
    """
    random = generator("pocket general text", lang, seed)
    texts: dict[str, None] = {}
    while len(texts) < count:
        texts.setdefault(corpus.plain_text(random, lang))
    return [
        {"id": f"general-{number:03d}-{lang}", "lang": lang, "task": "general", "input": text}
        for number, text in enumerate(texts)
    ]
