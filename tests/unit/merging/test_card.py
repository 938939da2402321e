from __future__ import annotations

import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from adapterctl.cli.commands.merge import merge
from adapterctl.merging.card import command, model_card
from adapterctl.merging.digest import percent, worst_modules
from adapterctl.merging.recipe import MergeRecipe
from adapterctl.merging.report import MergeReport, ModuleReport

HASHES = {"de": "d" * 64, "ja": "a" * 64}
BASE = "meta-llama/Llama-3.1-8B"


def module(name: str, energy: float = 1.0, rates: dict[str, float] | None = None) -> ModuleReport:
    return ModuleReport(
        module=name,
        rank_in={"de": 2, "ja": 3},
        rank_out=5,
        energy_kept=energy,
        norm=1.5,
        discard_rate=rates or {},
        gap=None,
    )


def report(parts: tuple[ModuleReport, ...] = (module("model.layers.0.q_proj"),), **recipe: Any) -> MergeReport:
    wanted = MergeRecipe.model_validate({"method": "linear", "lambda": 0.75, **recipe})
    return MergeReport(
        folder=Path("/somewhere/on/this/machine/merged"),
        key="k" * 64,
        method=wanted.method,
        recipe=wanted.resolved(HASHES),
        scale=wanted.resolved_lambda(),
        inputs=HASHES,
        rank=5,
        energy_kept=sum(one.energy_kept for one in parts) / len(parts),
        merged_norm=1.5,
        input_norms={"de": 2.0, "ja": 3.25},
        mean_input_norm=2.625,
        suggested_scale=1.75,
        modules=parts,
        seconds=12.345,
        vllm_rank=8,
        discard_rate={"de": 0.35, "ja": 0.5} if parts[0].discard_rate else {},
        peak_memory_bytes=123_456_789,
        reused={"gram_blocks": 77},
    )


def front_matter(card: str) -> dict[str, Any]:
    _, text, _ = re.split(r"^---$", card, maxsplit=2, flags=re.MULTILINE)
    return dict(YAML(typ="safe", pure=True).load(text))


def test_front_matter() -> None:
    assert front_matter(model_card(report(), BASE, None)) == {
        "base_model": BASE,
        "library_name": "peft",
        "tags": ["lora", "merge", "adapterctl"],
        "language": ["de", "ja"],
    }


def test_what_a_card_says() -> None:
    card = model_card(report(weights={"ja": 0.25}), BASE, "main")
    assert "# Merged LoRA adapter: de, ja\n" in card
    assert "[arXiv 2203.05482](https://arxiv.org/abs/2203.05482)" in card
    assert f"| `ja` | 0.25 | 3.25 | `{HASHES['ja']}` |" in card
    assert f"| `de` | 0.5 | 2 | `{HASHES['de']}` |" in card
    assert "| λ | `0.75` |" in card
    assert "Nothing was lost" in card
    assert f'from_pretrained("{BASE}", revision="main")' in card
    assert f"vllm serve {BASE} --enable-lora --max-lora-rank 8 --lora-modules merged=DIR" in card
    assert "density" not in card


def test_the_card_of_a_lossy_merge_names_what_was_lost() -> None:
    lossy = tuple(module(f"m{i}", 1 - i / 100, {"de": 0.1 * i, "ja": 0.5}) for i in range(8))
    found = report(lossy, method="ties", density=0.3)
    card = model_card(found, BASE, None)
    assert "This rank keeps 96.50% of the energy" in card
    assert list(worst_modules(found)) == ["m7", "m6", "m5", "m4", "m3"]
    assert "| `m7` | 93.00% |" in card
    assert "`m2`" not in card
    assert "| `de` | 35.0% |" in card
    assert "| density | `0.3` |" in card


def test_a_rank_that_vllm_does_not_serve() -> None:
    card = model_card(replace(report(), rank=640, vllm_rank=None), BASE, None)
    assert "vLLM serves rank 512 at most, this one has 640" in card
    assert "vllm serve" not in card


def test_the_same_report_gives_the_same_card_whatever_was_measured_and_wherever_it_lies() -> None:
    found = report()
    other = replace(found, folder=Path("/elsewhere"), seconds=1.0, peak_memory_bytes=5, reused={})
    assert model_card(found, BASE, None) == model_card(other, BASE, None)
    assert "/somewhere" not in model_card(found, BASE, None)


@pytest.mark.parametrize("path", ["/home/me/models/llama", "~/llama", "./llama", "../llama/", r"C:\models\llama"])
def test_a_path_of_this_machine_is_not_told(path: str) -> None:
    card = model_card(report(), path, None)
    assert "base_model" not in front_matter(card)
    assert "`llama`" in card
    assert path not in card
    assert "models" not in card


def test_without_a_base_model() -> None:
    card = model_card(report(), None, None)
    assert "base_model" not in front_matter(card)
    assert 'from_pretrained("BASE_MODEL")' in card


HOSTILE = [
    'x"\nlicense: mit\ninjected: "yes',
    "x\n---\n# Heading",
    "a\\",
    '"',
    "'; rm -rf / #",
    "`code` | pipe ``` fence",
    "```\nescaped",
    "<script>alert(1)</script>",
    "![x](http://example.org/x.png)",
    "{{ jinja }} ${HOME} $(id)",
    "a: b # c",
    "\u2028\u0085\x00\x1b[31m\u202e",
    "@",
    "日本語/モデル",
    "x" * 5000,
]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_stay_texts(name: str) -> None:
    card = model_card(report(), name, name)
    found = front_matter(card)
    assert set(found) <= {"base_model", "library_name", "tags", "language"}
    assert found["library_name"] == "peft"
    assert isinstance(found.get("base_model", ""), str)
    plain = model_card(report(), "base", "rev")
    headings = [line for line in card.splitlines() if line.startswith("#")]
    assert headings == [line for line in plain.splitlines() if line.startswith("#")]
    assert card.count("\n") == plain.count("\n") - ("base_model" not in found)
    assert [line for line in card.splitlines() if line.startswith("```")] == [
        line for line in plain.splitlines() if line.startswith("```")
    ]
    assert not any(ord(char) < 32 and char != "\n" for char in card)
    assert "\u202e" not in card
    # Outside of code nothing is a tag, an image or a link to elsewhere.
    prose = re.sub(r"(`+)(?!`).+?(?<!`)\1(?!`)", "", re.sub(r"^```.*?^```$", "", card, flags=re.DOTALL | re.MULTILINE))
    prose = prose.partition("---\n#")[2] or prose.split("---", 2)[2]
    assert "<script" not in prose
    assert "](http://example.org" not in prose


@pytest.mark.parametrize("name", HOSTILE)
def test_the_lines_of_code_hold_a_hostile_name_as_one_word(name: str) -> None:
    card = model_card(report(), name, None)
    serve = next(line for line in card.splitlines() if line.startswith("vllm serve"))
    assert shlex.split(serve)[3:] == ["--enable-lora", "--max-lora-rank", "8", "--lora-modules", "merged=DIR"]
    load = next(line for line in card.splitlines() if line.startswith("model = AutoModel"))
    compile(load, "card", "exec")


def test_hostile_languages_and_modules() -> None:
    bad = 'ja"|`x`\n- evil'
    found = replace(report((module(bad, 0.5),)), inputs={bad: "0" * 64}, input_norms={bad: 1.0})
    found = replace(found, recipe={**found.recipe, "weights": {bad: 1.0}})
    card = model_card(found, BASE, None)
    assert front_matter(card)["language"] == ['ja"|`x` - evil']
    tables = [line for line in card.splitlines() if line.startswith("| ``")]
    assert [line.count("|") for line in tables] == [5, 3]


def options(text: str) -> dict[str, Any]:
    words = shlex.split(text)
    assert words[:2] == ["adapterctl", "merge"]
    return merge.make_context("merge", words[2:]).params


def test_the_command_says_what_is_not_usual() -> None:
    told = command(report(weights={"ja": 0.25}))
    assert told == (
        "adapterctl merge de=DE_DIR ja=JA_DIR --out DIR --method linear --lambda 0.75 --weight de=0.5 --weight ja=0.25"
    )


@pytest.mark.parametrize(
    "keys",
    [
        {"method": "ties", "density": 0.1, "semantics": "mergekit", "weights": {"ja": -1 / 3}, "rank": 16},
        {"method": "dare-ties", "density": 0.7, "seed": -5, "dtype": "bf16", "precision": "fp64"},
        {"method": "della", "density": 0.5, "epsilon": 0.2, "seed": 3, "semantics": "peft"},
        {"method": "breadcrumbs", "gamma": 0.05, "base_share": 0.25},
        {"method": "ties-slack", "slack": 0.5, "protect": ["ja", "de"], "missing": "zero"},
        {"method": "regmean", "grams": {"de": "DE_GRAMS", "ja": "JA_GRAMS"}},
        {"method": "core-tsv", "layers": {"0-7": 0.5, "8": {"ja": 0.1, "de": 2}}, "modules": {"mlp": 1e-9}},
        {"method": "ties", "space": "factors", "semantics": "peft", "rank": "full"},
    ],
)
def test_the_command_makes_the_same_recipe(
    keys: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from adapterctl.cli.recipe_options import written

    # A report names Gram matrices by their content, and the command by a name that a person replaces.
    monkeypatch.chdir(tmp_path)
    for lang in HASHES:
        Path(f"{lang.upper()}_GRAMS").write_text(lang, encoding="utf-8")
    found = report(**keys)
    document, problems = written(options(command(found)))
    assert problems == []
    again = MergeRecipe.model_validate(document.value).resolved(HASHES)
    assert again == found.recipe


def test_the_card_of_a_whole_model() -> None:
    found = report(method="ties", density=0.3, rank="full", dtype="bfloat16")
    card = model_card(found, BASE, "main", full_model=True)
    assert front_matter(card)["library_name"] == "transformers"
    assert "# Merged model: de, ja\n" in card
    assert f"`{BASE}` at revision `main`" in card
    assert 'AutoModelForCausalLM.from_pretrained("DIR")' in card
    assert "lora" not in card.partition("\n# ")[0]
    assert "PeftModel" not in card
    told = next(line for line in card.splitlines() if line.startswith("adapterctl merge"))
    assert "--to-model BASE_DIR" in told
    assert "--rank" not in told
    assert "--dtype" not in told


def test_percentages_are_whole_only_where_nothing_is_missing() -> None:
    assert [percent(share) for share in (1.0, 0.99999, 0.5)] == ["100.00%", "just under 100%", "50.00%"]
