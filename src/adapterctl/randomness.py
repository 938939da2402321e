"""Random numbers that depend on names, never on what ran before.

Philox is counter-based (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"): a stream is a function
of its key, here the hash of the given names. Adding a language leaves every other language's numbers as they were.
"""

from __future__ import annotations

import hashlib

import numpy as np


def _digest(names: tuple[str | int, ...]) -> bytes:
    return hashlib.sha256("\x1f".join(str(name) for name in names).encode("utf-8")).digest()


def generator(*names: str | int) -> np.random.Generator:
    """Return the random number generator that belongs to ``names``, always in its first state."""
    return np.random.Generator(np.random.Philox(key=int.from_bytes(_digest(names)[:16], "little")))


def integer_seed(*names: str | int) -> int:
    """Return a seed below 2**31 for libraries that take nothing but an integer."""
    return int.from_bytes(_digest(names)[16:20], "little") >> 1


def key(*names: str | int) -> int:
    """Return 64 bits that belong to ``names``, for code that makes its own random numbers from a key and a counter."""
    return int.from_bytes(_digest(names)[20:28], "little")
