"""Merges small enough to be done by hand: every adapter is one row of numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tests.support.adapters import write_config
from tests.support.merging import opened, run

MODULE = "model.layers.0.mlp.down_proj"


def merged(tmp_path: Path, rows: dict[str, list[float]], **keys: object) -> list[float]:
    """Merge adapters whose ΔW is one row of given numbers."""
    folders = {}
    for lang, row in rows.items():
        folders[lang] = tmp_path / lang
        folders[lang].mkdir(exist_ok=True)
        tensors = {  # α/r = 2
            f"base_model.model.{MODULE}.lora_A.weight": torch.eye(len(row)),
            f"base_model.model.{MODULE}.lora_B.weight": torch.tensor([row]) / 2,
        }
        save_file(tensors, folders[lang] / "adapter_model.safetensors", metadata={"format": "pt"})
        config = {"peft_type": "LORA", "r": len(row), "lora_alpha": 2 * len(row), "target_modules": ["down_proj"]}
        write_config(folders[lang], {**config, "bias": "none", "base_model_name_or_path": "tiny-base"})
    found = run(opened(folders), tmp_path / "out", **keys)[MODULE]
    return [round(number, 5) + 0.0 for number in found[0].tolist()]


ELECTION = {"de": [4.0, -1, 2, 0, 1], "ja": [-1.0, -3, 2, 0, -1], "zh": [2.0, 5, 0, 0, 0]}


def test_ties(tmp_path: Path) -> None:
    # Sums 5, 1, 4, 0, 0: mean of 4 and 2; 5 alone; mean of 2 and 2; nothing; a balanced vote. Three positive signs make
    # the majority positive.
    assert merged(tmp_path, ELECTION, method="ties", density=1.0) == [3, 5, 2, 0, 1]


def test_a_negative_majority_decides_balanced_votes(tmp_path: Path) -> None:
    rows = {lang: [-number for number in row[:4]] + row[4:] for lang, row in ELECTION.items()}
    assert merged(tmp_path, rows, method="ties", density=1.0) == [-3, -5, -2, 0, -1]
    assert merged(tmp_path, rows, method="ties", density=1.0, semantics="peft") == [-3, -5, -2, 0, 1]


def test_without_a_majority_balanced_votes_are_negative(tmp_path: Path) -> None:
    rows = {"de": [1.0, 3.0, -5.0], "ja": [-1.0, 0.0, 0.0]}
    assert merged(tmp_path, rows, method="ties", density=1.0) == [-1, 3, -5]
    assert merged(tmp_path, rows, method="ties", density=1.0, semantics="mergekit") == [1, 3, -5]


def test_weights_after_or_before_the_vote(tmp_path: Path) -> None:
    rows = {"de": [4.0, 1.0], "ja": [-3.0, 1.0]}
    weights = {"de": 0.5, "ja": 1.0}
    assert merged(tmp_path, rows, method="ties", density=1.0, weights=weights) == [2, 0.75]
    assert merged(tmp_path, rows, method="ties", density=1.0, weights=weights, semantics="peft") == [2, 0.75]
    assert merged(tmp_path, rows, method="ties", density=1.0, weights=weights, semantics="mergekit") == [-3, 1]
    assert merged(tmp_path, rows, method="dare-ties", density=1.0, weights=weights, semantics="mergekit") == [-3, 1.5]


def test_how_many_a_trim_keeps(tmp_path: Path) -> None:
    rows = {"de": [5.0, -4, 3, -2, 1, 0.5, 0.25, 0.1, 0.05, 0.01]}
    one = {"method": "magnitude-prune", "weights": {"de": 1.0}}
    assert merged(tmp_path, rows, **one, density=0.3) == [5, -4, 3, -2, *[0] * 6]
    assert merged(tmp_path, rows, **one, density=0.3, semantics="peft") == [5, -4, 3, *[0] * 7]
    assert merged(tmp_path, rows, **one, density=0.3, semantics="mergekit") == [5, -4, 3, *[0] * 7]
    assert merged(tmp_path, rows, **one, density=0.01, semantics="peft") == [5, *[0] * 9]


def test_of_equals_the_first_stay_or_all(tmp_path: Path) -> None:
    rows = {"de": [1.0, -2, 2, 2, -2, 1]}
    one = {"method": "magnitude-prune", "weights": {"de": 1.0}, "density": 0.34}
    assert merged(tmp_path, rows, **one, semantics="peft") == [0, -2, 2, 0, 0, 0]
    assert merged(tmp_path, rows, **one) == [0, -2, 2, 2, -2, 0]


def test_breadcrumbs_drops_both_ends(tmp_path: Path) -> None:
    rows = {"de": [10.0, -9, 8, -7, 6, 5, 4, 3, 2, 1]}
    keys = {"method": "breadcrumbs", "weights": {"de": 1.0}}
    assert merged(tmp_path, rows, **keys, density=0.5, gamma=0.2) == [0, 0, 8, -7, 6, 5, 4, 0, 0, 0]
    # More outliers than there is room for: the least go first, so that as many stay as asked.
    assert merged(tmp_path, rows, **keys, density=0.9, gamma=0.5) == [0, -9, 8, -7, 6, 5, 4, 3, 2, 1]
    assert merged(tmp_path, rows, **keys, density=0.5, gamma=0.0) == [10, -9, 8, -7, 6, 0, 0, 0, 0, 0]


def test_breadcrumbs_keeps_as_many_as_asked_also_among_equals(tmp_path: Path) -> None:
    rows = {"de": [2.0, 2, 2, -2, 1, 1, -1, 1, 1, 1]}
    found = merged(tmp_path, rows, method="breadcrumbs", weights={"de": 1.0}, density=0.5, gamma=0.2)
    assert sorted(map(abs, found)) == [0, 0, 0, 0, 0, 1, 1, 1, 2, 2]


def test_sce(tmp_path: Path) -> None:
    rows = {"de": [1.0, 4.0, 1.0, 0.0], "ja": [1.0, -2.0, 3.0, 0.0]}
    # Variances 0, 9, 1, 0: of the two that are not zero, one stays. Energies 16/4 and 4/4; the sum is positive.
    assert merged(tmp_path, rows, method="sce", density=0.5) == [0, 4, 0, 0]
    # Energies 18/4 and 14/4: the first entry, then de alone, then 18/32 · 1 + 14/32 · 3.
    assert merged(tmp_path, rows, method="sce", density=1.0) == [1, 4, 1.875, 0]
    # Twice the weight, twice the energy: 36/50 · 1 + 14/50 · 3.
    assert merged(tmp_path, rows, method="sce", density=1.0, weights={"de": 2.0}) == [1, 4, 1.56, 0]


def test_slack(tmp_path: Path) -> None:
    rows = {"de": [3.0, 1.0, -2.0, 2.0], "ja": [-2.0, -0.5, -1.0, 3.0]}
    keys = {"method": "ties-slack", "density": 1.0, "protect": ["ja"]}
    assert merged(tmp_path, rows, **keys, slack=0.0) == [3, 1, -1.5, 2.5]
    # The mean of de's entries is 2; ja loses the votes by 1 and by 0.5.
    assert merged(tmp_path, rows, **keys, slack=0.3) == [3, -0.5, -1.5, 2.5]
    assert merged(tmp_path, rows, **keys, slack=0.6) == [-2, -0.5, -1.5, 2.5]


@pytest.mark.parametrize("method", ["ties", "magnitude-prune", "breadcrumbs"])
def test_one_number(tmp_path: Path, method: str) -> None:
    for semantics in ("paper", "mergekit", "peft"):
        keys = {"method": method, "density": 0.5, "semantics": semantics}
        expected = 0 if method == "breadcrumbs" else 1.5  # int(0.5) numbers stay in the band.
        weights = {"de": 1.0, "ja": 0.0} if semantics != "peft" else {"de": 1.0}
        rows = {"de": [1.5]} if semantics == "peft" else {"de": [1.5], "ja": [7.0]}
        assert merged(tmp_path, rows, **keys, weights=weights) == [expected]
