"""What a release can be exported for, as rows of data: the form of the files, and what each server accepts.

The rules are those of vLLM 0.33, of SGLang and of llama.cpp of 2026, as far as their sources could be read;
docs/serving.md says what was tried.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["adapter", "gguf", "model"]
"""The form of the files: a PEFT folder, a GGUF file of a LoRA, or the whole model."""

GGUF_FILE = "adapter.gguf"


@dataclass(frozen=True)
class Target:
    """Something that a release can be exported for.

    Attributes:
        name: What the command line calls it.
        title: What people call it.
        kind: The form of the files.
        ranks: What its ``--max-lora-rank`` takes; empty where every number will do.
        refused: Keys of ``adapter_config.json`` that must not be set, with the reason, beyond what keeps an adapter
            from being plain LoRA.
        load: Path at which a running server takes an adapter; empty where there is none. One that begins with ``/``
            is not below ``/v1``.
        unload: Path at which it drops one.
        names_by_field: Whether a completion names the adapter in ``lora_path`` beside the model, not as the model.
        switch: How a server is started that can load while it runs.
    """

    name: str
    title: str
    kind: Kind
    ranks: tuple[int, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)
    load: str = ""
    unload: str = ""
    names_by_field: bool = False
    switch: str = ""

    @property
    def serves_adapters(self) -> bool:
        """Whether it is a server that takes PEFT folders, with rules of its own."""
        return bool(self.load)

    def least_rank(self, rank: int) -> int | None:
        """Return the smallest ``--max-lora-rank`` that serves a rank; None where it is too large."""
        return next((allowed for allowed in self.ranks if allowed >= rank), None) if self.ranks else rank

    def arguments(self, rank: int, kinds: Sequence[str]) -> list[str]:
        """Return what its command line needs to serve an adapter.

        Args:
            rank: Of the adapter, one that it can serve.
            kinds: The kinds of modules that the adapter changes, such as ``q_proj``.
        """
        if self.kind == "gguf":
            return ["--lora", GGUF_FILE]
        if not self.serves_adapters:
            return []
        shared = ["--enable-lora", "--max-lora-rank", str(self.least_rank(rank))]
        # Without them SGLang sizes its memory by the adapters it is started with, and refuses others later.
        return [*shared, "--lora-target-modules", *kinds] if self.name == "sglang" else shared


_OVER = "it takes one rank and one alpha for all modules from r and lora_alpha, and would scale some modules wrongly"

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target("peft", "PEFT", "adapter"),
        Target(
            "vllm",
            "vLLM",
            "adapter",
            ranks=(1, 8, 16, 32, 64, 128, 256, 320, 512),
            load="load_lora_adapter",
            unload="unload_lora_adapter",
            switch="VLLM_ALLOW_RUNTIME_LORA_UPDATING=True vllm serve BASE --enable-lora",
        ),
        Target(
            "sglang",
            "SGLang",
            "adapter",
            refused={
                "use_rslora": "it scales by alpha/r whatever use_rslora says",
                "rank_pattern": _OVER,
                "alpha_pattern": _OVER,
            },
            load="/load_lora_adapter",
            unload="/unload_lora_adapter",
            names_by_field=True,
            switch="python -m sglang.launch_server --model-path BASE --enable-lora",
        ),
        Target("gguf", "llama.cpp", "gguf"),
        Target("model", "a whole model", "model"),
    )
}
"""Everything a release can be exported for, by name."""

SERVERS = tuple(target for target in TARGETS.values() if target.serves_adapters)
"""Those that take PEFT folders."""
