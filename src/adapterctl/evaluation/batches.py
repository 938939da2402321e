"""Rows of tokens as batches: left-padded, rows of similar length together. Torch-free until there are tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
    import torch

    length = max(map(len, prompts))
    ids = torch.tensor([[pad] * (length - len(prompt)) + list(prompt) for prompt in prompts])
    mask = torch.tensor([[0] * (length - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    return Prompts(ids.to(device), mask.to(device), positions.to(device))


@dataclass(frozen=True)
class Size:
    """What a row takes up in a forward pass.

    Attributes:
        length: Tokens of one sequence, up to the last one it may grow to.
        copies: Sequences that the row becomes.
        logits: Positions of each sequence whose logits are computed.
        kind: Only rows of the same kind share a pass.
    """

    length: int
    copies: int = 1
    logits: int = 1
    kind: int = 0


def batches(sizes: Sequence[Size], *, most_rows: int, most_tokens: int, most_logits: int) -> Iterator[list[int]]:
    """Give the indices of rows in batches of similar length, the longest first; a batch holds at least one row.

    Longest first: what does not fit into memory fails at once, and the time left is not underestimated.

    Args:
        sizes: What every row takes up.
        most_rows: Most rows of a batch.
        most_tokens: Most sequences × padded length of a batch.
        most_logits: Most sequences × positions whose logits are computed.
    """
    order = sorted(range(len(sizes)), key=lambda index: (sizes[index].kind, sizes[index].length), reverse=True)
    batch: list[int] = []
    copies = length = logits = 0
    for index in order:
        size = sizes[index]
        copies, length, logits = copies + size.copies, max(length, size.length), max(logits, size.logits)
        full = len(batch) == most_rows or copies * length > most_tokens or copies * logits > most_logits
        if batch and (full or size.kind != sizes[batch[0]].kind):
            yield batch
            batch, copies, length, logits = [], size.copies, size.length, size.logits
        batch.append(index)
    if batch:
        yield batch
