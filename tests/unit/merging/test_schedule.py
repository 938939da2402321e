from __future__ import annotations

import pytest

from adapterctl.merging.schedule import Schedule, layer_of, parse_range

Q0 = "model.layers.0.self_attn.q_proj"
UP9 = "model.layers.9.mlp.up_proj"


@pytest.mark.parametrize(
    ("module", "layer"),
    [
        (Q0, 0),
        ("model.layers.31.mlp.down_proj", 31),
        ("transformer.h.7.attn.c_attn", 7),
        ("layers.12", 12),
        ("encoder.blocks.3.fc1", 3),
        ("encoder.block.4.fc1", 4),
        ("lm_head", None),
        ("model.mylayers.3.q_proj", None),
        ("model.layers.norm", None),
    ],
)
def test_the_layer_of_a_module(module: str, layer: int | None) -> None:
    assert layer_of(module) == layer


@pytest.mark.parametrize(
    ("text", "layers"),
    [
        ("7", [7]),
        ("0-2", [0, 1, 2]),
        (" 3-3 ", [3]),
        ("2-1", None),
        ("", None),
        ("-3", None),
        ("1-", None),
        ("a-b", None),
        ("0:3", None),
        ("1.5", None),
    ],
)
def test_ranges_have_both_ends(text: str, layers: list[int] | None) -> None:
    found = parse_range(text)
    assert (None if found is None else list(found)) == layers


def test_without_entries_every_factor_is_one() -> None:
    empty = Schedule({}, {})
    assert not empty
    assert (empty.factor(Q0), empty.weight_factor(Q0, "ja")) == (1.0, 1.0)


def test_factors_of_layers_and_modules_multiply() -> None:
    schedule = Schedule({"0-7": 0.5, "8-15": 2.0}, {"q_proj": 3.0, "mlp": 5.0})
    assert schedule
    assert schedule.factor(Q0) == 1.5
    assert schedule.factor(UP9) == 10.0
    assert schedule.factor("model.layers.20.self_attn.k_proj") == 1.0
    assert schedule.factor("lm_head") == 1.0


def test_factors_of_languages_do_not_touch_the_result_and_the_other_way_round() -> None:
    schedule = Schedule({"0": {"ja": 0.5}}, {"self_attn": {"ja": 3.0, "de": 0.0}, "mlp": 7.0})
    assert schedule.factor(Q0) == 1.0
    assert [schedule.weight_factor(Q0, lang) for lang in ("ja", "de", "zh")] == [1.5, 0.0, 1.0]
    assert schedule.weight_factor(UP9, "ja") == 1.0


def test_a_kind_is_a_whole_part_of_the_path() -> None:
    assert Schedule({}, {"q": 0.5}).factor(Q0) == 1.0
    assert Schedule({}, {"proj": 0.5}).factor(Q0) == 1.0


def test_problems_name_ranges_overlaps_and_languages() -> None:
    schedule = Schedule({"0-7": 1.0, "5-9": 0.5, "x": 1.0, "10": {"jp": 0.5}}, {"mlp": {"fr": 0.1, "ja": 0.2}})
    found = [(problem.where, problem.message) for problem in schedule.problems(["zh", "ja"])]
    assert found == [
        ("merge.layers", "'0-7' and '5-9' overlap"),
        ("merge.layers", "'x' is not a range of layers"),
        ("merge.layers", "'jp' is none of the languages ja, zh"),
        ("merge.modules", "'fr' is none of the languages ja, zh"),
    ]
    assert len(schedule.problems([])) == 2


def test_entries_that_match_nothing() -> None:
    schedule = Schedule({"0": 0.5, "10-12": 0.5}, {"q_proj": 0.5, "qproj": 0.5})
    first, second = schedule.idle([Q0, UP9])
    assert first.message == "no module is in '10-12'; the adapters have layers 0 to 9"
    assert second.message == "no module has 'qproj' in its path; there are q_proj, up_proj"
    assert Schedule({"3": 0.5}, {}).idle(["lm_head"])[0].message.endswith("the adapters have no layers")
    assert Schedule({"0": 0.5}, {"mlp": 0.5}).idle([Q0, UP9]) == []
