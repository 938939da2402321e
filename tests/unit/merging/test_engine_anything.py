"""Recipes and adapters of any kind against the dense references: what nobody thought of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from tests.support.adapters import make_adapter
from tests.support.merging import assert_close, expected_of, factors_of, is_stable, opened, run, write_grams
from tests.unit.merging import reference

from adapterctl.merging.methods import METHODS
from adapterctl.merging.schedule import Schedule

LANGUAGES = ("de", "en", "ja", "zh")
CERTAIN = sorted(name for name, row in METHODS.items() if not row.draws)
NEVER_NEGATIVE = ("sce", "regmean", "svc")
"""Weights of these are shares of something that must not vanish."""


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    method = draw(st.sampled_from(CERTAIN))
    languages = LANGUAGES[: draw(st.integers(1, 4))]
    sides = st.integers(1, 14)
    shapes = {
        f"model.layers.{layer}.mlp.{kind}_proj": (draw(sides), draw(sides))
        for layer, kind in (("0", "up"), ("0", "down"), ("1", "up"))[: draw(st.integers(1, 3))]
    }
    weight = st.sampled_from([0.0, 0.5, 1.0, 1.7] + ([-1.0, -0.3] if method not in NEVER_NEGATIVE else []))
    given_weights = draw(st.dictionaries(st.sampled_from(languages), weight))
    keys: dict[str, Any] = {
        "method": method,
        "semantics": draw(st.sampled_from(["paper", "mergekit", "peft"])),
        "weights": given_weights,
        "precision": draw(st.sampled_from(["float32", "float64"])),
    }
    if METHODS[method].judges_entries:
        keys["density"] = draw(st.sampled_from([0.05, 0.33, 0.5, 0.9, 1.0]))
    if method == "breadcrumbs":
        keys["gamma"] = draw(st.sampled_from([0.0, 0.1, 0.4]))
    if method == "ties-slack":
        keys |= {"slack": draw(st.sampled_from([0.0, 0.4, 2.0])), "protect": draw(st.sets(st.sampled_from(languages)))}
    pairs = [(lang, module) for lang in languages for module in shapes]
    lacking = draw(st.sets(st.sampled_from(pairs), max_size=2)) if draw(st.booleans()) else set()
    keys["missing"] = draw(st.sampled_from(["zero", "present"])) if lacking else "refuse"
    one = draw(st.sampled_from([None, 0.5, -1.5, {languages[0]: 0.0}, {languages[-1]: 2.0}]))
    if one is not None:
        keys["layers"] = {"0": one}
    return {
        "keys": keys,
        "lacking": lacking,
        "languages": languages,
        "shapes": shapes,
        "ranks": {lang: draw(st.integers(1, 5)) for lang in languages},
        "rslora": {lang: draw(st.booleans()) for lang in languages},
        "seed": draw(st.integers(0, 999)),
        "scale": draw(st.sampled_from([1.0, 0.3, -2.0])),
        "base_share": draw(st.sampled_from([0.0, 0.25])),
        "dtype": draw(st.sampled_from([torch.float32, torch.float32, torch.bfloat16, torch.float16])),
    }


def separated(factors: reference.Factors, weights: reference.Weights, keys: dict[str, Any]) -> bool:
    """Whether singular values are either zero or not, so that everybody keeps the same ones."""
    stacks = []
    for module, parts in factors.items():
        took_part = [lang for lang in parts if weights[module][lang] or keys["semantics"] == "peft"]
        known = {lang: b @ a for lang, (b, a) in parts.items() if lang in took_part and np.any(b)}
        if not known:
            continue
        stacks += [*known.values(), np.hstack(list(known.values())), sum(weights[module][i] * known[i] for i in known)]
        stacks += [np.hstack([parts[i][0] for i in known]), np.vstack([parts[i][1] for i in known])]
        for side in (0, 2):
            vectors = [reference.svd(x)[side] for x in known.values()]
            stacks.append(np.hstack(vectors) if side == 0 else np.vstack(vectors))
    for stack in stacks:
        s = np.linalg.svd(stack, compute_uv=False)
        if ((s > 1e-11 * s[0]) & (s < 1e-3 * s[0])).any():
            return False
    return True


@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much, HealthCheck.too_slow],
)
@given(cases())
def test_anything(tmp_path_factory: pytest.TempPathFactory, case: dict[str, Any]) -> None:
    root, keys = tmp_path_factory.mktemp("anything"), dict(case["keys"])
    folders: dict[str, Path] = {}
    for index, lang in enumerate(case["languages"]):
        held = {module: shape for module, shape in case["shapes"].items() if (lang, module) not in case["lacking"]}
        assume(held)
        folders[lang] = make_adapter(
            root / lang,
            seed=case["seed"] + index,
            rank=case["ranks"][lang],
            alpha=case["ranks"][lang] + 1.5,
            shapes=held,
            dtype=case["dtype"],
            use_rslora=case["rslora"][lang],
        )
    if keys["method"] == "regmean":
        keys["grams"] = write_grams(root / "grams", case["languages"], case["shapes"])
    factors = factors_of(folders)
    assume(set(factors) == set(case["shapes"]))
    if keys["missing"] == "zero":
        for module, (out, width) in case["shapes"].items():
            nothing = {lang: (np.zeros((out, 1)), np.zeros((1, width))) for lang in folders}
            factors[module] = {**nothing, **factors[module]}
    schedule = Schedule(keys.get("layers", {}), {})
    weights = {}
    for module, parts in factors.items():
        default = 1 / len(parts) if METHODS[keys["method"]].shares else 1.0
        weights[module] = {
            lang: keys["weights"].get(lang, default) * schedule.weight_factor(module, lang) for lang in parts
        }
    assume(any(weight for known in weights.values() for weight in known.values()))
    assume(separated(factors, weights, keys))
    assume(is_stable(factors, keys, weights=weights))
    factor = case["scale"] * (1 - case["base_share"])
    expected = {
        module: factor * schedule.factor(module) * tensor
        for module, tensor in expected_of(factors, keys, weights).items()
    }
    found = run(opened(folders), root / "out", **keys, base_share=case["base_share"], **{"lambda": case["scale"]})
    assert_close(found, expected, 2e-5)
