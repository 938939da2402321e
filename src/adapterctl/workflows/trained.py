"""A finished adapter as a value."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from adapterctl.training.result import TrainingResult

COMBINED = "combined"
"""What stands in place of a language for the adapter that is trained on all of them."""


@dataclass(frozen=True)
class TrainedAdapter:
    """A finished adapter of one language.

    Attributes:
        lang: Its language, or ``combined``.
        folder: The PEFT folder.
        content_hash: Of configuration and tensors.
        training_key: Names the training that made it.
        inputs_key: Names rows and settings alone, whichever adapter the training began with.
        result: What the training took.
        rows: Number of rows it was trained on.
        data_hash: Of these rows.
        begun: Content hash of the adapter that the training went on from; empty where it began anew.
    """

    lang: str
    folder: Path
    content_hash: str
    training_key: str
    inputs_key: str
    result: TrainingResult
    rows: int
    data_hash: str
    begun: str = ""
