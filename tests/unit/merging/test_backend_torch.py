"""The kernels for devices against the compiled ones, and whole merges on a device that only pretends to be one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tests.support.adapters import dense_deltas, make_adapter, make_family
from tests.support.base_models import others, read_model, weights, write_base
from tests.support.merging import assert_close, keys_of, opened, tensor_bytes, write_grams
from tests.support.pretend_device import DEVICE, PretendDevice

from adapterctl.errors import MergeError
from adapterctl.merging import engine, into_model, kernels, kernels_torch, tiles
from adapterctl.merging.backend import CPU, Backend, backend_of
from adapterctl.merging.bases import find_basis, half_gram
from adapterctl.merging.cache import FactorCache
from adapterctl.merging.engine import merge, merge_key
from adapterctl.merging.factorise import from_dense, undivided
from adapterctl.merging.into_model import merge_into_model
from adapterctl.merging.masks import last_kept, mask_words, place
from adapterctl.merging.methods import METHODS
from adapterctl.merging.recipe import MergeRecipe
from adapterctl.merging.report import MergeReport
from adapterctl.merging.selection import kth_largest

TORCH = Backend(torch.device("cpu"), compiled=False)
DTYPES = [np.float32, np.float64]


def normal(*shape: int, dtype: Any = np.float32, seed: int = 0) -> Any:
    """Numbers of which some are zero, some equal, and some as large with the other sign."""
    numbers = np.random.default_rng(seed)
    x = numbers.normal(size=shape)
    x = np.where(numbers.random(shape) < 0.3, np.round(x), x)
    return x.astype(dtype)


def both(x: Any) -> tuple[Any, torch.Tensor]:
    return x.copy(), torch.from_numpy(x.copy())


class TestKernels:
    """Masks, counts and everything that is judged have the same bits; sums in another order are close."""

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("start", [0, 12345, (1 << 32) - 500, (1 << 33) + 7])
    @pytest.mark.parametrize("density", [1e-9, 0.3, 0.999, 1.0])
    def test_random_masks(self, dtype: Any, start: int, density: float) -> None:
        for lang in ("de", "ja"):
            one, other = both(normal(1000, dtype=dtype) + dtype(9))
            words, factor = mask_words(3, lang, "m"), dtype(1 / 0.3)
            kernels.drop_at_random(one, *words, place(start), last_kept(density), factor)
            kernels_torch.drop_at_random(other, *words, place(start), last_kept(density), factor)
            assert np.array_equal(one, other.numpy())
            for rescale in (True, False):
                one, other = both(normal(1000, dtype=dtype) + dtype(9))
                chances = np.linspace(density / 2, density, 1000)
                kernels.drop_by_chance(one, *words, place(start), chances, rescale)
                kernels_torch.drop_by_chance(other, *words, place(start), torch.from_numpy(chances), rescale)
                assert np.array_equal(one, other.numpy())

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_order_statistics(self, dtype: Any) -> None:
        x = np.concatenate([normal(3, 5000, dtype=dtype), np.round(normal(3, 5000, dtype=dtype))], axis=1)
        sample = np.ascontiguousarray(x[:, ::7])

        def cut(numbers: Any) -> Any:
            return lambda: ((slice(i, i + 777), numbers[:, i : i + 777]) for i in range(0, 10_000, 777))

        for wanted in (1, 50, 3000, 6000, 9999, 10_000):
            for given in (sample, 0 * sample):
                expected = kth_largest(cut(np.asfortranarray(x).copy()), given, 10_000, wanted)
                assert kth_largest(cut(torch.from_numpy(x)), given, 10_000, wanted) == expected

    def test_a_band_that_does_not_fit(self) -> None:
        bits = torch.from_numpy(normal(100)).view(torch.int32)
        found = np.zeros(5, np.uint32)
        assert kernels_torch.count_band(bits, 0x7FFFFFFF, 0, 0x7FFFFFFF, found, 0) == (0, -1)

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("divisor", [0, 1, 2])
    def test_elections(self, dtype: Any, divisor: int) -> None:
        x = normal(4, 3000, dtype=dtype)
        x[1, ::5] = -x[0, ::5]
        x[2:, ::5] = 0
        low, high = np.array([0.2, 0, 0.5, 0], dtype), np.array([3, 9, 9, 1], dtype)
        for factors, votes in (([0.3, 1.1, -0.7, 2], [0.3, 1.1, -0.7, 2]), ([0.3, 0.3, 1, 1], [1, 1, 1, 1])):
            for lean in ([0, 0, 0, 0], [0, 0.4, 0, 0]):
                numbers = [np.array(row, dtype) for row in (factors, votes, lean)]
                outcomes = []
                for module, entries in zip((kernels, kernels_torch), both(x), strict=True):
                    kept, lost = np.ones(4, np.int64), np.ones(4, np.int64)
                    out = np.full(3000, 7, dtype)
                    into = out if module is kernels else torch.from_numpy(out)
                    balanced, net = module.elect(entries, low, high, *numbers, divisor, dtype(-1), into, kept, lost)
                    outcomes.append((balanced, net, kept.tolist(), lost.tolist(), np.asarray(entries).tolist(), out))
                assert outcomes[0][:-1] == outcomes[1][:-1]
                np.testing.assert_allclose(outcomes[1][-1], outcomes[0][-1], rtol=1e-6, atol=1e-6)
                assert outcomes[0][0] > 100 or any(lean) or factors[0] != factors[1]

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_the_others(self, dtype: Any) -> None:
        x = normal(3, 2000, dtype=dtype)
        x[:, 100:300] = x[:1, 100:300]
        threshold = dtype(1)
        for allowed in (0, 3, 10_000):
            one, other = both(x[0])
            left = kernels.drop_surplus(one, threshold, allowed)
            assert kernels_torch.drop_surplus(other, threshold, allowed) == left
            assert np.array_equal(one, other.numpy())
        one, other = both(x)
        assert kernels_torch.absolute_sum(other[0]) == pytest.approx(kernels.absolute_sum(one[0]), rel=1e-12)
        expected = kernels.band_total(one[0], dtype(0), dtype(1))
        assert kernels_torch.band_total(other[0], dtype(0), dtype(1)) == pytest.approx(expected, rel=1e-12)
        low, high, weights = np.array([0, 1, 0.5], dtype), np.array([9, 2, 9], dtype), np.array([1, -2, 0.3], dtype)
        sums = both(np.ones(2000, dtype))
        kernels.band_sum(one, low, high, weights, sums[0])
        kernels_torch.band_sum(other, low, high, weights, sums[1])
        np.testing.assert_allclose(sums[1].numpy(), sums[0], rtol=1e-6, atol=1e-6)
        for absent in (0, 2):
            spread = both(np.ones(2000, dtype))
            kernels.variance(one, absent, spread[0])
            kernels_torch.variance(other, absent, spread[1])
            assert np.array_equal(spread[0], spread[1].numpy())
        judged = np.round(np.abs(x[1]))
        for allowed in (0, 4, 10_000):
            pair = both(x)
            left = kernels.keep_where(pair[0], judged, dtype(1), allowed)
            assert kernels_torch.keep_where(pair[1], torch.from_numpy(judged), dtype(1), allowed) == left
            assert np.array_equal(pair[0], pair[1].numpy())
        totals = np.ones(3), np.ones(3)
        kernels.energies(one, totals[0])
        kernels_torch.energies(other, totals[1])
        np.testing.assert_allclose(totals[1], totals[0], rtol=1e-12)

    def test_ranks_and_the_nth_largest(self) -> None:
        x = torch.tensor([[3.0, -1.0, 1.0, 0.0, -3.0]])
        assert kernels_torch.ranks(x).tolist() == [[3, 1, 2, 0, 4]]
        assert [kernels_torch.nth_largest(x[0], n) for n in (1, 2, 3, 5)] == [3.0, 1.0, 0.0, -3.0]


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


class TestChoosingADevice:
    """What a person may ask for, and what they are told."""

    def test_the_cpu(self) -> None:
        assert backend_of("cpu") is CPU
        assert CPU.kernels is kernels
        assert not CPU.mark

    @pytest.mark.parametrize("name", ["gpu", "CUDA", "cuda:", "cuda:x", "cuda:-1", "cpu:0", "mps", "meta", ""])
    def test_names_that_are_none(self, name: str) -> None:
        with pytest.raises(MergeError, match=f"no device {name!r}") as error:
            backend_of(name)
        assert "--device cpu" in error.value.hint

    @pytest.mark.parametrize(("built", "reason", "mend"), [
        (None, "was built without CUDA", "install a CUDA build of torch"),
        ("12.8", "finds no GPU", "nvidia-smi"),
    ])  # fmt: skip
    def test_without_a_gpu(self, monkeypatch: pytest.MonkeyPatch, built: str | None, reason: str, mend: str) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setattr(torch.version, "cuda", built)
        monkeypatch.setattr(torch.version, "hip", None)
        with pytest.raises(MergeError, match=f"cannot merge on cuda: .*{reason}") as error:
            backend_of("cuda")
        assert "--device cpu" in error.value.hint
        assert mend in error.value.hint

    def test_with_two_gpus(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {device.index}")
        assert backend_of("cuda") == Backend(torch.device("cuda:1"), compiled=False)
        assert backend_of("cuda:0").mark == "torch GPU 0"
        with pytest.raises(MergeError, match="finds 2 GPU"):
            backend_of("cuda:2")

    @pytest.mark.parametrize(
        "merged",
        [
            lambda adapters, out: merge(adapters, MergeRecipe(), out, device="cuda"),
            lambda adapters, out: merge_into_model(adapters, MergeRecipe(), out / "base", out, device="cuda"),
        ],
    )
    def test_nothing_is_read_for_a_device_that_is_none(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, merged: Callable[[Any, Path], object]
    ) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        adapters = opened(make_family(tmp_path))
        for adapter in adapters:
            (adapter.folder / "adapter_model.safetensors").unlink()
        with pytest.raises(MergeError, match="cannot merge on cuda"):
            merged(adapters, tmp_path / "out")
        assert not (tmp_path / "out").exists()


class TestAtWork:
    """What holds while a device computes."""

    @pytest.mark.parametrize("before", ["none", "tf32", "ieee"])
    def test_products_have_all_digits_and_the_setting_comes_back(
        self, monkeypatch: pytest.MonkeyPatch, before: str
    ) -> None:
        products = SimpleNamespace(fp32_precision=before)
        monkeypatch.setattr(torch.backends.cuda, "matmul", products)
        with TORCH.at_work():
            assert products.fp32_precision == "ieee"
        assert products.fp32_precision == before
        with pytest.raises(ZeroDivisionError), TORCH.at_work():
            raise ZeroDivisionError
        assert products.fp32_precision == before

    def test_torch_knows_the_setting(self) -> None:
        before = torch.backends.cuda.matmul.fp32_precision
        with TORCH.at_work():
            assert not torch.backends.cuda.matmul.allow_tf32
        assert torch.backends.cuda.matmul.fp32_precision == before

    @pytest.mark.parametrize("threads", [1, 2])
    @pytest.mark.parametrize(
        "error",
        [
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has ..."),
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
        ],
    )
    def test_too_little_memory(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folders: dict[str, Path], error: Exception, threads: int
    ) -> None:
        def full(*_: Any) -> None:
            raise error

        on(monkeypatch, TORCH)
        monkeypatch.setattr(kernels_torch, "elect", full)
        with pytest.raises(MergeError, match="too little free memory for this merge: CUDA") as caught:
            merge(opened(folders), MergeRecipe(method="ties", density=0.5), tmp_path / "out", threads=threads)
        assert "GPU 0" not in caught.value.message
        assert "--threads" in caught.value.hint
        assert "--device cpu" in caught.value.hint
        assert not (tmp_path / "out").exists()

    def test_other_errors_are_not_about_memory(self) -> None:
        with pytest.raises(RuntimeError, match="illegal"), TORCH.at_work():
            raise RuntimeError("an illegal instruction")
