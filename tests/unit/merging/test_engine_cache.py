"""A merge that finds most of its work done is the same merge, bit for bit."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from tests.support.adapters import SHAPES, make_adapter, make_family
from tests.support.merging import keys_of, opened, write_grams

from adapterctl.merging.cache import FactorCache
from adapterctl.merging.engine import merge
from adapterctl.merging.methods import METHODS
from adapterctl.merging.recipe import MergeRecipe

LANGUAGES = ("de", "en", "ja", "zh")


@pytest.fixture(scope="module")
def grams(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return write_grams(tmp_path_factory.mktemp("grams"), (*LANGUAGES, "ko"))


def recipe_of(method: str, grams: dict[str, str], languages: dict[str, Path]) -> MergeRecipe:
    return MergeRecipe.model_validate(keys_of(method, 0.5, {lang: grams[lang] for lang in languages}))


@pytest.mark.parametrize("method", METHODS)
def test_a_merge_again_is_the_merge(tmp_path: Path, grams: dict[str, str], method: str) -> None:
    folders = make_family(tmp_path / "in", LANGUAGES)
    cache = FactorCache(tmp_path / "cache")
    merge(opened(folders), recipe_of(method, grams, folders), tmp_path / "first", cache=cache)
    families = {
        "again": folders,
        "changed": {**folders, "ja": make_adapter(tmp_path / "ja2", seed=50)},
        "removed": {lang: folder for lang, folder in folders.items() if lang != "de"},
        "added": {**folders, "ko": make_adapter(tmp_path / "ko", seed=51, rank=3)},
        "reversed": dict(reversed(folders.items())),
        "renamed": {"en": folders["de"], "de": folders["en"], "ja": folders["ja"], "zh": folders["zh"]},
    }
    for name, family in families.items():
        recipe = recipe_of(method, grams, family)
        plain = merge(opened(family), recipe, tmp_path / "plain")
        warm = merge(opened(family), recipe, tmp_path / "warm", cache=FactorCache(tmp_path / "cache"))
        for file in ("adapter_model.safetensors", "adapter_config.json"):
            assert (tmp_path / "plain" / file).read_bytes() == (tmp_path / "warm" / file).read_bytes(), (name, file)
        assert warm.key == plain.key


@pytest.mark.parametrize("method", ["knots-ties", "core-tsv"])
def test_the_report_says_what_was_reused(tmp_path: Path, method: str) -> None:
    folders = make_family(tmp_path / "in", LANGUAGES)
    cache, recipe = FactorCache(tmp_path / "cache"), MergeRecipe(method=method)
    first = merge(opened(folders), recipe, tmp_path / "out", cache=cache).reused
    again = merge(opened(folders), recipe, tmp_path / "out", cache=cache).reused
    changed = {**folders, "ja": make_adapter(tmp_path / "ja2", seed=50)}
    updated = merge(opened(changed), recipe, tmp_path / "out", cache=cache).reused
    assert first["blocks"] == 0
    assert again["blocks"] == first["blocks_computed"] > 0
    assert again["blocks_computed"] == 0
    # Of the pairs of four languages, six do not have ja in them.
    assert 0 < updated["blocks_computed"] < first["blocks_computed"]
    assert updated["blocks"] + updated["blocks_computed"] == first["blocks_computed"]


def test_thresholds_are_reused_where_they_do_not_depend_on_the_other_languages(tmp_path: Path) -> None:
    folders = make_family(tmp_path / "in", LANGUAGES)
    cache, recipe = FactorCache(tmp_path / "cache"), MergeRecipe(method="ties", density=0.5)
    first = merge(opened(folders), recipe, tmp_path / "out", cache=cache).reused
    changed = {**folders, "ja": make_adapter(tmp_path / "ja2", seed=50)}
    updated = merge(opened(changed), recipe, tmp_path / "out", cache=cache).reused
    other = merge(opened(changed), recipe.model_copy(update={"density": 0.4}), tmp_path / "out", cache=cache).reused
    assert (first["thresholds"], first["thresholds_computed"]) == (0, 4)
    assert (updated["thresholds"], updated["thresholds_computed"]) == (3, 1)
    assert (other["thresholds"], other["thresholds_computed"]) == (0, 4)


def test_one_cache_serves_many_recipes(tmp_path: Path) -> None:
    folders = make_family(tmp_path / "in", LANGUAGES)
    few = {module: shape for module, shape in SHAPES.items() if "layers.1" in module}
    lacking = {**folders, "ja": make_adapter(tmp_path / "ja", seed=2, alpha=4, shapes=few)}
    recipes: list[dict[str, Any]] = [
        {},
        {"density": 0.3},
        {"semantics": "peft"},
        {"semantics": "mergekit"},
        {"precision": "float64"},
        {"layers": {"1": {"de": 0.0}}},
        {"layers": {"0": {"de": 0.0, "en": 0.5}}},
        {"modules": {"mlp": {"zh": 0.0}}},
        {"weights": {"de": 0.0, "zh": 2.0}},
        {"method": "ties-slack", "slack": 1.0, "protect": ["ja"]},
        {"method": "magnitude-prune"},
        {"method": "knots-ties"},
        {"method": "core-ties"},
        {"method": "ties", "rank": 2},
    ]
    for family, missing in ((folders, "refuse"), (lacking, "zero"), (lacking, "present")):
        for keys in recipes:
            recipe = MergeRecipe.model_validate({"method": "ties", "density": 0.5, "missing": missing, **keys})
            merge(opened(family), recipe, tmp_path / "plain")
            merge(opened(family), recipe, tmp_path / "warm", cache=FactorCache(tmp_path / "cache"))
            plain, warm = ((tmp_path / name / "adapter_model.safetensors").read_bytes() for name in ("plain", "warm"))
            assert plain == warm, (missing, keys)


def test_what_is_damaged_is_computed_again(tmp_path: Path) -> None:
    folders = make_family(tmp_path / "in")
    recipe = MergeRecipe(method="ties", rank=4)
    for method in ("knots-ties", "ties", "core-tsv"):
        recipe = MergeRecipe(method=method, rank=4)
        merge(opened(folders), recipe, tmp_path / "plain")
        merge(opened(folders), recipe, tmp_path / "first", cache=FactorCache(tmp_path / "cache"))
        expected = (tmp_path / "plain" / "adapter_model.safetensors").read_bytes()
        entries = sorted(path for path in (tmp_path / "cache").rglob("*") if path.is_file())
        assert entries
        whole = {entry: entry.read_bytes() for entry in entries}
        for damage in (
            lambda content: b"",
            lambda content: bytes(16),
            lambda content: content[:-8],
            lambda content: content[:-8] + bytes(8),
            lambda content: content[:-8] + b"\xff" * 8,
            lambda content: b"[" * 5000,
        ):
            for entry, content in whole.items():
                entry.parent.mkdir(parents=True, exist_ok=True)
                entry.write_bytes(damage(content))
            merge(opened(folders), recipe, tmp_path / "again", cache=FactorCache(tmp_path / "cache"))
            assert (tmp_path / "again" / "adapter_model.safetensors").read_bytes() == expected, method


def test_an_adapter_that_was_changed_in_place_is_read_again(tmp_path: Path) -> None:
    folders = make_family(tmp_path / "in")
    recipe, cache = MergeRecipe(method="knots-ties"), FactorCache(tmp_path / "cache")
    first = merge(opened(folders), recipe, tmp_path / "out", cache=cache)
    path = folders["ja"] / "adapter_model.safetensors"
    times = path.stat()
    content = bytearray(path.read_bytes())
    content[-1] ^= 0x80  # The sign of the last number.
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    again = merge(opened(folders), recipe, tmp_path / "warm", cache=cache)
    plain = merge(opened(folders), recipe, tmp_path / "plain")
    assert again.inputs["ja"] == plain.inputs["ja"] != first.inputs["ja"]
    name = "adapter_model.safetensors"
    assert (tmp_path / "warm" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()


def test_the_cache_stays_within_its_bound(tmp_path: Path) -> None:
    limit = 20_000
    cache = FactorCache(tmp_path / "cache", limit_bytes=limit)
    for seed in range(4):
        folders = make_family(tmp_path / str(seed), seed=seed) if seed else make_family(tmp_path / "0")
        merge(opened(folders), MergeRecipe(method="knots-ties"), tmp_path / "out", cache=cache)
        used = sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*") if path.is_file())
        assert used <= limit


def test_a_folder_that_cannot_be_written_is_no_reason_to_fail(tmp_path: Path) -> None:
    folders = make_family(tmp_path / "in")
    (tmp_path / "cache").write_text("a file in the way")
    merge(opened(folders), MergeRecipe(method="knots-ties"), tmp_path / "out", cache=FactorCache(tmp_path / "cache"))
    assert (tmp_path / "out" / "adapter_model.safetensors").exists()
