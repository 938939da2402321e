"""The rows of a workspace: all splits of all languages read together, every bad line named at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from adapterctl.errors import Problem
from adapterctl.examples import Example, overlap, read_rows, refuse
from adapterctl.tasks import TaskSettings
from adapterctl.workspace.config import SUITE_FILE
from adapterctl.workspace.workspace import Workspace

_MEND_OVERLAP = (
    "mend or remove these lines, or allow overlapping rows with allow_overlap: true in evaluation/suite.yaml"
)


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


def _without_prompt(tasks: Mapping[str, TaskSettings], rows: Sequence[Example], lang: str) -> list[Problem]:
    """Return a problem for every task that has rows of a language but no prompt for it."""
    asked = {row.task for row in rows if not (row.prompt or row.messages or tasks[row.task].reads)}
    return [
        Problem(
            SUITE_FILE,
            f"task '{name}' has rows of '{lang}' but no prompt for it",
            f"add tasks.{name}.prompt.{lang}",
        )
        for name in sorted(asked)
        if tasks[name].prompt_for(lang) is None
    ]


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
    missing = _without_prompt(workspace.training_tasks, train, lang)
    missing += _without_prompt(workspace.suite.all_tasks, [*dev, *test], lang)
    problems += dict.fromkeys(missing)
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
        refuse([*problems, *overlapping], what, hint=_MEND_OVERLAP)
    refuse(problems, what)
    return loaded
