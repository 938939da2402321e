"""Results of other people's code: see the README of the golden folder."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from tests.support.adapters import dense_deltas, relative_error, shared_folder

from adapterctl.lora.adapter import Adapter
from adapterctl.merging.engine import merge
from adapterctl.merging.recipe import MergeRecipe

CASES = shared_folder() / "golden" / "cases"
ENTRIES = [
    pytest.param(case.parent, entry, id=f"{case.parent.name}-{entry['id']}")
    for case in sorted(CASES.glob("*/case.json"))
    for entry in json.loads(case.read_text(encoding="utf-8"))["entries"]
]
ABSENT = f"the golden merges are not at {CASES}; set ADAPTERCTL_SHARED to the folder that holds golden/"


@pytest.mark.skipif(not ENTRIES, reason=ABSENT)
def test_all_entries_are_here() -> None:
    assert len(ENTRIES) == 32


def opened(case: Path, entry: dict[str, Any]) -> list[Adapter]:
    return [Adapter.open(case / "adapters" / lang, lang) for lang in entry["weights"]]


def recipe_of(entry: dict[str, Any], **changes: Any) -> MergeRecipe:
    keys = {key: entry[key] for key in ("method", "semantics", "density", "lambda", "weights", "seed")}
    return MergeRecipe(**{**keys, "rank": entry["rank"] or "auto", **changes})


@pytest.mark.parametrize(("case", "entry"), ENTRIES)
def test_golden(case: Path, entry: dict[str, Any], tmp_path: Path) -> None:
    merge(opened(case, entry), recipe_of(entry), tmp_path / "out")
    expected = load_file(case / entry["expected"])
    found = dense_deltas(tmp_path / "out")
    assert set(found) == set(expected)
    for module, tensor in expected.items():
        assert relative_error(found[module], tensor) <= entry["tolerance"], module


@pytest.mark.parametrize(
    ("case", "entry"), [entry for entry in ENTRIES if "tolerance_if_stored_bf16" in entry.values[1]]
)
def test_golden_stored_in_bfloat16(case: Path, entry: dict[str, Any], tmp_path: Path) -> None:
    merge(opened(case, entry), recipe_of(entry, dtype="bfloat16"), tmp_path / "out")
    found = dense_deltas(tmp_path / "out")
    for module, tensor in load_file(case / entry["expected"]).items():
        assert relative_error(found[module], tensor) <= entry["tolerance_if_stored_bf16"], module


@pytest.mark.skipif(not ENTRIES, reason=ABSENT)
def test_dare_scatters_around_linear_as_it_should(tmp_path: Path) -> None:
    case = CASES / "rslora"
    known = json.loads((case / "case.json").read_text(encoding="utf-8"))
    expectation, languages = known["dare_expectation"], known["languages"]
    adapters = [Adapter.open(case / "adapters" / lang, lang) for lang in languages]
    ones = dict.fromkeys(languages, 1.0)
    linear = load_file(case / "expected" / "linear.safetensors")
    size = math.sqrt(sum(float((tensor.double() ** 2).sum()) for tensor in linear.values()))
    squares, total, seeds = [], {module: 0 * tensor.double() for module, tensor in linear.items()}, 40
    for seed in range(seeds):
        recipe = MergeRecipe(
            method="dare-linear", density=expectation["density"], weights=ones, seed=seed, rank="full", lambda_=1.0
        )
        merge(adapters, recipe, tmp_path / "out")
        found = dense_deltas(tmp_path / "out")
        squares.append(sum(float(((found[m] - linear[m]) ** 2).sum()) for m in linear))
        for module in total:
            total[module] += found[module] / seeds
    rms = math.sqrt(sum(squares) / seeds) / size
    assert rms == pytest.approx(expectation["rms_over_seeds"], rel=0.02)
    error = math.sqrt(sum(float(((total[m] - linear[m]) ** 2).sum()) for m in linear)) / size
    assert error == pytest.approx(expectation["rms_over_seeds"] / math.sqrt(seeds), rel=0.1)
