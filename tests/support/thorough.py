"""How much of what repeats is tried: some of it in every run, all of it where ADAPTERCTL_THOROUGH=1."""

from __future__ import annotations

import os
from collections.abc import Iterable

import pytest

THOROUGH = os.environ.get("ADAPTERCTL_THOROUGH") == "1"
ONLY_THOROUGH = pytest.mark.skipif(not THOROUGH, reason="takes minutes: runs with ADAPTERCTL_THOROUGH=1")


def mostly_thorough(cases: Iterable[object], every: int, first: int = 0) -> list[object]:
    """Return the cases as parameters of a test; only each ``every``-th, from ``first`` on, is for every run."""
    return [
        case if number % every == first else pytest.param(case, marks=ONLY_THOROUGH)
        for number, case in enumerate(cases)
    ]
