"""Opening and merging adapters in tests, and what the dense references beside them say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as load_torch

from adapterctl.lora.adapter import Adapter
from adapterctl.merging.engine import merge
from adapterctl.merging.methods import METHODS
from adapterctl.merging.recipe import MergeRecipe
from tests.support.adapters import SHAPES, dense_deltas, read_factors, relative_error
from tests.unit.merging import reference

LANGUAGES = ("de", "ja", "zh")
PER_MODULE = ("regmean", "core-tsv", "core-iso-c", "svc", "pico", "sce", "breadcrumbs")
"""Methods in which one module does not depend on another, whatever the semantics."""


def opened(folders: Mapping[str, Path]) -> list[Adapter]:
    return [Adapter.open(folder, lang) for lang, folder in folders.items()]


def run(adapters: list[Adapter], out: Path, *, scale: float | None = None, **keys: Any) -> dict[str, torch.Tensor]:
    """Merge at full rank and return ΔW of every module."""
    merge(adapters, MergeRecipe.model_validate({"rank": "full", **keys}), out, scale=scale)
    return dense_deltas(out)


def write_grams(
    folder: Path, languages: Iterable[str] = LANGUAGES, shapes: Mapping[str, tuple[int, int]] = SHAPES
) -> dict[str, str]:
    """Write a well-conditioned Gram matrix of every module's inputs for each language."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = np.random.default_rng(7)
    files = {}
    for lang in sorted(languages):
        inputs = {module: numbers.normal(size=(3 * width, width)) for module, (_, width) in sorted(shapes.items())}
        files[lang] = str(folder / f"{lang}.safetensors")
        save_file({module: (x.T @ x).astype(np.float32) for module, x in inputs.items()}, files[lang])
    return files


def keys_of(method: str, density: float = 0.5, grams: Mapping[str, str] | None = None, **keys: Any) -> dict[str, Any]:
    """Return a recipe in which every option of the method is used."""
    options = METHODS[method].options
    if "density" in options:
        keys["density"] = density
    if method == "della":
        keys["epsilon"] = min(0.1, 1 - density)
    if method == "breadcrumbs":
        keys["gamma"] = 0.1
    if method == "ties-slack":
        keys |= {"slack": 0.5, "protect": ["ja"]}
    if method == "regmean":
        keys["grams"] = dict(grams or {})
    return {"method": method, **keys}


def factors_of(folders: Mapping[str, Path]) -> reference.Factors:
    """Return ``(scale · B, A)`` of what lies in the folders, in float64."""
    found: reference.Factors = {}
    for lang, folder in sorted(folders.items()):
        for module, (b, a, scale) in read_factors(folder).items():
            found.setdefault(module, {})[lang] = (scale * b.numpy(), a.numpy())
    return found


def weights_of(factors: reference.Factors, keys: Mapping[str, Any]) -> reference.Weights:
    """Return the weights of a recipe in every module."""
    languages = {lang for parts in factors.values() for lang in parts}
    share = {"linear", "dare-linear", "magnitude-prune", "breadcrumbs", "knots-linear", "core-ta", "svc", "pico"}
    default = 1 / len(languages) if keys["method"] in share else 1.0
    return {m: {lang: keys.get("weights", {}).get(lang, default) for lang in parts} for m, parts in factors.items()}


def expected_of(
    factors: reference.Factors, keys: Mapping[str, Any], weights: reference.Weights | None = None, **options: Any
) -> dict[str, torch.Tensor]:
    """Return what the dense reference makes of a recipe, without λ."""
    grams: dict[str, dict[str, np.ndarray]] = {}
    for lang, path in keys.get("grams", {}).items():
        for module, gram in load_file(path).items():
            grams.setdefault(module, {})[lang] = gram.astype(np.float64)
    known = {key: keys[key] for key in ("density", "semantics", "gamma", "slack", "protect") if key in keys}
    found = reference.merged(
        factors, weights or weights_of(factors, keys), keys["method"], **known, grams=grams, **options
    )
    return {module: torch.from_numpy(np.ascontiguousarray(matrix)) for module, matrix in found.items()}


def disturbed(factors: reference.Factors, seed: int, size: float = 1e-6) -> reference.Factors:
    numbers = np.random.default_rng(seed)
    return {
        module: {
            lang: tuple(x * (1 + size * numbers.normal(size=x.shape)) for x in pair)  # type: ignore[misc]
            for lang, pair in parts.items()
        }
        for module, parts in factors.items()
    }


def is_stable(factors: reference.Factors, keys: Mapping[str, Any], limit: float = 3e-5, **options: Any) -> bool:
    """Return whether rounding cannot flip a kept entry or a sign: a disturbance of 1e-6 moves nothing by much."""
    plain = expected_of(factors, keys, **options)
    return all(
        relative_error(moved[module], plain[module]) < limit
        for seed in (1, 2)
        for moved in [expected_of(disturbed(factors, seed), keys, **options)]
        for module in plain
    )


def stable(make: Callable[[int], dict[str, Path]], keys: Mapping[str, Any]) -> dict[str, Path]:
    """Return the first of the families that a seed makes whose merge rounding cannot change."""
    return next(folders for seed in count() if is_stable(factors_of(folders := make(seed)), keys))


def tensor_bytes(folder: Path) -> dict[str, bytes]:
    """Return the bytes of every tensor of an adapter, without the header that names recipe and inputs."""
    tensors = load_torch(folder / "adapter_model.safetensors")
    return {name: tensor.contiguous().view(torch.uint8).numpy().tobytes() for name, tensor in tensors.items()}


def assert_close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], tolerance: float = 1e-5) -> None:
    assert set(found) == set(expected)
    for module, tensor in expected.items():
        assert relative_error(found[module], tensor) <= tolerance, module
