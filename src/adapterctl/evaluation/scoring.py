"""Scoring rows: labels and choices by log-likelihood, text by greedy generation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from adapterctl.errors import AdapterError, DataError
from adapterctl.evaluation.metrics import rouge
from adapterctl.evaluation.scorecard import ExampleScore
from adapterctl.examples import Example
from adapterctl.fingerprint import fingerprint, short
from adapterctl.prompts import Encoded, Rendered, answers, encode, render
from adapterctl.tasks import TaskSettings

__all__ = ["ExampleScore", "score"]

Progress = Callable[[int, int], None]
"""Is told the rows scored so far, and the rows in all."""


@dataclass(frozen=True)
class _Row:
    """A row on its way through the model."""

    example: Example
    task: TaskSettings
    rendered: Rendered
    encoded: Encoded
    prompt: tuple[int, ...]

    def scored(self, prediction: str, reference: str, worth: float, details: dict[str, Any]) -> ExampleScore:
        dropped = len(self.encoded.prompt) - len(self.prompt)
        asked = fingerprint([self.rendered.prompt, self.rendered.target, self.rendered.candidates])
        return ExampleScore(
            id=self.example.id,
            lang=self.example.lang,
            task=self.example.task,
            prediction=prediction,
            reference=reference,
            score=worth,
            row=short(asked),
            details=details | ({"dropped_tokens": dropped} if dropped else {}),
        )


def score(
    model: Any,
    tokenizer: Any,
    examples: Sequence[Example],
    tasks: Mapping[str, TaskSettings],
    *,
    chat: bool = False,
    batch_size: int = 32,
    progress: Progress | None = None,
) -> tuple[ExampleScore, ...]:
    """Score every row, in the order given.

    A label or choice is the candidate with the highest Σ log p(token | prompt, tokens before), not divided by its
    length and without an end token; of equal ones the first. Text is generated greedily until the model ends it or
    the task's ``max_new_tokens``. A prompt that does not fit the model's context loses its beginning (not its first
    token where that is the start token). Neither order nor ``batch_size`` changes the result, but for the rounding of
    the number format.

    Args:
        model: A causal language model of transformers, with or without PEFT adapter.
        tokenizer: The base model's tokenizer.
        examples: The rows.
        tasks: Settings of every task the rows name.
        chat: Whether prompts are chats.
        batch_size: Rows in one forward pass.
        progress: Is told about every batch.

    Raises:
        AdapterError: The model answers with NaN.
        BaseModelError: A chat is asked for, but the tokenizer has no chat template.
        DataError: A row has an empty prompt or a candidate without tokens, or its task no prompt for its language.
    """
    import torch

    rows = [_prepare(model, tokenizer, example, tasks[example.task], chat) for example in examples]
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    done: dict[int, ExampleScore] = {}
    choosing = [index for index, row in enumerate(rows) if row.encoded.candidates]
    writing = [index for index, row in enumerate(rows) if not row.encoded.candidates]
    with _evaluating(model), torch.inference_mode():
        for indices, scorer in ((choosing, _choose), (writing, _write)):
            for batch, scores in scorer(model, tokenizer, [rows[index] for index in indices], batch_size, pad):
                done |= {indices[place]: result for place, result in zip(batch, scores, strict=True)}
                if progress is not None:
                    progress(len(done), len(rows))
    return tuple(done[index] for index in range(len(rows)))


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def _prepare(model: Any, tokenizer: Any, example: Example, task: TaskSettings, chat: bool) -> _Row:
    rendered = render(example, task, chat=chat)
    encoded = encode(tokenizer, rendered)
    where = f"row '{example.id}' ({example.lang}, {example.task})"
    if not encoded.prompt:
        raise DataError(
            f"{where} has an empty prompt", hint=f"set tasks.{example.task}.prompt in evaluation/suite.yaml"
        )
    if not all(encoded.candidates):
        raise DataError(
            f"{where}: the tokenizer makes no token of a candidate: {rendered.candidates}",
            hint="write another label or choice",
        )
    answer = max(map(len, encoded.candidates), default=task.max_new_tokens)
    return _Row(example, task, rendered, encoded, _fitting(encoded.prompt, answer, model, tokenizer))


def _fitting(prompt: tuple[int, ...], answer: int, model: Any, tokenizer: Any) -> tuple[int, ...]:
    """Return the prompt without what is too much at its beginning."""
    context = getattr(model.config, "max_position_embeddings", None)
    if context is None or len(prompt) + answer <= context:
        return prompt
    # An answer that fills the context by itself still gets some of the prompt.
    room = max(context - answer, context // 2)
    if prompt[0] == tokenizer.bos_token_id:
        return (prompt[0], *prompt[1 - room :])
    return prompt[-room:]


def _choose(
    model: Any, tokenizer: Any, rows: Sequence[_Row], batch_size: int, pad: int
) -> Iterator[tuple[list[int], list[ExampleScore]]]:
    from adapterctl.evaluation.batches import by_length
    from adapterctl.evaluation.likelihood import candidate_log_likelihoods

    several = [any(len(tokens) > 1 for tokens in row.encoded.candidates) for row in rows]
    lengths = [(int(many), len(row.prompt)) for many, row in zip(several, rows, strict=True)]
    for batch in by_length(lengths, batch_size):
        likelihoods = candidate_log_likelihoods(
            model,
            [rows[index].prompt for index in batch],
            [rows[index].encoded.candidates for index in batch],
            pad=pad,
        )
        yield batch, [_chosen(rows[index], values) for index, values in zip(batch, likelihoods, strict=True)]


def _chosen(row: _Row, likelihoods: tuple[float, ...]) -> ExampleScore:
    if any(math.isnan(value) for value in likelihoods):
        raise _not_a_number(row)
    chosen = max(range(len(likelihoods)), key=lambda index: likelihoods[index])
    texts, answer = answers(row.example, row.task)
    details = {"log_likelihoods": list(likelihoods), "chosen": chosen, "answer": answer}
    return row.scored(texts[chosen], texts[answer], float(chosen == answer), details)


def _write(
    model: Any, tokenizer: Any, rows: Sequence[_Row], batch_size: int, pad: int
) -> Iterator[tuple[list[int], list[ExampleScore]]]:
    from adapterctl.evaluation.batches import by_length
    from adapterctl.evaluation.generation import greedy

    ends = _end_tokens(model, tokenizer)
    for batch in by_length([(row.task.max_new_tokens, len(row.prompt)) for row in rows], batch_size):
        prompts = [rows[index].prompt for index in batch]
        longest = rows[batch[0]].task.max_new_tokens
        try:
            texts = greedy(model, prompts, ends=ends, max_new_tokens=longest, pad=pad)
        except FloatingPointError as error:
            raise _not_a_number(rows[batch[0]]) from error
        yield batch, [_written(rows[index], tokenizer, *text) for index, text in zip(batch, texts, strict=True)]


def _written(row: _Row, tokenizer: Any, tokens: tuple[int, ...], ended: bool) -> ExampleScore:
    text = tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False).strip()
    values = rouge(text, row.example.reference)
    return row.scored(text, row.example.reference, values[row.task.primary_metric], {**values, "ended": ended})


def _end_tokens(model: Any, tokenizer: Any) -> set[int]:
    """Return the tokenizer's end token and those the model's own generation settings name, such as ends of turns."""
    settings = getattr(model, "generation_config", None)
    own = getattr(settings, "eos_token_id", None)
    named = own if isinstance(own, list | tuple) else [own]
    return {token for token in (tokenizer.eos_token_id, *named) if token is not None}


def _not_a_number(row: _Row) -> AdapterError:
    return AdapterError(
        f"the model answers row '{row.example.id}' ({row.example.lang}, {row.example.task}) with NaN (not a number)",
        hint="train or merge the adapter again; with base_model.dtype float16 choose bfloat16 or float32",
    )
