"""From an example to what the model reads and what it is to answer, as text and as tokens."""

from __future__ import annotations

from collections.abc import Sequence
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
    if task.kind == "classification":
        labels = task.labels_for(example.lang)
        return labels, labels.index(example.reference)
    if task.kind == "multiple-choice":
        count = len(example.choices)
        return (example.choices if task.answer == "text" else tuple(LETTERS[:count])), example.answer_index
    return (), -1


def render(example: Example, task: TaskSettings, *, chat: bool = False) -> Rendered:
    """Return the example as prompt and answer; a text that is only read is all prompt, as it stands.

    Args:
        example: A row that has been read with this task.
        task: The task's settings.
        chat: Whether the base model reads chats: a plain prompt then becomes the user's turn.

    Raises:
        DataError: The task has no prompt for the example's language.
    """
    if task.reads:
        return Rendered(example.input, "", (), -1)
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
                hint=f"add tasks.{example.task}.prompt.{example.lang} to the suite file",
            )
        prompt = template.format(
            input=example.input,
            question=example.question,
            context=example.context,
            choices=choice_lines(example.choices),
            direction=example.direction,
        )
    if chat and isinstance(prompt, str):
        prompt = (("user", prompt),)
    # A completion that came with its own prompt already says what separates the two.
    bare = not isinstance(prompt, str) or bool(example.prompt)
    separator = "" if bare else task.separator
    candidates, answer = answers(example, task)
    target = candidates[answer] if candidates else example.reference
    return Rendered(prompt, separator + target, tuple(separator + text for text in candidates), answer)


def _prompt_text(tokenizer: Any, prompt: str | ChatTurns) -> str:
    if isinstance(prompt, str):
        return prompt
    if not tokenizer.chat_template:
        raise BaseModelError(
            "the rows or the settings ask for the chat format, but the base model's tokenizer has no chat template",
            hint="set base_model.prompt_format: plain and use rows with 'input'; or add a template to the tokenizer",
        )
    turns = [{"role": role, "content": content} for role, content in prompt]
    text: str = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    return text


def encode_all(tokenizer: Any, rendered: Sequence[Rendered]) -> list[Encoded]:
    """Return rendered examples as token ids; every different text is tokenised once, all of them in one call.

    Prompt and answer are tokenised apart, so that the answer's tokens are the same in training and in scoring.

    Raises:
        BaseModelError: A chat is to be encoded by a tokenizer without chat template.
    """
    prompts = [_prompt_text(tokenizer, one.prompt) for one in rendered]
    answers = [text for one in rendered for text in (one.target, *one.candidates)]
    texts = list(dict.fromkeys([*prompts, *answers]))
    ids = tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
    known = {text: tuple(found) for text, found in zip(texts, ids, strict=True)}
    start = () if tokenizer.bos_token_id is None else (tokenizer.bos_token_id,)
    end = () if tokenizer.eos_token_id is None else (tokenizer.eos_token_id,)
    return [
        Encoded(
            # A chat template writes the start token itself.
            prompt=(start if isinstance(one.prompt, str) else ()) + known[prompt],
            target=known[one.target] + end,
            candidates=tuple(known[text] for text in one.candidates),
            answer=one.answer,
        )
        for one, prompt in zip(rendered, prompts, strict=True)
    ]


def encode(tokenizer: Any, rendered: Rendered) -> Encoded:
    """Return one rendered example as token ids; see ``encode_all``.

    Raises:
        BaseModelError: A chat is to be encoded by a tokenizer without chat template.
    """
    (encoded,) = encode_all(tokenizer, [rendered])
    return encoded
