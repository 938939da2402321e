"""Whole merges on a device that only pretends to be one, against the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.support.adapters import dense_deltas, make_adapter, make_family
from tests.support.base_models import others, read_model, weights, write_base
from tests.support.merging import assert_close, keys_of, opened, tensor_bytes, write_grams
from tests.support.pretend_device import DEVICE, PretendDevice

from adapterctl.merging import engine, into_model, tiles
from adapterctl.merging.backend import Backend
from adapterctl.merging.bases import find_basis, half_gram
from adapterctl.merging.cache import FactorCache
from adapterctl.merging.engine import merge, merge_key
from adapterctl.merging.factorise import from_dense, undivided
from adapterctl.merging.into_model import merge_into_model
from adapterctl.merging.methods import METHODS
from adapterctl.merging.recipe import MergeRecipe
from adapterctl.merging.report import MergeReport

TORCH = Backend(torch.device("cpu"), compiled=False)
DTYPES = [np.float32, np.float64]


def on(monkeypatch: pytest.MonkeyPatch, chosen: Backend) -> None:
    for module in (engine, into_model):
        monkeypatch.setattr(module, "backend_of", lambda device: chosen)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_family(tmp_path_factory.mktemp("family"), rank=3)


@pytest.fixture(scope="module")
def grams(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return write_grams(tmp_path_factory.mktemp("grams"))


def run(folders: dict[str, Path], out: Path, **keys: Any) -> MergeReport:
    return merge(opened(folders), MergeRecipe.model_validate(keys), out, threads=1)


def same_report(found: MergeReport, expected: MergeReport) -> None:
    assert found.energy_kept == pytest.approx(expected.energy_kept, rel=1e-5)
    assert found.merged_norm == pytest.approx(expected.merged_norm, rel=1e-5)
    assert found.discard_rate == expected.discard_rate
    assert found.input_norms == pytest.approx(expected.input_norms, rel=1e-9)
    assert [module.rank_out for module in found.modules] == [module.rank_out for module in expected.modules]


def cases() -> list[Any]:
    found = []
    for method, row in METHODS.items():
        ranks = ("full", 2) if method in ("linear", "ties", "knots-ties", "core-tsv", "regmean") else (2,)
        # Iso-C makes all singular values equal: which of them a truncation keeps is chance.
        found += [(method, "paper", rank) for rank in (("full",) if method == "core-iso-c" else ranks)]
        # Core matrices are judged on the CPU.
        if row.judges_entries and row.space != "core":
            found.append((method, "mergekit", 2))
    return [*found, ("ties", "peft", 2), ("dare-ties", "peft", 2)]


@pytest.mark.parametrize(("method", "semantics", "rank"), cases())
def test_merges_on_a_device_equal_those_on_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folders: dict[str, Path], grams: dict[str, str], method: str,
    semantics: str, rank: Any,
) -> None:  # fmt: skip
    keys = keys_of(method, 0.5, grams, semantics=semantics, rank=rank, weights={"de": 0.5, "ja": 1.5, "zh": -0.8})
    if method in ("sce", "regmean", "svc"):
        keys.pop("weights")
    expected = run(folders, tmp_path / "cpu", **keys)
    on(monkeypatch, Backend(DEVICE, compiled=False))
    monkeypatch.setattr(tiles, "DEVICE_TILE_ENTRIES", 100)
    with PretendDevice() as device:
        found = run(folders, tmp_path / "device", **keys)
    assert device.calls > 100
    assert_close(dense_deltas(tmp_path / "device"), dense_deltas(tmp_path / "cpu"))
    same_report(found, expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(("method", "semantics", "rank"), cases())
def test_merges_on_a_gpu_equal_those_on_the_cpu(
    tmp_path: Path, folders: dict[str, Path], grams: dict[str, str], method: str, semantics: str, rank: Any
) -> None:
    recipe = MergeRecipe.model_validate(keys_of(method, 0.5, grams, semantics=semantics, rank=rank))
    expected = merge(opened(folders), recipe, tmp_path / "cpu")
    found = [merge(opened(folders), recipe, tmp_path / f"gpu{n}", threads=n, device="cuda") for n in (1, 4)]
    assert_close(dense_deltas(tmp_path / "gpu1"), dense_deltas(tmp_path / "cpu"))
    assert tensor_bytes(tmp_path / "gpu1") == tensor_bytes(tmp_path / "gpu4")
    same_report(found[0], expected)


@pytest.mark.parametrize(
    "keys",
    [
        {"method": "ties", "rank": 4},
        {"method": "dare-ties", "rank": 4},
        {"method": "knots-ties"},
        {"method": "core-tsv"},
        {"method": "linear", "rank": 4},
    ],
)
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_large_and_dependent_factors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: dict[str, Any], precision: str
) -> None:
    # Large enough for subspace iteration; two adapters are equal, so that bases need Householder reflections.
    shapes = {"model.layers.0.mlp.up_proj": (400, 390), "model.layers.0.mlp.down_proj": (90, 410)}
    seeds = {"de": 1, "ja": 2, "zh": 1}
    adapters = {
        lang: make_adapter(tmp_path / lang, seed=seed, alpha=3 + seed, shapes=shapes) for lang, seed in seeds.items()
    }
    keys = {"density": 0.5, **keys, "precision": precision}
    if keys["method"].endswith("ties"):
        keys |= {"semantics": "mergekit"}
    run(adapters, tmp_path / "cpu", **keys)
    on(monkeypatch, Backend(DEVICE, compiled=False))
    with PretendDevice() as device:
        run(adapters, tmp_path / "device", **keys)
    assert device.calls > 50
    found, expected = dense_deltas(tmp_path / "device"), dense_deltas(tmp_path / "cpu")
    # An entry at the threshold, or the order in which half a round converged, is worth more than rounding.
    assert_close(found, expected, 2e-4 if precision == "float32" else 1e-6)


@pytest.mark.parametrize("rows", [60, 5000])
@pytest.mark.parametrize("dependent", [False, True])
def test_bases_of_factors_on_a_device(rows: int, dependent: bool) -> None:
    numbers = torch.Generator().manual_seed(1)
    stack = torch.randn(rows, 16, generator=numbers)
    if dependent:
        stack[:, 8:] = stack[:, :8]
    scales, inner = torch.linspace(1, 2, 16, dtype=torch.float64), torch.randn(16, 5, generator=numbers).double()
    gram = stack.double().T @ stack.double()
    basis = find_basis(stack, scales, gram)
    expected = torch.empty(rows, 5)
    basis.times(stack, inner[: basis.size], expected)
    with PretendDevice():
        there = stack.to(DEVICE)
        found = find_basis(there, scales, gram)
        for out in (torch.empty(rows, 5), torch.empty(5, rows).T, torch.empty(rows, 9)[:, 2:7]):
            into = out.to(DEVICE)
            found.times(there, inner[: found.size], into)
            torch.testing.assert_close(into.cpu(), expected)
        half = half_gram(there.T[:8], gram[:8, :8] * 0)
        torch.testing.assert_close(half @ half.T, gram[:8, :8])


@pytest.mark.parametrize("shape", [(400, 390), (390, 400), (40, 60)])
@pytest.mark.parametrize("rank", [4, 400])
@pytest.mark.parametrize("true_rank", [3, 7])
def test_dense_matrices_on_a_device(shape: tuple[int, int], rank: int, true_rank: int) -> None:
    numbers = torch.Generator().manual_seed(2)
    left = torch.linalg.qr(torch.randn(shape[0], true_rank, generator=numbers)).Q
    right = torch.linalg.qr(torch.randn(shape[1], true_rank, generator=numbers)).Q
    sizes = 2.0 ** -torch.arange(true_rank)
    merged, kept = (left * sizes) @ right.T, min(rank, true_rank)
    with PretendDevice():
        # One direction to begin with: the others are random.
        found = from_dense(merged.to(DEVICE), lambda most: left[:, :1].to(DEVICE), rank, 0.5, "m")
        product = found.B.cpu() @ found.A.cpu()
        whole = undivided(merged.to(DEVICE), 0.5)
        assert whole.whole is not None
        torch.testing.assert_close(whole.whole.cpu(), merged * 0.5)
    torch.testing.assert_close(product, (left[:, :kept] * sizes[:kept]) @ right[:, :kept].T * 0.5, rtol=1e-5, atol=1e-5)
    assert found.energy == pytest.approx(float((sizes**2).sum()), rel=1e-5)
    assert found.lost == pytest.approx(float((sizes[kept:] ** 2).sum()), rel=1e-4, abs=1e-5)


def test_a_and_b_apart_are_merged_on_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folders: dict[str, Path]
) -> None:
    keys = {"method": "dare-ties", "density": 0.5, "semantics": "peft", "space": "factors"}
    run(folders, tmp_path / "cpu", **keys)
    on(monkeypatch, Backend(DEVICE, compiled=False))
    with PretendDevice():
        run(folders, tmp_path / "device", **keys)
    assert tensor_bytes(tmp_path / "device") == tensor_bytes(tmp_path / "cpu")


@pytest.mark.parametrize("method", ["ties", "knots-ties", "linear", "breadcrumbs"])
def test_into_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folders: dict[str, Path], method: str) -> None:
    base = write_base(tmp_path / "base", weights() | others())
    recipe = MergeRecipe.model_validate(keys_of(method, 0.5))
    merge_into_model(opened(folders), recipe, base, tmp_path / "cpu", threads=1)
    on(monkeypatch, Backend(DEVICE, compiled=False))
    with PretendDevice() as device:
        merge_into_model(opened(folders), recipe, base, tmp_path / "device", threads=1)
    assert device.calls > 50
    found, expected = read_model(tmp_path / "device"), read_model(tmp_path / "cpu")
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-5, equal_nan=True, msg=name)


@pytest.mark.parametrize("method", ["ties", "knots-ties"])
def test_what_a_cache_holds_of_another_backend_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folders: dict[str, Path], method: str
) -> None:
    cache, recipe = FactorCache(tmp_path / "cache"), MergeRecipe(method=method, density=0.5)
    here = merge(opened(folders), recipe, tmp_path / "a", threads=1, cache=cache)
    on(monkeypatch, TORCH)
    first = merge(opened(folders), recipe, tmp_path / "b", threads=1, cache=cache)
    again = merge(opened(folders), recipe, tmp_path / "c", threads=2, cache=cache)
    assert first.reused == here.reused
    assert again.reused["blocks_computed"] == 0
    assert again.reused["thresholds_computed"] == (0 if method == "ties" else 3)
    assert tensor_bytes(tmp_path / "b") == tensor_bytes(tmp_path / "c")
    monkeypatch.undo()
    last = merge(opened(folders), recipe, tmp_path / "d", threads=1, cache=cache)
    assert last.reused["blocks_computed"] == 0
    assert tensor_bytes(tmp_path / "a") == tensor_bytes(tmp_path / "d")


def test_the_key_of_a_result_knows_the_kind_of_device(folders: dict[str, Path]) -> None:
    adapters, recipe = opened(folders), MergeRecipe()
    keys = {device: merge_key(adapters, recipe, 1.0, device=device) for device in ("cpu", "cuda", "cuda:1")}
    assert keys["cpu"] == merge_key(adapters, recipe, 1.0) != keys["cuda"] == keys["cuda:1"]
