"""What modules a base model has, and how large they are: from its configuration, without its weights."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from adapterctl.base_model import BaseModel
from adapterctl.errors import BaseModelError


@dataclass(frozen=True)
class Layout:
    """The form of a base model.

    Attributes:
        kind: What transformers calls its kind, such as ``llama``.
        layers: How many layers it has.
        heads: Heads of attention.
        key_heads: Heads of keys and values, fewer where several heads share one.
        tied: Whether its output layer is its embedding.
        modules: ``(out, in)`` of every linear layer and of the embedding by path, such as
            ``model.layers.0.self_attn.q_proj``.
    """

    kind: str
    layers: int
    heads: int
    key_heads: int
    tied: bool
    modules: Mapping[str, tuple[int, int]]


def layout_of(base: BaseModel) -> Layout:
    """Return the form of a base model; its weights are neither read nor made.

    Raises:
        BaseModelError: Its configuration cannot be read, or is not one that transformers knows.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(base.location, revision=base.settings.revision, trust_remote_code=False)
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model: Any = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
        text = config.get_text_config()
        heads = int(text.num_attention_heads)
        return Layout(
            kind=str(config.model_type),
            layers=int(text.num_hidden_layers),
            heads=heads,
            key_heads=int(getattr(text, "num_key_value_heads", None) or heads),
            tied=bool(getattr(text, "tie_word_embeddings", False)),
            modules={path: shape for path, module in model.named_modules() if (shape := _shape(module)) is not None},
        )
    except Exception as error:
        # The libraries raise whatever their parsers do.
        raise BaseModelError(
            f"the configuration of the base model '{base.name}' cannot be used: {error}",
            hint="check base_model in adapterctl.yaml with: adapterctl doctor",
        ) from error


def _shape(module: Any) -> tuple[int, int] | None:
    weight = getattr(module, "weight", None)
    if weight is None or weight.ndim != 2:
        return None
    first, second = weight.shape
    # GPT-2's own kind of linear layer stores in × out.
    return (second, first) if type(module).__name__ == "Conv1D" else (first, second)
