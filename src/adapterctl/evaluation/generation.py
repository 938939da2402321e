"""Greedy decoding of a batch, which gets smaller as its rows end."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch

from adapterctl.evaluation.batches import left_padded

_WORTH_DROPPING = 0.75


class NotANumber(FloatingPointError):
    """The model answers a row with NaN.

    Attributes:
        row: Index of the row.
    """

    def __init__(self, row: int) -> None:
        super().__init__(f"the model answers row {row} with NaN")
        self.row = row


def greedy(
    model: Any, prompts: Sequence[Sequence[int]], *, ends: Collection[int], max_new_tokens: int, pad: int
) -> list[tuple[tuple[int, ...], bool]]:
    """Return each row's most likely continuation, token by token, and whether it ended by itself.

    Same tokens as ``model.generate(do_sample=False)`` without what a model's ``generation_config.json`` may add
    (penalties, a forced beginning). Rows that have ended leave the batch: where one row in ten never ends, as with a
    merge at a bad scale, this takes about half of ``generate``'s time on a CPU; where all end together, the same time.

    Args:
        model: A causal language model of transformers, with or without PEFT adapter.
        prompts: Token ids of each row.
        ends: Tokens that end a text; they are not part of it.
        max_new_tokens: The longest continuation.
        pad: Any token id, to fill up shorter prompts.

    Raises:
        NotANumber: The model answers a row with NaN.
    """
    device = model.device
    batch = left_padded(prompts, pad, device)
    ids, positions = batch.ids, batch.positions
    mask = torch.cat([batch.mask, batch.mask.new_ones(len(prompts), max_new_tokens)], dim=1)
    stops = torch.tensor(sorted(ends), device=device)
    rows = list(range(len(prompts)))
    texts: list[list[int]] = [[] for _ in rows]
    ended = [False] * len(prompts)
    cache = None
    for seen in range(batch.ids.shape[1], mask.shape[1]):
        output = model(
            input_ids=ids,
            attention_mask=mask[:, :seen],
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        cache = output.past_key_values
        best, chosen = output.logits[:, -1].max(-1)
        broken = best.isnan()
        if broken.any():
            raise NotANumber(rows[int(broken.nonzero()[0])])
        stopped = torch.isin(chosen, stops).tolist()
        for row, token, stop in zip(rows, chosen.tolist(), stopped, strict=True):
            ended[row] |= stop
            if not ended[row]:
                texts[row].append(token)
        going = [index for index, row in enumerate(rows) if not ended[row]]
        if not going:
            break
        ids, positions = chosen.unsqueeze(-1), positions[:, -1:] + 1
        # Dropping rows copies the cache, so it waits until enough of them have ended.
        if len(going) <= _WORTH_DROPPING * len(rows):
            kept = torch.tensor(going, device=device)
            cache.batch_select_indices(kept)
            ids, positions, mask = ids[kept], positions[kept], mask[kept]
            rows = [rows[index] for index in going]
    return [(tuple(text), end) for text, end in zip(texts, ended, strict=True)]
