"""The rows of a workspace: all splits of all languages read together, every bad line named at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from adapterctl.errors import Problem
from adapterctl.examples import Example, overlap, read_rows, refuse
from adapterctl.tasks import TaskSettings, slots_of
from adapterctl.workspace.config import SUITE_FILE
from adapterctl.workspace.workspace import Workspace


@dataclass(frozen=True)
class LanguageData:
    """The rows of one language.

    Attributes:
        train: What is learnt from.
        dev: What choices are made on.
        test: What results are reported on.
        overlapping: The rows of ``dev`` and ``test`` that ask what a row of another split asks; empty unless the suite
            allows it.
    """

    train: tuple[Example, ...]
    dev: tuple[Example, ...]
    test: tuple[Example, ...]
    overlapping: tuple[Problem, ...] = ()


def _faulty_prompts(
    file: str, tasks: Mapping[str, TaskSettings], rows: Sequence[Example], lang: str
) -> Iterator[Problem]:
    """Give a problem for every task whose prompt is missing in a language, or asks for what none of its rows has."""
    asked: dict[str, list[Example]] = {}
    for row in rows:
        if not (row.prompt or row.messages or tasks[row.task].reads):
            asked.setdefault(row.task, []).append(row)
    for name, found in sorted(asked.items()):
        template = tasks[name].prompt_for(lang)
        if template is None:
            told = f"task '{name}' has rows of '{lang}' but no prompt for it"
            yield Problem(file, told, f"add tasks.{name}.prompt.{lang}")
            continue
        slots = slots_of(template)
        if not slots:
            told = f"the prompt of task '{name}' for '{lang}' has no slot: every row would ask the same"
            yield Problem(file, told, f"name {{input}} or {{question}} in tasks.{name}.prompt")
        # A context is what rows may have; one template may serve languages with and without it.
        for slot in sorted(slots - {"context"}):
            if not any(getattr(row, slot) for row in found):
                told = f"the prompt of task '{name}' names {{{slot}}}, but no row of '{lang}' has '{slot}'"
                yield Problem(file, told, "add the field to the rows, or take the slot out of the prompt")


def _read(workspace: Workspace, lang: str) -> tuple[LanguageData, list[Problem]]:
    problems: list[Problem] = []
    splits: list[tuple[Example, ...]] = []
    sources = (
        ("training", workspace.training_files(lang)),
        ("dev", workspace.split_files(lang, "dev")),
        ("test", workspace.split_files(lang, "test")),
    )
    for name, files in sources:
        training = name == "training"
        # Where another suite is measured, training rows still belong to the workspace's own.
        tasks = workspace.training_tasks if training else workspace.suite.all_tasks
        rows, found = read_rows(files, lang=lang, tasks=tasks, root=workspace.root, training=training)
        splits.append(rows)
        problems += found
        if training and not files:
            problems.append(Problem(f"{lang} {name}", "no file has its rows", f"see data in adapters/{lang}.yaml"))
        if files and not rows and not found:
            problems.append(Problem(f"{lang} {name}", "the files hold no rows", "put one JSON object a line there"))
    train, dev, test = splits
    held_out = workspace.suite.all_tasks
    problems += dict.fromkeys(
        [
            *_faulty_prompts(SUITE_FILE, workspace.training_tasks, train, lang),
            *_faulty_prompts(workspace.suite_name, held_out, [*dev, *test], lang),
        ]
    )
    overlapping = (
        *overlap(train, dev, f"{lang} dev"),
        *overlap(train, test, f"{lang} test"),
        *overlap(dev, test, f"{lang} test", other="dev"),
    )
    return LanguageData(train, dev, test, overlapping), problems


def load_data(workspace: Workspace, langs: Sequence[str]) -> dict[str, LanguageData]:
    """Read the rows of all splits of the given languages.

    Raises:
        DataError: A row cannot be used, or stands in two splits and the suite does not allow it; ``problems`` names
            every one.
    """
    loaded: dict[str, LanguageData] = {}
    problems: list[Problem] = []
    for lang in langs:
        loaded[lang], found = _read(workspace, lang)
        problems += found
    overlapping = [problem for data in loaded.values() for problem in data.overlapping]
    what = f"the rows of {', '.join(langs)}"
    if overlapping and not workspace.suite.allow_overlap:
        allow = f"allow overlapping rows with allow_overlap: true in {workspace.suite_name}"
        refuse([*problems, *overlapping], what, hint=f"mend or remove these lines, or {allow}")
    refuse(problems, what)
    return loaded
