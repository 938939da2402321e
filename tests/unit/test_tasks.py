from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from adapterctl.tasks import TaskSettings, with_instruction


@pytest.mark.parametrize(("kind", "metric"), [("label", "macro_f1"), ("choice", "accuracy"), ("text", "rouge_l")])
def test_every_kind_has_its_metric(kind: str, metric: str) -> None:
    labels = ["a", "b"] if kind == "label" else []
    assert TaskSettings.model_validate({"kind": kind, "labels": labels}).primary_metric == metric


def test_a_metric_of_the_kind_replaces_it() -> None:
    assert TaskSettings(kind="choice", metric="macro_f1").primary_metric == "macro_f1"
    assert TaskSettings(kind="text", metric="rouge_1").primary_metric == "rouge_1"


def test_prompts_and_labels_of_one_language_or_of_all() -> None:
    for_all = TaskSettings(kind="label", prompt="{input}?", labels=["a", "b"])
    assert (for_all.prompt_for("ja"), for_all.labels_for("ja")) == ("{input}?", ("a", "b"))
    by_language = TaskSettings(kind="label", prompt={"de": "{input}!"}, labels={"de": ["gut", "schlecht"]})
    assert (by_language.prompt_for("de"), by_language.labels_for("de")) == ("{input}!", ("gut", "schlecht"))
    assert (by_language.prompt_for("ja"), by_language.labels_for("ja")) == (None, ())


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"kind": "label"}, "a task of kind 'label' needs 'labels'"),
        ({"kind": "text", "labels": ["a"]}, "'labels' has no meaning for a task of kind 'text'"),
        ({"kind": "label", "labels": ["a", "a"]}, "labels must differ and not be empty: 'a', 'a'"),
        ({"kind": "label", "labels": {"de": ["a", " "]}}, "labels must differ and not be empty: 'a', ' '"),
        (
            {"kind": "text", "metric": "accuracy"},
            "metric 'accuracy' does not go with kind 'text'; choose one of rouge_1, rouge_l",
        ),
        (
            {"kind": "choice", "metric": "rouge_l"},
            "metric 'rouge_l' does not go with kind 'choice'; choose one of accuracy, macro_f1",
        ),
        ({"kind": "text", "max_new_tokens": 0}, "greater than or equal to 1"),
        ({"kind": "text", "promt": "x"}, "Extra inputs are not permitted"),
        ({"kind": "poem"}, "Input should be 'label', 'choice' or 'text'"),
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
        ("{text}", "unknown slot {text}; the slots are choices, context, input, question"),
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
        TaskSettings(kind="text", prompt=form(template))
    assert reason in str(caught.value)


def test_rows_with_their_own_prompt_have_a_task() -> None:
    own = TaskSettings(kind="text", max_new_tokens=7)
    assert with_instruction({})["instruction"].kind == "text"
    assert with_instruction({"instruction": own, "x": own}) == {"instruction": own, "x": own}
