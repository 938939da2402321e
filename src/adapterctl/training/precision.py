"""Whether this CPU computes in bfloat16, or only pretends to."""

from __future__ import annotations

import time

import torch

_SIDE = 192
_ROUNDS = 3


def bfloat16_slowdown(side: int = _SIDE) -> float:
    """Return how many times longer a product of two matrices takes on this CPU in bfloat16 than in float32, measured.

    Processors without AVX-512 or AMX compute it number by number: forty times longer was seen. The quickest of a few
    rounds counts, so that what else runs matters little.

    Args:
        side: Rows and columns of both matrices.
    """
    quickest = {}
    with torch.inference_mode():
        for kind in (torch.float32, torch.bfloat16):
            one = torch.ones(side, side, dtype=kind)
            one @ one
            took = []
            for _ in range(_ROUNDS):
                began = time.perf_counter()
                one @ one
                took.append(time.perf_counter() - began)
            quickest[kind] = min(took)
    return quickest[torch.bfloat16] / max(quickest[torch.float32], 1e-9)
