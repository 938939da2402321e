"""Random masks that depend on seed, language, module and place, and on nothing that ran before."""

from __future__ import annotations

from typing import Any

import numpy as np

from adapterctl.randomness import key

_WORD = (1 << 32) - 1


def mask_words(seed: int, *names: str) -> tuple[Any, Any]:
    """Return the two words of the key that a mask is drawn with."""
    bits = key("mask", seed, *names)
    return np.uint32(bits & _WORD), np.uint32(bits >> 32)


def place(index: int) -> Any:
    """Return the counter of an entry."""
    return np.uint32(index & _WORD)


def last_kept(density: float) -> Any:
    """Return the largest of the 32-bit numbers that keep an entry."""
    return np.uint32(max(0, round(density * (1 << 32)) - 1))
