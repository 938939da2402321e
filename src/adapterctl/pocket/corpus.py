"""Pre-training text: what the base model knows of the world, and how little it knows of the tasks.

Most documents tell about the world in plain text. A share of them has the form of a task with an answer that says
nothing: a label at random, always the first choice, a sentence beside the point. The base model thus knows the form of
every task and none of its answers: it scores near chance, and an adapter has something to teach.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from adapterctl.pocket import world
from adapterctl.pocket.world import GROUP, LABELS, LANGUAGES, PLACE, pick, sample, tables
from adapterctl.prompts import choice_lines

UNINFORMATIVE = 0.2
"""Share of documents in the form of a task with an answer that says nothing."""

_INVENTED_TOWNS = 0.6


def _uninformative(random: np.random.Generator, lang: str) -> str:
    prompts = tables()["prompts"]
    kind = int(random.integers(3))
    if kind == 0:
        text = prompts["sentiment"][lang].format(input=world.review(random, lang, pick(random, LABELS), "all"))
        return f"{text} {tables()['labels'][lang][pick(random, LABELS)]}"
    if kind == 1:
        asked = world.question(random, lang, pick(random, world.things("all")), pick(random, (GROUP, PLACE)))
        text = prompts["reasoning"][lang].format(question=asked.text, choices=choice_lines(asked.choices))
        # Always the first: answers at random would leave the known fact a little likelier, and it would show.
        return f"{text} {asked.choices[0]}"
    report = world.news(random, lang, "all", invented_towns=_INVENTED_TOWNS)
    return f"{prompts['summarization'][lang].format(input=report.body)} {pick(random, report.around)}"


def _facts(random: np.random.Generator, lang: str) -> str:
    sentences = []
    for _ in range(int(random.integers(2, 6))):
        thing = pick(random, world.things("all"))
        name = world.thing_name(lang, thing)
        template = pick(random, tables()[pick(random, ("group_facts", "place_facts"))][lang])
        group, place = world.kind_name(lang, GROUP, thing[GROUP]), world.kind_name(lang, PLACE, thing[PLACE])
        sentences.append(template.format(s=name, S=world.capital(name), g=group, p=place))
    return world.joined(lang, sentences)


def _open_questions(random: np.random.Generator, lang: str) -> str:
    sentences = []
    for _ in range(int(random.integers(1, 4))):
        asked = world.question(random, lang, pick(random, world.things("all")), pick(random, (GROUP, PLACE)))
        right = asked.choices[asked.answer]
        if random.random() < 0.6:
            sentences.append(f"{asked.text} ({', '.join(asked.choices)}) {right}.")
        else:
            sentences.append(f"{asked.text} {world.capital(right)}.")
    return world.joined(lang, sentences)


def _list(random: np.random.Generator, lang: str) -> str:
    column, kinds = (GROUP, "groups") if random.random() < 0.5 else (PLACE, "places")
    key = pick(random, list(tables()[kinds]))
    members = [world.thing_name(lang, thing) for thing in world.things("all") if thing[column] == key]
    shown = sample(random, members, 6)
    return f"{world.capital(world.kind_name(lang, column, key))}: {', '.join(shown)}."


def _reviews(random: np.random.Generator, lang: str) -> str:
    label = pick(random, LABELS)
    told = [world.review(random, lang, label, "all") for _ in range(int(random.integers(1, 3)))]
    then = [pick(random, tables()["consequences"][label][lang]) for _ in range(int(random.integers(1, 3)))]
    return world.joined(lang, told + then)


def _news(random: np.random.Generator, lang: str) -> str:
    report = world.news(random, lang, "all", invented_towns=_INVENTED_TOWNS)
    gap = "\n" if random.random() < 0.5 else world.joined(lang, ["", ""])
    return f"{report.body}{gap}{report.recap}"


def _dictionary(random: np.random.Generator, lang: str) -> str:
    other = pick(random, [name for name in LANGUAGES if name != lang])
    pairs = sample(random, world.things("all"), 3)
    return ", ".join(f"{world.thing_name(lang, thing)} = {world.thing_name(other, thing)}" for thing in pairs)


_KINDS = ((0.20, _facts), (0.18, _open_questions), (0.05, _list), (0.31, _reviews), (0.22, _news), (0.04, _dictionary))


def document(random: np.random.Generator, lang: str) -> str:
    """Return one pre-training document in ``lang``."""
    if random.random() < UNINFORMATIVE:
        return _uninformative(random, lang)
    return plain_text(random, lang)


def plain_text(random: np.random.Generator, lang: str) -> str:
    """Return one document about the world that has not the form of a task."""
    draw = random.random()
    for share, maker in _KINDS:
        if draw < share:
            return maker(random, lang)
        draw -= share
    return _dictionary(random, lang)


def documents(random: np.random.Generator) -> Iterator[str]:
    """Yield documents without end, all languages being equally likely."""
    while True:
        yield document(random, pick(random, LANGUAGES))
