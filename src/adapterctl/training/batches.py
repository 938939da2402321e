"""The order of rows, how they share batches, and batches as tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import Sampler

from adapterctl.randomness import generator
from adapterctl.training.rows import TokenRow

IGNORED = -100
"""The label of a token that has no part in the loss."""

_BATCHES_SORTED_TOGETHER = 16
"""Rows are sorted by length within so many batches: enough to save padding, few enough to mix rows anew each epoch."""


def epoch_order(lengths: Sequence[int], batch_size: int, *, grouped: bool, seed: int, epoch: int) -> list[list[int]]:
    """Return the batches of one epoch as lists of row numbers; it depends on the arguments alone.

    With ``grouped``, rows are shuffled, sorted by length within windows of 16 batches, cut into batches, and the
    batches shuffled. Every row stands in one batch; only the batch that holds the rest is smaller.
    """
    random = generator("training order", seed, epoch)
    order = random.permutation(len(lengths))
    if not grouped:
        return [order[i : i + batch_size].tolist() for i in range(0, len(order), batch_size)]
    sizes = np.asarray(lengths)
    window = batch_size * _BATCHES_SORTED_TOGETHER
    sorted_order = np.concatenate(
        [
            part[np.argsort(sizes[part], kind="stable")]
            for part in (order[i : i + window] for i in range(0, len(order), window))
        ]
    )
    batches = [sorted_order[i : i + batch_size].tolist() for i in range(0, len(order), batch_size)]
    return [batches[i] for i in random.permutation(len(batches))]


@dataclass(frozen=True)
class Plan:
    """Every batch of a training, known before it begins.

    Attributes:
        lengths: Tokens of every row.
        batch_size: Rows of a batch.
        accumulation: Batches of a step.
        epochs: How often every row is used.
        grouped: Whether rows of similar length share a batch.
        seed: Seed of the order.
    """

    lengths: tuple[int, ...]
    batch_size: int
    accumulation: int
    epochs: int
    grouped: bool
    seed: int

    def batches(self, epoch: int) -> list[list[int]]:
        """Return the batches of one epoch (from 0)."""
        return epoch_order(self.lengths, self.batch_size, grouped=self.grouped, seed=self.seed, epoch=epoch)

    @property
    def batches_per_epoch(self) -> int:
        """Batches of one epoch."""
        return -(-len(self.lengths) // self.batch_size)

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of one epoch; the last one takes what is left."""
        return -(-self.batches_per_epoch // self.accumulation)

    @property
    def steps(self) -> int:
        """Optimizer steps in all."""
        return self.steps_per_epoch * self.epochs

    def tokens_by_step(self) -> tuple[list[int], int]:
        """Return the tokens (without padding) up to the end of each step, and all tokens with padding."""
        sums: list[int] = []
        real = padded = 0
        for epoch in range(self.epochs):
            batches = self.batches(epoch)
            for start in range(0, len(batches), self.accumulation):
                for batch in batches[start : start + self.accumulation]:
                    sizes = [self.lengths[row] for row in batch]
                    real += sum(sizes)
                    padded += max(sizes) * len(sizes)
                sums.append(real)
        return sums, padded


class EpochBatches(Sampler[list[int]]):
    """The batches of the epoch that ``epoch`` says."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.epoch = 0

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.plan.batches(self.epoch))

    def __len__(self) -> int:
        return self.plan.batches_per_epoch


class Collator:
    """Turns rows into a batch, padded on the right.

    There is no attention mask: under causal attention nothing looks at what comes after it, so padding on the right
    changes no answer, and without a mask the fast attention kernels can be used.
    """

    def __init__(self, pad: int) -> None:
        self.pad = pad

    def __call__(self, rows: Sequence[TokenRow]) -> dict[str, torch.Tensor]:
        """Return ``input_ids`` and ``labels``, both ``rows × longest``.

        Labels are those of the same position, as is usual; prompts and padding are ``IGNORED``.
        """
        longest = max(len(row.ids) for row in rows)
        ids = np.full((len(rows), longest), self.pad, dtype=np.int64)
        labels = np.full((len(rows), longest), IGNORED, dtype=np.int64)
        for i, row in enumerate(rows):
            ids[i, : len(row.ids)] = row.ids
            labels[i, row.prompt_length : len(row.ids)] = row.ids[row.prompt_length :]
        return {"input_ids": torch.from_numpy(ids), "labels": torch.from_numpy(labels)}


def answer_loss(
    logits: torch.Tensor, labels: torch.Tensor, positions: torch.Tensor, count: torch.Tensor | int
) -> torch.Tensor:
    """Return the cross-entropy of the answer tokens, summed and divided by ``count``.

    Args:
        logits: ``rows × len(positions) × vocabulary``, computed at ``positions`` only.
        labels: ``rows × longest``.
        positions: The positions whose next token is an answer's in some row.
        count: How many answer tokens the whole optimizer step has.
    """
    targets = labels[:, positions + 1]
    wanted = targets != IGNORED
    # Softmax in float32: the vocabulary of a large model has too many terms for bfloat16.
    loss = torch.nn.functional.cross_entropy(logits[wanted].float(), targets[wanted], reduction="sum")
    return loss / count


def answer_positions(labels: torch.Tensor) -> torch.Tensor:
    """Return the positions, in order, at which some row's next token is to be predicted."""
    return (labels[:, 1:] != IGNORED).any(dim=0).nonzero().flatten()
