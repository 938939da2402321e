"""Laws that every way of merging keeps, whatever its numbers are."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tests.support.adapters import SHAPES, change_config, dense_deltas, make_adapter, make_family, scale_and_rank
from tests.support.merging import (
    LANGUAGES,
    assert_close,
    factors_of,
    keys_of,
    opened,
    run,
    tensor_bytes,
    write_grams,
)
from tests.unit.merging import reference

from adapterctl.merging.engine import merge
from adapterctl.merging.methods import METHODS
from adapterctl.merging.recipe import MergeRecipe

LAWS = settings(
    max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
EXACT = [name for name, row in METHODS.items() if row.exact]
BY_FACTORS = ("core-ties", "core-dare-ties", "pico")
"""Methods that see how a ΔW is shared between B and A."""


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_family(tmp_path_factory.mktemp("family"))


@pytest.fixture(scope="module")
def grams(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return write_grams(tmp_path_factory.mktemp("grams"))


def of(languages: Any, grams: dict[str, str]) -> dict[str, str]:
    return {lang: grams[lang] for lang in languages}


K1 = "model.layers.1.self_attn.k_proj"
ADAPTERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rslora": {"use_rslora": True},
    "bf16": {"dtype": torch.bfloat16},
    "fp16": {"dtype": torch.float16},
    "fp64": {"dtype": torch.float64},
    "patterns": {
        "ranks": {K1: 5},
        "rank_pattern": {"1.self_attn.k_proj": 5},
        "alpha_pattern": {"q_proj": 11, "layers.0.mlp.down_proj": 1.5},
    },
    "rslora, patterns": {
        "ranks": {K1: 5},
        "rank_pattern": {"1.self_attn.k_proj": 5},
        "alpha_pattern": {"k_proj": 2.5},
        "use_rslora": True,
        "dtype": torch.bfloat16,
    },
}


@pytest.mark.parametrize("semantics", ["paper", "mergekit", "peft"])
@pytest.mark.parametrize("method", METHODS)
def test_one_adapter_of_weight_one_is_itself(
    tmp_path: Path, grams: dict[str, str], method: str, semantics: str
) -> None:
    for name in ADAPTERS if semantics == "paper" else ("plain", "rslora, patterns"):
        folders = {"ja": make_adapter(tmp_path / name, rank=4, alpha=6, **ADAPTERS[name])}
        keys = keys_of(method, 1.0, of(folders, grams), semantics=semantics, weights={"ja": 1.0})
        expected = {m: torch.from_numpy(parts["ja"]) for m, parts in reference.dense(factors_of(folders)).items()}
        assert_close(run(opened(folders), tmp_path / "out", **keys), expected, 2e-6)


@pytest.mark.parametrize("semantics", ["paper", "mergekit"])
@pytest.mark.parametrize("method", METHODS)
def test_weights_one_and_zeros_give_the_one(
    tmp_path: Path, family: dict[str, Path], grams: dict[str, str], method: str, semantics: str
) -> None:
    weights = {"de": 0.0, "ja": 1.0, "zh": 0.0}
    found = run(opened(family), tmp_path / "out", **keys_of(method, 1.0, grams, weights=weights, semantics=semantics))
    assert_close(found, dense_deltas(family["ja"]), 2e-6)


@pytest.mark.parametrize("method", ["linear", "magnitude-prune", "dare-linear", "knots-linear", "core-ta"])
def test_weights_one_and_zeros_give_the_one_also_where_zeros_take_part(
    tmp_path: Path, family: dict[str, Path], method: str
) -> None:
    weights = {"de": 0.0, "ja": 1.0, "zh": 0.0}
    found = run(opened(family), tmp_path / "out", **keys_of(method, 1.0, weights=weights, semantics="peft"))
    assert_close(found, dense_deltas(family["ja"]), 2e-6)


@LAWS
@given(method=st.sampled_from(sorted(METHODS)), scale=st.floats(-4, 4).map(lambda x: round(x, 3)))
def test_lambda_is_linear(
    tmp_path_factory: pytest.TempPathFactory,
    family: dict[str, Path],
    grams: dict[str, str],
    method: str,
    scale: float,
) -> None:
    folder = tmp_path_factory.mktemp("lambda")
    keys = keys_of(method, 0.5, grams)
    one = run(opened(family), folder / "one", **keys)
    scaled = {module: scale * tensor for module, tensor in one.items()}
    assert_close(run(opened(family), folder / "two", scale=scale, **keys), scaled)
    assert_close(run(opened(family), folder / "three", **{**keys, "lambda": scale}), scaled)


@pytest.mark.parametrize("method", METHODS)
def test_base_share_takes_its_share(
    tmp_path: Path, family: dict[str, Path], grams: dict[str, str], method: str
) -> None:
    keys = keys_of(method, 0.5, grams)
    plain = run(opened(family), tmp_path / "a", **keys)
    shared = run(opened(family), tmp_path / "b", **keys, base_share=0.25, **{"lambda": 1.6})
    assert_close(shared, {module: 1.2 * tensor for module, tensor in plain.items()})


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("semantics", ["paper", "mergekit"])
def test_order_and_threads_change_no_byte(
    tmp_path: Path, family: dict[str, Path], grams: dict[str, str], method: str, semantics: str
) -> None:
    recipe = MergeRecipe.model_validate(keys_of(method, 0.5, grams, semantics=semantics, rank="full"))
    written = []
    for threads, order in ((1, "de ja zh"), (2, "zh de ja"), (3, "ja zh de")):
        adapters = opened({lang: family[lang] for lang in order.split()})
        merge(adapters, recipe, tmp_path / "out", threads=threads)
        written.append(
            [(tmp_path / "out" / name).read_bytes() for name in ("adapter_model.safetensors", "adapter_config.json")]
        )
    assert written[0] == written[1] == written[2]


@LAWS
@given(weights=st.fixed_dictionaries(dict.fromkeys(LANGUAGES, st.floats(-2, 2).filter(lambda w: abs(w) > 0.01))))
def test_linear_in_every_basis_is_the_weighted_sum(
    tmp_path_factory: pytest.TempPathFactory, family: dict[str, Path], weights: dict[str, float]
) -> None:
    folder = tmp_path_factory.mktemp("linear")
    dense = {lang: dense_deltas(path) for lang, path in family.items()}
    expected = {module: sum(weights[lang] * dense[lang][module] for lang in dense) for module in SHAPES}
    for method in ("linear", "knots-linear", "core-ta"):
        assert_close(run(opened(family), folder / method, method=method, weights=weights), expected)


BASES = {
    "dare-linear": "linear",
    "magnitude-prune": "linear",
    "breadcrumbs": "linear",
    "della": "ties",
    "dare-ties": "ties",
    "knots-dare-ties": "knots-ties",
    "core-dare-ties": "core-ties",
}


@pytest.mark.parametrize(
    ("method", "semantics"),
    [
        (method, semantics)
        for method in BASES
        for semantics in ("paper", "mergekit", "peft")
        # Of the two only ties divides by the weights in mergekit.
        if not (semantics == "mergekit" and method.endswith("dare-ties"))
    ],
)
def test_density_one_makes_it_its_base_method(
    tmp_path: Path, family: dict[str, Path], method: str, semantics: str
) -> None:
    found = run(opened(family), tmp_path / "a", **keys_of(method, 1.0, semantics=semantics))
    expected = run(opened(family), tmp_path / "b", **keys_of(BASES[method], 1.0, semantics=semantics))
    assert_close(found, expected, 1e-6)


class TestRank:
    @pytest.mark.parametrize("method", EXACT)
    def test_auto_loses_nothing_where_the_method_is_exact(
        self, tmp_path: Path, family: dict[str, Path], grams: dict[str, str], method: str
    ) -> None:
        keys = keys_of(method, 0.5, grams)
        full = run(opened(family), tmp_path / "full", **keys)
        report = merge(opened(family), MergeRecipe.model_validate(keys), tmp_path / "auto")
        assert_close(dense_deltas(tmp_path / "auto"), full, 1e-6)
        assert report.rank <= 6
        assert report.energy_kept == pytest.approx(1.0, abs=1e-9)
        for entry in report.modules:
            assert entry.norm == pytest.approx(float(torch.linalg.norm(full[entry.module])), rel=1e-5)

    @pytest.mark.parametrize("method", METHODS)
    def test_energy_kept_grows_with_the_rank_and_a_truncation_is_the_best_there_is(
        self, tmp_path: Path, family: dict[str, Path], grams: dict[str, str], method: str
    ) -> None:
        keys = keys_of(method, 0.5, grams)
        full = run(opened(family), tmp_path / "full", **keys)
        size = sum(float((tensor**2).sum()) for tensor in full.values())
        energies = []
        for rank in (1, 3, 6, 12):
            report = merge(opened(family), MergeRecipe.model_validate({**keys, "rank": rank}), tmp_path / "cut")
            found = dense_deltas(tmp_path / "cut")
            for module, tensor in full.items():
                best = torch.from_numpy(reference.truncated(tensor.numpy(), rank))
                # Equal singular values have many best approximations, all at the same distance.
                missed, least = (torch.linalg.norm(tensor - other) for other in (found[module], best))
                assert float(missed) == pytest.approx(float(least), rel=1e-5, abs=1e-5)
                assert torch.linalg.matrix_rank(found[module], rtol=1e-5) <= rank
            kept = sum(float((tensor**2).sum()) for tensor in found.values())
            assert report.energy_kept == pytest.approx(kept / size, rel=1e-5)
            for entry in report.modules:
                here = float((found[entry.module] ** 2).sum() / (full[entry.module] ** 2).sum())
                assert entry.energy_kept == pytest.approx(here, rel=1e-5)
            assert report.rank <= rank if method in EXACT else report.rank == rank
            energies.append(report.energy_kept)
        assert all(less <= more + 1e-9 for less, more in itertools.pairwise(energies))
        assert energies[-1] == pytest.approx(1.0)

    def test_all_modules_are_padded_to_one_rank(self, tmp_path: Path) -> None:
        ranks = {module: 1 + index for index, module in enumerate(SHAPES)}
        pattern = {module.replace(".", r"\."): rank for module, rank in ranks.items()}
        folders = make_family(tmp_path, ranks=ranks, rank_pattern=pattern)
        report = merge(opened(folders), MergeRecipe(method="linear"), tmp_path / "out")
        tensors = load_file(tmp_path / "out" / "adapter_model.safetensors")
        assert {tensor.shape[0] for name, tensor in tensors.items() if "lora_A" in name} == {report.rank}
        assert {tensor.shape[1] for name, tensor in tensors.items() if "lora_B" in name} == {report.rank}
        expected = {
            module: torch.from_numpy(sum(b @ a for b, a in parts.values()) / 3)
            for module, parts in factors_of(folders).items()
        }
        assert_close(dense_deltas(tmp_path / "out"), expected, 1e-6)
        assert report.rank == 12  # 3 × 6 in a module whose smaller side is 12


class TestFactorsOfTheSameDelta:
    @pytest.mark.parametrize("method", [name for name in METHODS if name not in BY_FACTORS])
    def test_how_a_delta_is_shared_between_b_and_a_does_not_matter(
        self, tmp_path: Path, grams: dict[str, str], method: str
    ) -> None:
        folders = make_family(tmp_path)
        keys = keys_of(method, 0.5, grams)
        before = run(opened(folders), tmp_path / "before", **keys)
        path = folders["ja"] / "adapter_model.safetensors"
        factor = {"A": 2.0**-40, "B": 2.0**40}
        tensors = {name: tensor * factor[name.split("lora_")[1][0]] for name, tensor in load_file(path).items()}
        save_file(tensors, path)
        assert_close(run(opened(folders), tmp_path / "after", **keys), before)

    @pytest.mark.parametrize("method", METHODS)
    def test_rslora_with_the_same_scale_is_the_same(self, tmp_path: Path, grams: dict[str, str], method: str) -> None:
        folders = make_family(tmp_path, rank=4)
        keys = keys_of(method, 0.5, grams)
        before = run(opened(folders), tmp_path / "before", **keys)
        change_config(folders["ja"], use_rslora=True, lora_alpha=2)  # 4/4 before, 2/√4 now
        assert scale_and_rank({"r": 4, "lora_alpha": 2, "use_rslora": True}, "x")[0] == 1.0
        assert_close(run(opened(folders), tmp_path / "after", **keys), before, 1e-6)


class TestPrecision:
    @pytest.mark.parametrize("method", METHODS)
    def test_float64_agrees_with_float32(
        self, tmp_path: Path, family: dict[str, Path], grams: dict[str, str], method: str
    ) -> None:
        keys = keys_of(method, 0.4, grams)
        single = run(opened(family), tmp_path / "a", **keys, precision="float32")
        assert_close(run(opened(family), tmp_path / "b", **keys, precision="float64"), single)

    @pytest.mark.parametrize("method", METHODS)
    def test_stored_in_bfloat16(
        self, tmp_path: Path, family: dict[str, Path], grams: dict[str, str], method: str
    ) -> None:
        keys = keys_of(method, 0.4, grams)
        single = run(opened(family), tmp_path / "a", **keys)
        assert_close(run(opened(family), tmp_path / "b", **keys, dtype="bf16"), single, 0.01)


class TestSlack:
    @pytest.mark.parametrize("semantics", ["paper", "mergekit", "peft"])
    def test_none_is_ties_bit_for_bit(self, tmp_path: Path, family: dict[str, Path], semantics: str) -> None:
        keys = {"density": 0.4, "semantics": semantics, "rank": "full"}
        one = MergeRecipe.model_validate({"method": "ties", **keys})
        two = MergeRecipe.model_validate({"method": "ties-slack", "slack": 0, "protect": ["ja"], **keys})
        merge(opened(family), one, tmp_path / "ties")
        merge(opened(family), two, tmp_path / "slack")
        assert tensor_bytes(tmp_path / "ties") == tensor_bytes(tmp_path / "slack")

    @pytest.mark.parametrize("semantics", ["paper", "mergekit", "peft"])
    def test_the_protected_lose_less_and_less_and_nothing_else_moves(
        self, tmp_path: Path, family: dict[str, Path], semantics: str
    ) -> None:
        keys = {"method": "ties-slack", "density": 0.4, "semantics": semantics, "protect": ["ja"], "rank": "full"}
        trimmed = reference.trim(reference.dense(factors_of(family)), 0.4, reference.RULES[semantics])
        quiet = {
            module: torch.from_numpy(abs(sum(signs)) == sum(map(abs, signs)))
            for module, parts in trimmed.items()
            for signs in [[torch.from_numpy(x).sign().numpy() for x in parts.values()]]
        }
        lost, results = [], []
        for slack in (0.0, 0.1, 0.5, 1.0, 3.0, 1e6):
            report = merge(opened(family), MergeRecipe.model_validate({**keys, "slack": slack}), tmp_path / "out")
            lost.append([entry.discard_rate["ja"] for entry in report.modules])
            results.append(dense_deltas(tmp_path / "out"))
        for less, more in zip(lost[1:], lost[:-1], strict=True):
            assert all(a <= b for a, b in zip(less, more, strict=True))
        assert sum(lost[0]) > 0
        assert lost[-1] == [0.0] * len(SHAPES)
        for found in results[1:]:
            for module in SHAPES:
                torch.testing.assert_close(
                    found[module][quiet[module]], results[0][module][quiet[module]], atol=2e-5, rtol=1e-4
                )
        assert any(quiet[module].any() and not quiet[module].all() for module in SHAPES)


@pytest.mark.parametrize("method", ["ties", "ties-slack", "knots-ties", "core-ties"])
@pytest.mark.parametrize("semantics", ["paper", "mergekit", "peft"])
def test_discard_rates_are_the_shares_that_lost_the_vote(
    tmp_path: Path, family: dict[str, Path], method: str, semantics: str
) -> None:
    weights = {"de": 1.5, "ja": 0.7, "zh": 1.0}
    keys = keys_of(method, 0.4, semantics=semantics, weights=weights)
    report = merge(opened(family), MergeRecipe.model_validate(keys), tmp_path / "out")
    rules = reference.RULES["core" if (method, semantics) == ("core-ties", "paper") else semantics]
    factors = factors_of(family)
    model = reference.dense(factors)
    if method == "knots-ties":
        model = {module: reference.knots(parts)[1] for module, parts in model.items()}
    if method == "core-ties":
        model = {module: reference.core(parts)[1] for module, parts in factors.items()}
    trimmed = reference.trim(model, 0.4, rules)
    bonus = reference.slack_bonus(trimmed, 0.5, ["ja"]) if method == "ties-slack" else None
    _, agreed = reference.elect(trimmed, dict.fromkeys(SHAPES, weights), rules, rules.divisor, bonus)
    assert [entry.module for entry in report.modules] == sorted(SHAPES)
    for entry in report.modules:
        kept = {lang: int((x != 0).sum()) for lang, x in trimmed[entry.module].items()}
        lost = {lang: 1 - int(agreed[entry.module][lang].sum()) / kept[lang] for lang in kept}
        assert entry.discard_rate == pytest.approx(lost, abs=1e-9)


@pytest.mark.parametrize("method", [name for name, row in METHODS.items() if not row.elects])
def test_nothing_is_said_to_lose_where_nothing_votes(
    tmp_path: Path, family: dict[str, Path], grams: dict[str, str], method: str
) -> None:
    report = merge(opened(family), MergeRecipe.model_validate(keys_of(method, 0.5, grams)), tmp_path / "out")
    assert [entry.discard_rate for entry in report.modules] == [{}] * len(SHAPES)
