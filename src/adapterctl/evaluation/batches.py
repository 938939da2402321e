"""Rows of tokens as batches: left-padded, rows of similar length together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Prompts:
    """A batch of prompts, padded on the left so that every row ends in the last column.

    Attributes:
        ids: Token ids, ``rows × length``.
        mask: 1 where there is a token, 0 where there is padding; ``rows × length``.
        positions: Position of every token in its own row, ``rows × length``; 0 in the padding.
    """

    ids: torch.Tensor
    mask: torch.Tensor
    positions: torch.Tensor


def left_padded(prompts: Sequence[Sequence[int]], pad: int, device: torch.device) -> Prompts:
    """Return prompts as one batch."""
    length = max(map(len, prompts))
    ids = torch.tensor([[pad] * (length - len(prompt)) + list(prompt) for prompt in prompts])
    mask = torch.tensor([[0] * (length - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    return Prompts(ids.to(device), mask.to(device), positions.to(device))


def by_length(lengths: Sequence[tuple[int, ...]], batch_size: int) -> Iterator[list[int]]:
    """Give the indices of rows in batches, longest first; rows of one batch agree in all but the last number.

    Longest first: what does not fit into memory fails at once, and the time left is not underestimated.

    Args:
        lengths: Of each row, whatever must be equal within a batch, then its length.
        batch_size: The most rows in a batch.
    """
    order = sorted(range(len(lengths)), key=lambda index: lengths[index], reverse=True)
    batch: list[int] = []
    for index in order:
        if batch and (len(batch) == batch_size or lengths[batch[0]][:-1] != lengths[index][:-1]):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
