"""Results of other people's code: see the README of the golden folder."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from tests.support.adapters import dense_deltas, relative_error, shared_folder
from tests.support.cli import invoke
from tests.support.merging import assert_close, expected_of, factors_of

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


def arguments(case: Path, entry: dict[str, Any], out: Path) -> list[str]:
    """An entry as a person would type it."""
    called = {lang: {"ja2": "fr"}.get(lang, lang) for lang in entry["weights"]}  # ja2 is no tag of a language.
    folders = [f"{called[lang]}={case / 'adapters' / lang}" for lang in entry["weights"]]
    weights = [text for lang, weight in entry["weights"].items() for text in ("--weight", f"{called[lang]}={weight}")]
    options = {
        "--out": out,
        "--method": entry["method"],
        "--density": entry["density"],
        "--lambda": entry["lambda"],
        "--semantics": entry["semantics"],
        "--seed": entry["seed"],
        "--rank": entry["rank"] or "auto",
    }
    return ["merge", *folders, *weights, *(str(text) for pair in options.items() for text in pair)]


@pytest.mark.parametrize(("case", "entry"), ENTRIES)
def test_golden_through_the_command_line(case: Path, entry: dict[str, Any], tmp_path: Path) -> None:
    done = invoke(*arguments(case, entry, tmp_path / "out"), "--json")
    assert done.exit_code == 0, done.err
    assert done.json
    found = dense_deltas(tmp_path / "out")
    expected = load_file(case / entry["expected"])
    assert set(found) == set(expected)
    for module, tensor in expected.items():
        assert relative_error(found[module], tensor) <= entry["tolerance"], module


@pytest.mark.skipif(not ENTRIES, reason=ABSENT)
@pytest.mark.parametrize(
    "weights", [{"de": -0.75, "en": 1.25, "ja": 0.0}, {"de": 0.0, "en": -1.0, "ja": -0.5}], ids=str
)
@pytest.mark.parametrize("semantics", ["paper", "mergekit", "peft"])
@pytest.mark.parametrize("method", ["linear", "ties", "knots-ties", "core-tsv"])
def test_negative_and_zero_weights_through_the_command_line(
    tmp_path: Path, method: str, semantics: str, weights: dict[str, float]
) -> None:
    case = CASES / "three-languages"
    keys = {"method": method, "semantics": semantics, "density": 0.4, "weights": weights}
    entry = {**keys, "lambda": -0.5, "seed": 0, "rank": "full"}
    done = invoke(*arguments(case, entry, tmp_path / "out"))
    assert done.exit_code == 0, done.err
    expected = expected_of(factors_of({lang: case / "adapters" / lang for lang in weights}), keys)
    assert_close(dense_deltas(tmp_path / "out"), {module: -0.5 * tensor for module, tensor in expected.items()})


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
