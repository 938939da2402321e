from __future__ import annotations

from typing import Any, get_args

import pytest
from pydantic import ValidationError

from adapterctl.merging.dialects import DIALECTS
from adapterctl.merging.lint import contradictions, excessive_rank, lint, only_warnings
from adapterctl.merging.methods import METHODS
from adapterctl.merging.recipe import FACTORWISE, MergeRecipe, MethodName

LANGUAGES = ["zh", "de", "ja"]


def recipe(**keys: Any) -> MergeRecipe:
    return MergeRecipe.model_validate(keys)


def test_default_is_core_tsv_with_lambda_to_be_chosen() -> None:
    default = MergeRecipe()
    assert (default.method, default.lambda_, default.rank, default.semantics) == ("core-tsv", "auto", "auto", "paper")
    assert lint(default, LANGUAGES) == []


def test_every_method_has_a_row() -> None:
    assert set(get_args(MethodName)) == set(METHODS)
    assert all(row.explanation and row.title and row.name == name for name, row in METHODS.items())
    assert set(FACTORWISE) <= set(METHODS)


def test_options_of_methods_are_keys_of_the_recipe() -> None:
    assert {key for row in METHODS.values() for key in row.options} <= set(MergeRecipe.model_fields)


def test_a_method_that_drops_entries_reads_the_density_and_one_that_draws_the_seed() -> None:
    for name, row in METHODS.items():
        assert (row.drop != "none") == ("density" in row.options), name
        assert row.draws == ("seed" in row.options), name
        assert row.judges_entries == ("semantics" in row.options), name


def test_the_fine_print_that_holds() -> None:
    assert recipe(method="ties").dialect is DIALECTS["paper"]
    assert recipe(method="core-ties").dialect is DIALECTS["core"]
    assert recipe(method="core-ties", semantics="peft").dialect is DIALECTS["peft"]
    assert recipe(method="ties", semantics="mergekit").dialect is DIALECTS["mergekit"]


@pytest.mark.parametrize(
    ("name", "density", "kept"),
    [("paper", 0.2, 21), ("mergekit", 0.2, 20), ("peft", 0.2, 20), ("paper", 1.0, 100), ("mergekit", 0.001, 1)],
)
def test_how_many_of_a_hundred_entries_stay(name: str, density: float, kept: int) -> None:
    assert DIALECTS[name].kept(100, density) == kept


def test_short_names_of_types() -> None:
    short = recipe(dtype="bf16", precision="fp64")
    assert (short.dtype, short.precision) == ("bfloat16", "float64")


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
        {"density": float("nan")},
        {"base_share": 1.0},
        {"base_share": -0.1},
        {"slack": -1},
        {"epsilon": 1.0},
        {"gamma": -0.01},
        {"layers": {"0-7": "half"}},
        {"layers": {"0-7": {"ja": float("inf")}}},
        {"modules": [0.5]},
        {"missing": "ignore"},
        {"semantics": "core"},
        {"space": "knots"},
        {"precision": "float16"},
    ],
)
def test_what_has_no_meaning_is_refused(keys: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        recipe(**keys)


@pytest.mark.parametrize(
    ("keys", "where", "word"),
    [
        ({"method": "core-tsv", "density": 0.4}, "merge.density", "core-tsv does not read it"),
        ({"method": "ties", "seed": 3}, "merge.seed", "it matters to: dare-linear, dare-ties, della, knots-dare-ties"),
        ({"method": "linear", "semantics": "peft"}, "merge.semantics", "linear does not read it"),
        ({"method": "ties", "epsilon": 0.2}, "merge.epsilon", "it matters to: della"),
        ({"method": "ties", "gamma": 0.2}, "merge.gamma", "it matters to: breadcrumbs"),
        ({"method": "ties", "slack": 0.2}, "merge.slack", "it matters to: ties-slack"),
        ({"method": "ties", "protect": ["ja"]}, "merge.protect", "it matters to: ties-slack"),
        ({"method": "ties", "grams": {"ja": "x"}}, "merge.grams", "it matters to: regmean"),
        ({"method": "dare-ties", "density": 1.0}, "merge.density", "dare-ties is ties at density 1"),
        ({"method": "core-dare-ties", "density": 1.0}, "merge.density", "core-dare-ties is core-ties at density 1"),
        ({"method": "dare-linear", "density": 1.0}, "merge.density", "dare-linear is linear"),
        ({"method": "dare-linear", "density": 1.0, "seed": 2}, "merge.seed", "draws no random numbers"),
        ({"method": "magnitude-prune", "density": 1.0}, "merge.density", "magnitude-prune is linear"),
        ({"method": "breadcrumbs", "density": 1.0}, "merge.density", "breadcrumbs is linear"),
        ({"method": "della", "epsilon": 0}, "merge.epsilon", "at epsilon 0, della is dare-ties"),
        ({"method": "della", "epsilon": 0, "semantics": "mergekit"}, "merge.epsilon", "but for what the sum"),
        ({"method": "breadcrumbs", "gamma": 0}, "merge.gamma", "magnitude-prune within each module"),
        ({"method": "ties-slack"}, "merge.method", "at slack 0, ties-slack is ties"),
        ({"method": "ties-slack", "slack": 0.0}, "merge.slack", "at slack 0"),
        ({"method": "ties-slack", "protect": ["ja"]}, "merge.protect", "at slack 0"),
        ({"method": "ties-slack", "slack": 0.5}, "merge.slack", "no language is protected"),
        ({"method": "ties-slack", "slack": 0.5, "protect": ["ja", "de", "zh"]}, "merge.protect", "none is"),
        ({"method": "linear", "rank": "full"}, "merge.rank", "exact"),
        ({"method": "core-iso-c", "rank": 8}, "merge.rank", "all singular values of core-iso-c are equal"),
        ({"method": "knots-linear"}, "merge.method", "exactly linear"),
        ({"method": "core-ta"}, "merge.method", "exactly linear"),
        ({"lambda": 0.0}, "merge.lambda", "changes nothing"),
        ({"lambda": 0.5, "base_share": 0.25}, "merge.base_share", "by lambda 0.5 and by 1 - base_share 0.25"),
        ({"layers": {"0-7": 1.0}}, "merge.layers", "a factor of 1 for '0-7'"),
        ({"modules": {"mlp": {"ja": 1}}}, "merge.modules", "a factor of 1 for 'mlp'"),
        ({"method": "ties", "weights": {"ja": -0.5}}, "merge.weights", "vote with their own sign"),
        (
            {"method": "ties", "weights": {"ja": -0.5}, "semantics": "mergekit"},
            "merge.weights",
            "divided by it again",
        ),
        ({"method": "linear", "weights": {"ja": 1.0, "de": 0.5}}, "merge.weights", "add up to 1.83333"),
        ({"method": "ties", "space": "factors", "semantics": "peft"}, "merge.space", "cross terms"),
        ({"weights": {"ja": 0.0}}, "merge.weights", "takes no part"),
    ],
)
def test_lint_names_what_is_odd(keys: dict[str, Any], where: str, word: str) -> None:
    found = [problem for problem in only_warnings(recipe(**keys), LANGUAGES) if word in problem.message]
    assert [problem.where for problem in found] == [where]
    assert found[0].hint
    assert contradictions(recipe(**keys), LANGUAGES) == []


@pytest.mark.parametrize(
    ("keys", "where", "word"),
    [
        ({"weights": {"jp": 1.0}}, "merge.weights", "'jp' is none of the languages de, ja, zh"),
        ({"method": "ties-slack", "protect": ["jp"]}, "merge.protect", "'jp' is none of the languages de, ja, zh"),
        ({"layers": {"0-3": {"jp": 0.5}}}, "merge.layers", "'jp' is none of the languages de, ja, zh"),
        ({"modules": {"mlp": {"jp": 0.5}}}, "merge.modules", "'jp' is none of the languages de, ja, zh"),
        ({"weights": {"de": 0.0, "ja": 0.0, "zh": 0.0}}, "merge.weights", "every weight is 0"),
        ({"layers": {"7-0": 0.5}}, "merge.layers", "'7-0' is not a range of layers"),
        ({"layers": {"0-7": 0.5, "7": 0.2}}, "merge.layers", "'0-7' and '7' overlap"),
        ({"space": "factors", "method": "ties"}, "merge.space", "PEFT only"),
        ({"space": "factors", "semantics": "peft", "method": "svc"}, "merge.space", "PEFT has no svc"),
        ({"method": "della", "density": 0.05}, "merge.epsilon", "from -0.05 to 0.15"),
        ({"method": "della", "density": 0.95}, "merge.epsilon", "from 0.85 to 1.05"),
        ({"method": "regmean", "grams": {"ja": "x"}}, "merge.grams", "there are none of de, zh"),
    ],
)
def test_contradictions(keys: dict[str, Any], where: str, word: str) -> None:
    found = [problem for problem in contradictions(recipe(**keys), LANGUAGES) if word in problem.message]
    assert [problem.where for problem in found] == [where]
    assert found[0].hint
    assert found[0] in lint(recipe(**keys), LANGUAGES)
    assert found[0] not in only_warnings(recipe(**keys), LANGUAGES)


@pytest.mark.parametrize(
    "keys",
    [
        {"method": "ties", "density": 0.2, "semantics": "mergekit", "rank": "full"},
        {"method": "ties", "density": 1.0},
        {"method": "dare-ties", "density": 0.5, "seed": 3},
        {"method": "dare-ties", "density": 0.5, "semantics": "mergekit", "weights": {"ja": -0.5}},
        {"method": "core-tsv", "rank": 16, "weights": {"ja": 1.2}, "lambda": -0.5},
        {"method": "linear", "weights": {"ja": 0.5, "de": 0.25, "zh": 0.25}},
        {"method": "linear", "weights": {"ja": 1.5, "de": -0.75, "zh": 0.25}},
        {"method": "ties-slack", "slack": 0.5, "protect": ["ja"], "density": 0.3},
        {"method": "della", "density": 0.5, "epsilon": 0.2, "seed": 4},
        {"method": "breadcrumbs", "density": 0.5, "gamma": 0.02},
        {"method": "sce", "density": 1.0},
        {"method": "regmean", "grams": {"de": "d", "ja": "j", "zh": "z"}},
        {"layers": {"0-7": 0.5, "8": {"ja": 0.5}}, "modules": {"mlp": 0.9}, "base_share": 0.2},
    ],
)
def test_lint_is_silent_about_settings_that_count(keys: dict[str, Any]) -> None:
    assert lint(recipe(**keys), LANGUAGES) == []


def test_lint_of_one_language() -> None:
    (problem,) = lint(MergeRecipe(), ["ja"])
    assert "nothing to merge" in problem.message


def test_lint_without_languages_leaves_them_out() -> None:
    keys = {"method": "linear", "weights": {"jp": 3.0}, "layers": {"0-1": {"xx": 0.5}}}
    assert lint(recipe(**keys), []) == []
    assert [problem.where for problem in lint(recipe(method="linear", density=0.5), [])] == ["merge.density"]


def test_a_rank_that_cannot_be_filled() -> None:
    assert excessive_rank(recipe(rank=16), 16) == []
    assert excessive_rank(recipe(rank="full"), 4) == []
    (problem,) = excessive_rank(recipe(rank=17), 16)
    assert (problem.where, problem.message.partition(",")[0]) == ("merge.rank", "the result has rank 16 at most")
