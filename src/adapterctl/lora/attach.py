"""An adapter on a loaded base model, for as long as it is needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from adapterctl.errors import AdapterError
from adapterctl.lora.adapter import Adapter


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
    from peft.helpers import rescale_adapter_scale

    try:
        combined = _put_on(model, folder)
    except Exception as error:
        reason = error.message if isinstance(error, AdapterError) else error
        raise AdapterError(
            f"adapter {folder} does not fit the base model: {reason}",
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
        _take_off(combined, model)


def _put_on(model: Any, folder: Path) -> Any:
    """Return the model with the adapter on it; a failure leaves the model as it was.

    PEFT's own loader leaves the layers it had put in, and passes over tensors that the model has no module for.
    """
    from peft import PeftConfig, PeftModelForCausalLM

    # PEFT would go on to adapter_model.bin, a pickle, and then to a repository of that name on the hub.
    _ = Adapter.open(folder).tensor_names
    config = PeftConfig.from_pretrained(str(folder))
    config.inference_mode = True
    combined = PeftModelForCausalLM(model, config)
    try:
        mapping = getattr(model, "_checkpoint_conversion_mapping", {})
        result = combined.load_adapter(str(folder), "default", key_mapping=mapping)
        for keys, reason in (
            (result.unexpected_keys, "the base model has no module for"),
            (result.missing_keys, "its configuration names modules of the base model, but its weights lack"),
        ):
            if keys:
                raise ValueError(f"{reason} {', '.join(sorted(keys)[:3])}")
    except BaseException:
        _take_off(combined, model)
        raise
    return combined


def _take_off(combined: Any, model: Any) -> None:
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
