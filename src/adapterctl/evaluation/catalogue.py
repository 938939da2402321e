"""The metrics as rows of data: what each is called, which way it is better, what it is computed from. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Family = Literal["mean", "classes", "chrf", "bleu", "rate"]
"""How a metric follows from sums over rows; see ``evaluation.sums``."""


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        name: As in suite files and scorecards.
        family: ``mean`` of a value per row; ``classes``: from counts of answers and predictions by class; ``chrf``
            and ``bleu``: from sacrebleu's counts of n-grams; ``rate``: a sum of ``of`` over a sum of ``per``.
        of: Name of the row's detail that a ``mean`` or ``rate`` sums up.
        per: Name of the detail that a ``rate`` divides by.
        higher_is_better: Which way is better.
        averaged: Whether it goes from 0 to 1, so that a language's mean may hold it.
    """

    name: str
    family: Family
    of: str = ""
    per: str = ""
    higher_is_better: bool = True
    averaged: bool = True


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("accuracy", "mean", "accuracy"),
        Metric("accuracy_norm", "mean", "accuracy_norm"),
        Metric("macro_f1", "classes"),
        Metric("macro_precision", "classes"),
        Metric("macro_recall", "classes"),
        Metric("rouge_1", "mean", "rouge_1"),
        Metric("rouge_2", "mean", "rouge_2"),
        Metric("rouge_l", "mean", "rouge_l"),
        Metric("chrf", "chrf"),
        Metric("bleu", "bleu"),
        Metric("bertscore", "mean", "bertscore"),
        Metric("bits_per_byte", "rate", "nats", "bytes", higher_is_better=False, averaged=False),
        Metric("perplexity", "rate", "nats", "tokens", higher_is_better=False, averaged=False),
    )
}
"""Every metric of our own. One that a suite declares under ``external`` is a ``mean`` of its scores by row."""


def metric_of(name: str) -> Metric:
    """Return the metric of a name; one that is not ours is the mean of what an external command says by row."""
    return METRICS.get(name) or Metric(name, "mean", name)
