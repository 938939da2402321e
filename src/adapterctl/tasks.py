"""Tasks: how a row becomes a prompt and an answer, the same way in training and in evaluation."""

from __future__ import annotations

import string
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from adapterctl.settings import Settings

Kind = Literal["label", "choice", "text"]
Metric = Literal["accuracy", "macro_f1", "rouge_1", "rouge_l"]

SLOTS = frozenset({"input", "question", "context", "choices"})
"""What a prompt template may name in braces. ``{choices}`` becomes one line a choice: ``A: …``."""

INSTRUCTION = "instruction"
"""The task of rows that bring their own prompt (TRL's ``prompt``/``completion`` and ``messages``) and name no other."""

_DEFAULT_METRIC: dict[str, Metric] = {"label": "macro_f1", "choice": "accuracy", "text": "rouge_l"}
_METRICS_OF_KIND: dict[str, tuple[str, ...]] = {
    "label": ("accuracy", "macro_f1"),
    "choice": ("accuracy", "macro_f1"),
    "text": ("rouge_1", "rouge_l"),
}


def _slots(template: str) -> set[str]:
    """Return what stands in the braces of a template; a slot is a name without conversion or format."""
    return {
        f"{name}{'!' + conversion if conversion else ''}{':' + form if form else ''}"
        for _, name, form, conversion in string.Formatter().parse(template)
        if name is not None
    }


class TaskSettings(Settings):
    """One task of the suite.

    Attributes:
        kind: ``label``: one of a few fixed words; ``choice``: one of the row's own choices; ``text``: written freely.
            Labels and choices are scored by log-likelihood, text by greedy generation.
        prompt: Template with the slots ``{input}``, ``{question}``, ``{context}``, ``{choices}``; or one a language.
        labels: The label words of a ``label`` task; or one list a language.
        answer: What a ``choice`` task answers with: the ``text`` of the choice or its ``letter``.
        separator: What stands between prompt and answer of a plain prompt; nothing in the chat format.
        metric: The metric that is reported first; by kind when not given.
        max_new_tokens: The longest text that is generated, in tokens.
    """

    kind: Kind
    prompt: str | dict[str, str] = "{input}"
    labels: list[str] | dict[str, list[str]] = Field(default_factory=list)
    answer: Literal["text", "letter"] = "text"
    separator: str = " "
    metric: Metric | None = None
    max_new_tokens: int = Field(default=64, ge=1, le=4096)

    @field_validator("prompt")
    @classmethod
    def _known_slots(cls, value: str | dict[str, str]) -> str | dict[str, str]:
        for template in value.values() if isinstance(value, dict) else (value,):
            try:
                unknown = sorted(_slots(template) - SLOTS)
            except ValueError as error:
                raise ValueError(f"not a template: {error}; a brace itself is written twice, {{{{ or }}}}") from error
            if unknown:
                raise ValueError(f"unknown slot {{{unknown[0]}}}; the slots are {', '.join(sorted(SLOTS))}")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> TaskSettings:
        if self.kind == "label" and not self.labels:
            raise ValueError("a task of kind 'label' needs 'labels'")
        if self.kind != "label" and self.labels:
            raise ValueError(f"'labels' has no meaning for a task of kind '{self.kind}'")
        for words in self.labels.values() if isinstance(self.labels, dict) else (self.labels,):
            if not all(word.strip() for word in words) or len(set(words)) != len(words):
                raise ValueError(f"labels must differ and not be empty: {', '.join(map(repr, words))}")
        if self.metric is not None and self.metric not in _METRICS_OF_KIND[self.kind]:
            allowed = ", ".join(_METRICS_OF_KIND[self.kind])
            raise ValueError(f"metric '{self.metric}' does not go with kind '{self.kind}'; choose one of {allowed}")
        return self

    @property
    def primary_metric(self) -> Metric:
        """The metric that stands for the task."""
        return self.metric or _DEFAULT_METRIC[self.kind]

    def prompt_for(self, lang: str) -> str | None:
        """Return the template for ``lang``, or None where there is none."""
        return self.prompt.get(lang) if isinstance(self.prompt, dict) else self.prompt

    def labels_for(self, lang: str) -> tuple[str, ...]:
        """Return the label words for ``lang``; empty where there are none."""
        return tuple(self.labels.get(lang, ()) if isinstance(self.labels, dict) else self.labels)


def with_instruction(tasks: dict[str, Any]) -> dict[str, Any]:
    """Return the tasks, with the ``instruction`` task added unless the suite says its own."""
    return {INSTRUCTION: TaskSettings(kind="text"), **tasks}
