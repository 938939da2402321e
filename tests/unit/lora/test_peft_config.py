from __future__ import annotations

from typing import Any

import pytest
from peft.utils.other import get_pattern_key

from adapterctl.lora.peft_config import canonical_config, config_problems, pattern_value, rank_of, scale_of

CONFIG: dict[str, Any] = {"peft_type": "LORA", "r": 4, "lora_alpha": 6}

PATTERNS = [
    {"q_proj": 8},
    {"gate_proj": 18, "layers.1.mlp.gate_proj": 6},
    {"layers.1.mlp.gate_proj": 6, "gate_proj": 18},
    {"proj": 5},
    {r"layers\.[01]\.mlp\..*": 7},
    {"^model.layers.0.mlp.gate_proj": 9},
    {"model.layers.1.mlp.gate_proj": 3},
    {"a|mlp.gate_proj": 2},
]


@pytest.mark.parametrize("patterns", PATTERNS)
@pytest.mark.parametrize("module", ["model.layers.0.mlp.gate_proj", "model.layers.1.mlp.gate_proj", "x.q_proj"])
def test_patterns_match_as_in_peft(patterns: dict[str, int], module: str) -> None:
    expected = patterns.get(get_pattern_key(patterns.keys(), module), 4)
    assert pattern_value(patterns, module, 4) == expected


def test_first_match_in_file_order_wins() -> None:
    assert pattern_value({"gate_proj": 18, "mlp.gate_proj": 6}, "model.mlp.gate_proj", 1) == 18
    assert pattern_value({"mlp.gate_proj": 6, "gate_proj": 18}, "model.mlp.gate_proj", 1) == 6


def test_scale() -> None:
    assert scale_of(CONFIG, "m") == 1.5
    assert scale_of({**CONFIG, "use_rslora": True}, "m") == 3.0
    patterns = {"rank_pattern": {"q": 9}, "alpha_pattern": {"q": 2}}
    assert rank_of({**CONFIG, **patterns}, "x.q") == 9
    assert scale_of({**CONFIG, **patterns, "use_rslora": True}, "x.q") == pytest.approx(2 / 3)


@pytest.mark.parametrize("start", [True, False, None, "gaussian", "Gaussian", "eva", "orthogonal", "mica"])
def test_initialisations_that_leave_the_base_weights_alone(start: object) -> None:
    assert config_problems({**CONFIG, "init_lora_weights": start}, "here") == []


def test_plain_lora_has_no_problems() -> None:
    assert config_problems({**CONFIG, "bias": "none", "use_dora": False, "init_lora_weights": "eva"}, "here") == []


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"peft_type": "LOHA"}, "LOHA"),
        ({"peft_type": None}, "None"),
        ({"use_dora": True}, "use_dora"),
        ({"lora_bias": True}, "lora_bias"),
        ({"bias": "all"}, "bias"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices"),
        ({"target_parameters": ["x"]}, "target_parameters"),
        ({"use_qalora": True}, "use_qalora"),
        ({"init_lora_weights": "pissa_niter_4"}, "pissa"),
        ({"init_lora_weights": "olora"}, "olora"),
        ({"init_lora_weights": "loftq"}, "loftq"),
        ({"init_lora_weights": "corda"}, "corda"),
        ({"r": 0}, "r is 0"),
        ({"r": "4"}, "r is '4'"),
        ({"r": True}, "r is True"),
        ({"lora_alpha": "x"}, "lora_alpha"),
        ({"lora_alpha": float("nan")}, "lora_alpha"),
        ({"rank_pattern": ["q"]}, "rank_pattern"),
        ({"rank_pattern": {"q": 0}}, "rank_pattern"),
        ({"alpha_pattern": {"q": "many"}}, "alpha_pattern"),
        ({"rank_pattern": {"q(": 3}}, "regular expression"),
        ({"rank_pattern": {"(q+)+": 3}}, "too long to match"),
        ({"r": 2**40}, "not a positive whole number"),
        ({"lora_alpha": 10**400}, "not a number"),
        ({"base_model_name_or_path": ["x"]}, "not text"),
        ({"revision": 3}, "not text"),
        ({"init_lora_weights": "PiSSA"}, "PiSSA"),
    ],
)
def test_what_is_not_a_plain_delta_is_a_problem(change: dict[str, Any], word: str) -> None:
    (problem,) = config_problems({**CONFIG, **change}, "here")
    assert problem.where == "here"
    assert word in problem.message


def test_all_problems_come_at_once() -> None:
    assert len(config_problems({**CONFIG, "use_dora": True, "bias": "all", "r": -1}, "here")) == 3


def test_canonical_config_forgets_what_has_no_meaning() -> None:
    written = {
        **CONFIG,
        "target_modules": ["v", "q"],
        "peft_version": "0.21",
        "base_model_name_or_path": "/a",
        "inference_mode": True,
        "modules_to_save": None,
        "loftq_config": {},
    }
    again = {"target_modules": ["q", "v"], "lora_alpha": 6, "r": 4, "peft_type": "LORA", "base_model_name_or_path": "b"}
    assert canonical_config(written) == canonical_config(again)


def test_canonical_config_keeps_the_order_of_patterns() -> None:
    first = canonical_config({**CONFIG, "rank_pattern": {"a": 1, "b": 2}})
    assert first != canonical_config({**CONFIG, "rank_pattern": {"b": 2, "a": 1}})
