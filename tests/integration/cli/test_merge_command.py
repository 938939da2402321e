"""``adapterctl merge`` on folders: no workspace, no registry, no base model."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.support.adapters import dense_deltas, make_adapter, make_family, relative_error
from tests.support.cli import invoke
from tests.support.merge_command import done, names, numbers, refused
from tests.support.program import Programs
from tests.support.tiny_llama import save_tiny_llama

import adapterctl
from adapterctl.errors import AdapterError, UsageError

LANGUAGES = ("de", "ja", "zh")
RESULT = ["README.md", "adapter_config.json", "adapter_model.safetensors", "merge_report.json"]


def said(family: dict[str, Path], *args: str | Path) -> Any:
    return done(*family.values(), *args, "--json").json


def assert_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert set(found) == set(expected)
    for module, tensor in expected.items():
        assert relative_error(found[module], tensor) < 1e-6, module


def test_folders_become_one_adapter(family: dict[str, Path], here: Path) -> None:
    result = invoke("merge", *family.values(), "--out", "out", "--method", "knots-ties", "--density", "0.4")
    assert result.exit_code == 0, result.err
    assert names(here / "out") == RESULT
    assert "✓ merge 3 adapters (knots-ties)" in result.err
    lines = result.out.splitlines()
    assert lines[:3] == [
        "Merged 3 adapters with knots-ties, λ 1 (auto: 1, as there are no rows to choose it on).",
        "  de × 1, ja × 1, zh × 1",
        "Rank 6, 6 modules.",
    ]
    assert "PEFT: PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained('tiny-base'), 'out')" in lines
    assert "vLLM: vllm serve tiny-base --enable-lora --max-lora-rank 8 --lora-modules merged=out" in lines
    assert any(line.startswith("Entries that lost the vote: de ") for line in lines)
    assert "peak memory" in result.out
    assert "Energy kept" not in result.out


def test_every_number_of_the_recipe_counts(family: dict[str, Path], here: Path) -> None:
    done(
        *(f"{lang}={folder}" for lang, folder in family.items()), "--out", "out", "--method", "linear",
        "--lambda", "-0.5",
        "--weight", "ja=1.2", "--weight", "zh=-0.25", "--base-share", "0.2", "--layers", "0:0.5,1:ja=3",
        "--modules", "mlp:2,k_proj:de=0", "--precision", "fp64",
    )  # fmt: skip
    parts = {lang: dense_deltas(folder) for lang, folder in family.items()}

    def expected(module: str) -> torch.Tensor:
        first, mlp, k = ".0." in module, "mlp" in module, "k_proj" in module
        weights = {"de": 0.0 if k else 1 / 3, "ja": 1.2 if first else 3.6, "zh": -0.25}
        factor = -0.5 * 0.8 * (0.5 if first else 1) * (2 if mlp else 1)
        total: torch.Tensor = sum(weight * parts[lang][module] for lang, weight in weights.items())  # type: ignore[assignment]
        return factor * total

    assert_equal(dense_deltas(here / "out"), {module: expected(module) for module in parts["de"]})


def test_the_language_is_the_one_that_is_written(family: dict[str, Path], here: Path) -> None:
    folders = [f"pt-br={family['de']}", family["ja"]]
    value = done(*folders, "--out", "out", "--weight", "pt-BR=2", "--json").json
    assert value["weights"] == {"ja": 1.0, "pt-BR": 2.0}


def test_json_says_it_all(family: dict[str, Path], here: Path) -> None:
    value = said(family, "--out", "out", "--method", "ties", "--density", "0.3", "--rank", "2", "--lambda", "0.5")
    report = json.loads((here / "out" / "merge_report.json").read_text(encoding="utf-8"))
    assert value["folder"] == "out"
    assert value["base_model"] == "tiny-base"
    assert (value["rank"], value["vllm_rank"], value["scale"]) == (2, 8, 0.5)
    assert value["scale_was_auto"] is False
    assert value["warnings"] == []
    for key in ("key", "method", "inputs", "energy_kept", "discard_rate"):
        assert value[key] == report[key], key
    assert 0 < value["energy_kept"] < 1
    worst = list(value["worst_modules"].values())
    assert worst == sorted(worst)
    assert set(value["discard_rate"]) == set(LANGUAGES)


def test_what_truncation_lost_is_said(family: dict[str, Path], here: Path) -> None:
    out = done(*family.values(), "--out", "out", "--method", "ties", "--density", "0.3", "--rank", "1").out
    assert "Energy kept at this rank: " in out
    assert "% model.layers." in out


def test_the_card_makes_the_merge_again(family: dict[str, Path], here: Path) -> None:
    done(
        *family.values(), "--out", "first", "--method", "dare-ties", "--density", "0.4", "--seed", "7",
        "--weight", "ja=1.3", "--layers", "0:ja=0.3,1:0.7", "--rank", "5", "--dtype", "bf16", "--semantics", "mergekit",
    )  # fmt: skip
    card = (here / "first" / "README.md").read_text(encoding="utf-8")
    command = next(line for line in card.splitlines() if line.startswith("adapterctl merge"))
    places = {"--out DIR": "--out second", **{f"{lang.upper()}_DIR": str(path) for lang, path in family.items()}}
    for placeholder, path in places.items():
        command = command.replace(placeholder, path)
    done(*shlex.split(command)[2:])
    assert numbers(here / "second") == numbers(here / "first")
    assert (here / "second" / "README.md").read_text(encoding="utf-8") == card


def test_order_threads_and_cache_change_nothing(family: dict[str, Path], here: Path) -> None:
    how = ("--method", "ties", "--density", "0.4")
    done(*family.values(), "--out", "a", *how, "--threads", "1")
    done(*reversed(family.values()), "--out", "b", *how, "--threads", "2", "--cache", "kept")
    again = done(*family.values(), "--out", "c", *how, "--cache", "kept")
    assert numbers(here / "a") == numbers(here / "b") == numbers(here / "c")
    assert "reused " in again.out


def test_a_merge_after_one_language_changed_is_a_merge_from_nothing(family: dict[str, Path], here: Path) -> None:
    how = ("--method", "knots-ties", "--density", "0.4")
    done(*family.values(), "--out", "a", *how, "--cache", "kept")
    newer = [family["de"], f"ja={make_adapter(here / 'newer', seed=99, alpha=5)}", family["zh"]]
    value = done(*newer, "--out", "b", *how, "--cache", "kept", "--json").json
    done(*newer, "--out", "c", *how)
    assert numbers(here / "b") == numbers(here / "c") != numbers(here / "a")
    assert value["reused"]["blocks"] > 0


RECIPE = """\
method: dare-ties
lambda: 0.8
density: 0.5
seed: 4
weights: {ja: 1.5, zh: 0.5}
layers:
  0: {ja: 0.25}
"""
OPTIONS = ("--method", "dare-ties", "--lambda", "0.8", "--density", "0.5", "--seed", "4", "--weight", "ja=1.5",
           "--weight", "zh=0.5", "--layers", "0:ja=0.25")  # fmt: skip


def under_merge(recipe: str) -> str:
    return "merge:\n" + "".join(f"  {line}\n" for line in recipe.splitlines())


@pytest.mark.parametrize("form", [str, under_merge])
def test_a_recipe_in_a_file_is_the_same_as_options(
    family: dict[str, Path], here: Path, form: Callable[[str], str]
) -> None:
    (here / "recipe.yaml").write_text(form(RECIPE), encoding="utf-8")
    from_file = said(family, "--out", "a", "--recipe", "recipe.yaml")
    assert from_file["key"] == said(family, "--out", "b", *OPTIONS)["key"]
    assert numbers(here / "a") == numbers(here / "b")


def test_options_win_over_the_file_key_by_key(family: dict[str, Path], here: Path) -> None:
    (here / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    value = said(
        family, "--out", "a", "--recipe", "recipe.yaml", "--weight", "ja=2", "--lambda", "auto", "--layers", "1:0.5"
    )
    recipe = json.loads((here / "a" / "merge_report.json").read_text(encoding="utf-8"))["recipe"]
    assert value["weights"] == {"de": 1.0, "ja": 2.0, "zh": 0.5}
    assert (recipe["lambda"], recipe["seed"], recipe["layers"]) == (1.0, 4, {"1": 0.5})
    assert value["scale_was_auto"]


def test_oddities_are_warnings(family: dict[str, Path], here: Path) -> None:
    result = done(*family.values(), "--out", "out", "--method", "linear", "--seed", "3", "--weight", "ja=0", "--json")
    assert "Warning: --seed: it changes nothing: linear does not read it" in result.err
    assert "ja has weight 0 and takes no part" in result.err
    assert [warning["where"] for warning in result.json["warnings"]] == ["--seed", "--weight ja=0", "--weight ja=0"]


def test_a_rank_that_cannot_be_filled_is_a_warning(family: dict[str, Path], here: Path) -> None:
    result = done(*family.values(), "--out", "out", "--method", "linear", "--rank", "64")
    assert "Warning: --rank: the result has rank 6 at most" in result.err
    assert "Rank 6, 6 modules." in result.out


def test_factors_apart_always_warn(family: dict[str, Path], here: Path) -> None:
    how = ("--method", "ties", "--density", "0.5", "--semantics", "peft", "--space", "factors")
    result = done(*family.values(), "--out", "out", *how)
    assert "A and B are merged apart" in result.err
    assert "factors are merged apart in PEFT only" in refused(*family.values(), "--out", "x", "--space", "factors")


def test_a_rank_above_what_vllm_serves(here: Path) -> None:
    wide = {"model.layers.0.self_attn.q_proj": (600, 600)}
    folders = make_family(here, ("de", "ja"), rank=260, shapes=wide)
    result = done(*folders.values(), "--out", "out", "--method", "linear")
    assert "Rank 520, 1 modules." in result.out
    assert "vLLM serves rank 512 at most" in result.err
    assert "vllm serve" not in result.out


@pytest.mark.parametrize("policy", ["zero", "present"])
def test_modules_that_only_some_adapters_have(here: Path, policy: str) -> None:
    shapes = {"model.layers.0.mlp.up_proj": (8, 6), "model.layers.1.mlp.up_proj": (8, 6)}
    make_adapter(here / "de", seed=1, shapes=shapes)
    make_adapter(here / "ja", seed=2, shapes=dict(list(shapes.items())[:1]))
    assert "lacks modules that other adapters have" in refused("de", "ja", "--out", "out", "--method", "linear", code=6)
    done("de", "ja", "--out", "out", "--method", "linear", "--missing", policy)
    module = "model.layers.1.mlp.up_proj"
    share = {"zero": 0.5, "present": 1.0}[policy]
    assert_equal({module: dense_deltas(here / "out")[module]}, {module: share * dense_deltas(here / "de")[module]})


def test_regmean_from_files(family: dict[str, Path], here: Path) -> None:
    from tests.support.merging import write_grams

    grams = write_grams(here / "grams", LANGUAGES)
    options = [word for lang, file in grams.items() for word in ("--gram", f"{lang}={file}")]
    done(*family.values(), "--out", "a", "--method", "regmean", *options)
    # A file that a recipe names lies beside the recipe.
    listed = "".join(f"  {lang}: {lang}.safetensors\n" for lang in LANGUAGES)
    (here / "grams" / "recipe.yaml").write_text(f"method: regmean\ngrams:\n{listed}", encoding="utf-8")
    done(*family.values(), "--out", "b", "--recipe", here / "grams" / "recipe.yaml")
    assert_equal(dense_deltas(here / "a"), dense_deltas(here / "b"))
    (here / "grams" / "ja.safetensors").unlink()
    err = refused(*family.values(), "--out", "c", "--method", "regmean", *options)
    assert f"--gram ja={grams['ja']}: there is no file {grams['ja']}" in err
    assert "recipe.yaml:4: grams.ja: there is no file" in invoke("recipe", "lint", here / "grams" / "recipe.yaml").out


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    "at", ["adapterctl.merging.engine:model_card", "adapterctl.files:_sync", "pathlib:Path.replace"]
)
def test_a_killed_merge_leaves_the_earlier_one_or_the_new_one(
    family: dict[str, Path], here: Path, program: Programs, at: str, when: str
) -> None:
    folders = [str(folder) for folder in family.values()]
    done(*folders, "--out", "old", "--method", "linear")
    done(*folders, "--out", "new", "--method", "ties", "--density", "0.4")
    done(*folders, "--out", "out", "--method", "linear")
    killed = program(
        here, "merge", *folders, "--out", "out", "--method", "ties", "--density", "0.4",
        trap={"at": at, "when": when, "do": "kill"},
    )  # fmt: skip
    assert killed.exit_code == -9
    if (here / "out").exists():
        assert numbers(here / "out") in (numbers(here / "old"), numbers(here / "new"))
        assert names(here / "out") == RESULT
    done(*folders, "--out", "out", "--method", "ties", "--density", "0.4")
    assert numbers(here / "out") == numbers(here / "new")


def test_from_python(family: dict[str, Path], here: Path) -> None:
    made = adapterctl.merge(family, here / "a", method="ties", density=0.4, weights={"ja": 1.5}, lambda_=0.5)
    done(
        *family.values(), "--out", "b", "--method", "ties", "--density", "0.4", "--weight", "ja=1.5", "--lambda", "0.5"
    )
    assert numbers(made.folder) == numbers(here / "b")
    assert made.report.scale == 0.5
    again = adapterctl.merge([str(folder) for folder in family.values()], here / "a", cache=here / "kept")
    assert again.report.method == "core-tsv"
    with pytest.raises(UsageError) as caught:
        adapterctl.merge(family, here / "c", method="tis", densty=0.5, weights={"it": 1.0})
    assert [(problem.where, problem.message.partition(":")[0]) for problem in caught.value.problems] == [
        ("", "densty"), ("", "method"), ("", "weights.it"),
    ]  # fmt: skip
    with pytest.raises(UsageError, match="no adapters were named"):
        adapterctl.merge([], here / "c")
    with pytest.raises(AdapterError):
        adapterctl.merge({"de": here / "nowhere"}, here / "c")


def test_a_hostile_base_name_stays_on_its_line(here: Path) -> None:
    name = "x\x1b[31m\n$(touch owned) 'y'"
    folders = make_family(here, ("de", "ja"), base_model=name)
    out = done(*folders.values(), "--out", "out", "--method", "linear").out
    assert "\x1b" not in out
    assert [line.partition(":")[0] for line in out.splitlines()[-2:]] == ["PEFT", "vLLM"]
    words = shlex.split(out.splitlines()[-1])
    assert words[:3] == ["vLLM:", "vllm", "serve"]
    assert words[4:] == ["--enable-lora", "--max-lora-rank", "8", "--lora-modules", "merged=out"]


def test_into_a_model(here: Path) -> None:
    base = save_tiny_llama(here / "base")
    weights = load_file(base / "model.safetensors")
    names_of = [name for name in weights if name.endswith(("q_proj.weight", "down_proj.weight"))]
    shapes = {name.removesuffix(".weight"): tuple(weights[name].shape) for name in names_of}
    folders = make_family(here, ("de", "ja"), shapes=shapes, base_model="base")
    how = ("--method", "linear", "--lambda", "0.05", "--weight", "ja=0.25")
    result = done(*folders.values(), "--out", "model", "--to-model", "base", *how, "--dtype", "fp32")
    assert "Warning: --dtype: it changes nothing: a whole model" in result.err
    assert "transformers: AutoModelForCausalLM.from_pretrained('model')" in result.out
    assert "vllm" not in result.out.lower()
    deltas = {lang: dense_deltas(folder) for lang, folder in folders.items()}
    found = load_file(here / "model" / "model.safetensors")
    assert set(found) == set(weights)
    for name, weight in weights.items():
        module = name.removesuffix(".weight")
        expected = weight.double()
        if module in shapes:
            expected = expected + 0.05 * (0.5 * deltas["de"][module] + 0.25 * deltas["ja"][module])
        assert relative_error(found[name], expected) < 1e-6, name
    # The same again takes its place; what would be an adapter's is refused.
    done(*folders.values(), "--out", "model", "--to-model", "base", *how)
    err = refused(*folders.values(), "--out", "base", "--to-model", "base", "--rank", "4", *how)
    assert "--out: base is the folder of an input (base model)" in err
    assert "--rank: rank 4 is one of an adapter" in err
