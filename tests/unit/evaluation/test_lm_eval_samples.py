"""Results of lm-evaluation-harness as cells: the forms that its tasks have, written by hand."""

from __future__ import annotations

from typing import Any

import pytest

from adapterctl.errors import DataError
from adapterctl.evaluation.lm_eval_samples import cell_of, language_of
from adapterctl.evaluation.scorecard import Cell


def sample(number: int, asked: list[Any], said: list[Any], target: Any, **values: Any) -> dict[str, Any]:
    hashes = {name: f"{name}{number}" for name in ("doc_hash", "prompt_hash", "target_hash")}
    fixed = {"doc_id": number, "filter": "none", "arguments": asked, "filtered_resps": said, "target": target}
    return {**hashes, **fixed, **values}


def cell(results: dict[str, Any], samples: list[dict[str, Any]], **settings: Any) -> Cell:
    named = {"aggregations": {}, "higher_is_better": {"acc": True, "exact_match": True}, "signature": "s", **settings}
    return cell_of("task", "de", results, samples, **named)


@pytest.mark.parametrize(
    ("task", "lang"),
    [
        ("belebele_zh", "zh"),
        ("xnli_ZH_hans", "zh-Hans"),
        ("de", "de"),
        ("code_deu", "und"),
        ("mode", "und"),
        ("mmlu_de_law", "und"),
        ("hellaswag", "und"),
    ],
)
def test_the_language_is_what_the_name_ends_with(task: str, lang: str) -> None:
    assert language_of(task, ["de", "zh", "Hans", "zh-Hans"]) == lang


def test_of_several_filters_the_first_gives_the_rows() -> None:
    asked = [("2+2?", {"until": ["."]})]
    samples = [
        sample(0, asked, ["four"], " 4 ", exact_match=0.0, filter="strict"),
        sample(1, asked, ["4"], "4", exact_match=1.0, filter="strict"),
        sample(0, asked, ["4"], " 4 ", exact_match=1.0, filter="loose"),
        sample(1, asked, [["4", "5"]], "4", exact_match=1.0, filter="loose"),
    ]
    results = {
        "alias": "task",
        "sample_len": 2,
        "exact_match,strict": 0.5,
        "exact_match_stderr,strict": 0.5,
        "exact_match,loose": 1.0,
        "exact_match_stderr,loose": "N/A",
    }
    found = cell(results, samples)
    assert (found.primary, found.value, found.n) == ("exact_match,strict", 0.5, 2)
    assert found.metrics == {"exact_match,strict": 0.5, "exact_match,loose": 1.0}
    assert found.signatures == {name: f"{name}|s" for name in found.metrics}
    assert [(score.prediction, score.reference, score.score) for score in found.scores] == [
        ("four", "4", 0.0),
        ("4", "4", 1.0),
    ]
    assert found.scores[0].details == {"exact_match,strict": 0.0, "exact_match,loose": 1.0}
    loose = cell({"exact_match,loose": 1.0}, samples)
    assert [score.prediction for score in loose.scores] == ["4", '["4", "5"]']


def test_endings_that_are_also_asked_without_a_prompt() -> None:
    asked = [("the sky is", " blue"), ("the sky is", " green"), ("", " blue"), ("", " green")]
    said = [(-3.0, False), (-2.0, True), (-1.0, False), (-0.5, False)]
    (score,) = cell({"acc,none": 0.0}, [sample(0, asked, said, 0, acc=0.0)]).scores
    assert (score.prediction, score.reference) == ("green", "blue")
    assert score.details == {"acc": 0.0, "log_likelihoods": [-3.0, -2.0], "chosen": 1, "answer": 0}


def test_several_prompts_with_one_ending() -> None:
    asked = [("Ann thanked Bob because Ann", " was helped"), ("Ann thanked Bob because Bob", " was helped")]
    (score,) = cell({"acc,none": 1.0}, [sample(0, asked, [(-1.0, False), (-2.0, False)], "0", acc=1)]).scores
    assert (score.prediction, score.reference) == ("Ann thanked Bob because Ann", "0")
    assert "answer" not in score.details


@pytest.mark.parametrize(("greedy", "prediction"), [(True, "Rome"), (False, "")])
def test_one_ending_is_the_prediction_where_it_is_the_most_likely(greedy: bool, prediction: str) -> None:
    (score,) = cell({"acc,none": 1.0}, [sample(0, [("to", " Rome")], [(-0.25, greedy)], " Rome", acc=greedy)]).scores
    assert (score.prediction, score.reference, score.score) == (prediction, "Rome", float(greedy))
    assert score.details == {"acc": float(greedy), "log_likelihoods": [-0.25]}


def test_a_mean_comes_before_a_metric_of_all_texts_and_fewer_is_worse() -> None:
    samples = [sample(0, [("a", {})], ["b"], "b", ter=("b", "b"), chrf=("b", "b"), acc=1.0)]
    results = {"ter,none": 7.0, "chrf,none": 60.0, "acc,none": 1.0}
    better = {"ter": False, "chrf": True, "acc": True}
    assert cell(results, samples, higher_is_better=better).primary == "acc"
    del results["acc,none"]
    found = cell(results, samples, higher_is_better=better, aggregations={"ter": lambda pairs: 4.0 * len(pairs)})
    assert (found.primary, found.scores[0].score, found.scores[0].details["ter"]) == ("ter", -4.0, 4.0)


@pytest.mark.parametrize("error", [ValueError, TypeError, ZeroDivisionError, IndexError])
def test_what_one_row_does_not_have_by_itself_is_zero(error: type[Exception]) -> None:
    def correlation(pairs: Any) -> float:
        raise error

    samples = [sample(0, [("a", {})], ["b"], "b", pearson=(1, 2))]
    found = cell({"pearson,none": 0.5}, samples, aggregations={"pearson": correlation})
    assert (found.value, found.scores[0].score) == (0.5, 0.0)


def test_values_that_are_no_numbers_are_left_out() -> None:
    samples = [sample(0, [("a", {})], ["b"], "b", acc=1.0)]
    assert cell({"f1,none": float("nan"), "mcc,none": "N/A", "acc,none": 1.0}, samples).metrics == {"acc": 1.0}
    with pytest.raises(DataError, match="gives no metric") as caught:
        cell({"f1,none": float("nan"), "alias": "x"}, samples)
    assert "metric_list" in caught.value.hint
    with pytest.raises(DataError, match="gives no row"):
        cell({"acc,none": 1.0}, [])
