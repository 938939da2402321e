"""Methods that work on the stacked factors: the exact weighted sum, RegMean, and PEFT's way of A and B apart."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch

from adapterctl.errors import MergeError
from adapterctl.lora.tensorfile import TensorFile
from adapterctl.merging import kernels
from adapterctl.merging.arena import Stack, arena
from adapterctl.merging.factorise import Factored, from_factors
from adapterctl.merging.grams import Grams
from adapterctl.merging.masks import last_kept, mask_words, place
from adapterctl.merging.plan import ModulePlan
from adapterctl.merging.recipe import MergeRecipe

OFF_DIAGONAL = 0.95
"""What entries beside the diagonal of a Gram matrix are multiplied with (RegMean's α)."""


def _norm_squared(grams: Grams, coefficients: torch.Tensor) -> float:
    """Return ‖Σ cᵢBᵢAᵢ‖²_F from inner products; ``coefficients`` has one c for every column of the stacked B."""
    both = grams.A * grams.B * (coefficients[:, None] * coefficients[None, :])
    return max(float(both.sum()), 0.0)


def weighted_columns(stack: Stack) -> torch.Tensor:
    """Return wᵢsᵢ for every column of the stacked B, ``R``, float64."""
    return torch.cat(
        [torch.full((member.rank,), member.weight * member.scale, dtype=torch.float64) for member in stack.plan.members]
    )


def stacked_sum(stack: Stack, grams: Grams) -> Factored:
    """Return Σ wᵢΔWᵢ exactly, as the factors written one below the other: A = [A₁; …], B = [w₁s₁B₁ …]."""
    coefficients = weighted_columns(stack)
    b = arena().take("out B", tuple(stack.B.shape), stack.B.dtype, stack.B.device)
    torch.mul(stack.B, (coefficients * stack.plan.factor).to(stack.B), out=b)
    return Factored(stack.A, b, _norm_squared(grams, coefficients), 0.0)


class GramFiles:
    """The Gram matrices of layer inputs, ``in × in`` for every module, in one safetensors file a language.

    Args:
        paths: File by language.

    Raises:
        AdapterError: A file is not safetensors.
        MergeError: A file is missing.
    """

    def __init__(self, paths: Mapping[str, str]) -> None:
        try:
            self._files = {lang: TensorFile(Path(path)) for lang, path in sorted(paths.items())}
        except FileNotFoundError as error:
            raise MergeError(f"there are no Gram matrices at {error.filename}", hint="correct merge.grams") from None

    def read(self, lang: str, module: str, width: int) -> torch.Tensor:
        """Return the matrix of a language and module in float64, entries beside the diagonal shrunk.

        Raises:
            MergeError: There is none, it has another shape, or it holds NaN.
        """
        file = self._files[lang]
        if module not in file.entries or tuple(file.entries[module].shape) != (width, width):
            raise MergeError(
                f"the Gram matrices of {lang} have no tensor {module} of shape {width} × {width}",
                hint="make them from the inputs of the same layers that the adapters change",
            )
        gram = torch.empty(width, width, dtype=torch.float64)
        file.read_into(module, gram)
        if not bool(torch.isfinite(gram).all()):
            raise MergeError(f"the Gram matrix of {lang} for {module} holds NaN or infinite numbers")
        diagonal = gram.diagonal().clone()
        gram *= OFF_DIAGONAL
        gram.diagonal().copy_(diagonal)
        return gram


def regression_mean(stack: Stack, files: GramFiles) -> Factored:
    """Return (Σ wᵢΔWᵢGᵢ)(Σ wᵢGᵢ)⁻¹ (RegMean, Jin et al. 2022, arXiv 2212.09849) at the sum of the ranks, exactly.

    The base model's weights cancel: W₀ΣwᵢGᵢ(ΣwᵢGᵢ)⁻¹ = W₀. Columns stay in the span of B, so that every Aᵢ becomes
    AᵢGᵢ(ΣwᵢGᵢ)⁻¹ and nothing is truncated.

    Raises:
        MergeError: A Gram matrix is missing, or their sum is not positive definite.
    """
    plan = stack.plan
    device = stack.A.device
    total = torch.zeros(plan.width, plan.width, dtype=torch.float64, device=device)
    turned = []
    for member, part in zip(plan.members, stack.parts_of_A, strict=True):
        gram = files.read(member.lang, plan.module, plan.width).to(device)
        total += member.weight * gram
        turned.append(part.to(torch.float64) @ gram)
    for lang, weight in plan.absent:
        total += weight * files.read(lang, plan.module, plan.width).to(device)
    lower, failed = torch.linalg.cholesky_ex(total)
    if int(failed.item()):
        raise MergeError(
            f"{plan.module}: the sum of the Gram matrices is not positive definite",
            hint="make them from more tokens than the layer is wide, with positive weights",
        )
    a = torch.cholesky_solve(torch.cat(turned).T, lower).T.to(stack.A.dtype).contiguous()
    b = stack.B * weighted_columns(stack).to(stack.B)
    return from_factors(a, b, plan.rank, plan.factor)


def factors_apart(stack: Stack, recipe: MergeRecipe) -> Factored:
    """Merge A and B apart, as PEFT's ``add_weighted_adapter`` does without ``_svd``: not a merge of the ΔW.

    √|wᵢsᵢ| goes to either factor and the sign to A; the product has cross terms BᵢAⱼ.
    """
    weights = [member.weight * member.scale for member in stack.plan.members]
    roots = [math.sqrt(abs(weight)) for weight in weights]
    signed = [math.copysign(root, weight) if weight else 0.0 for root, weight in zip(roots, weights, strict=True)]
    a = _combined(stack.parts_of_A, signed, recipe, stack.plan, "A")
    b = _combined(stack.parts_of_B, roots, recipe, stack.plan, "B")
    return from_factors(a, b, stack.plan.rank, stack.plan.factor)


def _combined(
    parts: list[torch.Tensor], weights: list[float], recipe: MergeRecipe, plan: ModulePlan, side: str
) -> torch.Tensor:
    row = recipe.row
    kept = torch.stack([part.contiguous() for part in parts])
    if recipe.density < 1:
        for member, values in zip(plan.members, kept, strict=True):
            if row.drop == "trim":
                flat = values.view(-1)
                best = flat.abs().topk(int(recipe.density * flat.numel())).indices
                mask = torch.zeros_like(flat)
                mask[best] = 1.0
                flat *= mask
            elif row.drop == "dare":
                entries = values.view(-1).numpy()
                words = mask_words(recipe.seed, member.lang, plan.module, side)
                scale = entries.dtype.type(1.0 / recipe.density)
                kernels.drop_at_random(entries, *words, place(0), last_kept(recipe.density), scale)
    factors = torch.tensor(weights, dtype=kept.dtype)[:, None, None]
    if row.combine == "sum":
        return (kept * factors).sum(dim=0)
    elected = torch.where(kept.sum(dim=0) >= 0, 1.0, -1.0)
    agrees = torch.sign(kept) == elected
    return (kept * factors * agrees).sum(dim=0) / agrees.sum(dim=0).clamp(min=1)
