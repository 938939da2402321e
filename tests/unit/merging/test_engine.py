"""Laws of merging, and results against the dense references beside this file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tests.support.adapters import SHAPES, change_config, dense_deltas, make_adapter, make_family, relative_error
from tests.support.merging import opened, run
from tests.unit.merging import reference

from adapterctl.lora.adapter import Adapter
from adapterctl.merging import spaces
from adapterctl.merging.engine import merge
from adapterctl.merging.methods import METHODS
from adapterctl.merging.recipe import MergeRecipe

LAWS = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
EXACT = [name for name, row in METHODS.items() if row.exact]
DENSE = [name for name, row in METHODS.items() if not row.exact]


def assert_close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], tolerance: float = 1e-6) -> None:
    assert set(found) == set(expected)
    for module, tensor in expected.items():
        assert relative_error(found[module], tensor) <= tolerance, module


def matrices(folders: dict[str, Path]) -> reference.Model:
    return [[dense_deltas(folder)[module].numpy() for module in sorted(SHAPES)] for folder in folders.values()]


def by_module(merged: list[np.ndarray]) -> dict[str, torch.Tensor]:
    return dict(zip(sorted(SHAPES), map(torch.from_numpy, merged), strict=True))


class TestLaws:
    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize("options", [{}, {"use_rslora": True}, {"dtype": torch.bfloat16}], ids=str)
    def test_one_adapter_of_weight_one_is_itself(self, tmp_path: Path, method: str, options: dict[str, Any]) -> None:
        folder = make_adapter(tmp_path / "ja", rank=4, alpha=6, **options)
        found = run([Adapter.open(folder, "ja")], tmp_path / "out", method=method, density=1)
        assert_close(found, dense_deltas(folder, 3.0 if "use_rslora" in options else 1.5))

    @pytest.mark.parametrize("method", METHODS)
    def test_weights_one_and_zeros_give_the_first(self, tmp_path: Path, method: str) -> None:
        folders = make_family(tmp_path)
        weights = {"de": 0.0, "ja": 1.0, "zh": 0.0}
        found = run(opened(folders), tmp_path / "out", method=method, density=1, weights=weights)
        assert_close(found, dense_deltas(folders["ja"]))

    @LAWS
    @given(
        method=st.sampled_from(sorted(METHODS)),
        scale=st.floats(-4, 4).map(lambda x: round(x, 3)),
        seed=st.integers(0, 99),
    )
    def test_lambda_is_linear(
        self, tmp_path_factory: pytest.TempPathFactory, method: str, scale: float, seed: int
    ) -> None:
        folder = tmp_path_factory.mktemp("lambda")
        adapters = opened(make_family(folder, seed=seed))[:1] + opened(make_family(folder / "b", seed=seed + 1))[1:]
        one = run(adapters, folder / "one", method=method)
        other = run(adapters, folder / "other", method=method, scale=scale)
        assert_close(other, {module: scale * tensor for module, tensor in one.items()})

    @LAWS
    @given(method=st.sampled_from(sorted(METHODS)), order=st.permutations(["de", "ja", "zh"]))
    def test_order_does_not_matter(
        self, tmp_path_factory: pytest.TempPathFactory, method: str, order: list[str]
    ) -> None:
        folder = tmp_path_factory.mktemp("order")
        folders = make_family(folder)
        recipe = MergeRecipe(method=method, density=0.5)
        merge(opened(folders), recipe, folder / "one")
        merge(opened({lang: folders[lang] for lang in order}), recipe, folder / "other")
        for name in ("adapter_model.safetensors", "adapter_config.json", "merge_report.json"):
            assert (folder / "one" / name).read_bytes() == (folder / "other" / name).read_bytes()

    @LAWS
    @given(
        weights=st.fixed_dictionaries(
            dict.fromkeys(["de", "ja", "zh"], st.floats(-2, 2).filter(lambda w: abs(w) > 0.01))
        )
    )
    def test_linear_and_core_ta_are_the_weighted_sum(
        self, tmp_path_factory: pytest.TempPathFactory, weights: dict[str, float]
    ) -> None:
        folder = tmp_path_factory.mktemp("linear")
        folders = make_family(folder)
        dense = {lang: dense_deltas(path) for lang, path in folders.items()}
        expected = {module: sum(weights[lang] * dense[lang][module] for lang in dense) for module in SHAPES}
        for method in ("linear", "core-ta"):
            found = run(opened(folders), folder / method, method=method, weights=weights)
            assert_close(found, expected, 1e-5)

    def test_knots_that_only_adds_would_be_linear(self, tmp_path: Path) -> None:
        deltas = [
            adapter.delta(module, torch.float64)
            for adapter in opened(make_family(tmp_path))
            for module in ["model.layers.0.mlp.down_proj"]
        ]
        space = spaces.knots(deltas)
        (parts,) = space.blocks()
        assert space.left is not None
        torch.testing.assert_close(space.left @ sum(parts), sum(delta.dense() for delta in deltas))

    @pytest.mark.parametrize(
        ("dare", "plain"), [("dare-linear", "linear"), ("dare-ties", "ties"), ("magnitude-prune", "linear")]
    )
    @pytest.mark.parametrize("semantics", ["paper", "peft"])
    def test_density_one_makes_it_its_base_method(self, tmp_path: Path, dare: str, plain: str, semantics: str) -> None:
        adapters = opened(make_family(tmp_path))
        found = run(adapters, tmp_path / "a", method=dare, density=1, semantics=semantics)
        assert_close(found, run(adapters, tmp_path / "b", method=plain, density=1, semantics=semantics))

    @pytest.mark.parametrize("method", EXACT)
    def test_auto_rank_loses_nothing_where_the_method_is_exact(self, tmp_path: Path, method: str) -> None:
        adapters = opened(make_family(tmp_path))
        full = run(adapters, tmp_path / "full", method=method)
        assert_close(run(adapters, tmp_path / "auto", method=method, rank="auto"), full)

    @pytest.mark.parametrize("method", METHODS)
    def test_energy_kept_grows_with_the_rank_and_says_what_is_lost(self, tmp_path: Path, method: str) -> None:
        adapters = opened(make_family(tmp_path))
        full = run(adapters, tmp_path / "full", method=method)
        size = sum(float((tensor**2).sum()) for tensor in full.values())
        energies = []
        for rank in (1, 3, 6, 12):
            report = merge(adapters, MergeRecipe(method=method, rank=rank), tmp_path / "cut")
            found = dense_deltas(tmp_path / "cut")
            for module in SHAPES:
                best = torch.from_numpy(reference.truncated(full[module].numpy(), rank))
                # Equal singular values have many best approximations, all at the same distance.
                missed, least = (torch.linalg.norm(full[module] - other) for other in (found[module], best))
                assert float(missed) == pytest.approx(float(least), rel=1e-5, abs=1e-5)
                assert torch.linalg.matrix_rank(found[module], rtol=1e-5) <= rank
            kept = sum(float((tensor**2).sum()) for tensor in found.values())
            assert report.energy_kept == pytest.approx(kept / size, rel=1e-5)
            energies.append(report.energy_kept)
        assert energies == sorted(energies)
        assert energies[-1] == pytest.approx(1.0)


class TestAgainstDenseReferences:
    @pytest.mark.parametrize("density", [0.2, 0.55, 1.0])
    @pytest.mark.parametrize("method", ["ties", "knots-ties"])
    def test_ties(self, tmp_path: Path, method: str, density: float) -> None:
        folders = make_family(tmp_path)
        expected = {"ties": reference.ties, "knots-ties": reference.knots_ties}[method](matrices(folders), density)
        assert_close(run(opened(folders), tmp_path / "out", method=method, density=density), by_module(expected))

    def test_ties_in_blocks_of_rows(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        adapters = opened(make_family(tmp_path))
        for method in DENSE:
            whole = run(adapters, tmp_path / "a", method=method, density=0.4)
            monkeypatch.setattr(spaces, "BLOCK_ENTRIES", 50)
            assert_close(run(adapters, tmp_path / "b", method=method, density=0.4), whole)
            monkeypatch.undo()

    def test_balanced_votes_take_the_majority_of_the_model(self, tmp_path: Path) -> None:
        one = make_adapter(tmp_path / "de", seed=1)
        two = make_adapter(tmp_path / "ja", seed=1)
        change_config(two, lora_alpha=-3)
        folders = {"de": one, "ja": two}
        expected = reference.ties(matrices(folders), 1.0)
        assert max(float(np.abs(matrix).max()) for matrix in expected) > 0
        assert_close(run(opened(folders), tmp_path / "out", method="ties", density=1), by_module(expected))

    @pytest.mark.parametrize("weights", [{}, {"de": 0.5, "ja": -1.5, "zh": 1.0}])
    def test_tsv(self, tmp_path: Path, weights: dict[str, float]) -> None:
        shapes = {module: shape for module, shape in SHAPES.items() if "k_proj" not in module}
        folders = {
            lang: make_adapter(tmp_path / lang, seed=index, rank=rank, alpha=5, shapes=shapes)
            for index, (lang, rank) in enumerate({"de": 2, "ja": 4, "zh": 3}.items())
        }
        factors = [weights.get(lang, 1.0) for lang in folders]
        expected = {
            module: torch.from_numpy(
                reference.tsv([dense_deltas(path)[module].numpy() for path in folders.values()], [2, 4, 3], factors)
            )
            for module in shapes
        }
        assert_close(run(opened(folders), tmp_path / "out", method="core-tsv", weights=weights), expected)

    def test_iso_c(self, tmp_path: Path) -> None:
        folders = make_family(tmp_path)
        expected = [reference.isotropic(parts, 6) for parts in zip(*matrices(folders), strict=True)]
        assert_close(run(opened(folders), tmp_path / "out", method="core-iso-c"), by_module(expected))


class TestMixedAdapters:
    @pytest.mark.parametrize("method", ["linear", "core-ta", "dare-linear"])
    def test_ranks_rslora_and_patterns_together(self, tmp_path: Path, method: str) -> None:
        k = "model.layers.1.self_attn.k_proj"
        folders = {
            "de": make_adapter(tmp_path / "de", seed=1, rank=2, alpha=3),
            "ja": make_adapter(tmp_path / "ja", seed=2, rank=4, alpha=6, use_rslora=True),
            "zh": make_adapter(
                *(tmp_path / "zh",), seed=3, rank=2, alpha=1, ranks={k: 5}, rank_pattern={"1.self_attn.k_proj": 5}
            ),
        }
        dense = {
            "de": dense_deltas(folders["de"], 1.5),
            "ja": dense_deltas(folders["ja"], 3.0),
            "zh": {**dense_deltas(folders["zh"], 0.5), k: dense_deltas(folders["zh"], 0.2)[k]},
        }
        expected = {module: sum(dense[lang][module] for lang in dense) for module in SHAPES}
        ones = dict.fromkeys(folders, 1.0)
        found = run(opened(folders), tmp_path / "out", method=method, density=1, weights=ones)
        assert_close(found, expected)

    @pytest.mark.parametrize("method", METHODS)
    def test_an_untrained_language_and_a_copy_make_no_noise(self, tmp_path: Path, method: str) -> None:
        folders = {lang: make_adapter(tmp_path / lang, seed=1, alpha=3) for lang in ("de", "ja")}
        folders["zh"] = make_adapter(tmp_path / "zh", seed=2, alpha=0)
        found = run(opened(folders), tmp_path / "out", method=method, density=1)
        one = dense_deltas(folders["de"])
        span = {module: torch.linalg.svd(tensor, full_matrices=False) for module, tensor in one.items()}
        for module, tensor in found.items():
            u, s, vt = span[module]
            keep = int((s > 1e-9 * s[0]).sum())
            inside = u[:, :keep] @ u[:, :keep].T @ tensor @ vt[:keep].T @ vt[:keep]
            assert relative_error(inside, tensor) < 1e-6

    @pytest.mark.parametrize("method", METHODS)
    def test_how_a_delta_is_shared_between_its_factors_does_not_matter(self, tmp_path: Path, method: str) -> None:
        folders = make_family(tmp_path)
        before = run(opened(folders), tmp_path / "before", method=method, density=1)
        path = folders["ja"] / "adapter_model.safetensors"
        factor = {"A": 2.0**-40, "B": 2.0**40}
        tensors = {name: tensor * factor[name.split("lora_")[1][0]] for name, tensor in load_file(path).items()}
        save_file(tensors, path)
        assert_close(run(opened(folders), tmp_path / "after", method=method, density=1), before)

    @pytest.mark.parametrize("method", METHODS)
    def test_adapters_that_change_nothing(self, tmp_path: Path, method: str) -> None:
        adapters = opened(make_family(tmp_path, alpha=0))
        report = merge(adapters, MergeRecipe(method=method), tmp_path / "out")
        assert all(not tensor.any() for tensor in dense_deltas(tmp_path / "out").values())
        assert (report.suggested_scale, report.energy_kept, report.merged_norm) == (None, 1.0, 0.0)


class TestDare:
    def test_another_language_leaves_the_masks_as_they_are(self, tmp_path: Path) -> None:
        folders = make_family(tmp_path, ["de", "ja", "zh"])
        dense = dense_deltas(folders["ja"])
        changed = {**folders, "de": make_adapter(tmp_path / "new", seed=77)}
        alone = {"ja": folders["ja"]}
        masks = []
        for index, family in enumerate((folders, changed, alone)):
            weights = {lang: float(lang == "ja") for lang in family}
            weights.update({lang: 1e-9 for lang in family if lang != "ja"})
            found = run(opened(family), tmp_path / f"out{index}", method="dare-linear", density=0.5, weights=weights)
            masks.append({m: found[m].abs() > 0.5 * dense[m].abs() for m in SHAPES})
        for module in SHAPES:
            assert torch.equal(masks[0][module], masks[1][module])
            assert torch.equal(masks[0][module], masks[2][module])
            assert 0 < masks[0][module].double().mean() < 1

    def test_kept_entries_are_divided_by_the_density(self, tmp_path: Path) -> None:
        folder = make_adapter(tmp_path / "ja")
        found = run([Adapter.open(folder, "ja")], tmp_path / "out", method="dare-linear", density=0.25)
        for module, tensor in dense_deltas(folder).items():
            ratio = found[module] / tensor
            torch.testing.assert_close(torch.minimum(ratio.abs(), (ratio - 4).abs()), 0 * ratio, atol=1e-3, rtol=0)

    def test_mergekit_keeps_the_size(self, tmp_path: Path) -> None:
        folder = make_adapter(tmp_path / "ja")
        recipe = {"method": "dare-linear", "density": 0.5, "semantics": "mergekit", "weights": {"ja": 1.0}}
        found = run([Adapter.open(folder, "ja")], tmp_path / "out", **recipe)
        for module, tensor in dense_deltas(folder).items():
            assert float(found[module].abs().sum()) == pytest.approx(float(tensor.abs().sum()), rel=1e-5)

    def test_seeds_differ(self, tmp_path: Path) -> None:
        adapters = opened(make_family(tmp_path))
        one, two = (run(adapters, tmp_path / f"{s}", method="dare-ties", density=0.5, seed=s) for s in (1, 2))
        assert any(relative_error(one[module], two[module]) > 0.1 for module in one)
