"""From an example to what the model reads and what it is to answer, as text and as tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from adapterctl.errors import BaseModelError, DataError
from adapterctl.examples import LETTERS, Example
from adapterctl.tasks import TaskSettings

ChatTurns = tuple[tuple[str, str], ...]
"""Role and content of each turn."""


@dataclass(frozen=True)
class Rendered:
    """An example as text.

    Attributes:
        prompt: What the model reads: plain text, or the turns of a chat.
        target: The right answer, with the separator before it.
        candidates: The answers to choose from, likewise; empty when the answer is written freely.
        answer: Which of the candidates is right; -1 when there are none.
    """

    prompt: str | ChatTurns
    target: str
    candidates: tuple[str, ...]
    answer: int


@dataclass(frozen=True)
class Encoded:
    """An example as token ids; the target ends with the end-of-sequence token, candidates do not."""

    prompt: tuple[int, ...]
    target: tuple[int, ...]
    candidates: tuple[tuple[int, ...], ...]
    answer: int


def choice_lines(choices: tuple[str, ...]) -> str:
    """Return choices as lines ``A: …``, ``B: …``."""
    return "\n".join(f"{letter}: {choice}" for letter, choice in zip(LETTERS, choices, strict=False))


def answers(example: Example, task: TaskSettings) -> tuple[tuple[str, ...], int]:
    """Return the answers to choose from, without separator, and which is right; ``((), -1)`` for free text."""
    if task.kind == "label":
        labels = task.labels_for(example.lang)
        return labels, labels.index(example.reference)
    if task.kind == "choice":
        count = len(example.choices)
        return (example.choices if task.answer == "text" else tuple(LETTERS[:count])), example.answer_index
    return (), -1


def render(example: Example, task: TaskSettings, *, chat: bool = False) -> Rendered:
    """Return the example as prompt and answer.

    Args:
        example: A row that has been read with this task.
        task: The task's settings.
        chat: Whether the base model reads chats: a plain prompt then becomes the user's turn.

    Raises:
        DataError: The task has no prompt for the example's language.
    """
    prompt: str | ChatTurns
    if example.messages:
        prompt = example.messages
    elif example.prompt:
        prompt = example.prompt
    else:
        template = task.prompt_for(example.lang)
        if template is None:
            raise DataError(
                f"task '{example.task}' has no prompt for language '{example.lang}'",
                hint=f"add tasks.{example.task}.prompt.{example.lang} to evaluation/suite.yaml",
            )
        prompt = template.format(
            input=example.input,
            question=example.question,
            context=example.context,
            choices=choice_lines(example.choices),
        )
    if chat and isinstance(prompt, str):
        prompt = (("user", prompt),)
    # A completion that came with its own prompt already says what separates the two.
    bare = not isinstance(prompt, str) or bool(example.prompt)
    separator = "" if bare else task.separator
    candidates, answer = answers(example, task)
    target = candidates[answer] if candidates else example.reference
    return Rendered(prompt, separator + target, tuple(separator + text for text in candidates), answer)


def _plain_ids(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def _prompt_ids(tokenizer: Any, prompt: str | ChatTurns) -> list[int]:
    if isinstance(prompt, str):
        start = tokenizer.bos_token_id
        return ([] if start is None else [start]) + _plain_ids(tokenizer, prompt)
    if not tokenizer.chat_template:
        raise BaseModelError(
            "the rows or the settings ask for the chat format, but the base model's tokenizer has no chat template",
            hint="set base_model.prompt_format: plain and use rows with 'input'; or add a template to the tokenizer",
        )
    turns = [{"role": role, "content": content} for role, content in prompt]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    return _plain_ids(tokenizer, text)


def encode(tokenizer: Any, rendered: Rendered) -> Encoded:
    """Return the rendered example as token ids.

    Prompt and answer are tokenised apart, so that the answer's tokens are the same in training and in scoring.

    Raises:
        BaseModelError: A chat is to be encoded by a tokenizer without chat template.
    """
    end = tokenizer.eos_token_id

    return Encoded(
        prompt=tuple(_prompt_ids(tokenizer, rendered.prompt)),
        target=(*_plain_ids(tokenizer, rendered.target), *(() if end is None else (end,))),
        candidates=tuple(tuple(_plain_ids(tokenizer, text)) for text in rendered.candidates),
        answer=rendered.answer,
    )
