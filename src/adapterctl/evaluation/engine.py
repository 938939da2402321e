"""What answers: the one protocol between rows and whatever holds the model. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from adapterctl.examples import Example
from adapterctl.tasks import TaskSettings


@dataclass(frozen=True)
class PreparedRow:
    """A row as an engine takes it.

    Attributes:
        example: The row.
        task: Its task's settings.
        prompt: Token ids of the prompt, cut at its beginning where the model's context asks for it.
        candidates: Token ids of the answers to choose from; empty where the answer is written or the text is read.
        dropped: Tokens that were cut off the prompt.
        asked: Hash of what the model is asked and offered.
        with_end: Whether the candidates end with the end token, because one is the beginning of another.
        prior: Token ids of the same prompt without content, where the task is calibrated by it; else empty.
        bytes: UTF-8 bytes of the text that is read, as far as ``prompt`` holds it; 0 for other rows.
    """

    example: Example
    task: TaskSettings
    prompt: tuple[int, ...]
    candidates: tuple[tuple[int, ...], ...]
    dropped: int
    asked: str
    with_end: bool = False
    prior: tuple[int, ...] = ()
    bytes: int = 0


class Engine(Protocol):
    """A model that answers.

    Every method takes rows in any order and yields results as they come, each with the index of its row, so that
    progress can be told; every row is answered exactly once.

    Attributes:
        signature: What the engine is, for the signature of every score: ``transformers`` or ``openai``.
    """

    signature: str

    def log_likelihoods(self, rows: Sequence[PreparedRow]) -> Iterator[tuple[int, tuple[float, ...]]]:
        """Give Σ log p(token | prompt, tokens before) of every candidate, in nats, not divided by its length."""

    def texts(self, rows: Sequence[PreparedRow]) -> Iterator[tuple[int, tuple[str, bool]]]:
        """Give each row's greedy continuation of at most ``task.max_new_tokens``, and whether it ended by itself."""

    def readings(self, rows: Sequence[PreparedRow]) -> Iterator[tuple[int, tuple[float, int]]]:
        """Give −Σ log p of the tokens of ``prompt`` after the first, in nats, and how many tokens that are."""
