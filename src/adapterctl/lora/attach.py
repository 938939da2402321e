"""An adapter on a loaded base model, for as long as it is needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from adapterctl.errors import AdapterError


@contextmanager
def attached(model: Any, folder: Path | None, factor: float = 1.0) -> Iterator[Any]:
    """Give the base model with the adapter of ``folder`` attached, and take it off again afterwards.

    The adapter stays apart from the weights, as serving engines keep it, so a quantised base is scored as it is served.

    Args:
        model: A loaded base model without adapters.
        folder: A PEFT folder; None gives the base model as it is.
        factor: What the adapter's ΔW is multiplied with: trying another λ needs no new merge.

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
        if factor == 1.0:
            yield combined.eval()
        else:
            with rescale_adapter_scale(combined, factor):
                yield combined.eval()
    finally:
        combined.unload()
        # PEFT leaves its configuration on the base model, and warns when a second adapter comes.
        if hasattr(model, "peft_config"):
            del model.peft_config
