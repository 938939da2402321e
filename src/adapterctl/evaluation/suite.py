"""The suite: what is measured and on which rows. Torch-free."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from adapterctl.errors import Problem
from adapterctl.evaluation.catalogue import METRICS
from adapterctl.settings import Settings
from adapterctl.tasks import TaskSettings, with_instruction

Split = Literal["dev", "test"]

RougeTokenizer = Literal["unicode", "sudachi"]
"""What splits texts into words for ROUGE; see ``evaluation.tokenizer``."""

_TASK_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_IN_BRACES = re.compile(r"\{([^{}]*)\}")


def _file_pattern(value: str) -> str:
    if set(_IN_BRACES.findall(value)) != {"lang"}:
        raise ValueError(
            f"'{value}' must name the language as {{lang}}, and nothing else in braces: data/{{lang}}.jsonl"
        )
    if any("**" in part and part != "**" for part in Path(value).parts):
        raise ValueError(f"in '{value}' the two stars must stand alone between slashes: data/**/{{lang}}.jsonl")
    if Path(value).is_absolute():
        raise ValueError(f"'{value}' must be relative to the suite file's folder")
    return value


FilePattern = Annotated[str, AfterValidator(_file_pattern)]


class BertScoreSettings(Settings):
    """The encoder behind BERTScore (Zhang et al. 2020, arXiv 1904.09675); scores depend on both settings."""

    encoder: str = Field(min_length=1, description="Folder of the encoder model, relative to the suite file.")
    layers: int = Field(ge=1, description="The encoder's layer whose vectors are compared, counted from 1.")


class ExternalMetric(Settings):
    """A metric that another program computes, such as COMET; ``evaluation.external`` says how the two talk."""

    command: list[str] = Field(min_length=1, description="Program and arguments; no shell reads them.")
    signature: str = Field(default="", description="What its scores depend on: model and version.")
    timeout_seconds: float = Field(default=3600, gt=0, description="The longest one call may take.")


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
    batch_size: int = Field(default=64, ge=1, le=4096, description="Most rows in one forward pass.")
    batch_tokens: int = Field(
        default=16384, ge=1, description="Most rows × padded length in one forward pass; one row always goes."
    )
    rouge_tokenizer: dict[str, RougeTokenizer] = Field(
        default_factory=dict, description="Tokenizer behind ROUGE by language, `unicode` where it says nothing."
    )
    bertscore: BertScoreSettings | None = Field(default=None, description="The encoder of the metric `bertscore`.")
    external: dict[str, ExternalMetric] = Field(
        default_factory=dict, description="Metrics that other programs compute, by the name that tasks give them."
    )
    allow_overlap: bool = Field(
        default=False, description="Score rows that are also trained on, with a warning, instead of refusing them."
    )

    @field_validator("external")
    @classmethod
    def _new_names(cls, value: dict[str, ExternalMetric]) -> dict[str, ExternalMetric]:
        for name in value:
            if name in METRICS:
                raise ValueError(f"metric '{name}' is built in; give the external one another name")
            if not _TASK_NAME.fullmatch(name):
                raise ValueError(f"metric name '{name}' may hold letters, digits, '_', '-' and '.' only")
        return value

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

    @model_validator(mode="after")
    def _metrics_declared(self) -> SuiteSettings:
        for name, task in self.tasks.items():
            for metric in task.foreign_metrics:
                if metric not in self.external:
                    raise ValueError(
                        f"metric '{metric}' of task '{name}' is neither built in nor declared under external"
                    )
            if "bertscore" in task.all_metrics and self.bertscore is None:
                raise ValueError(f"metric 'bertscore' of task '{name}' needs the block bertscore: encoder and layers")
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
