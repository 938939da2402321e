"""The log-likelihood of candidate answers, with the prompt read once; and of whole texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from adapterctl.evaluation.batches import left_padded


def candidate_log_likelihoods(
    model: Any, prompts: Sequence[Sequence[int]], candidates: Sequence[Sequence[Sequence[int]]], *, pad: int
) -> list[tuple[float, ...]]:
    """Return Σ log p(token | prompt, tokens before) of every candidate of every prompt of one batch.

    The sum is not divided by the length, and the end of the answer is only part of it where the candidate holds it.

    The prompt goes through the model once. Where all candidates are single tokens its last position answers
    everything; else its keys and values are shared by the longer candidates, which go through in a second pass.
    Logits are computed for the positions that are asked about only.

    Args:
        model: A causal language model of transformers, with or without PEFT adapter.
        prompts: Token ids of each row.
        candidates: Token ids of each row's candidates; rows may differ in their number.
        pad: Any token id, to fill up shorter rows.
    """
    batch = left_padded(prompts, pad, model.device)
    longer = [(row, tokens) for row, answers in enumerate(candidates) for tokens in answers if len(tokens) > 1]
    read = model(
        input_ids=batch.ids,
        attention_mask=batch.mask,
        position_ids=batch.positions,
        use_cache=bool(longer),
        logits_to_keep=1,
    )
    width = max(map(len, candidates))
    first = torch.tensor([[tokens[0] for tokens in row] + [pad] * (width - len(row)) for row in candidates])
    logits = read.logits[:, -1].float()
    sums = (logits.gather(-1, first.to(model.device)) - logits.logsumexp(-1, keepdim=True)).tolist()
    rest = iter(_continuations(model, batch.mask, read.past_key_values, longer, pad) if longer else ())
    return [
        tuple(value + (next(rest) if len(tokens) > 1 else 0.0) for value, tokens in zip(values, row, strict=False))
        for values, row in zip(sums, candidates, strict=True)
    ]


def _continuations(
    model: Any, mask: torch.Tensor, cache: Any, longer: Sequence[tuple[int, Sequence[int]]], pad: int
) -> list[float]:
    """Return, for each (row, candidate), the sum of log p of all its tokens but the first."""
    rows = torch.tensor([row for row, _ in longer], device=model.device)
    width = max(len(tokens) for _, tokens in longer)
    ids = torch.tensor([list(tokens) + [pad] * (width - len(tokens)) for _, tokens in longer], device=model.device)
    there = torch.tensor([[1] * len(tokens) + [0] * (width - len(tokens)) for _, tokens in longer], device=model.device)
    cache.batch_select_indices(rows)
    before = mask[rows]
    output = model(
        input_ids=ids[:, :-1],
        attention_mask=torch.cat([before, there[:, :-1]], dim=1),
        position_ids=before.sum(-1, keepdim=True) + torch.arange(width - 1, device=model.device),
        past_key_values=cache,
        use_cache=True,
    )
    logits = output.logits.float()
    values = logits.gather(-1, ids[:, 1:].unsqueeze(-1)).squeeze(-1) - logits.logsumexp(-1)
    # What the model says in the padding may be NaN, which a product with 0 would keep.
    sums: list[float] = values.masked_fill(there[:, 1:] == 0, 0.0).sum(-1).tolist()
    return sums


def text_log_likelihoods(
    model: Any, texts: Sequence[Sequence[int]], *, pad: int, most_logits: int
) -> list[tuple[float, int]]:
    """Return −Σ log p(token | tokens before) of each text's tokens after the first, in nats, and their number.

    The texts are read piece by piece, each piece with the keys and values of those before, because logits take more
    memory than everything else: a text of 4,096 tokens and 128,000 possible ones has 2 GiB of them.

    Args:
        model: A causal language model of transformers, with or without PEFT adapter.
        texts: Token ids of each text, two or more.
        pad: Any token id, to fill up shorter texts.
        most_logits: Most texts × positions whose logits are computed at once.
    """
    length = max(map(len, texts))
    ids = torch.tensor([list(text) + [pad] * (length - len(text)) for text in texts], device=model.device)
    there = torch.tensor([[1] * len(text) + [0] * (length - len(text)) for text in texts], device=model.device)
    sums = torch.zeros(len(texts), dtype=torch.float64)
    piece, cache = max(1, most_logits // len(texts)), None
    for start in range(0, length - 1, piece):
        stop = min(start + piece, length - 1)
        output = model(
            input_ids=ids[:, start:stop],
            attention_mask=there[:, :stop],
            position_ids=torch.arange(start, stop, device=model.device).expand(len(texts), -1),
            past_key_values=cache,
            use_cache=stop < length - 1 or start > 0,
        )
        cache = output.past_key_values
        logits = output.logits.float()
        wanted = ids[:, start + 1 : stop + 1]
        values = logits.gather(-1, wanted.unsqueeze(-1)).squeeze(-1) - logits.logsumexp(-1)
        # What the model says in the padding may be NaN, which a product with 0 would keep.
        values = values.masked_fill(there[:, start + 1 : stop + 1] == 0, 0.0)
        sums -= values.cpu().double().sum(-1)
    return [(total, len(text) - 1) for total, text in zip(sums.tolist(), texts, strict=True)]
