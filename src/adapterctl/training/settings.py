"""What an adapter looks like and how it is trained: the ``lora`` and ``training`` blocks of the configuration."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, field_validator, model_validator

from adapterctl.settings import Settings

ModuleName = Annotated[str, StringConstraints(min_length=1, pattern=r"^[A-Za-z_][\w.]*$")]


class LoraSettings(Settings):
    """Shape of an adapter: ΔW = s·B·A per module (Hu et al. 2021, arXiv 2106.09685)."""

    r: int = Field(16, ge=1, le=1024, description="Rank of B·A.")
    alpha: float = Field(32.0, gt=0, le=8192, description="Numerator of the scale s = alpha/r; alpha/√r with rslora.")
    dropout: float = Field(0.05, ge=0, lt=1, description="Share of the inputs of A that is dropped while training.")
    target_modules: Literal["all-linear"] | list[ModuleName] = Field(
        "all-linear",
        description="Linear layers that get an adapter: all but the output layer, or a list of names such as `q_proj`.",
    )
    rslora: bool = Field(
        False, description="Scale by alpha/√r instead of alpha/r (Kalajdzievski 2023, arXiv 2312.03732)."
    )

    @field_validator("target_modules")
    @classmethod
    def _some_module(cls, value: str | list[str]) -> str | list[str]:
        if isinstance(value, list):
            if not value:
                raise ValueError("names no module; write all-linear, or names such as q_proj")
            return sorted(set(value))
        return value

    @property
    def scale(self) -> float:
        """The factor s on B·A."""
        return float(self.alpha / (self.r**0.5 if self.rslora else self.r))


class TrainingSettings(Settings):
    """How an adapter is trained.

    The defaults are meant for an adapter of an 8B model on one GPU; small models want a higher learning rate.
    """

    epochs: int = Field(3, ge=1, le=1000, description="How often every row is used.")
    learning_rate: float = Field(2e-4, gt=0, le=1, description="Highest learning rate of AdamW.")
    schedule: Literal["cosine", "linear", "constant"] = Field(
        "cosine", description="How the learning rate falls to zero after the warm-up; `constant` does not."
    )
    warmup_ratio: float = Field(0.03, ge=0, lt=1, description="Share of all steps in which the learning rate rises.")
    warmup_steps: int | None = Field(None, ge=0, description="The warm-up in steps, instead of `warmup_ratio`.")
    batch_size: int = Field(8, ge=1, le=4096, description="Rows that are computed at once; decides the memory needed.")
    gradient_accumulation: int = Field(
        1, ge=1, le=4096, description="Batches that make one optimizer step; a step is batch_size times this many rows."
    )
    weight_decay: float = Field(0.0, ge=0, le=1, description="Decoupled weight decay of AdamW on A and B.")
    max_grad_norm: float = Field(1.0, gt=0, le=1000, description="Gradients are scaled down to this Euclidean norm.")
    max_length: int = Field(
        1024,
        ge=8,
        le=1_000_000,
        description="Longest row, prompt and answer, in tokens; longer ones are refused.",
    )
    length_grouped: bool = Field(True, description="Whether rows of similar length share a batch, which saves padding.")
    mixed_precision: Literal["none", "bf16"] = Field(
        "bf16", description="`bf16` computes in bfloat16; A and B are kept in float32 either way."
    )
    gradient_checkpointing: bool = Field(
        False, description="Recompute activations in the backward pass: about 30 % slower, far less memory."
    )
    checkpoint_every_steps: int = Field(
        0, ge=0, description="Steps between checkpoints; 0: after every epoch, and after five minutes without one."
    )
    seed: int = Field(0, ge=0, lt=2**31, description="Seed of the start of A, the order of rows and the dropout.")
    shared_init: bool = Field(
        True, description="Whether A starts alike in every language, which makes adapters merge better."
    )
    optimizer: Literal["adamw", "adamw8bit", "paged_adamw8bit"] = Field(
        "adamw", description="AdamW; the 8-bit ones (bitsandbytes) keep its state in a quarter of the memory."
    )
    threads: int | None = Field(None, ge=1, le=1024, description="CPU threads; PyTorch decides when not given.")

    @model_validator(mode="before")
    @classmethod
    def _one_warmup(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("warmup_steps") is not None and "warmup_ratio" in data:
            raise ValueError("give warmup_ratio or warmup_steps, not both")
        return data

    def warmup_of(self, total_steps: int) -> int:
        """Return the length of the warm-up in steps."""
        if self.warmup_steps is not None:
            return min(self.warmup_steps, total_steps)
        return round(self.warmup_ratio * total_steps)


OPERATIONAL = frozenset({"checkpoint_every_steps", "threads"})
"""Training settings that say how the work is carried out, not what comes out: they leave the key as it is."""
