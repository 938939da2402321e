"""The merge methods on dense matrices, as short as numpy allows: where the expected numbers of the tests come from.

Everything is float64 and takes ``model[module][language]``. What the implementations disagree on stands in `RULES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Matrix = np.ndarray
Model = dict[str, dict[str, Matrix]]
"""Matrices by module and language."""
Factors = dict[str, dict[str, tuple[Matrix, Matrix]]]
"""``(scale · B, A)`` by module and language."""
Weights = Mapping[str, Mapping[str, float]]
"""Weights by module and language."""

TINY = 1e-7
"""Singular values below this share of the largest count as zero."""


@dataclass(frozen=True)
class Rules:
    whole_model: bool
    extra: int
    exact_count: bool
    weighted_vote: bool
    divisor: str
    dare_divisor: str
    zero: str
    l1: bool
    zero_weight_votes: bool


RULES = {
    "paper": Rules(True, 1, False, False, "count", "count", "majority", False, False),
    "core": Rules(False, 1, False, False, "count", "count", "majority", False, False),
    "mergekit": Rules(False, 0, True, True, "weight", "none", "plus", True, False),
    "peft": Rules(False, 0, True, False, "count", "count", "plus", False, True),
}


def dense(factors: Factors) -> Model:
    return {module: {lang: b @ a for lang, (b, a) in parts.items()} for module, parts in factors.items()}


def truncated(matrix: Matrix, rank: int) -> Matrix:
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    return (u[:, :rank] * s[:rank]) @ vt[:rank]


def svd(matrix: Matrix) -> tuple[Matrix, Matrix, Matrix]:
    """The singular value decomposition without the directions that are zero."""
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    keep = s > TINY * max(s[0], 1e-300)
    return u[:, keep], s[keep], vt[keep]


# What is dropped.


def trim(model: Model, density: float, rules: Rules) -> Model:
    trimmed: Model = {module: {} for module in model}
    for lang in sorted({lang for parts in model.values() for lang in parts}):
        mine = [module for module in sorted(model) if lang in model[module]]
        for pool in [mine] if rules.whole_model else [[module] for module in mine]:
            sizes = np.abs(np.concatenate([model[module][lang].ravel() for module in pool]))
            k = min(sizes.size, max(1, int(sizes.size * density) + rules.extra))
            order = np.argsort(-sizes, kind="stable")
            mask = sizes >= sizes[order[k - 1]]
            if rules.exact_count:
                mask = np.zeros(sizes.size, dtype=bool)
                mask[order[:k]] = True
            start = 0
            for module in pool:
                x = model[module][lang]
                trimmed[module][lang] = x * mask[start : start + x.size].reshape(x.shape)
                start += x.size
    return trimmed


def masked(model: Model, masks: Model, keep: float | Model, rules: Rules) -> Model:
    """Entries that a random mask leaves, made larger for those it takes; ``keep`` is the chance to stay."""
    result: Model = {}
    for module, parts in model.items():
        result[module] = {}
        for lang, x in parts.items():
            left = x * masks[module][lang]
            if rules.l1:
                left = left * (np.abs(x).sum() / (np.abs(left).sum() or 1.0))
            else:
                left = left / (keep if isinstance(keep, float) else keep[module][lang])
            result[module][lang] = left
    return result


def keep_probabilities(x: Matrix, density: float, epsilon: float) -> Matrix:
    """DELLA: along a row from the smallest magnitude to the largest, linear in the rank."""
    ranks = np.argsort(np.argsort(np.abs(x), axis=1), axis=1)
    return density - epsilon + 2 * epsilon * ranks / (x.shape[1] - 1)


def band(model: Model, density: float, gamma: float) -> Model:
    """Breadcrumbs as mergekit counts."""

    def kept(x: Matrix) -> Matrix:
        if density == 1:
            return x
        target, top = int(density * x.size), int(gamma * x.size)
        bottom = max(0, x.size - target - top)
        mask = np.zeros(x.size)
        mask[np.argsort(np.abs(x).ravel(), kind="stable")[bottom : bottom + target]] = 1
        return x * mask.reshape(x.shape)

    return {module: {lang: kept(x) for lang, x in parts.items()} for module, parts in model.items()}


# How what is left becomes one.


def add(parts: Mapping[str, Matrix], weights: Mapping[str, float]) -> Matrix:
    return sum((weights[lang] * x for lang, x in sorted(parts.items())), start=np.zeros(1))


def elect(
    model: Model, weights: Weights, rules: Rules, divisor: str, bonus: Mapping[str, Matrix | float] | None = None
) -> tuple[dict[str, Matrix], Model]:
    """The merged matrices, and which entries agree with the elected sign."""
    votes = {}
    for module, parts in model.items():
        ballots = [x * (weights[module][lang] if rules.weighted_vote else 1) for lang, x in sorted(parts.items())]
        votes[module] = np.sign(np.sum(ballots, axis=0) + (bonus or {}).get(module, 0.0))
    majority = 1.0 if rules.zero == "plus" or sum(vote.sum() for vote in votes.values()) > 0 else -1.0
    merged, agreed = {}, {}
    for module, parts in model.items():
        sign = np.where(votes[module] == 0, majority, votes[module])
        agree = {
            lang: (x != 0) & (np.sign(x) * (np.sign(weights[module][lang]) if rules.weighted_vote else 1) == sign)
            for lang, x in parts.items()
        }
        total = add({lang: x * agree[lang] for lang, x in parts.items()}, weights[module])
        count = sum(
            agree[lang] * {"count": 1.0, "weight": weights[module][lang], "none": 0.0}[divisor] for lang in agree
        )
        merged[module] = total / np.where(count == 0, 1.0, count)
        agreed[module] = agree
    return merged, agreed


def slack_bonus(trimmed: Model, slack: float, protect: Sequence[str]) -> dict[str, Matrix | float]:
    bonus: dict[str, Matrix | float] = {}
    for module, parts in trimmed.items():
        others = np.abs(
            np.concatenate([x.ravel() for lang, x in parts.items() if lang not in protect] or [np.zeros(1)])
        )
        mean = others[others > 0].mean() if (others > 0).any() else 0.0
        bonus[module] = slack * mean * sum((np.sign(x) for lang, x in parts.items() if lang in protect), start=0.0)
    return bonus


def sce(parts: Mapping[str, Matrix], weights: Mapping[str, float], density: float) -> Matrix:
    stack = np.stack([parts[lang] for lang in sorted(parts)])
    if density < 1:
        variance = stack.var(axis=0)
        k = int(np.count_nonzero(variance) * density)
        mask = np.zeros(variance.size)
        mask[np.argsort(-variance.ravel(), kind="stable")[:k]] = 1
        stack = stack * mask.reshape(variance.shape)
    energy = np.array([weights[lang] for lang in sorted(parts)]) * (stack**2).mean(axis=(1, 2))
    agree = np.sign(stack) == np.where(stack.sum(axis=0) >= 0, 1, -1)
    shares = (energy / (energy.sum() or 1.0))[:, None, None] * agree
    total = shares.sum(axis=0)
    return (shares * stack).sum(axis=0) / np.where(total == 0, 1, total)


def tsv(parts: Mapping[str, Matrix], weights: Mapping[str, float]) -> Matrix:
    """TSV-M with all components of each language, the polar factors without what is zero."""
    found = [(svd(x), weights[lang]) for lang, x in sorted(parts.items()) if np.any(x)]
    if not found:
        return np.zeros_like(next(iter(parts.values())))
    left = svd(np.concatenate([u for (u, _, _), _ in found], axis=1))
    right = svd(np.concatenate([vt.T for (_, _, vt), _ in found], axis=1))
    sizes = np.concatenate([w * s for (_, s, _), w in found])
    return (left[0] @ left[2] * sizes) @ (right[0] @ right[2]).T


def isotropic(parts: Mapping[str, Matrix], weights: Mapping[str, float]) -> Matrix:
    total = add(parts, weights)
    if len(parts) == 1 or not np.any(total):
        return total
    u, s, vt = svd(total)
    return s.mean() * u @ vt


def svc(parts: Mapping[str, Matrix], weights: Mapping[str, float], alpha: float = 0.1) -> Matrix:
    total = add(parts, weights)
    if not np.any(total):
        return total
    u, s, vt = svd(total)
    for r in range(len(s)):
        shares = []
        for x in parts.values():
            own = u[:, r] @ x
            shares.append(max(alpha, (u[:, r] @ total) @ own / (own @ own)) if own @ own > 0 else alpha)
        s[r] *= len(parts) / sum(shares)
    return (u * s) @ vt


def pico(factors: Mapping[str, tuple[Matrix, Matrix]], weights: Mapping[str, float]) -> Matrix:
    u, s, _ = np.linalg.svd(np.concatenate([b for b, _ in factors.values()], axis=1), full_matrices=False)
    damping = 1 / (1 + (len(factors) - 1) * s**2 / ((s**2).sum() or 1.0))
    calibrated = {lang: b + (u * (damping - 1)) @ (u.T @ b) for lang, (b, _) in factors.items()}
    total = add({lang: calibrated[lang] @ a for lang, (_, a) in factors.items()}, weights)
    size = np.mean([np.linalg.norm(b @ a) for b, a in factors.values()])
    return total * size / (np.linalg.norm(total) or 1.0)


def regmean(parts: Mapping[str, Matrix], weights: Mapping[str, float], grams: Mapping[str, Matrix]) -> Matrix:
    shrunk = {lang: weights[lang] * (0.95 * grams[lang] + 0.05 * np.diag(np.diag(grams[lang]))) for lang in parts}
    return np.sum([x @ shrunk[lang] for lang, x in parts.items()], axis=0) @ np.linalg.inv(sum(shrunk.values()))


# In which coordinates.


def knots(parts: Mapping[str, Matrix]) -> tuple[Matrix, dict[str, Matrix]]:
    u, s, vt = svd(np.concatenate([parts[lang] for lang in sorted(parts)], axis=1))
    return u, dict(zip(sorted(parts), np.split(s[:, None] * vt, len(parts), axis=1), strict=True))


def core(factors: Mapping[str, tuple[Matrix, Matrix]]) -> tuple[Matrix, dict[str, Matrix], Matrix]:
    left = svd(np.concatenate([factors[lang][0] for lang in sorted(factors)], axis=1))[0]
    right = svd(np.concatenate([factors[lang][1] for lang in sorted(factors)], axis=0))[2]
    return left, {lang: left.T @ b @ a @ right.T for lang, (b, a) in factors.items()}, right


def in_space(space: str, factors: Factors, rule: Callable[[Model], dict[str, Matrix]]) -> dict[str, Matrix]:
    """Apply a rule for entries to the coordinates in a space, and go back."""
    if space == "dense":
        return rule(dense(factors))
    if space == "knots":
        bases = {module: knots(parts) for module, parts in dense(factors).items()}
        merged = rule({module: coordinates for module, (_, coordinates) in bases.items()})
        return {module: bases[module][0] @ merged[module] for module in factors}
    cores = {module: core(parts) for module, parts in factors.items()}
    merged = rule({module: coordinates for module, (_, coordinates, _) in cores.items()})
    return {module: cores[module][0] @ merged[module] @ cores[module][2] for module in factors}


# A and B apart, as PEFT does.


def factorwise(factors: Factors, weights: Weights, scales: Weights, method: str, density: float) -> dict[str, Matrix]:
    """PEFT's linear, ties and magnitude_prune on A and on B; ``factors`` are ``(B, A)`` without the scale."""
    result = {}
    for module, parts in factors.items():
        amounts = {lang: weights[module][lang] * scales[module][lang] for lang in parts}
        sides = []
        for side, signed in ((0, False), (1, True)):
            roots = {lang: (np.sign(x) if signed else 1) * np.sqrt(abs(x)) for lang, x in amounts.items()}
            model = {module: {lang: pair[side] for lang, pair in parts.items()}}
            if method != "linear" and density < 1:
                model = trim(model, density, RULES["peft"])
            if method == "ties":
                sides.append(elect(model, {module: roots}, RULES["peft"], "count")[0][module])
            else:
                sides.append(add(model[module], roots))
        result[module] = sides[0] @ sides[1]
    return result


def merged(
    factors: Factors, weights: Weights, method: str, *, density: float = 1.0, semantics: str = "paper", **options: Any
) -> dict[str, Matrix]:
    """The merged ΔW of every module before λ; ``options`` are gamma, slack, protect, grams, masks, keep."""
    space = method.split("-")[0] if method.startswith(("knots", "core")) else "dense"
    rules = RULES["core" if space == "core" and semantics == "paper" else semantics]
    space = "dense" if method in ("knots-linear", "core-ta") else space
    shapes = {m: next((b.shape[0], a.shape[1]) for b, a in parts.values()) for m, parts in factors.items()}
    if not rules.zero_weight_votes:
        factors = {m: {lang: pair for lang, pair in parts.items() if weights[m][lang]} for m, parts in factors.items()}
    rule = method.removeprefix("knots-").removeprefix("core-")
    empty = {module: shape for module, shape in shapes.items() if not factors[module]}
    factors = {module: parts for module, parts in factors.items() if parts}

    def on_entries(model: Model) -> dict[str, Matrix]:
        if rule in ("ties", "magnitude-prune", "ties-slack"):
            model = trim(model, density, rules)
        elif rule in ("dare-linear", "dare-ties", "della"):
            model = masked(model, options["masks"], options.get("keep", density), rules)
        elif rule == "breadcrumbs":
            model = band(model, density, options["gamma"])
        bonus = slack_bonus(model, options["slack"], options["protect"]) if rule == "ties-slack" else None
        if rule in ("ties", "ties-slack", "della", "dare-ties"):
            return elect(model, weights, rules, rules.dare_divisor if rule == "dare-ties" else rules.divisor, bonus)[0]
        return {module: add(parts, weights[module]) for module, parts in model.items()}

    by_module: dict[str, Callable[[str, dict[str, Matrix]], Matrix]] = {
        "tsv": lambda module, parts: tsv(parts, weights[module]),
        "iso-c": lambda module, parts: isotropic(parts, weights[module]),
        "svc": lambda module, parts: svc(parts, weights[module]),
        "pico": lambda module, _: pico(factors[module], weights[module]),
        "sce": lambda module, parts: sce(parts, weights[module], density),
        "regmean": lambda module, parts: regmean(parts, weights[module], options["grams"][module]),
    }
    if rule in by_module:
        found = {module: by_module[rule](module, parts) for module, parts in dense(factors).items()}
    else:
        found = in_space(space, factors, on_entries)
    return {**found, **{module: np.zeros(shape) for module, shape in empty.items()}}
