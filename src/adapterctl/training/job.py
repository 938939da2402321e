"""What is to be trained, and the key under which its result is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adapterctl.base_model import BaseModel
from adapterctl.errors import DataError
from adapterctl.examples import Example
from adapterctl.fingerprint import canonical_json, fingerprint
from adapterctl.tasks import TaskSettings
from adapterctl.training.settings import OPERATIONAL, LoraSettings, TrainingSettings

RECIPE_VERSION = 1
"""Raised whenever the same job would give another adapter than before, so that old results are not taken for new."""


@dataclass(frozen=True)
class TrainingJob:
    """One adapter to be trained.

    Attributes:
        base: The frozen base model.
        lang: BCP-47 tag of the language, or ``combined`` for the adapter of all languages.
        examples: The rows; their order has no meaning.
        tasks: The suite's tasks.
        lora: Shape of the adapter.
        training: How it is trained.
        start_from: Folder of an adapter of the same shape to continue from, instead of a fresh A and B = 0.
    """

    base: BaseModel
    lang: str
    examples: tuple[Example, ...] = field(repr=False)
    tasks: Mapping[str, TaskSettings] = field(hash=False, repr=False)
    lora: LoraSettings
    training: TrainingSettings
    start_from: Path | None = None


def ordered_examples(job: TrainingJob) -> tuple[Example, ...]:
    """Return the rows in the one order that does not depend on files."""
    return _ordered(job.examples)


def _ordered(rows: Sequence[Example]) -> tuple[Example, ...]:
    return tuple(sorted(rows, key=lambda row: (row.lang, row.task, row.id, canonical_json(row.as_dict()))))


def rows_hash(rows: Sequence[Example]) -> str:
    """Return the content hash of rows, whatever their order, as 64 hexadecimal digits."""
    return fingerprint([row.as_dict() for row in _ordered(rows)])


def row_hashes(rows: Sequence[Example]) -> list[str]:
    """Return a content hash of every row, sorted, as 32 hexadecimal digits: rows are known again without their text."""
    return sorted(fingerprint(row.as_dict())[:32] for row in rows)


def _wording(job: TrainingJob) -> list[dict[str, Any]]:
    """Return what the tasks say about the rows at hand: a metric or another language's prompt changes no adapter."""
    used = sorted({(row.task, row.lang) for row in job.examples})
    if missing := sorted({name for name, _ in used if name not in job.tasks}):
        raise DataError(
            f"rows of '{job.lang}' belong to tasks that the suite does not have: {', '.join(missing)}",
            hint="add them under tasks in evaluation/suite.yaml, or remove the rows",
        )
    return [
        {
            "task": name,
            "lang": lang,
            "kind": job.tasks[name].kind,
            "prompt": job.tasks[name].prompt_for(lang),
            "labels": job.tasks[name].labels_for(lang),
            "answer": job.tasks[name].answer,
            "separator": job.tasks[name].separator,
        }
        for name, lang in used
    ]


def training_key(job: TrainingJob) -> str:
    """Return the content hash of everything the finished adapter depends on, as 64 hexadecimal digits.

    Two jobs with the same key give the same adapter. Rows count whatever their order; settings that only say how the
    work is carried out (``OPERATIONAL``) do not count, nor does where the base model or ``start_from`` lies.

    Raises:
        DataError: A row belongs to a task that is not there.
        AdapterError: ``start_from`` cannot be read.
    """
    start = None
    if job.start_from is not None:
        from adapterctl.lora.adapter import Adapter

        start = Adapter.open(job.start_from).content_hash
    settings = job.base.settings
    return fingerprint(
        {
            "version": RECIPE_VERSION,
            "lang": job.lang,
            "rows": [row.as_dict() for row in ordered_examples(job)],
            "tasks": _wording(job),
            "lora": job.lora.model_dump(),
            "training": job.training.model_dump(exclude=set(OPERATIONAL)),
            "base": {
                "identity": job.base.identity,
                "dtype": settings.dtype,
                "quantization": settings.quantization,
                "prompt_format": settings.prompt_format,
            },
            "start_from": start,
        }
    )
