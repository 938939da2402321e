"""A LoRA adapter as llama.cpp reads it: one GGUF file, for ``llama-server --lora``.

llama.cpp stores the rows of q and k in another order than transformers. Rotary position embedding turns pairs of
numbers: transformers pairs number i of a head with number i + d/2, llama.cpp number 2i with number 2i + 1. So row
2i + j of a head, j being 0 or 1, is row j·d/2 + i there. Rows of ΔW = s·B·A are rows of B, and A stays as it is.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapterctl.errors import AdapterError, Problem, UsageError
from adapterctl.lora.soundness import listed
from adapterctl.serving.targets import GGUF_FILE

if TYPE_CHECKING:
    import torch

    from adapterctl.base_layout import Layout
    from adapterctl.lora.adapter import Adapter

KINDS = ("llama",)
"""The kinds of base models whose order of rows is known here."""


def require_library() -> None:
    """Raise if the library that writes GGUF is not installed.

    Raises:
        UsageError: It is not.
    """
    try:
        import gguf  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"writing GGUF needs the package gguf, which cannot be imported: {error}",
            hint="pip install 'adapterctl[gguf]'",
        ) from error


def gguf_problems(adapter: Adapter, layout: Layout, name: str) -> list[Problem]:
    """Return why an adapter cannot be written for llama.cpp.

    Args:
        adapter: The adapter, plain LoRA.
        layout: Of its base model.
        name: What messages call it.
    """
    if layout.kind not in KINDS:
        message = f"its base model is of the kind {layout.kind}; adapters of {', '.join(KINDS)} alone are converted"
        hint = "use llama.cpp's convert_lora_to_gguf.py on the folder of: adapterctl export --target peft"
        return [Problem(name, message, hint)]
    names = _names(adapter, layout)
    lacking = [module for module, found in names.items() if found is None]
    if layout.tied:
        lacking += [module for module, found in names.items() if found == "output"]
    if not lacking:
        return []
    message = f"llama.cpp's form of the base model has no tensor for {listed(sorted(lacking))}"
    return [Problem(name, message, "train without these modules, or export with --target model")]


def write_gguf(adapter: Adapter, layout: Layout, folder: Path, texts: Mapping[str, str]) -> Path:
    """Write an adapter as ``adapter.gguf``, in float32, one tensor at a time.

    llama.cpp scales B·A by α/r, with one α for the file and r of each tensor; where the modules' scales are not one
    α/r, or α is 0, which llama.cpp takes for "no scale", they go into B.

    Args:
        adapter: The adapter, in which :func:`gguf_problems` found nothing.
        layout: Of its base model.
        folder: An existing folder.
        texts: Further text for the file's head.

    Raises:
        AdapterError: The adapter's tensors cannot be read.
    """
    import gguf
    import numpy as np

    names = {module: found for module, found in _names(adapter, layout).items() if found is not None}
    # Some alpha that all modules share, else 1.
    alphas = {adapter.scale(module) * adapter.rank(module) for module in names}
    alpha = alphas.pop() if len(alphas) == 1 and 0.0 not in alphas else 1.0
    path = folder / GGUF_FILE
    writer: Any = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH.LLAMA])
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
    for key, text in texts.items():
        writer.add_string(key, text)
    ordered = sorted(names, key=lambda module: names[module])
    for module in ordered:
        a, b = adapter.shape(module)
        for suffix, shape in (("lora_a", a), ("lora_b", b)):
            size = shape[0] * shape[1] * 4
            writer.add_tensor_info(f"{names[module]}.weight.{suffix}", shape, np.dtype(np.float32), size)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for module in ordered:
            for factor in _factors(adapter, module, alpha, _heads(module, layout)):
                writer.write_tensor_data(factor.numpy())
    except OSError as error:
        # numpy says how much was written, and not that the disk is full.
        raise error if error.errno is not None else OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path) from error
    finally:
        writer.close()
    return path


def _factors(adapter: Adapter, module: str, alpha: float, heads: int) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    delta = adapter.delta(module, torch.float64)
    b, wanted = delta.B, alpha / delta.rank
    if delta.scale != wanted:
        b = b * (delta.scale / wanted)
    if heads:
        b = b[order_of_rows(b.shape[0], heads)]
    a, b = delta.A.float().contiguous(), b.float().contiguous()
    if not (torch.isfinite(a).all() and torch.isfinite(b).all()):
        raise AdapterError(f"{module}: the numbers do not fit into float32", hint="choose a smaller λ and merge again")
    return a, b


def order_of_rows(rows: int, heads: int) -> list[int]:
    """Return which row of transformers' q or k each row of llama.cpp's is."""
    size = rows // heads
    return [head * size + half * (size // 2) + i for head in range(heads) for i in range(size // 2) for half in (0, 1)]


def _heads(module: str, layout: Layout) -> int:
    """Return the heads by which the rows of a module are in another order; 0 where they are not."""
    return {"q_proj": layout.heads, "k_proj": layout.key_heads}.get(module.rsplit(".", 1)[-1], 0)


def _names(adapter: Adapter, layout: Layout) -> dict[str, str | None]:
    """Return what llama.cpp calls each module, without ``.weight``; None where it has no such tensor."""
    import gguf

    table: Any = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, layout.layers)
    return {module: table.get_name(module) for module in adapter.modules}
