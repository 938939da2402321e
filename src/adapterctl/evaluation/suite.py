"""The suite: what is measured and on which rows; and how strict the gate is. Torch-free."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from adapterctl.errors import Problem
from adapterctl.settings import Settings
from adapterctl.tasks import TaskSettings, with_instruction

Split = Literal["dev", "test"]

_TASK_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_IN_BRACES = re.compile(r"\{([^{}]*)\}")


def _file_pattern(value: str) -> str:
    if set(_IN_BRACES.findall(value)) != {"lang"}:
        raise ValueError(
            f"'{value}' must name the language as {{lang}}, and nothing else in braces: data/{{lang}}.jsonl"
        )
    if Path(value).is_absolute():
        raise ValueError(f"'{value}' must be relative to the suite file's folder")
    return value


FilePattern = Annotated[str, AfterValidator(_file_pattern)]


class SuiteSettings(Settings):
    """What is measured, on which rows (``evaluation/suite.yaml``)."""

    tasks: dict[str, TaskSettings] = Field(min_length=1, description="The tasks, by the name rows give in `task`.")
    dev: list[FilePattern] = Field(
        default_factory=list,
        description="Globs of the rows choices are made on, relative to the suite file; `{lang}` stands for the tag.",
    )
    test: list[FilePattern] = Field(
        min_length=1, description="Globs of the rows results are reported on; never used for a choice."
    )
    batch_size: int = Field(default=32, ge=1, le=4096, description="Rows scored in one forward pass.")

    @field_validator("tasks")
    @classmethod
    def _plain_names(cls, value: dict[str, TaskSettings]) -> dict[str, TaskSettings]:
        for name in value:
            if not _TASK_NAME.fullmatch(name):
                raise ValueError(f"task name '{name}' may hold letters, digits, '_', '-' and '.' only")
        return value

    @model_validator(mode="after")
    def _splits_apart(self) -> SuiteSettings:
        twice = [pattern for pattern, count in Counter([*self.dev, *self.test]).items() if count > 1]
        if twice:
            raise ValueError(f"'{twice[0]}' is named twice; dev and test must be different rows")
        return self

    @property
    def all_tasks(self) -> dict[str, TaskSettings]:
        """The tasks, with the one for rows that bring their own prompt."""
        return with_instruction(self.tasks)

    def files(self, split: Split, lang: str, folder: Path) -> tuple[tuple[Path, ...], tuple[Problem, ...]]:
        """Return the files of one language's split, sorted, and a problem for every glob that finds none.

        Args:
            split: ``dev`` or ``test``.
            lang: The language's tag, which replaces ``{lang}``.
            folder: The folder of the suite file.
        """
        found: set[Path] = set()
        problems = []
        for pattern in self.dev if split == "dev" else self.test:
            glob = pattern.replace("{lang}", lang)
            files = {path for path in folder.glob(glob) if path.is_file()}
            if not files:
                problems.append(Problem(str(folder / glob), f"no file there for '{lang}', split {split}"))
            found |= files
        return tuple(sorted(found)), tuple(problems)


class GateSettings(Settings):
    """How much a candidate may lose against the champion, and how sure that must be."""

    margin: float = Field(
        default=0.02, gt=0, le=1, description="Largest loss that is tolerated, in metric points from 0 to 1."
    )
    margins: dict[str, Annotated[float, Field(gt=0, le=1)]] = Field(
        default_factory=dict, description="Another margin for a task, by its name."
    )
    confidence: float = Field(
        default=0.95, ge=0.5, lt=1, description="Confidence of the one-sided bound, and of the two-sided intervals."
    )
    resamples: int = Field(default=9999, ge=99, le=1_000_000, description="Bootstrap resamples of a comparison.")
    seed: int = Field(default=0, description="Seed of the resampling.")

    def margin_for(self, task: str) -> float:
        """Return the margin that holds for ``task``."""
        return self.margins.get(task, self.margin)
