"""An adapter on a loaded base model, for as long as it is needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from adapterctl.errors import AdapterError


@contextmanager
def attached(model: Any, folder: Path | None, factor: float = 1.0, *, fold: bool = False) -> Iterator[Any]:
    """Give the base model with the adapter of ``folder`` on it, and take it off again afterwards, without a trace.

    Args:
        model: A loaded base model without adapters.
        folder: A PEFT folder; None gives the base model as it is.
        factor: What the adapter's ΔW is multiplied with: trying another λ needs no new merge.
        fold: Add ΔW to a copy of the weights, which is faster and takes memory for the copy; else the adapter stays
            beside the weights, as serving engines keep it, and a quantised base is used as it is served.

    Raises:
        AdapterError: The adapter does not fit the model.
    """
    if folder is None:
        yield model
        return
    from peft import PeftModel
    from peft.helpers import rescale_adapter_scale

    try:
        combined = PeftModel.from_pretrained(model, str(folder), is_trainable=False)
    except (RuntimeError, ValueError, KeyError, TypeError, OSError) as error:
        raise AdapterError(
            f"adapter {folder} does not fit the base model: {error}",
            hint="check that it was trained on this base model",
        ) from error
    try:
        with rescale_adapter_scale(combined, factor) if factor != 1.0 else nullcontext():
            if fold:
                with _folded(combined):
                    yield combined.eval()
            else:
                yield combined.eval()
    finally:
        combined.unload()
        # PEFT leaves its configuration on the base model, and warns when a second adapter comes.
        if hasattr(model, "peft_config"):
            del model.peft_config


@contextmanager
def _folded(combined: Any) -> Iterator[None]:
    """Add the adapter to copies of the weights.

    PEFT would subtract it again afterwards, which leaves rounding in the weights; the originals are put back instead.
    """
    from peft.tuners.lora import LoraLayer

    layers = [module for module in combined.modules() if isinstance(module, LoraLayer)]
    originals = [layer.get_base_layer().weight.data for layer in layers]
    for layer, original in zip(layers, originals, strict=True):
        layer.get_base_layer().weight.data = original.clone()
    try:
        combined.merge_adapter()
        yield
    finally:
        for layer, original in zip(layers, originals, strict=True):
            layer.get_base_layer().weight.data = original
            layer.merged_adapters.clear()
