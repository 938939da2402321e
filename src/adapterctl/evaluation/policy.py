"""How strict the gate is. Torch-free."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from adapterctl.evaluation.catalogue import metric_of
from adapterctl.settings import Settings

OnInconclusive = Literal["fail", "review", "pass"]
"""What an inconclusive comparison means for the verdict."""


class GateSettings(Settings):
    """How much a candidate may lose against the champion, and how sure that must be."""

    margin: float = Field(
        default=0.02,
        gt=0,
        le=1,
        description="Largest loss that is tolerated, in metric points from 0 to 1; of a metric that does not go from 0 "
        "to 1 (bits_per_byte, perplexity), this share of the champion's value.",
    )
    margins: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict, description="Another margin for a task, by its name, in points of the task's metric."
    )
    min_examples: int = Field(
        default=10, ge=1, description="With fewer test rows (or groups of rows) nothing passes: too few to decide."
    )
    inconclusive: OnInconclusive = Field(
        default="fail",
        description="What it means when there are too few rows to decide: fail; review: the candidate waits for a "
        "person; pass: it does not count.",
    )
    required_gain: float | None = Field(
        default=None,
        ge=0,
        description="What the updated language must gain at least, as the mean over its tasks, shown with the same "
        "confidence; nothing is required where not given.",
    )
    confidence: float = Field(
        default=0.95, gt=0.5, lt=1, description="Confidence of the one-sided bound, and of the two-sided intervals."
    )
    false_discovery_rate: float = Field(
        default=0.05,
        gt=0,
        lt=1,
        description="Among the languages that are called improved, the share that may be wrong (Benjamini-Hochberg).",
    )
    resamples: int = Field(default=9999, ge=99, le=1_000_000, description="Bootstrap resamples of a comparison.")
    seed: int = Field(default=0, description="Seed of the resampling.")

    def margin_for(self, task: str, metric: str = "", champion: float = 1.0) -> float:
        """Return the margin that holds for ``task``, in points of its metric.

        Args:
            task: Its name.
            metric: Its primary metric; without it, one from 0 to 1.
            champion: The champion's value of it.
        """
        if task in self.margins:
            return self.margins[task]
        return self.margin if metric_of(metric).averaged else self.margin * abs(champion)
