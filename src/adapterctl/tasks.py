"""Tasks: how a row becomes a prompt and an answer, the same way in training and in evaluation."""

from __future__ import annotations

import string
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from adapterctl.settings import Settings

Kind = Literal["classification", "multiple-choice", "summarization", "translation", "generation", "perplexity"]

SLOTS = frozenset({"input", "question", "context", "choices", "direction"})
"""What a prompt template may name in braces. ``{choices}`` becomes one line a choice: ``A: …``; ``{direction}`` is what
a translation row says of its languages, such as ``en-ja``."""

INSTRUCTION = "instruction"
"""The task of rows that bring their own prompt (TRL's ``prompt``/``completion`` and ``messages``) and name no other."""

_CLASSES = ("macro_f1", "macro_precision", "macro_recall")
_TEXT = ("rouge_1", "rouge_2", "rouge_l", "chrf", "bleu", "bertscore")

METRICS_OF_KIND: dict[str, tuple[str, ...]] = {
    "classification": ("accuracy", *_CLASSES),
    "multiple-choice": ("accuracy", "accuracy_norm", *_CLASSES),
    "summarization": _TEXT,
    "translation": _TEXT,
    "generation": _TEXT,
    "perplexity": ("bits_per_byte", "perplexity"),
}
"""The metrics each kind of task can be measured by; texts also by those the suite declares under ``external``."""

_DEFAULT_METRICS: dict[str, tuple[str, ...]] = {
    "classification": ("macro_f1", "accuracy", "macro_precision", "macro_recall"),
    "multiple-choice": ("accuracy", "accuracy_norm", "macro_f1"),
    "summarization": ("rouge_l", "rouge_1", "rouge_2", "chrf"),
    "translation": ("chrf", "bleu"),
    "generation": ("rouge_l", "rouge_1", "rouge_2", "chrf"),
    "perplexity": ("bits_per_byte", "perplexity"),
}

_CHOOSING = ("classification", "multiple-choice")
_OLD_KINDS = {
    "label": "classification",
    "choice": "multiple-choice",
    "text": "generation, summarization or translation",
}


def slots_of(template: str) -> set[str]:
    """Return what stands in the braces of a template; a slot is a name without conversion or format."""
    return {
        f"{name}{'!' + conversion if conversion else ''}{':' + form if form else ''}"
        for _, name, form, conversion in string.Formatter().parse(template)
        if name is not None
    }


class TaskSettings(Settings):
    """One task of the suite.

    Attributes:
        kind: ``classification``: one of a few fixed words; ``multiple-choice``: one of the row's own choices;
            ``summarization``, ``translation`` and ``generation``: written freely, they differ in what is reported
            first; ``perplexity``: text that is only read. The first two are scored by log-likelihood, texts by greedy
            generation.
        prompt: Template with the slots ``{input}``, ``{question}``, ``{context}``, ``{choices}``, ``{direction}``; or
            one a language.
        labels: The label words of a ``classification`` task; or one list a language.
        answer: What a ``multiple-choice`` task answers with: the ``text`` of the choice or its ``letter``.
        separator: What stands between prompt and answer of a plain prompt; nothing in the chat format.
        calibration: ``prior`` subtracts from a label's log-likelihood the one it has after the prompt without content
            (Zhao et al. 2021, "Calibrate Before Use"); for ``classification`` tasks.
        metric: The metric that is reported first and that the gate compares; by kind when not given.
        metrics: All metrics to compute; by kind when not given.
        max_new_tokens: The longest text that is generated, in tokens.
    """

    kind: Kind
    prompt: str | dict[str, str] = "{input}"
    labels: list[str] | dict[str, list[str]] = Field(default_factory=list)
    answer: Literal["text", "letter"] = "text"
    separator: str = " "
    calibration: Literal["none", "prior"] = "none"
    metric: str | None = None
    metrics: list[str] = Field(default_factory=list)
    max_new_tokens: int = Field(default=64, ge=1, le=4096)

    @field_validator("kind", mode="before")
    @classmethod
    def _present_word(cls, value: Any) -> Any:
        if isinstance(value, str) and value in _OLD_KINDS:
            raise ValueError(f"'{value}' is called {_OLD_KINDS[value]} now")
        return value

    @field_validator("prompt")
    @classmethod
    def _known_slots(cls, value: str | dict[str, str]) -> str | dict[str, str]:
        for template in value.values() if isinstance(value, dict) else (value,):
            try:
                unknown = sorted(slots_of(template) - SLOTS)
            except ValueError as error:
                raise ValueError(f"not a template: {error}; a brace itself is written twice, {{{{ or }}}}") from error
            if unknown:
                raise ValueError(f"unknown slot {{{unknown[0]}}}; the slots are {', '.join(sorted(SLOTS))}")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> TaskSettings:
        if self.kind == "classification" and not self.labels:
            raise ValueError("a task of kind 'classification' needs 'labels'")
        if self.kind != "classification" and self.labels:
            raise ValueError(f"'labels' has no meaning for a task of kind '{self.kind}'")
        if self.kind != "classification" and self.calibration != "none":
            raise ValueError(f"'calibration' has no meaning for a task of kind '{self.kind}'")
        for words in self.labels.values() if isinstance(self.labels, dict) else (self.labels,):
            if not all(word.strip() for word in words) or len(set(words)) != len(words):
                raise ValueError(f"labels must differ and not be empty: {', '.join(map(repr, words))}")
        if not self.generates:
            # Texts may also be measured by metrics that only the suite knows.
            refused = self.foreign_metrics
            if refused:
                allowed = ", ".join(METRICS_OF_KIND[self.kind])
                raise ValueError(f"metric '{refused[0]}' does not go with kind '{self.kind}'; choose one of {allowed}")
        return self

    @property
    def generates(self) -> bool:
        """Whether the answer is written freely."""
        return self.kind not in (*_CHOOSING, "perplexity")

    @property
    def chooses(self) -> bool:
        """Whether the answer is one of several that are given."""
        return self.kind in _CHOOSING

    @property
    def reads(self) -> bool:
        """Whether there is no answer: the text itself is what is measured."""
        return self.kind == "perplexity"

    @property
    def primary_metric(self) -> str:
        """The metric that stands for the task."""
        return self.metric or (self.metrics or _DEFAULT_METRICS[self.kind])[0]

    @property
    def all_metrics(self) -> tuple[str, ...]:
        """Every metric to compute, the primary one first."""
        return tuple(dict.fromkeys((self.primary_metric, *(self.metrics or _DEFAULT_METRICS[self.kind]))))

    @property
    def foreign_metrics(self) -> tuple[str, ...]:
        """The metrics that are not of this kind by themselves."""
        return tuple(name for name in self.all_metrics if name not in METRICS_OF_KIND[self.kind])

    def prompt_for(self, lang: str) -> str | None:
        """Return the template for ``lang``, or None where there is none."""
        return self.prompt.get(lang) if isinstance(self.prompt, dict) else self.prompt

    def labels_for(self, lang: str) -> tuple[str, ...]:
        """Return the label words for ``lang``; empty where there are none."""
        return tuple(self.labels.get(lang, ()) if isinstance(self.labels, dict) else self.labels)


def with_instruction(tasks: dict[str, Any]) -> dict[str, Any]:
    """Return the tasks, with the ``instruction`` task added unless the suite says its own."""
    return {INSTRUCTION: TaskSettings(kind="generation"), **tasks}
