"""DARE and DELLA: masks that depend on nothing but seed, language, module and element, and the right chances."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.support.adapters import SHAPES, dense_deltas, make_adapter, make_family, relative_error
from tests.support.merging import LANGUAGES, assert_close, expected_of, factors_of, opened, run
from tests.unit.merging import reference

LARGE = {"model.layers.0.mlp.up_proj": (60, 50), "model.layers.1.mlp.up_proj": (50, 60)}


def masks_of(folders: dict[str, Path], out: Path, method: str = "dare-linear", **keys: Any) -> reference.Model:
    """Read off the masks by merging each language alone."""
    masks: reference.Model = {}
    for lang, folder in folders.items():
        alone = {"method": method, "weights": {lang: 1.0}, "semantics": "paper", **keys}
        for module, tensor in run(opened({lang: folder}), out, **alone).items():
            size = dense_deltas(folder)[module].abs()
            masks.setdefault(module, {})[lang] = (tensor.abs() > 0.5 * size).numpy()
    return masks


def same(one: reference.Model, other: reference.Model, lang: str) -> bool:
    return all(np.array_equal(one[module][lang], other[module][lang]) for module in one)


class TestMasks:
    def test_another_language_changes_no_mask(self, tmp_path: Path) -> None:
        folders = make_family(tmp_path)
        alone = masks_of(folders, tmp_path / "alone", density=0.5)
        dense = dense_deltas(folders["ja"])
        families = {
            "all": folders,
            "changed": {**folders, "de": make_adapter(tmp_path / "new", seed=77)},
            "added": {**folders, "ko": make_adapter(tmp_path / "ko", seed=78)},
            "removed": {lang: folders[lang] for lang in ("ja", "zh")},
            "first": {"ja": folders["ja"], "zu": make_adapter(tmp_path / "zu", seed=79)},
        }
        for name, family in families.items():
            # The others are there, but too small to be seen beside this one.
            weights = {lang: 1.0 if lang == "ja" else 1e-7 for lang in family}
            found = run(opened(family), tmp_path / "out", method="dare-linear", density=0.5, weights=weights)
            for module in SHAPES:
                mask = (found[module].abs() > dense[module].abs()).numpy()
                assert np.array_equal(mask, alone[module]["ja"]), (name, module)

    def test_languages_modules_and_seeds_have_masks_of_their_own(self, tmp_path: Path) -> None:
        folders = {lang: make_adapter(tmp_path / lang, seed=1) for lang in LANGUAGES}
        one, two = (masks_of(folders, tmp_path / "out", density=0.5, seed=seed) for seed in (1, 2))
        q = [module for module in SHAPES if "q_proj" in module]
        several = [masks[module][lang].tobytes() for masks in (one, two) for module in q for lang in LANGUAGES]
        assert len(set(several)) == len(several) == 12
        again = masks_of(folders, tmp_path / "out", density=0.5, seed=1)
        assert all(same(one, again, lang) for lang in LANGUAGES)

    def test_the_other_modules_do_not_matter(self, tmp_path: Path) -> None:
        whole = {"ja": make_adapter(tmp_path / "whole")}
        few = {module: shape for module, shape in SHAPES.items() if "layers.1" in module}
        part = {"ja": make_adapter(tmp_path / "part", shapes=few)}
        masks = masks_of(whole, tmp_path / "out", density=0.5)
        assert same(masks_of(part, tmp_path / "out", density=0.5), masks, "ja")

    @pytest.mark.parametrize("density", [0.1, 0.5, 0.9])
    def test_the_kept_share_is_binomial(self, tmp_path: Path, density: float) -> None:
        folders = {lang: make_adapter(tmp_path / lang, seed=i, shapes=LARGE) for i, lang in enumerate(LANGUAGES)}
        kept = []
        for seed in range(4):
            masks = masks_of(folders, tmp_path / "out", density=density, seed=seed)
            kept += [mask for parts in masks.values() for mask in parts.values()]
        counts = np.array([mask.sum() for mask in kept])
        size = 3000
        deviations = (counts - size * density) / math.sqrt(size * density * (1 - density))
        assert abs(deviations).max() < 4.5
        # The mean of 24 squares of standard normal numbers, with a deviation of √(2/24).
        assert (deviations**2).mean() == pytest.approx(1, abs=4 * math.sqrt(2 / len(kept)))
        # Neighbours, rows and languages are independent of one another.
        for one, other in ((kept[0][:, 1:], kept[0][:, :-1]), (kept[0][1:], kept[0][:-1]), (kept[0], kept[2])):
            both, chance = float((one & other).mean()), density**2
            assert both == pytest.approx(chance, abs=5 * math.sqrt(chance * (1 - chance) / one.size))


class TestDare:
    @pytest.mark.parametrize("semantics", ["paper", "mergekit", "peft"])
    @pytest.mark.parametrize("method", ["dare-linear", "dare-ties"])
    def test_the_result_is_the_references_with_these_masks(self, tmp_path: Path, method: str, semantics: str) -> None:
        folders = make_family(tmp_path)
        masks = masks_of(folders, tmp_path / "alone", density=0.4, seed=3)
        for weights in ({"de": 1.0, "ja": 0.7, "zh": 1.2}, {"de": -0.5, "ja": 1.0, "zh": 0.0}):
            keys = {"method": method, "density": 0.4, "seed": 3, "semantics": semantics, "weights": weights}
            expected = expected_of(factors_of(folders), keys, masks=masks)
            assert_close(run(opened(folders), tmp_path / "out", **keys), expected)

    def test_mergekit_keeps_the_size(self, tmp_path: Path) -> None:
        folder = make_adapter(tmp_path / "ja")
        keys = {"method": "dare-linear", "density": 0.5, "semantics": "mergekit", "weights": {"ja": 1.0}}
        found = run(opened({"ja": folder}), tmp_path / "out", **keys)
        for module, tensor in dense_deltas(folder).items():
            assert float(found[module].abs().sum()) == pytest.approx(float(tensor.abs().sum()), rel=1e-5)

    def test_the_mean_over_seeds_is_linear(self, tmp_path: Path) -> None:
        folders = make_family(tmp_path)
        weights, density, seeds = {"de": 1.0, "ja": -0.5, "zh": 0.8}, 0.6, 60
        dense = {lang: dense_deltas(folder) for lang, folder in folders.items()}
        linear = {m: sum(weights[lang] * dense[lang][m] for lang in dense) for m in SHAPES}
        # Var of one entry: (1-p)/p · Σ w² x², so that is what ‖merged - linear‖² is on average.
        variance = {m: (1 - density) / density * sum((weights[i] * dense[i][m]) ** 2 for i in dense) for m in SHAPES}
        total = {module: torch.zeros(shape, dtype=torch.float64) for module, shape in SHAPES.items()}
        squares = 0.0
        for seed in range(seeds):
            keys = {"method": "dare-linear", "density": density, "weights": weights, "seed": seed}
            found = run(opened(folders), tmp_path / "out", **keys)
            squares += sum(float(((found[m] - linear[m]) ** 2).sum()) for m in SHAPES) / seeds
            for module in SHAPES:
                total[module] += found[module] / seeds
        expected = sum(float(tensor.sum()) for tensor in variance.values())
        assert squares == pytest.approx(expected, rel=0.05)
        apart = sum(float(((total[m] - linear[m]) ** 2).sum()) for m in SHAPES)
        assert apart == pytest.approx(expected / seeds, rel=0.3)

    @pytest.mark.parametrize("space", ["knots", "core"])
    def test_in_a_joint_basis_every_entry_is_what_some_masks_make_of_it(self, tmp_path: Path, space: str) -> None:
        folders = make_family(tmp_path)
        keys = {"method": f"{space}-dare-ties", "density": 0.5, "seed": 1}
        found = run(opened(folders), tmp_path / "out", **keys)
        factors = factors_of(folders)
        rules, drawn, kept = reference.RULES["paper"], 0, []
        for module, parts in factors.items():
            if space == "knots":
                left, coordinates = reference.knots(reference.dense(factors)[module])
                entries = left.T @ found[module].numpy()
            else:
                left, coordinates, right = reference.core(parts)
                entries = left.T @ found[module].numpy() @ right.T
            candidates = []
            for subset in itertools.product([0.0, 1.0], repeat=3):
                masked = {lang: 2 * x * bit for (lang, x), bit in zip(coordinates.items(), subset, strict=True)}
                merged, _ = reference.elect({module: masked}, {module: dict.fromkeys(LANGUAGES, 1.0)}, rules, "count")
                candidates.append(merged[module])
            distance = np.abs(np.stack(candidates) - entries).min(axis=0)
            assert distance.max() < 1e-4 * np.abs(entries).max()
            drawn += entries.size
            kept.append((np.abs(entries) > 1e-5 * np.abs(entries).max()).sum())
        # An entry is zero where all three masks are.
        share = sum(kept) / drawn
        assert share == pytest.approx(1 - 0.5**3, abs=5 * math.sqrt(0.875 * 0.125 / drawn))

    def test_on_factors_apart_both_are_masked(self, tmp_path: Path) -> None:
        folders = {lang: make_adapter(tmp_path / lang, rank=1, seed=1, shapes=LARGE) for lang in ("ja", "zh")}
        keys: dict[str, Any] = {"method": "dare-linear", "density": 0.5, "semantics": "peft", "space": "factors"}
        rows, columns = [], []
        for lang, folder in folders.items():
            found = run(opened({lang: folder}), tmp_path / "out", **keys, weights={lang: 1.0})
            for module, tensor in dense_deltas(folder).items():
                ratio = found[module] / tensor
                kept = ratio > 2
                torch.testing.assert_close(ratio[kept], torch.full_like(ratio[kept], 4.0), atol=1e-4, rtol=0)
                assert float(ratio[~kept].abs().max()) < 1e-4
                rows.append(kept.any(dim=1))
                columns.append(kept.any(dim=0))
                assert torch.equal(kept, rows[-1][:, None] & columns[-1])
        assert not torch.equal(rows[0], rows[2])
        share = float(torch.cat(rows + columns).double().mean())
        assert share == pytest.approx(0.5, abs=5 * 0.5 / math.sqrt(440))


class TestDella:
    @pytest.mark.parametrize("density", [0.3, 0.6])
    def test_what_is_kept_is_divided_by_its_chance(self, tmp_path: Path, density: float) -> None:
        folder = make_adapter(tmp_path / "ja")
        keys = {"method": "della", "density": density, "epsilon": 0.2, "weights": {"ja": 1.0}}
        found = run(opened({"ja": folder}), tmp_path / "out", **keys)
        for module, tensor in dense_deltas(folder).items():
            chance = reference.keep_probabilities(tensor.numpy(), density, 0.2)
            ratio = (found[module] / tensor).numpy() * chance
            assert np.minimum(np.abs(ratio), np.abs(ratio - 1)).max() < 1e-3
            assert 0 < ratio.mean() < 1

    def test_every_rank_is_kept_as_often_as_it_should(self, tmp_path: Path) -> None:
        folder = {"ja": make_adapter(tmp_path / "ja", shapes=LARGE)}
        dense = dense_deltas(folder["ja"])
        kept = {50: np.zeros(50), 60: np.zeros(60)}
        rows = {50: 0, 60: 0}
        for seed in range(10):
            masks = masks_of(folder, tmp_path / "out", "della", density=0.5, epsilon=0.3, seed=seed)
            for module, parts in masks.items():
                order = np.argsort(np.abs(dense[module].numpy()), axis=1)
                kept[order.shape[1]] += np.take_along_axis(parts["ja"], order, axis=1).sum(axis=0)
                rows[order.shape[1]] += order.shape[0]
        for width, count in kept.items():
            chance = 0.2 + 0.6 * np.arange(width) / (width - 1)
            deviations = (count - rows[width] * chance) / np.sqrt(rows[width] * chance * (1 - chance))
            assert np.abs(deviations).max() < 4.5
            assert (deviations**2).mean() == pytest.approx(1, abs=4 * math.sqrt(2 / width))

    @pytest.mark.parametrize("semantics", ["paper", "mergekit", "peft"])
    def test_the_result_is_the_references_with_these_masks(self, tmp_path: Path, semantics: str) -> None:
        folders = make_family(tmp_path)
        options = {"density": 0.5, "epsilon": 0.25, "seed": 3}
        masks = masks_of(folders, tmp_path / "alone", "della", **options)
        factors = factors_of(folders)
        keep = {
            module: {lang: reference.keep_probabilities(x, 0.5, 0.25) for lang, x in parts.items()}
            for module, parts in reference.dense(factors).items()
        }
        for weights in ({"de": 1.0, "ja": 0.7, "zh": 1.2}, {"de": -0.5, "ja": 1.0, "zh": 0.0}):
            keys = {"method": "della", "semantics": semantics, "weights": weights, **options}
            expected = expected_of(factors, keys, masks=masks, keep=keep)
            assert_close(run(opened(folders), tmp_path / "out", **keys), expected)

    def test_without_epsilon_it_is_dare_ties_on_average(self, tmp_path: Path) -> None:
        folders = make_family(tmp_path, shapes=LARGE)
        seeds = 24

        def moments(first: int, **keys: Any) -> tuple[torch.Tensor, torch.Tensor]:
            drawn = [
                run(opened(folders), tmp_path / "out", density=0.5, seed=seed, **keys)
                for seed in range(first, first + seeds)
            ]
            stack = torch.stack([torch.cat([tensor.flatten() for tensor in found.values()]) for found in drawn])
            return stack.mean(0), stack.var(0)

        mean, variance = moments(0, method="della", epsilon=0.0)
        other, others = moments(1000, method="dare-ties")
        # Differences of two means of `seeds` draws for each of 6000 entries: nearly t with 2 (seeds - 1) degrees of
        # freedom, whose square is ν/(ν - 2) on average.
        z = ((mean - other) / torch.sqrt((variance + others) / seeds)).numpy()
        freedom = 2 * (seeds - 1)
        assert abs(z.mean()) < 5 / math.sqrt(z.size)
        assert (z**2).mean() == pytest.approx(freedom / (freedom - 2), abs=0.12)
        assert float(variance.mean()) == pytest.approx(float(others.mean()), rel=0.05)


class TestSeeds:
    @pytest.mark.parametrize("method", ["dare-linear", "dare-ties", "della", "knots-dare-ties", "core-dare-ties"])
    def test_another_seed_another_result(self, tmp_path: Path, method: str) -> None:
        folders = make_family(tmp_path)
        one, two = (
            run(opened(folders), tmp_path / f"{seed}", method=method, density=0.5, seed=seed) for seed in (1, 2)
        )
        assert all(relative_error(one[module], two[module]) > 0.05 for module in one)
