"""Every method against the dense references beside this file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.support.adapters import SHAPES, dense_deltas, make_adapter, make_family, write_config
from tests.support.merging import (
    LANGUAGES,
    assert_close,
    expected_of,
    factors_of,
    keys_of,
    opened,
    run,
    stable,
    weights_of,
    write_grams,
)
from tests.unit.merging import reference

from adapterctl.errors import AdapterError, MergeError
from adapterctl.merging import tiles
from adapterctl.merging.engine import merge
from adapterctl.merging.methods import METHODS
from adapterctl.merging.recipe import MergeRecipe

CERTAIN = [name for name, row in METHODS.items() if not row.draws]
ENTRYWISE = [name for name in CERTAIN if METHODS[name].judges_entries]
WEIGHTS: dict[str, dict[str, float]] = {
    "default": {},
    "given": {"de": 0.5, "ja": 1.5, "zh": 0.8},
    "negative": {"de": 0.5, "ja": -1.2, "zh": 1.0},
    "zero": {"de": 0.7, "ja": 1.1, "zh": 0.0},
}


@pytest.fixture(scope="module")
def grams(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return write_grams(tmp_path_factory.mktemp("grams"))


def mixed(folder: Path, seed: int) -> dict[str, Path]:
    """Three languages of rank 2, 4 and 3, one of them with rsLoRA and one with a pattern."""
    k = "model.layers.1.self_attn.k_proj"
    return {
        "de": make_adapter(folder / f"{seed}" / "de", seed=seed * 10 + 1, rank=2, alpha=3),
        "ja": make_adapter(folder / f"{seed}" / "ja", seed=seed * 10 + 2, rank=4, alpha=6, use_rslora=True),
        "zh": make_adapter(
            folder / f"{seed}" / "zh",
            seed=seed * 10 + 3,
            rank=3,
            alpha=7,
            ranks={k: 1},
            rank_pattern={"1.self_attn.k_proj": 1},
            alpha_pattern={"down_proj": 2},
        ),
    }


def combinations() -> list[Any]:
    found = []
    for method in CERTAIN:
        for name in WEIGHTS:
            dialects = ("paper", "mergekit", "peft") if method in ENTRYWISE else ("paper",)
            for semantics in dialects:
                # Weights of SCE, RegMean and the like are shares of something that must not vanish.
                if name == "negative" and method in ("sce", "regmean", "svc"):
                    continue
                densities = (0.23, 0.6) if METHODS[method].drop != "none" else (1.0,)
                found += [pytest.param(method, semantics, name, density) for density in densities]
    return found


@pytest.mark.parametrize(("method", "semantics", "weights", "density"), combinations())
def test_the_result_is_the_references(
    tmp_path: Path, grams: dict[str, str], method: str, semantics: str, weights: str, density: float
) -> None:
    keys = keys_of(method, density, grams, semantics=semantics, weights=WEIGHTS[weights])
    folders = stable(lambda seed: mixed(tmp_path, seed), keys)
    found = run(opened(folders), tmp_path / "out", **keys)
    assert_close(found, expected_of(factors_of(folders), keys))


@pytest.mark.parametrize("method", ["ties", "knots-ties", "core-ties", "magnitude-prune", "ties-slack", "sce"])
@pytest.mark.parametrize("density", [1.0, 0.01])
def test_the_ends_of_density(tmp_path: Path, method: str, density: float) -> None:
    for semantics in ("paper", "mergekit", "peft"):
        keys = keys_of(method, density, semantics=semantics)
        folders = stable(lambda seed: mixed(tmp_path, seed), keys)
        assert_close(run(opened(folders), tmp_path / "out", **keys), expected_of(factors_of(folders), keys))


def whole_numbers(folder: Path, seed: int, shapes: Mapping[str, tuple[int, int]] = SHAPES) -> dict[str, Path]:
    """Adapters of rank one in small whole numbers: ΔW is exact, full of equal magnitudes and balanced votes."""
    numbers = np.random.default_rng(seed)
    folders = {}
    for lang in LANGUAGES:
        tensors = {}
        for module, (out, width) in shapes.items():
            for name, shape in (("A", (1, width)), ("B", (out, 1))):
                values = torch.from_numpy(numbers.integers(-2, 3, size=shape)).float()
                tensors[f"base_model.model.{module}.lora_{name}.weight"] = values
        folders[lang] = folder / f"{seed}" / lang
        folders[lang].mkdir(parents=True)
        save_file(tensors, folders[lang] / "adapter_model.safetensors", metadata={"format": "pt"})
        kinds = sorted({module.rsplit(".", 1)[-1] for module in shapes})
        config = {"peft_type": "LORA", "r": 1, "lora_alpha": 2, "target_modules": kinds, "bias": "none"}
        write_config(folders[lang], {**config, "base_model_name_or_path": "tiny-base"})
    return folders


@pytest.mark.parametrize("semantics", ["paper", "mergekit", "peft"])
@pytest.mark.parametrize("method", ["ties", "ties-slack", "magnitude-prune"])
def test_equal_magnitudes_and_balanced_votes(tmp_path: Path, method: str, semantics: str) -> None:
    for seed, density in enumerate((0.05, 0.2, 0.3, 0.5, 0.77, 1.0)):
        folders = whole_numbers(tmp_path, seed)
        # Powers of two, so that nothing is rounded and a balanced vote is balanced to the last bit.
        for weights in ({}, {"de": 0.5, "ja": 1.0, "zh": 2.0}, {"de": -1.0, "ja": 0.5, "zh": 0.0}):
            keys = keys_of(method, density, semantics=semantics, weights=weights)
            found = run(opened(folders), tmp_path / "out", **keys)
            assert_close(found, expected_of(factors_of(folders), keys))


LARGE = {"model.layers.0.mlp.up_proj": (300, 260), "model.layers.0.mlp.down_proj": (90, 150)}
"""Large enough for several tiles, and for thresholds that start from a sample."""


@pytest.mark.parametrize(
    ("method", "semantics"),
    [
        *[(method, semantics) for method in ("ties", "magnitude-prune") for semantics in ("paper", "mergekit", "peft")],
        *[("ties-slack", "paper"), ("breadcrumbs", "paper"), ("sce", "mergekit"), ("knots-ties", "paper")],
    ],
)
def test_large_modules(tmp_path: Path, method: str, semantics: str) -> None:
    folders = make_family(tmp_path, rank=3, shapes=LARGE)
    keys = keys_of(method, 0.3, semantics=semantics, weights={"de": 0.5, "ja": 1.5, "zh": 0.8})
    # In float64, for among so many entries some lie within rounding of a threshold.
    assert_close(
        run(opened(folders), tmp_path / "out", **keys, precision="float64"), expected_of(factors_of(folders), keys)
    )


@pytest.mark.parametrize("method", [name for name, row in METHODS.items() if row.judges_entries])
def test_the_size_of_tiles_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    folders = make_family(tmp_path)
    for semantics in ("paper", "mergekit"):
        keys = keys_of(method, 0.4, semantics=semantics)
        whole = run(opened(folders), tmp_path / "a", **keys)
        monkeypatch.setattr(tiles, "TILE_ENTRIES", 50)
        assert_close(run(opened(folders), tmp_path / "b", **keys), whole, 1e-6)
        monkeypatch.undo()


def test_many_equal_magnitudes_in_large_modules(tmp_path: Path) -> None:
    shapes = {"model.layers.0.mlp.up_proj": (150, 140), "model.layers.1.mlp.up_proj": (120, 100)}
    folders = whole_numbers(tmp_path, 0, shapes)
    for semantics in ("paper", "mergekit", "peft"):
        for density in (0.1, 0.3, 0.6):
            keys = keys_of("ties", density, semantics=semantics)
            assert_close(run(opened(folders), tmp_path / "out", **keys), expected_of(factors_of(folders), keys))


def test_balanced_votes_are_there_and_decided_by_the_majority(tmp_path: Path) -> None:
    folders = {lang: make_adapter(tmp_path / lang, seed=1, alpha=3 if lang == "de" else -3) for lang in ("de", "ja")}
    for semantics in ("paper", "mergekit", "peft"):
        keys = {"method": "ties", "density": 1.0, "semantics": semantics}
        expected = expected_of(factors_of(folders), keys)
        assert all(float(matrix.abs().max()) > 0 for matrix in expected.values())
        assert_close(run(opened(folders), tmp_path / "out", **keys), expected)


class TestSchedule:
    """Factors by layer and by kind of module."""

    @pytest.mark.parametrize("method", CERTAIN)
    def test_a_factor_of_zero_leaves_nothing_there_and_the_rest_as_it_is(
        self, tmp_path: Path, grams: dict[str, str], method: str
    ) -> None:
        folders = make_family(tmp_path)
        keys = keys_of(method, 0.5, grams)
        plain = run(opened(folders), tmp_path / "a", **keys)
        found = run(opened(folders), tmp_path / "b", **keys, layers={"1": 0.0}, modules={"self_attn": -0.5})
        expected = {
            module: tensor * (0.0 if "layers.1" in module else 1.0) * (-0.5 if "self_attn" in module else 1.0)
            for module, tensor in plain.items()
        }
        assert_close(found, expected, 2e-6)
        assert all(not found[module].any() for module in SHAPES if "layers.1" in module)

    @pytest.mark.parametrize("method", CERTAIN)
    @pytest.mark.parametrize("factor", [0.0, 0.4])
    def test_a_factor_of_a_language_is_another_weight_there(
        self, tmp_path: Path, grams: dict[str, str], method: str, factor: float
    ) -> None:
        keys = keys_of(method, 0.5, grams, weights={"de": 0.9, "ja": 1.2, "zh": 0.6})
        folders = stable(lambda seed: mixed(tmp_path, seed), keys)
        factors = factors_of(folders)
        weights = {
            module: {
                lang: weight
                * (factor if lang == "ja" and "layers.0" in module else 1.0)
                * (2.0 if lang == "zh" and "mlp" in module else 1.0)
                for lang, weight in known.items()
            }
            for module, known in weights_of(factors, keys).items()
        }
        schedule = {"layers": {"0": {"ja": factor}}, "modules": {"mlp": {"zh": 2.0}}}
        found = run(opened(folders), tmp_path / "out", **keys, **schedule)
        assert_close(found, expected_of(factors, keys, weights))

    def test_a_module_in_which_nobody_takes_part_is_zero(self, tmp_path: Path, grams: dict[str, str]) -> None:
        folders = make_family(tmp_path)
        nobody = {"layers": {"0": dict.fromkeys(LANGUAGES, 0.0)}}
        for method in METHODS:
            keys = keys_of(method, 0.5, grams)
            found = run(opened(folders), tmp_path / "out", **keys, **nobody)
            assert all(torch.isfinite(tensor).all() for tensor in found.values()), method
            assert all(bool(tensor.any()) == ("layers.1" in module) for module, tensor in found.items()), method


class TestMissingModules:
    LACKED_BY_JA = ("model.layers.1.mlp.down_proj", "model.layers.0.self_attn.k_proj")
    LACKED_BY_ZH = ("model.layers.0.self_attn.k_proj",)

    def make(self, folder: Path, *, zeros: bool) -> dict[str, Path]:
        """A family in which two languages lack modules, or have nothing but zeros there."""
        folders = make_family(folder)
        for lang, lacking in (("ja", self.LACKED_BY_JA), ("zh", self.LACKED_BY_ZH)):
            path = folders[lang] / "adapter_model.safetensors"
            tensors = load_file(path)
            for module in lacking:
                for factor in "AB":
                    tensor = tensors.pop(f"base_model.model.{module}.lora_{factor}.weight")
                    if zeros:
                        tensors[f"base_model.model.{module}.lora_{factor}.weight"] = torch.zeros_like(tensor)
            save_file(tensors, path, metadata={"format": "pt"})
        return folders

    @pytest.mark.parametrize("method", METHODS)
    def test_refused_unless_said_otherwise(self, tmp_path: Path, grams: dict[str, str], method: str) -> None:
        folders = self.make(tmp_path / "in", zeros=False)
        with pytest.raises(AdapterError, match=r"down_proj"):
            merge(opened(folders), MergeRecipe.model_validate(keys_of(method, 0.5, grams)), tmp_path / "out")
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize("semantics", ["paper", "mergekit"])
    def test_zero_is_as_if_zeros_were_there(
        self, tmp_path: Path, grams: dict[str, str], method: str, semantics: str
    ) -> None:
        keys = keys_of(method, 0.5, grams, semantics=semantics)
        lacking, zeros = (self.make(tmp_path / str(x), zeros=x) for x in (False, True))
        found = run(opened(lacking), tmp_path / "a", **keys, missing="zero")
        assert_close(found, run(opened(zeros), tmp_path / "b", **keys), 1e-6)

    @pytest.mark.parametrize("method", CERTAIN)
    @pytest.mark.parametrize("weights", [{}, {"de": 0.6, "ja": 1.4, "zh": 0.9}], ids=["default", "given"])
    def test_present_merges_those_that_have_it(
        self, tmp_path: Path, grams: dict[str, str], method: str, weights: dict[str, float]
    ) -> None:
        keys = keys_of(method, 0.5, grams, weights=weights)
        folders = self.make(tmp_path / "in", zeros=False)
        factors = factors_of(folders)
        if METHODS[method].shares:
            known = {m: {lang: weights.get(lang, 1 / len(parts)) for lang in parts} for m, parts in factors.items()}
        else:
            known = {m: {lang: weights.get(lang, 1.0) for lang in parts} for m, parts in factors.items()}
        found = run(opened(folders), tmp_path / "out", **keys, missing="present")
        assert_close(found, expected_of(factors, keys, known))


class TestFactorsApart:
    """PEFT's merge of A and B apart, which is not the merge of ΔW."""

    @pytest.mark.parametrize("method", ["linear", "ties", "magnitude-prune"])
    @pytest.mark.parametrize("weights", WEIGHTS)
    def test_the_result_is_the_references(self, tmp_path: Path, method: str, weights: str) -> None:
        folders = make_family(tmp_path, rank=3)
        keys = keys_of(method, 0.4, weights=WEIGHTS[weights])
        factors = factors_of(folders)
        scales = {module: {lang: (3 + index) / 3 for index, lang in enumerate(LANGUAGES)} for module in SHAPES}
        bare = {
            module: {lang: (b / scales[module][lang], a) for lang, (b, a) in parts.items()}
            for module, parts in factors.items()
        }
        known = {
            module: {lang: WEIGHTS[weights].get(lang, 1.0 if method == "ties" else 1 / 3) for lang in LANGUAGES}
            for module in SHAPES
        }
        expected = reference.factorwise(bare, known, scales, method, keys.get("density", 1.0))
        found = run(opened(folders), tmp_path / "out", **keys, semantics="peft", space="factors", **{"lambda": 1.5})
        assert_close(found, {module: 1.5 * torch.from_numpy(matrix) for module, matrix in expected.items()})

    @pytest.mark.parametrize("method", ["linear", "ties", "magnitude-prune", "dare-linear", "dare-ties"])
    def test_one_adapter_of_weight_one_is_itself(self, tmp_path: Path, method: str) -> None:
        folder = make_adapter(tmp_path / "ja", rank=4, alpha=6, use_rslora=True)
        keys = keys_of(method, 1.0, weights={"ja": 1.0}, semantics="peft", space="factors")
        assert_close(run(opened({"ja": folder}), tmp_path / "out", **keys), dense_deltas(folder, 3.0), 2e-6)

    def test_different_ranks_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(MergeError, match="shape"):
            run(opened(mixed(tmp_path, 0)), tmp_path / "out", method="linear", semantics="peft", space="factors")
