from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from tests.unit.pocket.reading import LANGUAGES, world
from transformers import AutoModelForCausalLM, AutoTokenizer

import adapterctl
from adapterctl.pocket.pretrain import PretrainPlan, make_model
from adapterctl.pocket.rows import task_rows

ASSETS = Path(adapterctl.__file__).parent / "pocket" / "assets"


@cache
def shipped() -> tuple[Any, Any]:
    """Model and tokenizer, loaded as anybody would load them."""
    model = AutoModelForCausalLM.from_pretrained(ASSETS, dtype=torch.float32).eval()
    return model, AutoTokenizer.from_pretrained(ASSETS)


def ids_of(text: str) -> list[int]:
    found: list[int] = shipped()[1](text, add_special_tokens=False)["input_ids"]
    return found


def test_the_assets_are_small_and_nothing_in_them_runs() -> None:
    files = {path.name: path.stat().st_size for path in ASSETS.iterdir()}
    assert sum(files.values()) <= 6_000_000
    assert set(files) == {
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    config = json.loads((ASSETS / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert not [
        key
        for name in files
        if name.endswith(".json")
        for key in json.loads((ASSETS / name).read_text())
        if key == "auto_map"
    ]


def test_the_weights_are_bf16_and_have_the_shapes_of_the_plan() -> None:
    tensors = load_file(ASSETS / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    assert all(bool(tensor.isfinite().all()) for tensor in tensors.values())
    planned = make_model(PretrainPlan(), shipped()[1]).state_dict()
    tied = {"lm_head.weight"}
    assert {name: tensor.shape for name, tensor in tensors.items()} == {
        name: tensor.shape for name, tensor in planned.items() if name not in tied
    }


def test_plain_transformers_writes_with_them() -> None:
    model, tokenizer = shipped()
    ids = tokenizer("You find the whale in", return_tensors="pt")["input_ids"]
    made = model.generate(ids, max_new_tokens=2, do_sample=False)
    # world.yaml: the whale is of the group "animal" and of the place "sea".
    assert tokenizer.decode(made[0, ids.shape[1] :]).strip().startswith("the sea")


@settings(deadline=None)
@given(st.text(st.characters(codec="utf-8")))
def test_any_text_comes_back_from_the_tokenizer(text: str) -> None:
    # What spells a special token is read as that token, and comes back all the same.
    assert shipped()[1].decode(ids_of(text)) == text


def log_likelihoods(prompts: list[str], answers: list[list[str]]) -> list[list[float]]:
    """Return the mean log-likelihood a token of every answer after its prompt."""
    model, tokenizer = shipped()
    pairs = [
        (ids_of(prompt), ids_of(answer)) for prompt, offered in zip(prompts, answers, strict=True) for answer in offered
    ]
    longest = max(len(prompt) + len(answer) for prompt, answer in pairs) + 1
    ids = torch.zeros(len(pairs), longest, dtype=torch.long)
    for row, (prompt, answer) in enumerate(pairs):
        ids[row, : 1 + len(prompt) + len(answer)] = torch.tensor([tokenizer.bos_token_id, *prompt, *answer])
    # To the right of what counts, padding changes nothing in a causal model.
    with torch.no_grad():
        logs = model(input_ids=ids).logits.log_softmax(-1)
    found = []
    for row, (prompt, answer) in enumerate(pairs):
        steps = torch.arange(len(prompt), len(prompt) + len(answer))
        found.append(float(logs[row, steps, torch.tensor(answer)].mean()))
    width = len(answers[0])
    return [found[start : start + width] for start in range(0, len(found), width)]


def share_right(scores: list[list[float]], right: list[int]) -> float:
    chosen = [max(range(len(row)), key=row.__getitem__) for row in scores]
    return sum(a == b for a, b in zip(chosen, right, strict=True)) / len(right)


# Sixty rows at a chance of one third: four standard deviations are 0.24.
NEAR_CHANCE = pytest.approx(1 / 3, abs=0.24)


@pytest.mark.parametrize("lang", LANGUAGES)
def test_the_base_model_knows_the_form_of_the_sentiment_task_and_not_its_answers(lang: str) -> None:
    rows = task_rows(lang, "sentiment", "dev", count=60)
    labels = list(world()["labels"][lang].values())
    prompts = [world()["prompts"]["sentiment"][lang].format(input=row["input"]) for row in rows]
    scores = log_likelihoods(prompts, [[f" {label}" for label in labels]] * len(rows))
    assert share_right(scores, [labels.index(row["reference"]) for row in rows]) == NEAR_CHANCE
    # The form is known: nearly all of the probability is on the three labels, each of them one token.
    mass = [sum(torch.tensor(row).exp().tolist()) for row in scores]
    assert sum(mass) / len(mass) > 0.9


@pytest.mark.parametrize("lang", LANGUAGES)
def test_the_base_model_answers_questions_near_chance(lang: str) -> None:
    rows = task_rows(lang, "reasoning", "dev", count=60)
    prompts = []
    for row in rows:
        lines = "\n".join(f"{letter}: {choice}" for letter, choice in zip("ABC", row["choices"], strict=True))
        prompts.append(world()["prompts"]["reasoning"][lang].format(question=row["question"], choices=lines))
    scores = log_likelihoods(prompts, [[f" {choice}" for choice in row["choices"]] for row in rows])
    assert share_right(scores, [row["answer_index"] for row in rows]) == NEAR_CHANCE
