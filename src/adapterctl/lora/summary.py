"""An adapter in one line."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from adapterctl.lora.adapter import TENSOR_FILE, Adapter
from adapterctl.lora.peft_config import alpha_of

_LAYER = re.compile(r"(?:^|\.)\d+(?=\.)")


@dataclass(frozen=True)
class Summary:
    """What there is to know about an adapter before it is used.

    Attributes:
        lang: Its language.
        folder: Where it lies.
        content_hash: What it computes.
        base_model: The base model it was trained on, as recorded.
        revision: That model's revision, as recorded.
        ranks: The ranks of its modules, ascending.
        alphas: Their α, ascending.
        scales: The factors on their B·A, ascending.
        rank_stabilised: Whether the factor is α/√r instead of α/r.
        modules: How many there are.
        layers: In how many layers.
        kinds: The last parts of their paths, such as ``q_proj``.
        dtypes: What their numbers are stored in.
        size: Bytes of the tensor file.
    """

    lang: str
    folder: str
    content_hash: str
    base_model: str | None
    revision: str | None
    ranks: tuple[int, ...]
    alphas: tuple[float, ...]
    scales: tuple[float, ...]
    rank_stabilised: bool
    modules: int
    layers: int
    kinds: tuple[str, ...]
    dtypes: tuple[str, ...]
    size: int

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def summary_of(adapter: Adapter) -> Summary:
    """Return the summary of an adapter in which :func:`adapterctl.lora.compatibility.check` found nothing.

    Raises:
        AdapterError: It cannot be read.
    """
    modules = adapter.modules
    return Summary(
        lang=adapter.lang or "",
        folder=str(adapter.folder),
        content_hash=adapter.content_hash,
        base_model=adapter.base_model,
        revision=adapter.revision,
        ranks=tuple(sorted({adapter.rank(module) for module in modules})),
        alphas=tuple(sorted({alpha_of(adapter.config, module) for module in modules})),
        scales=tuple(sorted({adapter.scale(module) for module in modules})),
        rank_stabilised=bool(adapter.config.get("use_rslora")),
        modules=len(modules),
        layers=len({match.group() for module in modules if (match := _LAYER.search(module))}),
        kinds=tuple(sorted({module.rsplit(".", 1)[-1] for module in modules})),
        dtypes=tuple(sorted({str(adapter.dtype(name)).removeprefix("torch.") for name in adapter.tensor_names})),
        size=(adapter.folder / TENSOR_FILE).stat().st_size,
    )
