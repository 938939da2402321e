from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from adapterctl.tasks import TaskSettings, with_instruction


@pytest.mark.parametrize(
    ("kind", "metrics"),
    [
        ("classification", ("macro_f1", "accuracy", "macro_precision", "macro_recall")),
        ("multiple-choice", ("accuracy", "accuracy_norm", "macro_f1")),
        ("summarization", ("rouge_l", "rouge_1", "rouge_2", "chrf")),
        ("translation", ("chrf", "bleu")),
        ("generation", ("rouge_l", "rouge_1", "rouge_2", "chrf")),
        ("perplexity", ("bits_per_byte", "perplexity")),
    ],
)
def test_every_kind_has_its_metrics(kind: str, metrics: tuple[str, ...]) -> None:
    labels = ["a", "b"] if kind == "classification" else []
    task = TaskSettings.model_validate({"kind": kind, "labels": labels})
    assert (task.primary_metric, task.all_metrics, task.foreign_metrics) == (metrics[0], metrics, ())


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        ("classification", "chooses"),
        ("multiple-choice", "chooses"),
        ("summarization", "generates"),
        ("translation", "generates"),
        ("generation", "generates"),
        ("perplexity", "reads"),
    ],
)
def test_every_kind_is_answered_in_one_way(kind: str, how: str) -> None:
    task = TaskSettings.model_validate({"kind": kind, "labels": ["a", "b"] if kind == "classification" else []})
    assert [name for name in ("chooses", "generates", "reads") if getattr(task, name)] == [how]


def test_a_metric_of_the_kind_replaces_it() -> None:
    assert TaskSettings(kind="multiple-choice", metric="macro_f1").primary_metric == "macro_f1"
    assert TaskSettings(kind="generation", metric="rouge_1").primary_metric == "rouge_1"


def test_the_first_of_the_metrics_is_the_primary_one_unless_another_is_named() -> None:
    assert TaskSettings(kind="translation", metrics=["bleu", "chrf"]).primary_metric == "bleu"
    both = TaskSettings(kind="translation", metric="comet", metrics=["bleu", "comet"])
    assert (both.primary_metric, both.all_metrics) == ("comet", ("comet", "bleu"))
    assert both.foreign_metrics == ("comet",)
    assert TaskSettings(kind="translation", metric="bleu").all_metrics == ("bleu", "chrf")


def test_prompts_and_labels_of_one_language_or_of_all() -> None:
    for_all = TaskSettings(kind="classification", prompt="{input}?", labels=["a", "b"])
    assert (for_all.prompt_for("ja"), for_all.labels_for("ja")) == ("{input}?", ("a", "b"))
    by_language = TaskSettings(kind="classification", prompt={"de": "{input}!"}, labels={"de": ["gut", "schlecht"]})
    assert (by_language.prompt_for("de"), by_language.labels_for("de")) == ("{input}!", ("gut", "schlecht"))
    assert (by_language.prompt_for("ja"), by_language.labels_for("ja")) == (None, ())


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"kind": "classification"}, "a task of kind 'classification' needs 'labels'"),
        ({"kind": "generation", "labels": ["a"]}, "'labels' has no meaning for a task of kind 'generation'"),
        ({"kind": "classification", "labels": ["a", "a"]}, "labels must differ and not be empty: 'a', 'a'"),
        ({"kind": "classification", "labels": {"de": ["a", " "]}}, "labels must differ and not be empty: 'a', ' '"),
        (
            {"kind": "multiple-choice", "metric": "rouge_l"},
            "metric 'rouge_l' does not go with kind 'multiple-choice'; choose one of accuracy, accuracy_norm, "
            "macro_f1, macro_precision, macro_recall",
        ),
        (
            {"kind": "perplexity", "metrics": ["perplexity", "chrf"]},
            "metric 'chrf' does not go with kind 'perplexity'; choose one of bits_per_byte, perplexity",
        ),
        ({"kind": "multiple-choice", "calibration": "prior"}, "'calibration' has no meaning for a task of kind"),
        ({"kind": "generation", "max_new_tokens": 0}, "greater than or equal to 1"),
        ({"kind": "generation", "promt": "x"}, "Extra inputs are not permitted"),
        (
            {"kind": "poem"},
            "Input should be 'classification', 'multiple-choice', 'summarization', 'translation', 'generation' or "
            "'perplexity'",
        ),
        ({"kind": "label"}, "'label' is called classification now"),
        ({"kind": "choice"}, "'choice' is called multiple-choice now"),
        ({"kind": "text"}, "'text' is called generation, summarization or translation now"),
    ],
)
def test_settings_that_contradict_one_another(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError) as caught:
        TaskSettings.model_validate(settings)
    assert reason in str(caught.value)


@pytest.mark.parametrize("form", [str, lambda template: {"en": "{input}", "de": template}])
@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{text}", "unknown slot {text}; the slots are choices, context, direction, input, question"),
        ("{}", "unknown slot {}"),
        ("{0}", "unknown slot {0}"),
        ("{input.__class__}", "unknown slot {input.__class__}"),
        ("{input[0]}", "unknown slot {input[0]}"),
        ("{input:d}", "unknown slot {input:d}"),
        ("{input!x}", "unknown slot {input!x}"),
        ("{input:{question}}", "unknown slot {input:{question}}"),
        ("{", "a brace itself is written twice, {{ or }}"),
        ("input}", "a brace itself is written twice, {{ or }}"),
    ],
)
def test_a_template_that_could_not_be_filled_is_refused(form: Any, template: str, reason: str) -> None:
    with pytest.raises(ValidationError) as caught:
        TaskSettings(kind="generation", prompt=form(template))
    assert reason in str(caught.value)


def test_rows_with_their_own_prompt_have_a_task() -> None:
    own = TaskSettings(kind="generation", max_new_tokens=7)
    assert with_instruction({})["instruction"].kind == "generation"
    assert with_instruction({"instruction": own, "x": own}) == {"instruction": own, "x": own}
