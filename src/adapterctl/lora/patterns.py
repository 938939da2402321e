"""How long a regular expression that a stranger wrote can take: Python's own matcher has no limit of time."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

LARGEST_EFFORT = 1e6
"""Ways to try in all: a few seconds for a model with some hundred modules, at worst."""

_LENGTH = 64
"""Letters of a module's path."""

_TOKEN = re.compile(
    r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\((?:\?[^)]?)?|\)|[*+?]|\{\d*,?\d*\}|\||.",
    re.DOTALL,
)
"""An escaped letter, a set of letters, the start or end of a group, a quantifier, an alternative, any other letter."""


def effort(pattern: str) -> float:
    """Return a bound on the ways in which a backtracking matcher may try to fit ``pattern`` to a module's path.

    Each unbounded quantifier may end at every letter: k of them give ``C(64 + k, k)`` ways; an optional piece doubles
    them, and n alternatives multiply them by n. A repeated group that itself repeats or chooses is without bound.
    """
    unbounded, ways = 0, 1.0
    groups = [_Group()]
    closed = False  # Whether the token before was the end of a group that repeats or chooses.
    for token in _TOKEN.findall(pattern):
        repeats = token in ("*", "+") or token.startswith("{")
        if repeats and closed:
            return math.inf
        closed = False
        if token.startswith("("):
            groups.append(_Group())
        elif token == ")" and len(groups) > 1:
            group = groups.pop()
            ways *= group.alternatives
            closed = group.chooses or group.alternatives > 1
            groups[-1].chooses |= closed
        elif token == "|":
            groups[-1].alternatives += 1
        elif repeats or token == "?":
            groups[-1].chooses = True
            unbounded += repeats
            ways *= 1 if repeats else 2
    if unbounded > _LENGTH or ways > LARGEST_EFFORT:
        return math.inf
    return math.comb(_LENGTH + unbounded, unbounded) * ways * groups[0].alternatives


@dataclass
class _Group:
    alternatives: int = 1
    chooses: bool = False
