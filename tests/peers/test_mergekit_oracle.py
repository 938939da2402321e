"""mergekit's own functions on dense deltas over a base of zeros."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.support.adapters import SHAPES, dense_deltas, make_adapter, relative_error
from tests.support.merging import LANGUAGES, opened, run
from tests.unit.merging import reference

sparsify = pytest.importorskip("mergekit.sparsify", reason="mergekit is not installed")
registry = pytest.importorskip("mergekit.merge_methods.registry", reason="mergekit 0.1.5 is not installed")
from mergekit.merge_methods.base import TensorGroup  # noqa: E402

WEIGHTS: dict[str, dict[str, float]] = {
    "positive": {"de": 0.9, "ja": 0.5, "zh": 0.3},
    "negative": {"de": 0.9, "ja": -0.5, "zh": 1.3},
    "zero": {"de": 0.9, "ja": 0.0, "zh": 1.3},
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("family")
    return {lang: make_adapter(root / lang, seed=i + 4, rank=3, alpha=4 + i) for i, lang in enumerate(LANGUAGES)}


def by_mergekit(
    method: str, deltas: dict[str, torch.Tensor], weights: dict[str, float], **parameters: Any
) -> torch.Tensor:
    """What mergekit's method makes of the deltas of one module, its own defaults where nothing is said."""
    implementation = registry.get(method)
    tensors = [torch.zeros_like(deltas["de"]), *deltas.values()]
    group = TensorGroup.from_tensors(tensors, ids=["base", *deltas], base_index=0)
    values: dict[str, Any] = {}
    for spec in implementation.spec.parameters:
        value = weights if spec.name == "weight" else parameters.get(spec.name, spec.default)
        each = str(spec.scope.value) != "shared" and not isinstance(value, dict)
        values[spec.name] = dict.fromkeys(deltas, value) if each else value
    return implementation.merge_group(group, **values)


def compare(folders: dict[str, Path], out: Path, theirs: str, keys: dict[str, Any], **parameters: Any) -> None:
    found = run(opened(folders), out, semantics="mergekit", **keys)
    dense = {lang: dense_deltas(folder) for lang, folder in folders.items()}
    for module in SHAPES:
        deltas = {lang: dense[lang][module] for lang in folders}
        expected = by_mergekit(theirs, deltas, keys.get("weights", {}), **parameters)
        assert relative_error(found[module], keys.get("lambda", 1.0) * expected) < 1e-5, module


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("density", [0.05, 0.3, 0.62, 1.0])
class TestSparsified:
    def test_ties(self, folders: dict[str, Path], tmp_path: Path, weights: str, density: float) -> None:
        keys = {"method": "ties", "density": density, "weights": WEIGHTS[weights], "lambda": 1.3}
        compare(folders, tmp_path / "out", "ties", keys, density=density)

    def test_magnitude_prune(self, folders: dict[str, Path], tmp_path: Path, weights: str, density: float) -> None:
        found = run(
            *(opened(folders), tmp_path / "out"),
            method="magnitude-prune",
            density=density,
            weights=WEIGHTS[weights],
            semantics="mergekit",
        )
        dense = {lang: dense_deltas(folder) for lang, folder in folders.items()}
        for module in SHAPES:
            expected = sum(
                weight * sparsify.magnitude(dense[lang][module], density) for lang, weight in WEIGHTS[weights].items()
            )
            assert relative_error(found[module], expected) < 1e-5

    @pytest.mark.parametrize("gamma", [0.01, 0.2, 0.8])
    def test_breadcrumbs(
        self, folders: dict[str, Path], tmp_path: Path, weights: str, density: float, gamma: float
    ) -> None:
        keys = {"method": "breadcrumbs", "density": density, "weights": WEIGHTS[weights], "gamma": gamma}
        compare(folders, tmp_path / "out", "breadcrumbs", keys, density=density, gamma=gamma)


def give_masks(monkeypatch: pytest.MonkeyPatch, masks: list[np.ndarray]) -> list[torch.Tensor]:
    """Let mergekit draw these masks; returns the chances it asks for."""
    asked: list[torch.Tensor] = []

    def draw(chances: torch.Tensor) -> torch.Tensor:
        asked.append(chances)
        return torch.from_numpy(masks[len(asked) - 1]).to(chances.dtype)

    monkeypatch.setattr(torch, "bernoulli", draw)
    return asked


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize(
    ("ours", "theirs"), [("dare-linear", "dare_linear"), ("dare-ties", "dare_ties"), ("della", "della")]
)
def test_random_methods_with_our_masks(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ours: str, theirs: str, weights: str
) -> None:
    options: dict[str, Any] = {"method": ours, "density": 0.5, "seed": 9}
    if ours == "della":
        options["epsilon"] = 0.2
    dense = {lang: dense_deltas(folder) for lang, folder in folders.items()}
    alone = {
        lang: run(opened({lang: folder}), tmp_path / "alone", weights={lang: 1.0}, **options)
        for lang, folder in folders.items()
    }
    found = run(opened(folders), tmp_path / "out", semantics="mergekit", weights=WEIGHTS[weights], **options)
    for module in SHAPES:
        deltas = {lang: dense[lang][module] for lang in folders}
        masks = [(alone[lang][module].abs() > 0.5 * x.abs()).numpy() for lang, x in deltas.items()]
        asked = give_masks(monkeypatch, masks)
        expected = by_mergekit(theirs, deltas, WEIGHTS[weights], density=0.5, epsilon=0.2)
        assert relative_error(found[module], expected) < 1e-5, module
        if ours == "della":
            for chances, delta in zip(asked, deltas.values(), strict=True):
                ours_said = reference.keep_probabilities(delta.numpy(), 0.5, 0.2)
                np.testing.assert_allclose(chances.numpy(), ours_said, atol=1e-6)


@pytest.mark.parametrize("density", [0.1, 0.45, 1.0])
def test_sce(folders: dict[str, Path], tmp_path: Path, density: float) -> None:
    for semantics in ("paper", "mergekit", "peft"):
        keys = {"method": "sce", "density": density, "semantics": semantics}
        found = run(opened(folders), tmp_path / "out", **keys)
        dense = {lang: dense_deltas(folder) for lang, folder in folders.items()}
        for module in SHAPES:
            expected = by_mergekit("sce", {lang: dense[lang][module] for lang in folders}, {}, select_topk=density)
            assert relative_error(found[module], expected) < 1e-5, module


def test_sce_of_one_language_that_differs_nowhere(folders: dict[str, Path], tmp_path: Path) -> None:
    copies = dict.fromkeys(("de", "ja"), folders["de"])
    found = run(opened(copies), tmp_path / "out", method="sce", density=0.5)
    assert all(not tensor.any() for tensor in found.values())  # No variance, so nothing is selected, as in mergekit.
