"""The spaces in which adapters are compared: how one module is brought into a space, and back into factors.

``factored`` is the stacked factors themselves, ``knots`` and ``core`` are joint bases found from inner products, and
``dense`` is ΔW, of which there is never more than one module.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import torch

from adapterctl.errors import MergeError
from adapterctl.merging.arena import Stack, arena, load, load_a, load_b
from adapterctl.merging.backend import CPU
from adapterctl.merging.bases import Basis, JointBasis, find_basis, half_gram, joint_basis, smallest_gap
from adapterctl.merging.factored import GramFiles, factors_apart, regression_mean, stacked_sum
from adapterctl.merging.factorise import Factored, from_core, from_dense, from_rows, main_directions, undivided
from adapterctl.merging.grams import Blocks
from adapterctl.merging.plan import ModulePlan, Plan
from adapterctl.merging.recipe import MergeRecipe
from adapterctl.merging.spectral import NEEDS_SINGULAR_BASIS, OPERATORS, Core, weighted_sum
from adapterctl.merging.tiles import Tiles

LARGEST_NORM = 1e36
"""‖ΔW‖_F of a module from which sums of its entries could leave the range of float32."""

_KEPT_BYTES = 128 << 20
"""What joint bases may take in memory between two passes over the model; the others are found again."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """One module in the coordinates of a space, for methods that judge entries.

    Attributes:
        tiles: The members' coordinates.
        finish: From their merged coordinates to factors.
    """

    tiles: Tiles
    finish: Callable[[torch.Tensor], Factored]


class Space(Protocol):
    """How modules come into a space. Used by several threads at once, each on modules of its own."""

    def merge(self, module: ModulePlan) -> Factored:
        """Merge a module by a method that does not judge entries."""

    def prepare(self, module: ModulePlan) -> Prepared:
        """Bring a module into the space for a method that judges entries."""

    def entries(self, module: ModulePlan) -> int:
        """Return how many coordinates a member has in a module, at most."""


class _Factors:
    """The stacked factors: weighted sums, RegMean, PEFT's A and B apart."""

    def __init__(self, plan: Plan, blocks: Blocks, norms: Norms) -> None:
        self._recipe, self._dtype = plan.recipe, plan.dtype
        # A and B apart are too small to be worth a device.
        self._device = CPU.device if plan.recipe.space == "factors" else plan.backend.device
        self._blocks, self._norms = blocks, norms
        self._files = GramFiles(plan.recipe.grams) if plan.recipe.row.combine == "regmean" else None

    def merge(self, module: ModulePlan) -> Factored:
        stack = load(module, self._dtype, self._device)
        sums = self._files is None and self._recipe.space == "auto"
        grams = self._blocks.of(stack, cross_a=sums, cross_b=sums)
        self._norms.note(stack, grams.norms(stack))
        if self._recipe.space == "factors":
            return factors_apart(stack, self._recipe)
        if self._files is not None:
            return regression_mean(stack, self._files)
        if module.total_rank <= module.rank:
            return stacked_sum(stack, grams)
        precise = self._recipe.precision == "float64"
        return _merged_core(stack, *_bases(stack, grams.A, grams.B, False, precise), weighted_sum)

    def prepare(self, module: ModulePlan) -> Prepared:
        raise NotImplementedError("methods on factors do not judge entries of a space")

    def entries(self, module: ModulePlan) -> int:
        raise NotImplementedError("methods on factors do not judge entries of a space")


class _CoreSpace:
    """The joint bases of all B and all A (core space, arXiv 2509.17786): core matrices, at most R × R, lossless.

    Entries of core matrices are judged on the CPU wherever the factors lie.
    """

    def __init__(self, plan: Plan, blocks: Blocks, norms: Norms) -> None:
        self._recipe, self._dtype, self._device = plan.recipe, plan.dtype, plan.backend.device
        self._blocks, self._norms = blocks, norms

    def _load(self, module: ModulePlan) -> tuple[Stack, Basis, Basis]:
        stack = load(module, self._dtype, self._device)
        grams = self._blocks.of(stack, cross_a=True, cross_b=True)
        self._norms.note(stack, grams.norms(stack))
        singular = self._recipe.row.combine in NEEDS_SINGULAR_BASIS
        return stack, *_bases(stack, grams.A, grams.B, singular, self._recipe.precision == "float64")

    def merge(self, module: ModulePlan) -> Factored:
        return _merged_core(*self._load(module), OPERATORS[self._recipe.row.combine])

    def entries(self, module: ModulePlan) -> int:
        return min(module.total_rank, module.out) * min(module.total_rank, module.width)

    def prepare(self, module: ModulePlan) -> Prepared:
        stack, left, right = self._load(module)
        lefts = [left.coefficients[:, at].to(self._dtype).contiguous() for at in module.columns]
        rights = [right.coefficients[:, at].T.to(self._dtype).contiguous() for at in module.columns]

        def finish(merged: torch.Tensor) -> Factored:
            made = from_core(merged.to(torch.float64), (left, stack.B), (right, stack.A.T), module.rank, module.factor)
            gaps = [smallest_gap(basis.values) for basis in (left, right) if basis.values is not None]
            return replace(made, gap=min((gap for gap in gaps if gap is not None), default=made.gap))

        return Prepared(Tiles(_langs(module), lefts, rights), finish)


def _langs(module: ModulePlan) -> tuple[str, ...]:
    return tuple(member.lang for member in module.members)


def _bases(
    stack: Stack, gram_a: torch.Tensor, gram_b: torch.Tensor, singular: bool, precise: bool
) -> tuple[Basis, Basis]:
    ones = torch.ones(stack.plan.total_rank, dtype=torch.float64)
    left = find_basis(stack.B, stack.scales, gram_b, singular=singular, precise=precise)
    return left, find_basis(stack.A.T, ones, gram_a, singular=singular, precise=precise)


def _merged_core(stack: Stack, left: Basis, right: Basis, operator: Callable[[Core], torch.Tensor]) -> Factored:
    module = stack.plan
    core = Core(
        [left.coefficients[:, at] for at in module.columns],
        [right.coefficients[:, at].T for at in module.columns],
        module.weights,
        module.languages,
        None if left.values is None else left.values**2,
    )
    return from_core(operator(core), (left, stack.B), (right, stack.A.T), module.rank, module.factor)


class _Knots:
    """The joint left singular basis of [ΔW₁ | … | ΔW_T] (KnOTS, arXiv 2410.19735): coordinates ``k × in``."""

    def __init__(self, plan: Plan, blocks: Blocks, norms: Norms) -> None:
        self._recipe, self._dtype, self._backend = plan.recipe, plan.dtype, plan.backend
        self._blocks, self._norms = blocks, norms
        self._kept: dict[str, JointBasis] = {}
        self._room = _KEPT_BYTES

    def _find(self, module: ModulePlan) -> tuple[JointBasis, torch.Tensor, torch.Tensor | None]:
        """Return the joint basis, the stacked A, and the stacked B if it had to be read."""
        known = self._kept.get(module.module)
        if known is not None:
            return known, load_a(module, self._dtype, self._backend.device), None
        stack = load(module, self._dtype, self._backend.device)
        precise = self._recipe.precision == "float64"
        grams = self._blocks.of(stack, cross_a=False, cross_b=True)
        self._norms.note(stack, grams.norms(stack))
        basis = find_basis(stack.B, stack.scales, grams.B, precise=precise)
        halves = [half_gram(part, grams.A[at, at]) for part, at in zip(stack.parts_of_A, module.columns, strict=True)]
        joint = joint_basis(basis, module.columns, halves)
        held = sum(tensor.nbytes for tensor in joint.tensors)
        if held <= self._room:
            self._room -= held
            self._kept[module.module] = joint
        return joint, stack.A, stack.B

    def entries(self, module: ModulePlan) -> int:
        return min(module.total_rank, module.out) * module.width

    def merge(self, module: ModulePlan) -> Factored:
        prepared = self.prepare(module)
        merged = arena().take("merged", (prepared.tiles.rows, module.width), self._dtype, self._backend.device)
        merged.zero_()
        for left, right, weight in zip(prepared.tiles.lefts, prepared.tiles.rights, module.weights, strict=True):
            merged.addmm_(left, right, alpha=weight)
        return replace(prepared.finish(merged), gap=None)

    def prepare(self, module: ModulePlan) -> Prepared:
        joint, a, b = self._find(module)
        lefts = [left.to(self._backend.device, self._dtype).contiguous() for left in joint.lefts]
        gap = smallest_gap(joint.values)

        def finish(merged: torch.Tensor) -> Factored:
            stack = load_b(module, self._dtype, self._backend.device) if b is None else b
            return from_rows(merged, joint.basis, joint.turn, stack, module.rank, module.factor, gap)

        tiles = Tiles(_langs(module), lefts, [a[at] for at in module.columns], self._backend)
        return Prepared(tiles, finish)


class _Dense:
    """ΔW itself, formed tile by tile and stored at the asked rank, or not divided into factors at all."""

    def __init__(self, plan: Plan, blocks: Blocks, norms: Norms, *, divided: bool = True) -> None:
        self._recipe, self._dtype, self._backend = plan.recipe, plan.dtype, plan.backend
        self._blocks, self._norms = blocks, norms
        self._divided = divided

    def merge(self, module: ModulePlan) -> Factored:
        raise NotImplementedError("methods on ΔW judge entries")

    def entries(self, module: ModulePlan) -> int:
        return module.out * module.width

    def prepare(self, module: ModulePlan) -> Prepared:
        stack = load(module, self._dtype, self._backend.device)
        if not self._norms.knows(module):
            self._norms.note(stack, self._blocks.of(stack, cross_a=False, cross_b=False).norms(stack))
        for member, at in zip(module.members, module.columns, strict=True):
            stack.B[:, at] *= member.scale

        def finish(merged: torch.Tensor) -> Factored:
            if not self._divided:
                return undivided(merged, module.factor)
            # B has its scales already; the weights decide which directions are likely to matter.
            weights = torch.cat(
                [torch.full((member.rank,), member.weight, dtype=self._dtype) for member in module.members]
            )
            start = partial(main_directions, stack.A, stack.B * weights.to(stack.B.device))
            return from_dense(merged, start, module.rank, module.factor, module.module)

        tiles = Tiles(_langs(module), stack.parts_of_B, stack.parts_of_A, self._backend)
        return Prepared(tiles, finish)


class Norms:
    """‖ΔW‖² of every language and module, noted when its inner products are at hand."""

    def __init__(self) -> None:
        self._squares: dict[tuple[str, str], float] = {}
        self._modules: set[str] = set()

    def note(self, stack: Stack, norms: list[float]) -> None:
        """Note the norms of a module's members.

        Raises:
            MergeError: An entry of ΔW may be too large for float32.
        """
        for member, norm in zip(stack.plan.members, norms, strict=True):
            if not norm < LARGEST_NORM:
                raise MergeError(
                    f"{stack.plan.module}: ΔW of {member.lang} has the norm {norm:.3g}, too large to compute with",
                    hint="train the adapter again: its weights have diverged",
                )
            self._squares[member.lang, stack.plan.module] = norm**2
        self._modules.add(stack.plan.module)

    def knows(self, module: ModulePlan) -> bool:
        """Tell whether a module's norms were noted."""
        return module.module in self._modules

    def of(self, lang: str, module: str) -> float | None:
        """Return ‖ΔW‖² of a language in a module, None where it took no part."""
        return self._squares.get((lang, module))


_SPACES: dict[str, Callable[[Plan, Blocks, Norms], Space]] = {
    "factored": _Factors,
    "knots": _Knots,
    "core": _CoreSpace,
}


def space_of(plan: Plan, blocks: Blocks, norms: Norms, *, divided: bool = True) -> Space:
    """Return the space in which a recipe merges; ``divided`` says whether ΔW is wanted as factors in every case."""
    name = "factored" if plan.recipe.space == "factors" else plan.recipe.row.space
    if name == "dense":
        return _Dense(plan, blocks, norms, divided=divided)
    return _SPACES[name](plan, blocks, norms)


def judges_entries(recipe: MergeRecipe) -> bool:
    """Tell whether a recipe's method looks at coordinates one by one in its space."""
    return recipe.row.judges_entries and recipe.space == "auto"
