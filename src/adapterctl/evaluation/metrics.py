"""Metrics of one language and task, from the scores of its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import pairwise
from typing import Any

from adapterctl.errors import DataError
from adapterctl.evaluation.scorecard import Cell, ExampleScore, Scorecard
from adapterctl.evaluation.tokenizer import UnicodeTokenizer
from adapterctl.tasks import TaskSettings


@cache
def _rouge_scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rouge1", "rougeL"], tokenizer=UnicodeTokenizer())


def rouge(prediction: str, reference: str) -> dict[str, float]:
    """Return ``rouge_1`` and ``rouge_l`` of a text, F-measures from 0 to 1 (Lin 2004).

    Equal texts score 1 even where they hold nothing to count, such as punctuation only.
    """
    if prediction.strip() == reference.strip():
        return {"rouge_1": 1.0, "rouge_l": 1.0}
    scores = _rouge_scorer().score(reference, prediction)
    return {"rouge_1": float(scores["rouge1"].fmeasure), "rouge_l": float(scores["rougeL"].fmeasure)}


def class_count(scores: Sequence[ExampleScore]) -> int:
    """Return how many classes the rows choose from: the labels, or the most choices a row offers."""
    return max(len(score.details["log_likelihoods"]) for score in scores)


def classification(scores: Sequence[ExampleScore]) -> dict[str, float]:
    """Return accuracy and the macro means of precision, recall and F1 over all classes.

    Classes are the task's labels, or the places of the choices (A, B, …). A class that no row has and no prediction
    names counts as 0, so that rows of another mixture do not change what is averaged.
    """
    from sklearn.metrics import precision_recall_fscore_support

    precision, recall, f1, _ = precision_recall_fscore_support(
        [score.details["answer"] for score in scores],
        [score.details["chosen"] for score in scores],
        labels=list(range(class_count(scores))),
        average="macro",
        zero_division=0.0,
    )
    return {
        "accuracy": _mean([score.score for score in scores]),
        "macro_f1": float(f1),
        "macro_precision": float(precision),
        "macro_recall": float(recall),
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def make_cell(scores: Sequence[ExampleScore], task: TaskSettings) -> Cell:
    """Return the cell of rows that share language and task.

    Raises:
        DataError: There are no rows, two have the same id, or they are of different languages or tasks.
    """
    places = sorted({(score.lang, score.task) for score in scores})
    if len(places) != 1:
        raise DataError(f"a cell needs rows of one language and task; these are of {places or 'none'}")
    rows = tuple(sorted(scores, key=lambda score: score.id))
    twice = sorted({one.id for one, other in pairwise(rows) if one.id == other.id})
    if twice:
        raise DataError(
            f"ids stand twice among the rows of {places[0][0]}, task '{places[0][1]}': {', '.join(twice[:5])}",
            hint="give every row of a language and task its own id",
        )
    if task.kind == "text":
        metrics = {name: _mean([row.details[name] for row in rows]) for name in ("rouge_1", "rouge_l")}
    else:
        metrics = classification(rows)
    primary = task.primary_metric
    return Cell(*places[0], n=len(rows), primary=primary, value=metrics[primary], metrics=metrics, scores=rows)


def make_scorecard(model: str, scores: Sequence[ExampleScore], tasks: Mapping[str, TaskSettings]) -> Scorecard:
    """Return the scorecard of a model from the scores of all its rows.

    Args:
        model: What was measured, in words for a person.
        scores: Of any languages and tasks.
        tasks: Settings of every task among them.

    Raises:
        DataError: Two rows of a language and task have the same id.
    """
    places: dict[tuple[str, str], list[ExampleScore]] = {}
    for score in scores:
        places.setdefault((score.lang, score.task), []).append(score)
    return Scorecard(model, tuple(make_cell(rows, tasks[task]) for (_, task), rows in places.items()))
