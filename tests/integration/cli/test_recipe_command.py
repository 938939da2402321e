"""``adapterctl recipe``: the methods, the table of semantics, and what is odd about a recipe."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
from tests.support.cli import Result, invoke

from adapterctl.merging.dialects import Dialect
from adapterctl.merging.methods import METHODS
from adapterctl.merging.recipe import MergeRecipe
from adapterctl.workflows.init import init_workspace

PAPERS = {"ties": "2306.01708", "knots-ties": "2410.19735", "core-tsv": "2412.00081", "della": "2406.11617"}


def lint(file: Path, *args: str) -> Result:
    return invoke("recipe", "lint", file, *args)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return tmp_path / "recipe.yaml"


@pytest.mark.parametrize("width", [80, 120])
def test_methods_fit_the_terminal(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    result = invoke("recipe", "methods")
    assert (result.exit_code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert max(map(len, lines)) <= width
    for name, row in METHODS.items():
        assert [line.split()[0] for line in lines if line.startswith(f"  {name} ")] == [name]
        assert row.paper in result.out
    words = " ".join(result.out.split())
    for row in METHODS.values():
        assert row.explanation in words
        for option in row.options:
            assert option in words


def test_methods_in_json() -> None:
    value = invoke("recipe", "methods", "--json").json
    methods = {method["name"]: method for method in value["methods"]}
    assert set(methods) == set(METHODS)
    for name, paper in PAPERS.items():
        assert methods[name]["paper"] == f"https://arxiv.org/abs/{paper}"
    assert methods["ties-slack"]["paper"] is None
    assert methods["ties-slack"]["options"] == ["density", "semantics", "slack", "protect"]
    assert [name for name, method in methods.items() if not method["exact"]] == [
        "ties", "ties-slack", "dare-linear", "dare-ties", "magnitude-prune", "della", "breadcrumbs", "sce",
    ]  # fmt: skip
    own = {option for method in methods.values() for option in method["options"]}
    keys = {info.alias or name for name, info in MergeRecipe.model_fields.items()}
    assert own | set(value["options_of_all"]) == keys - {"method", "space"}
    assert [dialect["name"] for dialect in value["semantics"]] == ["paper", "core", "mergekit", "peft"]


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_of_semantics(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    out = invoke("recipe", "methods", "--semantics").out
    lines = out.splitlines()
    assert max(map(len, lines)) <= width
    assert "knots-ties" not in out
    head = next(line for line in lines if line.split() == ["paper", "core", "mergekit", "peft"])
    assert head
    if width == 120:
        rows = [re.split(r"  +", line.strip()) for line in lines[lines.index(head) + 2 :]]
        assert len(rows) == len(fields(Dialect)) - 1
        assert ["signs are elected by", "value", "value", "weight × value", "value"] in rows
        assert ["a trim threshold holds for", "the whole model", *["each module"] * 3] in rows


def test_a_recipe_without_a_fault(recipe: Path) -> None:
    recipe.write_text("method: ties\ndensity: 0.4\nweights: {ja: 1.2}\n", encoding="utf-8")
    result = lint(recipe, "--lang", "ja", "--lang", "de")
    assert (result.exit_code, result.out) == (0, f"{recipe} for ja, de: nothing is odd.\n")


def test_oddities_are_warnings_with_their_lines(recipe: Path) -> None:
    recipe.write_text("merge:\n  method: dare-ties\n  density: 1.0\n  gamma: 0.1\n", encoding="utf-8")
    result = lint(recipe)
    assert result.exit_code == 0
    assert f"! {recipe}:3: merge.density: it changes nothing: at density 1, dare-ties is ties" in result.out
    assert f"! {recipe}:4: merge.gamma: it changes nothing: dare-ties does not read it" in result.out
    assert result.out.endswith(f"{recipe}: 0 errors, 2 warnings.\n")


def test_contradictions_are_errors(recipe: Path) -> None:
    recipe.write_text("method: ties\nspace: factors\nseed: 1\nweights: {fr: 1}\n", encoding="utf-8")
    result = lint(recipe, "--lang", "ja", "--json")
    assert result.exit_code == 2
    value = result.json
    assert [problem["where"] for problem in value["errors"]] == [f"{recipe}:4", f"{recipe}:2"]
    assert {problem["where"] for problem in value["warnings"]} == {f"{recipe}:3", f"{recipe}:1"}
    assert value["languages"] == ["ja"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("method: ties\n\tdensity: 0.4\n", ":2: is not YAML: a tab cannot indent a line"),
        ("method: ties\nmethod: ties\n", ":2: method: stands twice, also in line 1"),
        ("densty: 0.4\n", ":1: densty: unknown key (did you mean 'density'?)"),
        ("rank: -2\n", ":1: rank: must be one of auto, full or at least 1, not -2"),
        ("rank: -2\nrank: -2\n", ":2: rank: stands twice"),
        ("density: .nan\n", ":1: density: must be a finite number"),
        ("weights: {ja: .inf}\n", ":1: weights.ja: must be a finite number"),
        ("layers: {0-7: half}\n", ":1: layers.0-7: must be a number or a block of keys, not 'half'"),
        ("method: &a ties\nseed: *b\n", ":2: is not YAML: an alias (*name) has no anchor"),
    ],
)
def test_what_is_no_recipe_is_an_error(recipe: Path, text: str, told: str) -> None:
    recipe.write_text(text, encoding="utf-8")
    result = lint(recipe)
    assert result.exit_code == 2
    assert f"✗ {recipe}{told}" in result.out


def test_a_file_that_is_not_there(recipe: Path) -> None:
    result = lint(recipe)
    assert (result.exit_code, "cannot be read: No such file or directory" in result.out) == (2, True)


def test_languages_come_from_the_recipe_where_nothing_else_says_them(recipe: Path) -> None:
    recipe.write_text("method: ties-slack\nslack: 1\nweights: {ja: 2}\nprotect: [de]\nlayers: {3: {zh: 0.5}}\n")
    assert lint(recipe, "--json").json["languages"] == ["de", "ja", "zh"]


def test_a_language_that_is_none(recipe: Path) -> None:
    recipe.write_text("method: ties\n", encoding="utf-8")
    result = lint(recipe, "--lang", "jp")
    assert (result.exit_code, "'jp' is not a language tag" in result.err) == (2, True)


def test_in_a_workspace(tmp_path: Path) -> None:
    root = init_workspace(tmp_path / "workspace", "pocket", languages=["en", "ja"])
    own = lint(root / "adapterctl.yaml")
    assert (own.exit_code, "for en, ja: nothing is odd" in own.out) == (0, True)
    (root / "other.yaml").write_text("method: linear\nweights: {it: 1.0}\n", encoding="utf-8")
    result = lint(root / "other.yaml")
    assert result.exit_code == 2
    assert "other.yaml:2: weights: 'it' is none of the languages en, ja" in result.out


def test_the_settings_of_a_workspace_with_every_key(tmp_path: Path) -> None:
    root = init_workspace(tmp_path / "workspace", "pocket", languages=["en", "ja"])
    file = root / "adapterctl.yaml"
    text = file.read_text(encoding="utf-8")
    more = '  layers: {0-1: 0.5, "2": {ja: 0.25}}\n  modules: {mlp: {en: 2.0, ja: 1.5}}\n  base_share: 0.1\n'
    file.write_text(text.replace("  method: core-tsv\n", f"  method: core-tsv\n{more}"), encoding="utf-8")
    shown = invoke("-C", root, "config", "show", "merge", "--json")
    assert shown.exit_code == 0, shown.err
    values = {setting["key"]: setting["value"] for setting in shown.json["settings"]}
    assert values["merge.layers.0-1"] == 0.5
    assert values["merge.layers.2.ja"] == 0.25
    assert values["merge.modules.mlp.en"] == 2.0
    assert values["merge.base_share"] == 0.1
    schema = invoke("config", "schema", "adapterctl.yaml", "--json").json["$defs"]["MergeRecipe"]
    assert set(schema["properties"]) == {info.alias or name for name, info in MergeRecipe.model_fields.items()}
    assert schema["properties"]["layers"]["additionalProperties"]["anyOf"][0] == {"type": "number"}
    assert schema["additionalProperties"] is False
