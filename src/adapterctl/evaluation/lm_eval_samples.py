"""What lm-evaluation-harness says of a task, as a cell of a scorecard. Torch-free."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from adapterctl.errors import DataError
from adapterctl.evaluation.scorecard import Cell, ExampleScore
from adapterctl.fingerprint import fingerprint, short

UNDETERMINED = "und"
"""The BCP-47 tag of a task whose name tells no language."""

Aggregations = Mapping[str, Callable[[Sequence[Any]], Any]]


def language_of(task: str, langs: Sequence[str]) -> str:
    """Return the language that a task's name ends with, ``_de`` or ``_zh_hans``, where it is one of ``langs``.

    >>> language_of("belebele_zh", ["de", "zh"]), language_of("hellaswag", ["de"])
    ('zh', 'und')
    """
    name = f"_{_plain(task)}"
    ending = [lang for lang in langs if name.endswith(f"_{_plain(lang)}")]
    return max(ending, key=len, default=UNDETERMINED)


def _plain(name: str) -> str:
    return name.lower().replace("-", "_")


def cell_of(
    task: str,
    lang: str,
    results: Mapping[str, Any],
    samples: Sequence[Mapping[str, Any]],
    *,
    aggregations: Aggregations,
    higher_is_better: Mapping[str, bool | None],
    signature: str,
) -> Cell:
    """Return one task's results as a cell.

    Metrics keep the harness's names and values: ``acc,none`` is called ``acc``, and of a filter other than ``none``
    it stays ``exact_match,strict-match``. The primary metric is the first that is a mean of values from 0 to 1 and
    better when it is higher, as the accuracies are; else bits per byte; else the first one. Rows are those of the
    primary metric's filter.

    Args:
        task: Its name.
        lang: The cell's language.
        results: What the harness reports, by ``metric,filter``.
        samples: What it logged of every row and filter.
        aggregations: How it makes one value of many, by metric.
        higher_is_better: By metric.
        signature: What values depend on, without the metric's name.

    Raises:
        DataError: There is no row, or no metric that is a number.
    """
    keys = [key for key, value in results.items() if _is_metric(key) and _number(value) is not None]
    if not keys or not samples:
        raise DataError(
            f"task '{task}' of lm-evaluation-harness gives no {'metric' if samples else 'row'}",
            hint="check its metric_list and the rows of its test split",
        )
    good = [key for key in keys if _is_mean_of_good(key, samples, higher_is_better)]
    # Of the measures of text that is read, the one that does not depend on words or tokens.
    primary = [*good, *(key for key in keys if key == "bits_per_byte,none"), *keys][0]
    metric, _, chosen_filter = primary.partition(",")
    sign = -1.0 if higher_is_better.get(metric) is False else 1.0
    by_row: dict[int, dict[str, float]] = {}
    for key in keys:
        name, _, of_filter = key.partition(",")
        for sample in samples:
            if sample["filter"] == of_filter and name in sample:
                value = _value_alone(sample[name], aggregations.get(name))
                by_row.setdefault(sample["doc_id"], {})[_called(key)] = value
    scores = []
    for sample in samples:
        if sample["filter"] == chosen_filter:
            values = by_row.get(sample["doc_id"], {})
            prediction, reference, details = _answered(sample)
            scores.append(
                ExampleScore(
                    id=str(sample["doc_id"]),
                    lang=lang,
                    task=task,
                    prediction=prediction,
                    reference=reference,
                    score=sign * values.get(_called(primary), 0.0),
                    row=short(fingerprint([sample["doc_hash"], sample["prompt_hash"], sample["target_hash"]])),
                    details={**values, **details},
                )
            )
    metrics = {_called(key): float(results[key]) for key in keys}
    return Cell(
        lang=lang,
        task=task,
        n=len(scores),
        primary=_called(primary),
        value=metrics[_called(primary)],
        metrics=metrics,
        scores=tuple(scores),
        signatures={name: f"{name}|{signature}" for name in metrics},
    )


def _is_metric(key: str) -> bool:
    name, comma, _ = key.partition(",")
    return bool(comma) and not name.endswith("_stderr")


def _called(key: str) -> str:
    return key.removesuffix(",none")


def _number(value: Any) -> float | None:
    """Return a finite number as float, or None for anything else."""
    if not hasattr(value, "__float__"):
        return None
    number = float(value)
    return number if math.isfinite(number) else None


def _is_mean_of_good(
    key: str, samples: Sequence[Mapping[str, Any]], higher_is_better: Mapping[str, bool | None]
) -> bool:
    name, _, of_filter = key.partition(",")
    values = [sample[name] for sample in samples if sample["filter"] == of_filter and name in sample]
    return (
        higher_is_better.get(name) is True
        and len(values) > 0
        and all((number := _number(value)) is not None and 0 <= number <= 1 for value in values)
    )


def _value_alone(value: Any, aggregation: Callable[[Sequence[Any]], Any] | None) -> float:
    """Return what a metric says of one row; 0 where it says nothing of a row by itself."""
    number = _number(value)
    if number is not None or aggregation is None:
        return number or 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return _number(aggregation([value])) or 0.0
        except (ValueError, TypeError, ArithmeticError, LookupError):
            # Such as a correlation, which one row does not have.
            return 0.0


def _answered(sample: Mapping[str, Any]) -> tuple[str, str, dict[str, Any]]:
    """Return prediction, reference and what else is known of a row.

    What the model was asked decides: several continuations to choose from, one whose likelihood is measured, a text
    that is read, or a text that is written.
    """
    asked, said, target = sample["arguments"], sample["filtered_resps"], sample["target"]
    if len(asked[0]) == 2 and isinstance(asked[0][1], str):
        likelihoods = [float(one[0]) for one in said]
        if len(asked) > 1:
            return _chosen(asked, likelihoods, target)
        prediction = asked[0][1].strip() if said[0][1] else ""
        return prediction, _text(target), {"log_likelihoods": likelihoods}
    if len(asked[0]) == 1:
        return "", "", {"nats": -float(said[0]), **_lengths(sample)}
    answer = said[0]
    return _text(answer if isinstance(answer, str) else list(answer)), _text(target), {}


def _chosen(
    asked: Sequence[tuple[str, str]], likelihoods: Sequence[float], target: Any
) -> tuple[str, str, dict[str, Any]]:
    # Either one prompt has several endings, or several prompts have one; after the endings may come the same ones
    # again without prompt, for metrics that need them.
    by_ending = len({ending for _, ending in asked}) > 1
    names = [ending if by_ending else prompt for prompt, ending in asked if not by_ending or prompt == asked[0][0]]
    values = [round(value, 5) for value in likelihoods[: len(names)]]
    best = max(range(len(values)), key=lambda index: values[index])
    details: dict[str, Any] = {"log_likelihoods": values, "chosen": best}
    right = _text(target)
    if isinstance(target, int) and 0 <= target < len(names):
        details["answer"], right = int(target), names[target].strip()
    return names[best].strip(), right, details


def _lengths(sample: Mapping[str, Any]) -> dict[str, int]:
    """Return how many bytes a text has that is read, where a metric counted them."""
    counted = sample.get("bits_per_byte") or sample.get("byte_perplexity")
    return {"bytes": int(counted[1])} if counted else {}


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value.strip()
    return json.dumps(value, ensure_ascii=False, default=str)
