"""The rows of a workspace: all splits of all languages read together, every bad line named at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from adapterctl.errors import Problem
from adapterctl.evaluation.suite import SuiteSettings
from adapterctl.examples import Example, overlap, read_rows, refuse
from adapterctl.workspace.config import SUITE_FILE
from adapterctl.workspace.workspace import Workspace


@dataclass(frozen=True)
class LanguageData:
    """The rows of one language; no row asks what a row of another split asks."""

    train: tuple[Example, ...]
    dev: tuple[Example, ...]
    test: tuple[Example, ...]


def _without_prompt(suite: SuiteSettings, rows: Sequence[Example], lang: str) -> list[Problem]:
    """Return a problem for every task that has rows of a language but no prompt for it."""
    asked = {row.task for row in rows if not row.prompt and not row.messages}
    return [
        Problem(
            SUITE_FILE,
            f"task '{name}' has rows of '{lang}' but no prompt for it",
            f"add tasks.{name}.prompt.{lang}",
        )
        for name in sorted(asked)
        if suite.all_tasks[name].prompt_for(lang) is None
    ]


def _read(workspace: Workspace, lang: str) -> tuple[LanguageData, list[Problem]]:
    suite = workspace.suite
    problems: list[Problem] = []
    splits: list[tuple[Example, ...]] = []
    sources = (
        ("training", workspace.training_files(lang)),
        ("dev", workspace.split_files(lang, "dev")),
        ("test", workspace.split_files(lang, "test")),
    )
    for name, files in sources:
        rows, found = read_rows(files, lang=lang, tasks=suite.all_tasks, root=workspace.root)
        splits.append(rows)
        problems += found
        if name == "training" and not files:
            problems.append(Problem(f"{lang} {name}", "no file has its rows", f"see data in adapters/{lang}.yaml"))
        if files and not rows and not found:
            problems.append(Problem(f"{lang} {name}", "the files hold no rows", "put one JSON object a line there"))
    train, dev, test = splits
    problems += overlap(train, dev, f"{lang} dev")
    problems += overlap(train, test, f"{lang} test")
    problems += overlap(dev, test, f"{lang} test", other="dev")
    problems += _without_prompt(suite, [*train, *dev, *test], lang)
    return LanguageData(train, dev, test), problems


def load_data(workspace: Workspace, langs: Sequence[str]) -> dict[str, LanguageData]:
    """Read the rows of all splits of the given languages.

    Raises:
        DataError: A row cannot be used, or stands in two splits; ``problems`` names every one.
    """
    loaded: dict[str, LanguageData] = {}
    problems: list[Problem] = []
    for lang in langs:
        loaded[lang], found = _read(workspace, lang)
        problems += found
    refuse(problems, f"the rows of {', '.join(langs)}")
    return loaded
