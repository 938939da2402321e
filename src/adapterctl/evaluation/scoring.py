"""The engine in this process: a model of transformers answers rows, sorted by length, in batches under a budget."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from adapterctl.evaluation.answers import not_a_number
from adapterctl.evaluation.batches import Size, batches
from adapterctl.evaluation.engine import PreparedRow

_MOST_LOGITS = 2**28
"""Logits computed at once: 1 GiB in float32."""


class LocalEngine:
    """A causal language model of transformers, with or without PEFT adapter, that answers in this process.

    Neither the order of rows nor the size of batches changes an answer, but for the rounding of the number format.

    Attributes:
        signature: ``transformers``.
    """

    signature = "transformers"

    def __init__(self, model: Any, tokenizer: Any, *, batch_size: int, batch_tokens: int) -> None:
        """Take the model as it is; while it answers, it is in evaluation mode.

        Args:
            model: The model.
            tokenizer: The base model's tokenizer.
            batch_size: Most rows in one forward pass.
            batch_tokens: Most sequences × padded length in one forward pass; what is still to be generated counts.
        """
        self._model = model
        self._tokenizer = tokenizer
        self._most_rows = batch_size
        self._most_tokens = batch_tokens
        self._pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0

    @property
    def _most_logits(self) -> int:
        return max(1, _MOST_LOGITS // int(self._model.config.get_text_config().vocab_size))

    def log_likelihoods(self, rows: Sequence[PreparedRow]) -> Iterator[tuple[int, tuple[float, ...]]]:
        """Give Σ log p(token | prompt, tokens before) of every candidate, in nats, not divided by its length.

        Candidates of one token are answered by the pass over the prompts. Of longer ones the other tokens go through
        in a second pass, which shares the keys and values of the first.
        """
        from adapterctl.evaluation.likelihood import candidate_log_likelihoods

        sizes = []
        for row in rows:
            longest = max(map(len, row.candidates))
            copies = sum(len(tokens) > 1 for tokens in row.candidates)
            sizes.append(Size(len(row.prompt) + longest - 1, max(1, copies), max(1, longest - 1), kind=copies > 0))
        for batch in self._batches(sizes):
            with self._evaluating():
                values = candidate_log_likelihoods(
                    self._model,
                    [rows[index].prompt for index in batch],
                    [rows[index].candidates for index in batch],
                    pad=self._pad,
                )
            yield from zip(batch, values, strict=True)

    def texts(self, rows: Sequence[PreparedRow]) -> Iterator[tuple[int, tuple[str, bool]]]:
        """Give each row's greedy continuation of at most ``task.max_new_tokens``, and whether it ended by itself.

        Raises:
            AdapterError: The model answers with NaN.
        """
        from adapterctl.evaluation.generation import NotANumber, greedy

        ends = self._end_tokens()
        most = [row.task.max_new_tokens for row in rows]
        sizes = [Size(len(row.prompt) + longest, kind=longest) for row, longest in zip(rows, most, strict=True)]
        for batch in self._batches(sizes):
            prompts = [rows[index].prompt for index in batch]
            try:
                with self._evaluating():
                    found = greedy(self._model, prompts, ends=ends, max_new_tokens=most[batch[0]], pad=self._pad)
            except NotANumber as error:
                raise not_a_number(rows[batch[error.row]]) from error
            texts = self._tokenizer.batch_decode(
                [tokens for tokens, _ in found], skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
            yield from zip(batch, [(text, ended) for text, (_, ended) in zip(texts, found, strict=True)], strict=True)

    def readings(self, rows: Sequence[PreparedRow]) -> Iterator[tuple[int, tuple[float, int]]]:
        """Give −Σ log p of the tokens of ``prompt`` after the first, in nats, and how many tokens that are."""
        from adapterctl.evaluation.likelihood import text_log_likelihoods

        for batch in self._batches([Size(len(row.prompt)) for row in rows]):
            prompts = [rows[index].prompt for index in batch]
            with self._evaluating():
                found = text_log_likelihoods(self._model, prompts, pad=self._pad, most_logits=self._most_logits)
            yield from zip(batch, found, strict=True)

    def _batches(self, sizes: Sequence[Size]) -> Iterator[list[int]]:
        return batches(sizes, most_rows=self._most_rows, most_tokens=self._most_tokens, most_logits=self._most_logits)

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        import torch

        training = self._model.training
        if training:
            self._model.eval()
        try:
            with torch.inference_mode():
                yield
        finally:
            if training:
                self._model.train()

    def _end_tokens(self) -> set[int]:
        """Return the tokenizer's end token and those the model's generation settings name, such as ends of turns."""
        settings = getattr(self._model, "generation_config", None)
        own = getattr(settings, "eos_token_id", None)
        named = own if isinstance(own, list | tuple) else [own]
        return {token for token in (self._tokenizer.eos_token_id, *named) if token is not None}
