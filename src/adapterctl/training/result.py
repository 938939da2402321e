"""What training gives back, and whom it tells how far it is."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol


class TrainingObserver(Protocol):
    """Somebody who wants to know how far training is."""

    def on_start(self, lang: str, total_steps: int, done_steps: int) -> None:
        """Hear that steps begin; ``done_steps`` were done before an interruption."""

    def on_step(
        self, step: int, total_steps: int, loss: float, learning_rate: float, tokens: int, seconds: float
    ) -> None:
        """Hear that step ``step`` (from 1) is done.

        ``tokens`` (without padding) and ``seconds`` (wall) count from step 1, without work that was lost in an
        interruption: what is left takes about ``seconds / step * (total_steps - step)``.
        """


class Silent:
    """An observer that does not listen."""

    def on_start(self, lang: str, total_steps: int, done_steps: int) -> None:
        """Do nothing."""

    def on_step(
        self, step: int, total_steps: int, loss: float, learning_rate: float, tokens: int, seconds: float
    ) -> None:
        """Do nothing."""


@dataclass(frozen=True)
class Step:
    """One optimizer step.

    Attributes:
        step: Its number, from 1.
        loss: Mean cross-entropy of the answer tokens of the step, in nats.
        learning_rate: What the step was made with.
        tokens: Tokens up to here, without padding.
        seconds: Wall seconds up to here, without work lost in an interruption.
    """

    step: int
    loss: float
    learning_rate: float
    tokens: int
    seconds: float


@dataclass(frozen=True)
class TrainingResult:
    """A finished adapter and what it took.

    Attributes:
        folder: The PEFT folder.
        key: The job's content hash.
        steps: Optimizer steps.
        tokens: Tokens of prompts and answers that were processed, without padding.
        padded_tokens: The same with padding.
        final_loss: Mean loss over the last tenth of the steps.
        history: Every step.
        seconds: Wall seconds from the call to the published folder, model loading included, summed over interrupted
            attempts. It tells what the training took, also where it is reused.
        reused: Whether the adapter had been there already and nothing was trained.
        resumed_from_step: The step of the checkpoint that the last attempt began with; 0 where it began anew.
        trainable_parameters: Numbers in A and B.
        flops: Floating-point operations of the training, as ``training_flops`` counts them.
    """

    folder: Path
    key: str
    steps: int
    tokens: int
    padded_tokens: int
    final_loss: float
    history: tuple[Step, ...]
    seconds: float
    reused: bool
    resumed_from_step: int
    trainable_parameters: int
    flops: float

    def as_dict(self) -> dict[str, Any]:
        """Return what is stored beside the adapter; where the folder lies is not part of it."""
        stored = asdict(self)
        del stored["folder"], stored["reused"]
        return stored

    @classmethod
    def from_dict(cls, folder: Path, stored: dict[str, Any]) -> TrainingResult:
        """Return the result of an adapter that was there already.

        Raises:
            KeyError, TypeError, ValueError: ``stored`` is not what ``as_dict`` returned.
        """
        names = cls.__dataclass_fields__.keys() - {"folder", "reused", "history"}
        history = tuple(Step(**step) for step in stored["history"])
        return cls(folder=folder, reused=True, history=history, **{name: stored[name] for name in names})


def training_flops(
    base_parameters: int, trainable_parameters: int, tokens: int, *, checkpointing: bool = False
) -> float:
    """Return the floating-point operations of training an adapter: (4·N + 6·P)·T, with checkpointing (6·N + 8·P)·T.

    Per token a forward pass takes 2N operations, the gradients of the activations 2N and those of the weights 2N: 6·N·T
    for training all of N weights (Kaplan et al. 2020, arXiv 2001.08361). Frozen weights need no gradients of their own,
    which leaves 4·N·T; A and B, P numbers, take the full 6·P·T. Gradient checkpointing computes the forward pass a
    second time: 2·(N + P)·T more. Evaluation is a forward pass alone: 2·N·T. Padding and attention scores are not
    counted.

    Args:
        base_parameters: N, frozen parameters outside the embedding.
        trainable_parameters: P, numbers in A and B.
        tokens: T, tokens that were processed, without padding; every epoch counts.
        checkpointing: Whether activations were computed again in the backward pass.
    """
    frozen, trained = (6, 8) if checkpointing else (4, 6)
    return float((frozen * base_parameters + trained * trainable_parameters) * tokens)


def closing_loss(history: tuple[Step, ...]) -> float:
    """Return the mean loss over the last tenth of the steps, one at least."""
    last = history[-max(1, len(history) // 10) :]
    return sum(step.loss for step in last) / len(last)
