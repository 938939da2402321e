"""The merge methods and the dialects of their fine print, as rows of data.

A method is a space in which the adapters of one module are compared, at most one way to drop entries, and one way to
combine what is left. A new method is one row here and at most one function in ``operators``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Space = Literal["factors", "knots", "core", "dense"]
Sparsify = Literal["none", "trim", "dare"]
Combine = Literal["sum", "elect", "tsv", "iso"]


@dataclass(frozen=True)
class Method:
    """One merge method.

    Attributes:
        name: What the recipe calls it.
        title: What people call it.
        paper: arXiv id; empty where it has none.
        space: ``factors`` stacks A and B; ``knots`` and ``core`` are joint bases of the adapters; ``dense`` is ΔW.
        sparsify: How entries are dropped: ``trim`` by magnitude, ``dare`` at random.
        combine: ``sum`` weighted, ``elect`` a sign and average what agrees, ``tsv`` or ``iso`` on singular vectors.
        shares: Whether a weight is a share of the whole, 1/T unless given; otherwise it is 1 unless given.
        explanation: What it does, in one line.
    """

    name: str
    title: str
    paper: str
    space: Space
    sparsify: Sparsify
    combine: Combine
    shares: bool
    explanation: str

    @property
    def exact(self) -> bool:
        """Whether the result fits in the sum of the ranks, so that nothing is lost by storing it as an adapter."""
        return self.space != "dense"

    @property
    def has_dialects(self) -> bool:
        """Whether libraries disagree about its fine print, so that ``semantics`` matters."""
        return self.space == "dense"

    def default_weight(self, languages: int) -> float:
        """Return the weight of a language that the recipe does not name."""
        return 1.0 / languages if self.shares else 1.0


METHODS: dict[str, Method] = {
    row.name: row
    for row in (
        Method("linear", "linear", "2203.05482", "factors", "none", "sum", True, "weighted sum of the deltas"),
        Method(
            *("ties", "TIES", "2306.01708", "dense", "trim", "elect", False),
            "keep the largest entries of each delta, elect a sign for each entry, average those that agree",
        ),
        Method(
            *("dare-linear", "DARE", "2311.03099", "dense", "dare", "sum", True),
            "drop entries at random, scale up the rest, weighted sum",
        ),
        Method(
            *("dare-ties", "DARE-TIES", "2311.03099", "dense", "dare", "elect", False),
            "drop entries at random, scale up the rest, elect a sign, average those that agree",
        ),
        Method(
            *("magnitude-prune", "magnitude pruning", "", "dense", "trim", "sum", True),
            "keep the largest entries of each delta, weighted sum",
        ),
        Method(
            *("knots-ties", "KnOTS-TIES", "2410.19735", "knots", "trim", "elect", False),
            "TIES on the coordinates of each delta in the joint left singular basis of all",
        ),
        Method(
            *("core-ta", "task arithmetic in core space", "2509.17786", "core", "none", "sum", True),
            "weighted sum in the joint core space; equals linear",
        ),
        Method(
            *("core-tsv", "TSV-M in core space", "2412.00081", "core", "none", "tsv", False),
            "make the singular vectors of all languages orthogonal to one another, then add",
        ),
        Method(
            *("core-iso-c", "Iso-C in core space", "2502.04959", "core", "none", "iso", False),
            "sum the deltas, then give all singular values their mean",
        ),
    )
}
"""Every method by name."""


@dataclass(frozen=True)
class Dialect:
    """The fine print of trimming, voting and dropping on which implementations disagree.

    Attributes:
        name: What the recipe calls it.
        scope: Whether a trim threshold holds for the whole model or for one module.
        extra: How many entries stay beyond ``int(size · density)``.
        weighted_vote: Whether weights multiply the values before the sign is elected.
        ties_divisor: What the sum of agreeing entries is divided by under TIES: how many agree, or their weights.
        dare_ties_divisor: The same under DARE-TIES.
        zero_sign: The sign of an exactly balanced vote: the majority of all entries of the model, or plus.
        rescale: How DARE makes up for what it drops: by 1/density, or to the same L1 norm.
        drop_unweighted: Whether a language of weight 0 takes no part at all, not even in the vote.
    """

    name: str
    scope: Literal["model", "module"]
    extra: int
    weighted_vote: bool
    ties_divisor: Literal["count", "weight"]
    dare_ties_divisor: Literal["count", "none"]
    zero_sign: Literal["majority", "plus"]
    rescale: Literal["density", "l1"]
    drop_unweighted: bool


DIALECTS: dict[str, Dialect] = {
    row.name: row
    for row in (
        Dialect("paper", "model", 1, False, "count", "count", "majority", "density", True),
        Dialect("mergekit", "module", 0, True, "weight", "none", "plus", "l1", True),
        Dialect("peft", "module", 0, False, "count", "count", "plus", "density", False),
    )
}
"""Every dialect by name: the papers' own code, mergekit 0.1.5, PEFT 0.21."""
