"""From answers to scores: what every row is worth, the metrics of a language and task, and what they depend on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapterctl.errors import DataError
from adapterctl.evaluation.bertscore import bertscores
from adapterctl.evaluation.catalogue import METRICS, metric_of
from adapterctl.evaluation.engine import PreparedRow
from adapterctl.evaluation.external import external_scores
from adapterctl.evaluation.scorecard import Cell, ExampleScore, Scorecard
from adapterctl.evaluation.signatures import rouge_tokenizer, signatures_of
from adapterctl.evaluation.suite import SuiteSettings
from adapterctl.evaluation.sums import CHOSEN_BY, detail, from_sums, row_statistics
from adapterctl.evaluation.texts import ROUGE, bleu_counts, chrf_counts, rouge, sentence_bleu
from adapterctl.prompts import answers as answers_of
from adapterctl.tasks import TaskSettings

if TYPE_CHECKING:
    from adapterctl.evaluation.answers import Answer

__all__ = ["judge", "make_cell", "make_scorecard", "signatures_of"]

REPORTED = "reported"
"""Detail of a row: by metric, the signature an external command gave of itself."""

_OF_TEXTS = frozenset({*ROUGE, "chrf_stats", "bleu_stats", "bertscore", REPORTED})


def judge(
    rows: Sequence[PreparedRow], answers: Sequence[Answer], settings: SuiteSettings, *, folder: Path = Path()
) -> tuple[ExampleScore, ...]:
    """Return what every answer is worth.

    Args:
        rows: Of one language and task.
        answers: What an engine made of each row.
        settings: The suite's.
        folder: The suite file's folder: where external commands run and encoders are looked for.

    Raises:
        DataError: The rows are of different languages or tasks, a text that is read has no bytes, or an external
            command does not score every row.
        UsageError: What a metric needs is not installed.
    """
    if not rows:
        return ()
    lang, _ = _one_place([(row.example.lang, row.example.task) for row in rows])
    task = rows[0].task
    # Answers that were judged before keep nothing of it.
    judged = {*_OF_TEXTS, *settings.external}
    details = [{name: one for name, one in answer.details.items() if name not in judged} for answer in answers]
    if task.generates:
        _measure_texts(rows, answers, details, lang, settings, folder)
    scores = []
    for row, answer, known in zip(rows, answers, details, strict=True):
        reference = row.example.reference
        if task.chooses:
            texts, right = answers_of(row.example, task)
            reference = texts[right]
        bare = ExampleScore(
            id=row.example.id,
            lang=lang,
            task=row.example.task,
            prediction=answer.prediction,
            reference=reference,
            score=0.0,
            row=row.asked,
            group=row.example.group,
            details=known,
        )
        scores.append(replace(bare, score=_worth(bare, task)))
    return tuple(scores)


def _one_place(places: Sequence[tuple[str, str]]) -> tuple[str, str]:
    found = sorted(set(places))
    if len(found) != 1:
        raise DataError(f"a cell needs rows of one language and task; these are of {found or 'none'}")
    return found[0]


def _worth(score: ExampleScore, task: TaskSettings) -> float:
    """Return what a row contributes, higher is better."""
    if task.chooses:
        return float(score.details["chosen"] == score.details["answer"])
    if task.reads:
        bits = float(from_sums("bits_per_byte", row_statistics("bits_per_byte", [score])[0]))
        if math.isnan(bits):
            raise DataError(f"row '{score.id}' ({score.lang}, {score.task}) has no text", hint="remove the row")
        return -bits
    primary = metric_of(task.primary_metric)
    if primary.family == "bleu":
        return sentence_bleu(score.details["bleu_stats"])
    return float(from_sums(primary.name, row_statistics(primary.name, [score])[0]))


def _measure_texts(
    rows: Sequence[PreparedRow],
    answers: Sequence[Answer],
    details: Sequence[dict[str, Any]],
    lang: str,
    settings: SuiteSettings,
    folder: Path,
) -> None:
    """Add to the details of every text what its task's metrics are computed from."""
    predictions = [answer.prediction for answer in answers]
    references = [row.example.reference for row in rows]
    by_row: dict[str, Sequence[Any]] = {}
    for name in rows[0].task.all_metrics:
        if name == "chrf":
            by_row["chrf_stats"] = chrf_counts(predictions, references)
        elif name == "bleu":
            by_row["bleu_stats"] = bleu_counts(predictions, references, lang)
        elif name == "bertscore":
            assert settings.bertscore is not None, "the suite was checked when it was loaded"
            by_row[name] = bertscores(predictions, references, settings.bertscore, folder)
        elif name not in METRICS:
            examples = [row.example for row in rows]
            by_row[name], reported = external_scores(name, settings.external[name], examples, predictions, folder)
            for known in details if reported else ():
                known[REPORTED] = {**known.get(REPORTED, {}), name: reported}
    wanted = [name for name in rows[0].task.all_metrics if name in ROUGE]
    if wanted:
        tokenizer = rouge_tokenizer(lang, settings)
        values = [rouge(*pair, tokenizer) for pair in zip(predictions, references, strict=True)]
        by_row |= {name: [value[name] for value in values] for name in wanted}
    for name, column in by_row.items():
        for known, value in zip(details, column, strict=True):
            known[name] = value


def make_cell(scores: Sequence[ExampleScore], task: TaskSettings, signatures: Mapping[str, str]) -> Cell:
    """Return the cell of rows that share language and task.

    Args:
        scores: The rows, in any order.
        task: The task's settings; all its metrics are computed.
        signatures: By metric, as ``signatures_of`` gives them.

    Raises:
        DataError: There are no rows, two have the same id, or they are of different languages or tasks; a row lacks
            what a metric needs; the rows were scored by different versions of an external command; or a metric is
            not defined on these rows.
    """
    lang, name = _one_place([(score.lang, score.task) for score in scores])
    rows = tuple(sorted(scores, key=lambda score: score.id))
    twice = sorted({one.id for one, other in pairwise(rows) if one.id == other.id})
    if twice:
        raise DataError(
            f"ids stand twice among the rows of {lang}, task '{name}': {', '.join(twice[:5])}",
            hint="give every row of a language and task its own id",
        )
    metrics = _values(task.all_metrics, rows)
    undefined = [metric for metric, value in metrics.items() if not math.isfinite(value)]
    if undefined:
        raise DataError(
            f"metric '{undefined[0]}' is not defined on the rows of {lang}, task '{name}'",
            hint="the rows hold nothing to count, or the model finds a text impossible; look at their texts",
        )
    return Cell(
        lang=lang,
        task=name,
        n=len(rows),
        primary=task.primary_metric,
        value=metrics[task.primary_metric],
        metrics=metrics,
        scores=rows,
        signatures={metric: signatures[metric] + _reported(metric, rows) for metric in metrics if metric in signatures},
    )


def _reported(metric: str, rows: Sequence[ExampleScore]) -> str:
    found = sorted({row.details.get(REPORTED, {}).get(metric, "") for row in rows})
    if len(found) > 1:
        raise DataError(
            f"rows of {rows[0].lang}, task '{rows[0].task}' were scored by different versions of external.{metric}: "
            + " and ".join(one or "one that names none" for one in found),
            hint=f"change external.{metric}.signature in the suite file, so that all rows are scored again",
        )
    return f"|{found[0]}" if found[0] else ""


def _values(metrics: Sequence[str], rows: Sequence[ExampleScore]) -> dict[str, float]:
    chosen = classification(metrics, rows) if any(metric in CLASSIFICATION for metric in metrics) else {}
    return {
        metric: chosen[metric]
        if metric in chosen
        else float(from_sums(metric, row_statistics(metric, rows).sum(axis=0)))
        for metric in metrics
    }


CLASSIFICATION = ("accuracy", "accuracy_norm", "macro_precision", "macro_recall", "macro_f1")


def classification(metrics: Sequence[str], rows: Sequence[ExampleScore]) -> dict[str, float]:
    """Return accuracies and the macro means of precision, recall and F1 over all classes, as scikit-learn gives them.

    Classes are the task's labels, or the places of the choices (A, B, …). A class that no row has and no prediction
    names counts as 0, so that rows of another mixture do not change what is averaged.

    Args:
        metrics: Which of ``CLASSIFICATION`` to compute; others are left out.
        rows: Of one language and task.

    Raises:
        DataError: A row lacks what a metric needs.
    """
    from sklearn.metrics import accuracy_score, precision_recall_fscore_support

    answers = [detail(metrics[0], row, "answer") for row in rows]
    values: dict[str, float] = {}
    for metric, by in CHOSEN_BY.items():
        if metric in metrics:
            values[metric] = float(accuracy_score(answers, [detail(metric, row, by) for row in rows]))
    macro = [metric for metric in CLASSIFICATION if metric.startswith("macro") and metric in metrics]
    if macro:
        chosen = [detail(macro[0], row, "chosen") for row in rows]
        labels = list(range(max(len(detail(macro[0], row, "log_likelihoods")) for row in rows)))
        means = precision_recall_fscore_support(answers, chosen, labels=labels, average="macro", zero_division=0.0)
        named = dict(zip(("macro_precision", "macro_recall", "macro_f1"), means, strict=False))
        values |= {metric: float(named[metric]) for metric in macro}
    return values


def make_scorecard(
    model: str,
    scores: Sequence[ExampleScore],
    tasks: Mapping[str, TaskSettings],
    signatures: Mapping[str, str] | None = None,
) -> Scorecard:
    """Return the scorecard of a model from the scores of all its rows.

    Args:
        model: What was measured, in words for a person.
        scores: Of any languages and tasks.
        tasks: Settings of every task among them.
        signatures: By metric, of every cell.

    Raises:
        DataError: Rows of a language and task do not make a cell; see ``make_cell``.
    """
    places: dict[tuple[str, str], list[ExampleScore]] = {}
    for score in scores:
        places.setdefault((score.lang, score.task), []).append(score)
    return Scorecard(model, tuple(make_cell(rows, tasks[task], signatures or {}) for (_, task), rows in places.items()))
