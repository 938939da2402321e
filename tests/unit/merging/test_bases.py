"""Bases of stacked factors: orthonormal whatever the condition, and exact where there is nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from adapterctl.merging.bases import (
    NEGLIGIBLE,
    Basis,
    find_basis,
    half_gram,
    joint_basis,
    significant,
    smallest_gap,
)

DTYPES = [torch.float32, torch.float64]


def orthogonal(rows: int, columns: int, seed: int) -> Any:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(rows, columns)))[0]


def stack_of(condition: float, rows: int = 120, columns: int = 7, seed: int = 0) -> torch.Tensor:
    """Columns of about one length with this condition number, in float64."""
    sizes = np.geomspace(1, 1 / condition, columns)
    return torch.from_numpy(orthogonal(rows, columns, seed) * sizes @ orthogonal(columns, columns, seed + 1).T)


def basis_of(stack: torch.Tensor, scales: torch.Tensor | None = None, **options: bool) -> Basis:
    exact = stack.to(torch.float64)
    ones = torch.ones(stack.shape[1], dtype=torch.float64)
    return find_basis(stack, ones if scales is None else scales, exact.T @ exact, **options)


def directions(basis: Basis, stack: torch.Tensor) -> torch.Tensor:
    out = torch.empty(stack.shape[0], basis.size, dtype=stack.dtype)
    basis.times(stack, torch.eye(basis.size, dtype=torch.float64), out)
    return out.to(torch.float64)


def assert_orthonormal(q: torch.Tensor, tolerance: float) -> None:
    assert float((q.T @ q - torch.eye(q.shape[1], dtype=torch.float64)).abs().max()) < tolerance


SCALES = torch.tensor([0.5, 2.0, -1.0, 1.0, 30.0, 0.01, 1.0], dtype=torch.float64)


@pytest.mark.parametrize("singular", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("condition", "rows"), [(1, 120), (20, 12_000), (1e3, 12_000), (1e5, 120), (1e6, 120)])
def test_orthonormal_at_every_condition(condition: float, rows: int, dtype: torch.dtype, singular: bool) -> None:
    stack = stack_of(condition, rows).to(dtype)
    basis = basis_of(stack, SCALES, singular=singular)
    q = directions(basis, stack)
    # What is rounded to float32 is what is stored; nothing before it is less exact than that.
    assert_orthonormal(q, 5e-6 if dtype == torch.float32 else 1e-5)
    scaled = stack.to(torch.float64) * SCALES
    error = q @ basis.coefficients - scaled
    # Singular directions below a share of the strongest are left out; otherwise every column keeps its digits.
    left_out = NEGLIGIBLE * float(torch.linalg.matrix_norm(scaled, 2)) if singular else 0.0
    assert bool((error.norm(dim=0) <= 1e-5 * scaled.norm(dim=0) + left_out).all())
    if singular:
        assert basis.values is not None
        expected = np.linalg.svd(scaled.numpy(), compute_uv=False)
        np.testing.assert_allclose(basis.values.numpy(), expected[: basis.size], rtol=1e-6, atol=1e-6 * expected[0])
        turned = q.T @ scaled
        assert float((turned @ turned.T - torch.diag(basis.values**2)).abs().max()) < 1e-5 * expected[0] ** 2


def test_the_way_depends_on_the_condition() -> None:
    easy, worse, worst = (basis_of(stack_of(condition)) for condition in (2, 1e4, 1e7))
    assert easy.transform is not None
    assert worse.transform is not None
    assert (easy.precise, worse.precise) == (False, True)
    assert worst.transform is None
    assert worst.directions is not None
    assert basis_of(stack_of(2), precise=True).directions is not None


@pytest.mark.parametrize("singular", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_columns_that_depend_on_others(dtype: torch.dtype, singular: bool) -> None:
    half = stack_of(3, columns=4).to(dtype)
    stack = torch.cat([half, half[:, :3] * 2], dim=1)
    basis = basis_of(stack, SCALES, singular=singular)
    assert basis.size == 4
    q = directions(basis, stack)
    assert_orthonormal(q, 1e-6)
    torch.testing.assert_close(q @ basis.coefficients, stack.to(torch.float64) * SCALES, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("singular", [False, True])
def test_columns_that_are_zero_stay_exactly_zero(singular: bool) -> None:
    stack = stack_of(3).to(torch.float32)
    stack[:, [1, 4]] = 0
    basis = basis_of(stack, SCALES, singular=singular)
    assert basis.size == 5
    assert not basis.coefficients[:, [1, 4]].any()
    assert basis.coefficients[:, [0, 2, 3, 5, 6]].abs().sum(dim=0).min() > 0
    assert_orthonormal(directions(basis, stack), 1e-6)


def test_a_scale_of_zero_is_a_column_of_zeros() -> None:
    scales = SCALES.clone()
    scales[2] = 0
    basis = basis_of(stack_of(3), scales)
    assert basis.size == 6
    assert not basis.coefficients[:, 2].any()


def test_a_small_language_keeps_its_digits_beside_a_large_one() -> None:
    stack = stack_of(3)
    scales = torch.tensor([1e6, 1e6, 1e6, 1e-6, 1e-6, 1e-6, 1e-6], dtype=torch.float64)
    for precise in (False, True):
        basis = basis_of(stack, scales, precise=precise)
        error = directions(basis, stack) @ basis.coefficients - stack * scales
        assert float((error.norm(dim=0) / (stack * scales).norm(dim=0)).max()) < 1e-10


@pytest.mark.parametrize("singular", [False, True])
def test_more_columns_than_rows(singular: bool) -> None:
    stack = torch.randn(4, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    basis = basis_of(stack, singular=singular)
    assert basis.size == 4
    torch.testing.assert_close(directions(basis, stack) @ basis.coefficients, stack)


def test_nothing_but_zeros() -> None:
    basis = basis_of(torch.zeros(9, 3))
    assert basis.size == 0
    assert directions(basis, torch.zeros(9, 3)).shape == (9, 0)


@pytest.mark.parametrize("rows", [50, 40_000])
@pytest.mark.parametrize("condition", [2, 1e3, 1e7])
def test_products_are_written_into_any_layout(rows: int, condition: float) -> None:
    stack = stack_of(condition, rows).to(torch.float32)
    basis, inner = basis_of(stack), torch.arange(14, dtype=torch.float64).reshape(7, 2)
    expected = directions(basis, stack) @ inner[: basis.size]
    for out in (torch.empty(rows, 2), torch.empty(2, rows).T, torch.empty(rows, 5)[:, 1:3]):
        basis.times(stack, inner[: basis.size], out)
        torch.testing.assert_close(out.to(torch.float64), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("condition", [1, 1e3, 1e9])
@pytest.mark.parametrize("rows", [30, 3])
def test_the_inner_geometry_of_rows(condition: float, rows: int) -> None:
    part = stack_of(condition, rows=30, columns=5).T[:, :rows].contiguous()
    half = half_gram(part, part @ part.T)
    torch.testing.assert_close(half @ half.T, part @ part.T)
    singular = np.linalg.svd(part.numpy(), compute_uv=False)
    found = np.linalg.svd(half.numpy(), compute_uv=False)[: len(singular)]
    np.testing.assert_allclose(found, singular, rtol=1e-6, atol=1e-13)


@pytest.mark.parametrize("same", [False, True])
def test_the_joint_basis_is_that_of_the_concatenated_deltas(same: bool) -> None:
    numbers = torch.Generator().manual_seed(4)
    ranks, columns = (2, 3, 1), (slice(0, 2), slice(2, 5), slice(5, 6))
    b = torch.randn(20, 6, generator=numbers, dtype=torch.float64)
    a = torch.randn(6, 15, generator=numbers, dtype=torch.float64)
    if same:
        b[:, 2:4], a[2:4], a[4] = b[:, :2], a[:2], 0
    scales = torch.tensor([2.0, 2.0, 0.5, 0.5, 0.5, 3.0], dtype=torch.float64)
    halves = [half_gram(a[at], a[at] @ a[at].T) for at in columns]
    joint = joint_basis(find_basis(b, scales, b.T @ b), columns, halves)
    deltas = [(b[:, at] * scales[at]) @ a[at] for at in columns]
    expected = np.linalg.svd(torch.cat(deltas, dim=1).numpy(), compute_uv=False)
    size = 3 if same else sum(ranks)
    assert joint.values.numel() == size
    np.testing.assert_allclose(joint.values.numpy(), expected[:size])
    u = torch.empty(20, size, dtype=torch.float64)
    joint.basis.times(b, joint.turn, u)
    assert_orthonormal(u, 1e-9)
    for left, at, delta in zip(joint.lefts, columns, deltas, strict=True):
        torch.testing.assert_close(u @ left @ a[at], delta)


def test_what_is_not_zero_and_how_clear_it_is() -> None:
    def values(*numbers: float) -> torch.Tensor:
        return torch.tensor(numbers, dtype=torch.float64)

    assert significant(values()) == significant(values(0, 0)) == 0
    assert significant(values(5, 1, 6 * NEGLIGIBLE, 4 * NEGLIGIBLE)) == 3
    assert smallest_gap(values(4)) is None
    assert smallest_gap(values(4, 3, 1)) == 0.25
    assert smallest_gap(values(4, 2, 2)) == 0.0
