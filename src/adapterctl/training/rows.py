"""From examples to rows of token ids, with the answer's tokens marked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from adapterctl.errors import DataError, Problem
from adapterctl.prompts import encode, render
from adapterctl.training.job import TrainingJob, ordered_examples

_MOST_SHOWN = 30


@dataclass(frozen=True)
class TokenRow:
    """One row as token ids.

    Attributes:
        id: The example's id.
        ids: Prompt and answer, ending with the end-of-sequence token.
        prompt_length: How many of them are prompt; the loss is on the others.
    """

    id: str
    ids: tuple[int, ...]
    prompt_length: int


def token_rows(job: TrainingJob, tokenizer: Any) -> list[TokenRow]:
    """Return the job's rows as token ids, in the order that does not depend on files.

    Raises:
        DataError: There is no row, or a row has no prompt in its language.
    """
    if not job.examples:
        raise DataError(f"there is no row to train '{job.lang}' on", hint="add rows to the language's training file")
    rows = []
    for example in ordered_examples(job):
        encoded = encode(tokenizer, render(example, job.tasks[example.task], chat=job.base.chat))
        rows.append(TokenRow(example.id, encoded.prompt + encoded.target, len(encoded.prompt)))
    return rows


def refuse_long(rows: Sequence[TokenRow], lang: str, max_length: int, positions: int | None) -> None:
    """Refuse rows that are too long, all at once: cutting one off would cut its answer.

    Args:
        rows: The rows.
        lang: What is trained, for the message.
        max_length: ``training.max_length``.
        positions: How many tokens the base model can read, where it says so.

    Raises:
        DataError: A row is longer; every one is named.
    """
    limit = max_length if positions is None else min(max_length, positions)
    long = sorted((row for row in rows if len(row.ids) > limit), key=lambda row: (-len(row.ids), row.id))
    if not long:
        return
    problems = [Problem(row.id, f"{len(row.ids)} tokens") for row in long[:_MOST_SHOWN]]
    if rest := long[_MOST_SHOWN:]:
        problems.append(Problem("", f"and {len(rest)} more: " + ", ".join(row.id for row in rest)))
    what = "training.max_length" if limit == max_length else "what the base model can read"
    longest = len(long[0].ids)
    shorten = "shorten or remove these rows"
    fits = positions is None or longest <= positions
    raise DataError(
        f"{len(long)} of {len(rows)} rows of '{lang}' are longer than {limit} tokens, {what}; nothing was trained",
        problems=problems,
        hint=f"set training.max_length to {longest}, or {shorten}" if fits else shorten,
    )
