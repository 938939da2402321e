"""The merge methods as rows of data.

A method is a space in which the adapters of one module are compared, at most one way to drop entries, and one way to
combine what is left. A new method is one row here and at most one function.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Space = Literal["factored", "knots", "core", "dense"]
Drop = Literal["none", "trim", "dare", "della", "band", "variance"]
Combine = Literal["sum", "elect", "sce", "tsv", "iso", "svc", "pico", "regmean"]

ENTRYWISE_COMBINES = frozenset({"elect", "sce"})


@dataclass(frozen=True)
class Method:
    """One merge method.

    Attributes:
        name: What the recipe calls it.
        title: What people call it.
        paper: arXiv id; empty where it has none.
        space: ``factored`` works on the stacked A and B; ``knots`` and ``core`` are joint bases of the adapters;
            ``dense`` is ΔW.
        drop: How entries are dropped: ``trim`` the smallest, ``dare`` at random, ``della`` at random by their rank in
            the row, ``band`` the smallest and the very largest, ``variance`` where the languages differ least.
        combine: ``sum`` weighted; ``elect`` a sign and average what agrees; ``sce`` with weights from the entries;
            ``tsv``, ``iso``, ``svc``, ``pico`` on singular vectors; ``regmean`` by the activations' Gram matrices.
        shares: Whether a weight is a share of the whole, 1/T unless given; otherwise it is 1 unless given.
        options: Keys of the recipe that matter to this method and not to every method.
        explanation: What it does, in one line.
    """

    name: str
    title: str
    paper: str
    space: Space
    drop: Drop
    combine: Combine
    shares: bool
    options: tuple[str, ...]
    explanation: str

    @property
    def exact(self) -> bool:
        """Whether the result fits in the sum of the ranks, so that nothing is lost by storing it as an adapter."""
        return self.space != "dense"

    @property
    def judges_entries(self) -> bool:
        """Whether it looks at every entry on its own, so that the fine print of ``semantics`` matters."""
        return self.drop != "none" or self.combine in ENTRYWISE_COMBINES

    @property
    def elects(self) -> bool:
        """Whether entries that lose a vote are left out."""
        return self.combine in ENTRYWISE_COMBINES

    @property
    def draws(self) -> bool:
        """Whether it draws random numbers."""
        return self.drop in ("dare", "della")

    def default_weight(self, languages: int) -> float:
        """Return the weight of a language that the recipe does not name."""
        return 1.0 / languages if self.shares else 1.0


METHODS: dict[str, Method] = {
    row.name: row
    for row in (
        Method(
            *("linear", "linear", "2203.05482", "factored", "none", "sum", True, ()),
            "weighted sum of the deltas",
        ),
        Method(
            *("ties", "TIES", "2306.01708", "dense", "trim", "elect", False, ("density", "semantics")),
            "keep the largest entries of each delta, elect a sign for each entry, average those that agree",
        ),
        Method(
            *("ties-slack", "TIES with slack", "", "dense", "trim", "elect", False),
            ("density", "semantics", "slack", "protect"),
            "TIES in which the protected languages win a vote that they would lose by less than the slack",
        ),
        Method(
            *("dare-linear", "DARE", "2311.03099", "dense", "dare", "sum", True, ("density", "semantics", "seed")),
            "drop entries at random, scale up the rest, weighted sum",
        ),
        Method(
            *("dare-ties", "DARE-TIES", "2311.03099", "dense", "dare", "elect", False),
            ("density", "semantics", "seed"),
            "drop entries at random, scale up the rest, elect a sign, average those that agree",
        ),
        Method(
            *("magnitude-prune", "magnitude pruning", "", "dense", "trim", "sum", True, ("density", "semantics")),
            "keep the largest entries of each delta, weighted sum",
        ),
        Method(
            *("della", "DELLA", "2406.11617", "dense", "della", "elect", False),
            ("density", "semantics", "seed", "epsilon"),
            "drop entries at random, small ones of a row more often; scale up the rest, elect a sign, average",
        ),
        Method(
            *("breadcrumbs", "Model Breadcrumbs", "2312.06795", "dense", "band", "sum", True),
            ("density", "semantics", "gamma"),
            "drop the smallest and the very largest entries of each module, weighted sum",
        ),
        Method(
            *("sce", "SCE", "2408.07990", "dense", "variance", "sce", False, ("density", "semantics")),
            "keep the entries in which languages differ most, weigh languages by their energy, erase minority signs",
        ),
        Method(
            *("knots-linear", "KnOTS with a linear merge", "2410.19735", "knots", "none", "sum", True, ()),
            "the exact weighted sum: in a joint basis a linear merge changes nothing, so this equals linear",
        ),
        Method(
            *("knots-ties", "KnOTS-TIES", "2410.19735", "knots", "trim", "elect", False, ("density", "semantics")),
            "TIES on the coordinates of each delta in the joint left singular basis of all",
        ),
        Method(
            *("knots-dare-ties", "KnOTS-DARE-TIES", "2410.19735", "knots", "dare", "elect", False),
            ("density", "semantics", "seed"),
            "DARE-TIES on the coordinates of each delta in the joint left singular basis of all",
        ),
        Method(
            *("core-ta", "task arithmetic in core space", "2509.17786", "core", "none", "sum", True, ()),
            "weighted sum in the joint core space; equals linear",
        ),
        Method(
            *("core-ties", "TIES in core space", "2509.17786", "core", "trim", "elect", False),
            ("density", "semantics"),
            "TIES on the core matrices of each module, at most R × R",
        ),
        Method(
            *("core-dare-ties", "DARE-TIES in core space", "2509.17786", "core", "dare", "elect", False),
            ("density", "semantics", "seed"),
            "DARE-TIES on the core matrices of each module, at most R × R",
        ),
        Method(
            *("core-tsv", "TSV-M in core space", "2412.00081", "core", "none", "tsv", False, ()),
            "make the singular vectors of all languages orthogonal to one another, then add",
        ),
        Method(
            *("core-iso-c", "Iso-C in core space", "2502.04959", "core", "none", "iso", False, ()),
            "sum the deltas, then give all singular values their mean",
        ),
        Method(
            *("svc", "SVC", "2602.05536", "core", "none", "svc", True, ()),
            "weighted sum, then shrink the singular values of directions that several languages share",
        ),
        Method(
            *("pico", "Pico", "2604.16826", "core", "none", "pico", True, ()),
            "damp the output directions that the languages share, weighted sum, back to the mean norm of the inputs",
        ),
        Method(
            *("regmean", "RegMean", "2212.09849", "factored", "none", "regmean", False, ("grams",)),
            "the least-squares fit to every language's own outputs, from Gram matrices of the layers' inputs",
        ),
    )
}
"""Every method by name."""
