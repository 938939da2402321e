"""How fast a machine computes, for a projection where nothing was measured yet."""

from __future__ import annotations

import time

from adapterctl.accounting.usage import Usage

EFFICIENCY = 0.4
"""Share of the speed of large matrix products that a LoRA training reaches; 0.3 to 0.5 is what is usually seen."""

_SIZE, _ROUNDS = 1024, 4


def arithmetic_speed() -> float:
    """Return the floating-point operations a second of a large matrix product, on the GPU where there is one."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    kind = torch.bfloat16 if device == "cuda" else torch.float32
    matrix = torch.ones(_SIZE, _SIZE, device=device, dtype=kind)
    float((matrix @ matrix)[0, 0])
    started = time.perf_counter()
    for _ in range(_ROUNDS):
        matrix @ matrix
    float((matrix @ matrix)[0, 0])
    return 2 * _SIZE**3 * (_ROUNDS + 1) / (time.perf_counter() - started)


def _accelerator() -> tuple[str, ...]:
    """Return the kind of the GPU that would be held meanwhile; nothing where there is none."""
    import torch

    return (str(torch.cuda.get_device_name(0)),) if torch.cuda.is_available() else ()


def projected_training(parameters: int, tokens: float, *, row_epochs: int = 0) -> Usage:
    """Return the projected usage of a LoRA training: 4·N·tokens operations at ``EFFICIENCY`` of the machine's speed.

    Forward and backward through frozen weights take 4·N a token; see ``training.result``.

    Args:
        parameters: N, of the base model without its embedding.
        tokens: To train on, every epoch counted.
        row_epochs: Rows times epochs, for the record.
    """
    flops = 4.0 * parameters * tokens
    seconds = flops / (EFFICIENCY * arithmetic_speed())
    return Usage(
        wall_seconds=seconds,
        cpu_seconds=seconds,
        devices=dict.fromkeys(_accelerator(), seconds),
        tokens=round(tokens),
        row_epochs=row_epochs,
        flops=flops,
    )
