"""The merge methods on dense matrices, as short as numpy allows: where the expected numbers of the tests come from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Matrix = np.ndarray
Model = list[list[Matrix]]
"""Languages × modules."""


def ties(model: Model, density: float) -> list[Matrix]:
    """TIES with one threshold for each language over all modules, as in the paper's own code."""
    trimmed = []
    for modules in model:
        flat = np.sort(np.abs(np.concatenate([m.ravel() for m in modules])))
        threshold = 0.0 if density == 1 else flat[len(flat) - int(len(flat) * density) - 1]
        trimmed.append([np.where(np.abs(m) >= threshold, m, 0.0) for m in modules])
    stacks = [np.stack(parts) for parts in zip(*trimmed, strict=True)]
    majority = 1.0 if sum(np.sign(stack.sum(0)).sum() for stack in stacks) > 0 else -1.0
    merged = []
    for stack in stacks:
        sign = np.sign(stack.sum(0))
        sign[sign == 0] = majority
        agree = np.sign(stack) == sign
        merged.append((stack * agree).sum(0) / np.maximum(agree.sum(0), 1))
    return merged


def knots_ties(model: Model, density: float) -> list[Matrix]:
    bases, coordinates = [], []
    for parts in zip(*model, strict=True):
        u, s, vt = np.linalg.svd(np.concatenate(parts, axis=1), full_matrices=False)
        keep = s > 1e-9 * s[0]
        bases.append(u[:, keep])
        coordinates.append(np.split((s[:, None] * vt)[keep], len(parts), axis=1))
    merged = ties([list(parts) for parts in zip(*coordinates, strict=True)], density)
    return [u @ p for u, p in zip(bases, merged, strict=True)]


def tsv(parts: Sequence[Matrix], ranks: Sequence[int], weights: Sequence[float]) -> Matrix:
    factors = [np.linalg.svd(part, full_matrices=False) for part in parts]
    u = np.concatenate([f[0][:, :r] for f, r in zip(factors, ranks, strict=True)], axis=1)
    s = np.concatenate([w * f[1][:r] for f, r, w in zip(factors, ranks, weights, strict=True)])
    v = np.concatenate([f[2][:r].T for f, r in zip(factors, ranks, strict=True)], axis=1)
    polar = [x @ y for x, _, y in (np.linalg.svd(m, full_matrices=False) for m in (u, v))]
    return (polar[0] * s) @ polar[1].T


def isotropic(parts: Sequence[Matrix], rank: int) -> Matrix:
    u, s, vt = np.linalg.svd(np.sum(parts, axis=0), full_matrices=False)
    return s[:rank].mean() * u[:, :rank] @ vt[:rank]


def truncated(matrix: Matrix, rank: int) -> Matrix:
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    return (u[:, :rank] * s[:rank]) @ vt[:rank]
