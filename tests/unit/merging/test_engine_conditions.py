"""Adapters that are hard to compute with: copies, untrained ones, nearly equal ones, columns of very unequal size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.support.adapters import dense_deltas, make_adapter, make_family, relative_error
from tests.support.merging import (
    LANGUAGES,
    assert_close,
    expected_of,
    factors_of,
    keys_of,
    opened,
    run,
    stable,
    write_grams,
)
from tests.unit.merging import reference

from adapterctl.merging.engine import merge
from adapterctl.merging.methods import METHODS
from adapterctl.merging.recipe import MergeRecipe

SPECTRAL = ("linear", "knots-linear", "core-ta", "core-tsv", "core-iso-c")
WIDE = {"model.layers.0.mlp.down_proj": (24, 40), "model.layers.0.mlp.up_proj": (40, 24)}


@pytest.fixture(scope="module")
def grams(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return write_grams(tmp_path_factory.mktemp("grams"))


def copies(folder: Path) -> dict[str, Path]:
    """The same adapter twice, and one that was never trained."""
    folders = {lang: make_adapter(folder / lang, seed=1, alpha=3) for lang in ("de", "ja")}
    return {**folders, "zh": make_adapter(folder / "zh", seed=2, alpha=0)}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("density", [1.0, 0.5])
def test_an_untrained_language_and_a_copy_make_no_noise(
    tmp_path: Path, grams: dict[str, str], method: str, density: float
) -> None:
    folders = copies(tmp_path)
    found = run(opened(folders), tmp_path / "out", **keys_of(method, density, grams))
    one = dense_deltas(folders["de"])
    for module, tensor in found.items():
        assert torch.isfinite(tensor).all()
        if (METHODS[method].space == "dense" and density < 1) or method == "regmean":
            continue  # Dropping entries leaves the span of the adapters; RegMean mixes the inputs.
        u, s, vt = torch.linalg.svd(one[module], full_matrices=False)
        keep = int((s > 1e-9 * s[0]).sum())
        outside = tensor - u[:, :keep] @ (u[:, :keep].T @ tensor)
        assert float(torch.linalg.norm(outside)) <= 1e-6 * float(torch.linalg.norm(one[module]))
        if density == 1 or METHODS[method].drop == "none":
            outside = tensor - tensor @ vt[:keep].T @ vt[:keep]
            assert float(torch.linalg.norm(outside)) <= 1e-6 * float(torch.linalg.norm(one[module]))


@pytest.mark.parametrize("method", [name for name, row in METHODS.items() if not row.draws])
def test_copies_give_what_the_references_say(tmp_path: Path, grams: dict[str, str], method: str) -> None:
    folders = make_family(tmp_path)
    make_adapter(folders["zh"], seed=1, alpha=3)  # de once more
    for density in (1.0,) if METHODS[method].drop == "none" or method == "core-ties" else (0.3, 1.0):
        keys = keys_of(method, density, grams)
        found = run(opened(folders), tmp_path / "out", **keys)
        assert_close(found, expected_of(factors_of(folders), keys))


@pytest.mark.parametrize("method", METHODS)
def test_adapters_that_change_nothing(tmp_path: Path, grams: dict[str, str], method: str) -> None:
    adapters = opened(make_family(tmp_path, alpha=0))
    recipe = MergeRecipe.model_validate(keys_of(method, 0.5, grams))
    report = merge(adapters, recipe, tmp_path / "out")
    assert all(not tensor.any() for tensor in dense_deltas(tmp_path / "out").values())
    assert (report.suggested_scale, report.energy_kept, report.merged_norm) == (None, 1.0, 0.0)


@pytest.mark.parametrize("method", METHODS)
def test_one_that_changes_nothing_among_others(tmp_path: Path, grams: dict[str, str], method: str) -> None:
    folders = make_family(tmp_path)
    make_adapter(folders["ja"], seed=2, alpha=0)
    keys = keys_of(method, 0.5, grams)
    found = run(opened(folders), tmp_path / "out", **keys)
    assert all(torch.isfinite(tensor).all() and tensor.any() for tensor in found.values())
    if not METHODS[method].draws:
        assert_close(found, expected_of(factors_of(folders), keys))


def write_factors(folder: Path, factors: dict[str, tuple[np.ndarray, np.ndarray]], alpha: float) -> None:
    """Replace the numbers of an adapter that is there."""
    make_adapter(folder, rank=next(iter(factors.values()))[1].shape[0], alpha=alpha, shapes=WIDE)
    tensors = {}
    for module, (b, a) in factors.items():
        tensors[f"base_model.model.{module}.lora_A.weight"] = torch.from_numpy(a).float().contiguous()
        tensors[f"base_model.model.{module}.lora_B.weight"] = torch.from_numpy(b).float().contiguous()
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def unequal_columns(folder: Path, seed: int, ratio: float) -> dict[str, Path]:
    """Adapters of which the columns of B run from 1 down to ``ratio``."""
    numbers = np.random.default_rng(seed)
    sizes = np.geomspace(1, ratio, 3)
    for index, lang in enumerate(LANGUAGES):
        factors = {
            module: (numbers.normal(size=(out, 3)) * sizes, numbers.normal(size=(3, width)))
            for module, (out, width) in WIDE.items()
        }
        write_factors(folder / lang, factors, 4 + index)
    return {lang: folder / lang for lang in LANGUAGES}


def nearly_equal(folder: Path, seed: int, apart: float) -> dict[str, Path]:
    """Adapters that are the same but for a relative difference."""
    numbers = np.random.default_rng(seed)
    one = {m: (numbers.normal(size=(out, 3)), numbers.normal(size=(3, width))) for m, (out, width) in WIDE.items()}
    for lang in LANGUAGES:
        other = {
            module: tuple(x * (1 + apart * numbers.normal(size=x.shape)) for x in pair) for module, pair in one.items()
        }
        write_factors(folder / lang, other, 5)  # type: ignore[arg-type]
    return {lang: folder / lang for lang in LANGUAGES}


def plain(factors: reference.Factors, keys: dict[str, Any]) -> bool:
    """Whether no singular value that decides lies where one may take it for zero or not."""
    for parts in reference.dense(factors).values():
        spectra = []
        if keys["method"] == "core-iso-c":
            total = sum(keys["weights"][lang] * x for lang, x in parts.items())
            spectra.append(np.linalg.svd(total, compute_uv=False))
        if keys["method"] == "core-tsv":
            own = [reference.svd(x) for x in parts.values()]
            spectra += [np.linalg.svd(x, compute_uv=False) for x in parts.values()]
            for stack in (np.hstack([u for u, _, _ in own]), np.hstack([vt.T for _, _, vt in own])):
                spectra.append(np.linalg.svd(stack, compute_uv=False))
        if any(((s > 1e-9 * s[0]) & (s < 2.5e-7 * s[0])).any() for s in spectra):
            return False
    return True


HARD = {
    "columns 1e-3": lambda folder, seed: unequal_columns(folder, seed, 1e-3),
    "columns 1e-5": lambda folder, seed: unequal_columns(folder, seed, 1e-5),
    "columns 1e-6": lambda folder, seed: unequal_columns(folder, seed, 1e-6),
    "apart by 1e-3": lambda folder, seed: nearly_equal(folder, seed, 1e-3),
    "apart by 1e-4": lambda folder, seed: nearly_equal(folder, seed, 1e-4),
    "apart by 1e-5": lambda folder, seed: nearly_equal(folder, seed, 1e-5),
    "apart by 1e-6": lambda folder, seed: nearly_equal(folder, seed, 1e-6),
}


NO_MATTER = {
    ("core-iso-c", "apart by 1e-3", "unequal"),
    ("core-iso-c", "apart by 1e-4", "unequal"),
    ("core-iso-c", "apart by 1e-6", "cancelling"),
}
"""Their sum has singular values of second order in the difference: whether these are zero is a matter of taste."""
UNEQUAL = {"de": 1.0, "ja": 0.7, "zh": 1.3}
CANCELLING = {"de": 1.0, "ja": -0.4, "zh": -0.6}
CASES = [
    pytest.param(method, kind, weights, id=f"{method}-{kind}-{name}")
    for method in SPECTRAL
    for kind in HARD
    for name, weights in (("unequal", UNEQUAL), ("cancelling", CANCELLING))
    if (method, kind, name) not in NO_MATTER
]


@pytest.mark.parametrize(("method", "kind", "weights"), CASES)
def test_badly_conditioned_adapters(tmp_path: Path, method: str, kind: str, weights: dict[str, float]) -> None:
    keys = {"method": method, "weights": weights}
    for seed in range(200):
        folders = HARD[kind](tmp_path, seed)
        factors = factors_of(folders)
        if plain(factors, keys):
            break
    else:
        pytest.fail("no sample in which it is plain which singular values are zero")
    expected = expected_of(factors, keys)
    found = run(opened(folders), tmp_path / "out", **keys)
    for module, tensor in expected.items():
        error = float(torch.linalg.norm(found[module] - tensor))
        # linear stores the factors side by side: where languages cancel one another, what is left has the absolute
        # accuracy of float32 numbers of their size. The others factorise what is left.
        terms = sum(abs(weights[lang]) * float(np.linalg.norm(b @ a)) for lang, (b, a) in factors[module].items())
        stored = 1e-7 * terms if method in ("linear", "knots-linear") else 0.0
        assert error <= 1e-5 * float(torch.linalg.norm(tensor)) + stored, module


@pytest.mark.parametrize("method", ["knots-ties", "core-ties", "svc", "pico"])
@pytest.mark.parametrize("kind", HARD)
def test_badly_conditioned_adapters_in_other_bases(tmp_path: Path, method: str, kind: str) -> None:
    keys = keys_of(method, 0.5)
    folders = stable(lambda seed: HARD[kind](tmp_path, seed), keys)
    assert_close(run(opened(folders), tmp_path / "out", **keys), expected_of(factors_of(folders), keys))


@pytest.mark.parametrize("semantics", ["paper", "peft"])
@pytest.mark.parametrize("method", METHODS)
def test_the_size_of_the_adapters_does_not_matter(
    tmp_path: Path, grams: dict[str, str], method: str, semantics: str
) -> None:
    folders = make_family(tmp_path / "in")
    keys = keys_of(method, 0.5, grams, semantics=semantics)
    before = run(opened(folders), tmp_path / "before", **keys)
    stored = {lang: load_file(folder / "adapter_model.safetensors") for lang, folder in folders.items()}
    for size in (2.0**-30, 2.0**30):
        for lang, tensors in stored.items():
            scaled = {name: tensor * (size if "lora_B" in name else 1) for name, tensor in tensors.items()}
            save_file(scaled, folders[lang] / "adapter_model.safetensors", metadata={"format": "pt"})
        found = run(opened(folders), tmp_path / "after", **keys)
        for module, tensor in before.items():
            assert relative_error(found[module] / size, tensor) < 1e-5, size
