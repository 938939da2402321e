"""The fine print of trimming, voting and dropping on which implementations disagree, as one table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Dialect:
    """One implementation's fine print.

    Attributes:
        name: What the recipe calls it.
        scope: Whether a trim threshold holds for the whole model or for one module.
        extra: How many entries stay beyond ``int(size · density)``.
        exact_count: Whether exactly that many stay; of entries equal to the threshold, the first in row-major order.
            Otherwise all that are equal to it stay.
        weighted_vote: Whether weights multiply the values before the sign is elected.
        divisor: What the sum of agreeing entries is divided by where entries are trimmed (TIES): how many agree, or
            the sum of their weights.
        dare_divisor: The same where entries are dropped at random by DARE.
        zero_sign: The sign of an exactly balanced vote: the majority of all entries of the model, or plus.
        rescale: How random dropping is made up for: by 1/p, or to the same L1 norm.
        drop_unweighted: Whether a language of weight 0 takes no part at all, not even in the vote.
    """

    name: str
    scope: Literal["model", "module"]
    extra: int
    exact_count: bool
    weighted_vote: bool
    divisor: Literal["count", "weight"]
    dare_divisor: Literal["count", "none"]
    zero_sign: Literal["majority", "plus"]
    rescale: Literal["density", "l1"]
    drop_unweighted: bool

    def kept(self, size: int, density: float) -> int:
        """Return how many of ``size`` entries a trim leaves: at least one where there are any."""
        return min(size, max(1, int(size * density) + self.extra))


DIALECTS: dict[str, Dialect] = {
    row.name: row
    for row in (
        Dialect("paper", "model", 1, False, False, "count", "count", "majority", "density", True),
        Dialect("core", "module", 1, False, False, "count", "count", "majority", "density", True),
        Dialect("mergekit", "module", 0, True, True, "weight", "none", "plus", "l1", True),
        Dialect("peft", "module", 0, True, False, "count", "count", "plus", "density", False),
    )
}
"""Every dialect by name: the papers' own code (KnOTS included), core space's own code, mergekit 0.1.5, PEFT 0.21.

A recipe says ``paper``, ``mergekit`` or ``peft``; under ``paper`` the methods in core space follow ``core``.
"""
