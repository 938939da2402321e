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
        flops: Floating-point operations of the training. Per token 2N for the forward pass and 2N for the gradients
            of the activations, N being the base model's parameters outside the embedding; the usual 6N
            (Kaplan et al. 2020, arXiv 2001.08361) counts another 2N for gradients of the weights, which frozen weights
            do not need. A and B, P numbers, take the full 6P. Padding, attention scores and recomputed activations are
            not counted.
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


def training_flops(base_parameters: int, trainable_parameters: int, tokens: int) -> float:
    """Return (4·N + 6·P)·tokens: N frozen parameters outside the embedding, P trained ones."""
    return float((4 * base_parameters + 6 * trainable_parameters) * tokens)


def closing_loss(history: tuple[Step, ...]) -> float:
    """Return the mean loss over the last tenth of the steps, one at least."""
    last = history[-max(1, len(history) // 10) :]
    return sum(step.loss for step in last) / len(last)
