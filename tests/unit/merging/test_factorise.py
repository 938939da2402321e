"""From merged matrices to factors, against the singular value decomposition."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from adapterctl.merging.bases import find_basis, half_gram, joint_basis
from adapterctl.merging.factorise import (
    Factored,
    frobenius,
    from_core,
    from_dense,
    from_factors,
    from_rows,
    main_directions,
    undivided,
)

DTYPES = [torch.float32, torch.float64]


def matrix_of(rows: int, columns: int, singular: Any, seed: int = 0) -> Any:
    """A matrix with these singular values."""
    numbers = np.random.default_rng(seed)
    left = np.linalg.qr(numbers.normal(size=(rows, len(singular))))[0]
    right = np.linalg.qr(numbers.normal(size=(columns, len(singular))))[0]
    return (left * singular) @ right.T


def nothing(rows: int) -> Any:
    return lambda most: torch.empty(rows, 0)


def product(factored: Factored) -> Any:
    return factored.B.numpy().astype(np.float64) @ factored.A.numpy().astype(np.float64)


def truncated(matrix: Any, rank: int) -> Any:
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    return (u[:, :rank] * s[:rank]) @ vt[:rank]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(20, 30), (30, 20), (7, 7)])
@pytest.mark.parametrize("rank", [1, 3, 6])
def test_small_dense_matrices(shape: tuple[int, int], rank: int, dtype: torch.dtype) -> None:
    singular = np.array([5, 4, 2, 1, 0.5, 0.25, 0.125])
    matrix = matrix_of(*shape, singular)
    found = from_dense(torch.from_numpy(matrix).to(dtype), nothing(shape[0]), rank, -0.5, "m")
    assert (found.B.shape, found.A.shape, found.rank) == ((shape[0], rank), (rank, shape[1]), rank)
    assert found.B.dtype == found.A.dtype == dtype
    np.testing.assert_allclose(product(found), -0.5 * truncated(matrix, rank), atol=3e-6)
    assert found.energy == pytest.approx((singular**2).sum(), rel=1e-6)
    assert found.lost == pytest.approx((singular[rank:] ** 2).sum(), rel=1e-5)
    assert found.gap == pytest.approx((singular[rank - 1] - singular[rank]) / 5, rel=1e-5)


@pytest.mark.parametrize("shape", [(500, 400), (400, 500)])
@pytest.mark.parametrize("rank", [4, 16])
@pytest.mark.parametrize("known", [0, 3, 16])
def test_large_dense_matrices_by_subspaces(shape: tuple[int, int], rank: int, known: int) -> None:
    # Slowly falling singular values, as of a merged matrix that has lost entries.
    singular = 1.0 / np.sqrt(np.arange(1, 401))
    matrix = matrix_of(*shape, singular).astype(np.float32)
    u = np.linalg.svd(matrix)[0][:, :known]
    noise = np.random.default_rng(1).normal(size=u.shape) * 0.02
    start = torch.from_numpy((u + noise).astype(np.float32))
    found = from_dense(torch.from_numpy(matrix), lambda most: start[:, :most], rank, 2.0, "m")
    whole, best = (singular**2).sum(), (singular[:rank] ** 2).sum()
    assert found.energy == pytest.approx(whole, rel=1e-5)
    error = ((matrix - product(found) / 2) ** 2).sum()
    # What is lost is what the factors lack; a ten-thousandth of the energy may still be missing every half round.
    assert found.lost == pytest.approx(error, rel=1e-4)
    assert (whole - best) * (1 - 1e-5) <= error <= whole - best + 5e-4 * whole


def test_subspaces_need_no_rank_in_what_they_begin_with() -> None:
    matrix = matrix_of(400, 390, np.array([3.0, 2.0, 1.0])).astype(np.float32)
    same = torch.ones(400, 8)
    for start in (same, 0 * same):
        found = from_dense(torch.from_numpy(matrix), lambda most, start=start: start[:, :most], 5, 1.0, "m")
        np.testing.assert_allclose(product(found), matrix, atol=1e-5)
        assert found.lost == pytest.approx(0, abs=1e-4)


def test_subspaces_are_the_same_every_time_and_differ_between_modules() -> None:
    matrix = torch.from_numpy(matrix_of(400, 390, 1.0 / np.arange(1, 390))).to(torch.float32)
    results = [
        [factor.clone() for factor in (found.A, found.B)]
        for name in ("a", "a", "b")
        for found in [from_dense(matrix, nothing(400), 4, 1.0, name)]
    ]
    assert all(torch.equal(one, other) for one, other in zip(results[0], results[1], strict=True))
    assert not torch.equal(results[0][0], results[2][0])


@pytest.mark.parametrize("shape", [(20, 30), (30, 20), (500, 420)])
def test_the_full_rank_loses_nothing(shape: tuple[int, int]) -> None:
    matrix = np.random.default_rng(2).normal(size=shape).astype(np.float32)
    found = from_dense(torch.from_numpy(matrix.copy()), nothing(shape[0]), min(shape), 0.25, "m")
    assert found.rank == min(shape)
    assert np.array_equal(product(found), matrix * 0.25)
    assert (found.lost, found.gap) == (0.0, None)


@pytest.mark.parametrize("rank", [2, 5, 9])
def test_core_matrices(rank: int) -> None:
    numbers = torch.Generator().manual_seed(3)
    b = torch.randn(40, 5, generator=numbers, dtype=torch.float64)
    a = torch.randn(5, 30, generator=numbers, dtype=torch.float64)
    ones = torch.ones(5, dtype=torch.float64)
    left, right = find_basis(b, ones, b.T @ b), find_basis(a.T, ones, a @ a.T)
    middle = torch.randn(5, 5, generator=numbers, dtype=torch.float64)
    found = from_core(left.coefficients @ middle @ right.coefficients.T, (left, b), (right, a.T), rank, 3.0)
    matrix = (b @ middle @ a).numpy()
    singular = np.linalg.svd(matrix, compute_uv=False)[:5]
    np.testing.assert_allclose(product(found), 3 * truncated(matrix, rank), atol=1e-9)
    assert found.rank == min(rank, 5)
    assert found.energy == pytest.approx((singular**2).sum())
    assert found.lost == pytest.approx((singular[rank:] ** 2).sum())
    assert found.gap == (pytest.approx((singular[1] - singular[2]) / singular[0]) if rank == 2 else None)


@pytest.mark.parametrize("rank", [2, 5, 9])
@pytest.mark.parametrize("dependent", [False, True])
def test_factors(rank: int, dependent: bool) -> None:
    numbers = torch.Generator().manual_seed(5)
    b, a = torch.randn(40, 6, generator=numbers), torch.randn(6, 30, generator=numbers)
    if dependent:
        b[:, 3:], a[4] = b[:, :3], a[1]
    before = a.clone(), b.clone()
    found = from_factors(a, b, rank, -2.0)
    matrix = (b.double() @ a.double()).numpy()
    np.testing.assert_allclose(product(found), -2 * truncated(matrix, rank), atol=1e-4)
    assert found.energy == pytest.approx((matrix**2).sum(), rel=1e-5)
    lost = ((matrix - truncated(matrix, rank)) ** 2).sum()
    assert found.lost == pytest.approx(lost, rel=1e-4, abs=1e-4)
    assert torch.equal(before[0], a)
    assert torch.equal(before[1], b)
    u = np.linalg.svd(matrix)[0][:, :2]
    directions = main_directions(a, b, 2).numpy()
    np.testing.assert_allclose(np.abs(np.sum(u * directions, axis=0)), 1, atol=1e-4)


@pytest.mark.parametrize("rank", [2, 9])
def test_rows_in_a_joint_basis(rank: int) -> None:
    numbers = torch.Generator().manual_seed(6)
    b = torch.randn(40, 4, generator=numbers, dtype=torch.float64)
    a = torch.randn(4, 30, generator=numbers, dtype=torch.float64)
    ones, columns = torch.ones(4, dtype=torch.float64), (slice(0, 2), slice(2, 4))
    halves = [half_gram(a[at], a[at] @ a[at].T) for at in columns]
    joint = joint_basis(find_basis(b, ones, b.T @ b), columns, halves)
    merged = torch.randn(joint.turn.shape[1], 30, generator=numbers, dtype=torch.float64)
    found = from_rows(merged, joint.basis, joint.turn, b, rank, 0.5, 0.125)
    u = torch.empty(40, joint.turn.shape[1], dtype=torch.float64)
    joint.basis.times(b, joint.turn, u)
    matrix = (u @ merged).numpy()
    np.testing.assert_allclose(product(found), 0.5 * truncated(matrix, rank), atol=1e-9)
    assert found.energy == pytest.approx((matrix**2).sum())
    assert found.lost == pytest.approx(((matrix - truncated(matrix, rank)) ** 2).sum(), abs=1e-9)


def test_a_matrix_that_stays_whole() -> None:
    matrix = torch.arange(12.0).reshape(3, 4)
    found = undivided(matrix.clone(), -0.5)
    assert found.whole is not None
    assert torch.equal(found.whole, -0.5 * matrix)
    assert found.rank == 3
    assert found.energy == 506.0


def test_norms_are_summed_in_float64() -> None:
    matrix = torch.full((1000, 1003), 0.1)
    assert frobenius(matrix) == pytest.approx(1_003_000 * float(np.float32(0.1)) ** 2, rel=1e-11)
    assert frobenius(matrix[:, ::2]) == pytest.approx(502_000 * float(np.float32(0.1)) ** 2, rel=1e-11)
