"""The page on merging says what the code does."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.support.tiny_llama import save_tiny_llama

from adapterctl.cli.commands.merge import merge
from adapterctl.cli.commands.recipe import recipe as recipe_group
from adapterctl.cli.recipe_options import written
from adapterctl.merging.dialects import DIALECTS
from adapterctl.merging.factored import OFF_DIAGONAL
from adapterctl.merging.methods import METHODS
from adapterctl.merging.recipe import MergeRecipe
from adapterctl.merging.report import SERVED_RANKS
from adapterctl.workspace.recipes import check_recipe, read_recipe

PAGE = (Path(__file__).parents[3] / "docs" / "merging.md").read_text(encoding="utf-8")
FLAGS = {flag for option in merge.params for flag in option.opts if flag.startswith("--")}


def rows(heading: str) -> dict[str, list[str]]:
    """Return the tables below a heading, each row by its first cell."""
    level = len(heading.split(" ")[0])
    section = re.split(rf"^{re.escape(heading)}$", PAGE, flags=re.MULTILINE)[1]
    section = re.split(rf"^#{{1,{level}}} ", section, flags=re.MULTILINE)[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return {row[0].strip("`"): row for row in cells}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


def methods() -> dict[str, list[str]]:
    return {name: row for name, row in rows("## Methods").items() if name in METHODS}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_its_line(name: str) -> None:
    line, row = methods()[name], METHODS[name]
    assert ("1/T" if row.shares else "1") in line
    exact = [cell for cell in line if cell == "no" or cell.startswith("yes")]
    assert [cell.startswith("yes") for cell in exact] == [row.exact]
    if row.paper:
        assert f"[{row.paper}](https://arxiv.org/abs/{row.paper})" in line[-1]


def test_every_key_has_its_line_with_option_and_default() -> None:
    table = rows("## The recipe")
    for field, info in MergeRecipe.model_fields.items():
        key = info.alias or field
        _, option, default, _ = table[key]
        assert re.match(r"`(--[a-z-]+)", option)[1] in FLAGS  # type: ignore[index]
        value = info.get_default(call_default_factory=True)
        shown = (
            "none" if value in ({}, ()) and key != "weights" else f"{value:g}" if isinstance(value, float) else value
        )
        assert default == ("1/T or 1" if key == "weights" else str(shown)), key
    assert set(table) == {info.alias or field for field, info in MergeRecipe.model_fields.items()} | {"key"}


def test_options_that_are_no_keys_are_explained() -> None:
    for flag in FLAGS - {"--json", "--device"}:
        assert flag in PAGE, flag


def test_the_table_of_semantics_is_the_code_s() -> None:
    table = {name: dict(zip(("paper", "core", "mergekit", "peft"), row[1:], strict=True)) for name, row in
             rows("## Semantics").items() if name != "choice"}  # fmt: skip
    words: dict[str, Any] = {
        "a trim threshold holds for": lambda d: {"model": "the whole model", "module": "each module"}[d.scope],
        "entries kept, of n, at least 1": lambda d: "int(n·density)" + (" + 1" if d.extra else ""),
        "of entries equal to the threshold": lambda d: "the first stay" if d.exact_count else "all stay",
        "signs are elected by": lambda d: "weight × value" if d.weighted_vote else "value",
        "agreeing entries are divided by": lambda d: {"count": "their number", "weight": "the sum of their weights"}[
            d.divisor
        ],
        "the same after DARE": lambda d: {"count": "their number", "none": "nothing"}[d.dare_divisor],
        "sign of a balanced vote": lambda d: {"majority": "that of most entries", "plus": "plus"}[d.zero_sign],
        "what random dropping keeps is scaled": lambda d: {"density": "by 1/density", "l1": "to the same L1 norm"}[
            d.rescale
        ],
        "a language of weight 0": lambda d: "takes no part" if d.drop_unweighted else "still votes",
    }
    assert table == {name: {row.name: word(row) for row in DIALECTS.values()} for name, word in words.items()}


def test_the_ranks_of_vllm_are_listed() -> None:
    assert ", ".join(map(str, SERVED_RANKS[:-1])) + f" or {SERVED_RANKS[-1]}" in PAGE
    assert f"multiplied by {OFF_DIAGONAL:g} when it is read" in PAGE


def test_the_recipe_on_the_page_is_one(tmp_path: Path) -> None:
    (text,) = blocks("yaml")
    (tmp_path / "recipe.yaml").write_text(text, encoding="utf-8")
    document, problems = read_recipe(tmp_path / "recipe.yaml")
    checked = check_recipe(document, ["de", "ja", "zh"])
    assert (problems, checked.errors, checked.warnings) == ([], (), ())


def test_the_commands_on_the_page_can_be_called() -> None:
    lines = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("adapterctl ")]
    assert len(lines) >= 5
    for line in lines:
        _, command, *words = shlex.split(line, comments=True)
        if command == "merge":
            context = merge.make_context("merge", words)
            assert written(context.params)[1] == []
        else:
            assert command == "recipe"
            assert words[0] in recipe_group.commands


def test_the_recipe_for_gram_matrices_makes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors.torch import load_file
    from transformers import LlamaForCausalLM

    monkeypatch.chdir(tmp_path)
    model = LlamaForCausalLM.from_pretrained(save_tiny_llama(tmp_path / "base"))
    paths = ["model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"]
    batches = [{"input_ids": torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])}, {"input_ids": torch.tensor([[7, 9, 3]])}]
    code = next(block for block in blocks("python") if "def gram_matrices" in block)
    exec(compile(code, "docs/merging.md", "exec"), {"model": model, "paths": paths, "batches": batches})
    grams = load_file(tmp_path / "ja.safetensors")
    assert {name: gram.shape[0] for name, gram in grams.items()} == {paths[0]: 32, paths[1]: 64}
    seen = []
    for batch in batches:
        embedded = model.model.embed_tokens(batch["input_ids"])
        seen.append(model.model.layers[0].input_layernorm(embedded).reshape(-1, 32).detach())
    x = torch.cat(seen).double()
    torch.testing.assert_close(grams[paths[0]].double(), x.T @ x, rtol=1e-4, atol=1e-5)
