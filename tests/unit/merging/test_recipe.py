from __future__ import annotations

from typing import Any, get_args

import pytest
from pydantic import ValidationError

from adapterctl.merging.methods import METHODS
from adapterctl.merging.recipe import MergeRecipe, MethodName, lint

LANGUAGES = ["zh", "de", "ja"]


def recipe(**keys: Any) -> MergeRecipe:
    return MergeRecipe.model_validate(keys)


def test_default_is_core_tsv_with_lambda_to_be_chosen() -> None:
    default = MergeRecipe()
    assert (default.method, default.lambda_, default.rank, default.semantics) == ("core-tsv", "auto", "auto", "paper")
    assert lint(default, LANGUAGES) == []


def test_every_method_has_a_row() -> None:
    assert set(get_args(MethodName)) == set(METHODS)
    assert all(row.explanation and row.name == name for name, row in METHODS.items())


def test_weights_are_shares_for_sums_and_one_elsewhere() -> None:
    assert recipe(method="linear").resolved_weights(LANGUAGES) == dict.fromkeys(["de", "ja", "zh"], 1 / 3)
    assert recipe(method="core-tsv").resolved_weights(LANGUAGES) == dict.fromkeys(["de", "ja", "zh"], 1.0)
    given = recipe(method="linear", weights={"ja": 2.0, "de": -0.5}).resolved_weights(LANGUAGES)
    assert given == {"de": -0.5, "ja": 2.0, "zh": 1 / 3}


def test_lambda_by_its_own_name() -> None:
    assert recipe(**{"lambda": 0.7}).resolved_lambda(2.0) == 0.7
    assert recipe(lambda_="auto").resolved_lambda(2.0) == 2.0
    assert recipe().resolved_lambda() == 1.0
    assert recipe(**{"lambda": 0.7}).model_dump(by_alias=True)["lambda"] == 0.7


@pytest.mark.parametrize(
    "keys",
    [
        {"method": "tis"},
        {"density": 0},
        {"density": 1.01},
        {"density": -0.1},
        {"lambda": "automatic"},
        {"lambda": float("inf")},
        {"rank": 0},
        {"rank": "half"},
        {"seed": 1.5},
        {"weights": {"ja": float("nan")}},
        {"dtype": "float8"},
        {"densty": 0.4},
    ],
)
def test_what_has_no_meaning_is_refused(keys: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        recipe(**keys)


@pytest.mark.parametrize(
    ("keys", "where", "word"),
    [
        ({"method": "core-tsv", "density": 0.4}, "merge.density", "drops no entries"),
        ({"method": "dare-ties", "density": 1.0}, "merge.density", "is ties"),
        ({"method": "dare-linear", "density": 1.0}, "merge.density", "is linear"),
        ({"method": "magnitude-prune", "density": 1.0}, "merge.density", "is linear"),
        ({"method": "ties", "seed": 3}, "merge.seed", "no random numbers"),
        ({"method": "knots-ties", "semantics": "peft"}, "merge.semantics", "the same"),
        ({"method": "linear", "rank": "full"}, "merge.rank", "exact"),
        ({"method": "core-iso-c", "rank": 8}, "merge.rank", "all singular values of core-iso-c are equal"),
        ({"lambda": 0.0}, "merge.lambda", "changes nothing"),
        ({"weights": {"ja": 0.0}}, "merge.weights", "takes no part"),
        ({"weights": {"jp": 1.0}}, "merge.weights", "'jp' is none of the languages de, ja, zh"),
        ({"weights": {"de": 0.0, "ja": 0.0, "zh": 0.0}}, "merge.weights", "every weight is 0"),
    ],
)
def test_lint_names_what_is_odd(keys: dict[str, Any], where: str, word: str) -> None:
    found = [problem for problem in lint(recipe(**keys), LANGUAGES) if word in problem.message]
    assert [problem.where for problem in found] == [where]
    assert found[0].hint


@pytest.mark.parametrize(
    "keys",
    [
        {"method": "ties", "density": 0.2, "semantics": "mergekit", "rank": "full"},
        {"method": "ties", "density": 1.0},
        {"method": "dare-ties", "density": 0.5, "seed": 3},
        {"method": "core-tsv", "rank": 16, "weights": {"ja": 1.2}, "lambda": -0.5},
    ],
)
def test_lint_is_silent_about_settings_that_count(keys: dict[str, Any]) -> None:
    assert lint(recipe(**keys), LANGUAGES) == []


def test_lint_of_one_language() -> None:
    (problem,) = lint(MergeRecipe(), ["ja"])
    assert "nothing to merge" in problem.message
