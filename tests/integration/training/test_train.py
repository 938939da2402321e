"""Whole trainings of a tiny model."""

from __future__ import annotations

import json
import os
import random
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from tests.support.tiny_llama import tiny_base
from tests.support.tiny_training import TASKS, Recorder, folder_bytes, job, rows
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from adapterctl.base_model import BaseModel, load_model
from adapterctl.errors import AdapterError, ConfigError, DataError, StorageError
from adapterctl.examples import Example, parse_row
from adapterctl.lora.adapter import Adapter
from adapterctl.training.batches import Collator, answer_loss, answer_positions
from adapterctl.training.peft_model import with_adapter
from adapterctl.training.rows import TokenRow
from adapterctl.training.trainer import train

# PEFT 0.21 asks transformers 5.23 by an old name; training itself is quiet, plain PEFT in these tests is not.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def _said(base: Path, adapter: Path, examples: tuple[Example, ...]) -> list[str]:
    """Return what plain PEFT and transformers generate, with nothing of adapterctl."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter).eval()
    answers = []
    for example in examples:
        ids = tokenizer(f"<s>Review: {example.input}\nSentiment:", return_tensors="pt", add_special_tokens=False)
        out = model.generate(ids["input_ids"], max_new_tokens=6, do_sample=False)
        answers.append(tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True).strip())
    return answers


def test_a_task_is_learned_and_plain_peft_can_use_it(base: BaseModel, base_folder: Path, tmp_path: Path) -> None:
    seen = Recorder()
    examples = rows(45)
    result = train(
        job(base, examples=examples, epochs=12, r=8, alpha=12.0, dropout=0.0, learning_rate=0.01),
        tmp_path / "out",
        tmp_path / "checkpoints",
        seen,
    )
    assert result.steps == 12 * 12
    assert result.final_loss < 0.2 * result.history[0].loss
    answers = _said(base_folder, tmp_path / "out", examples)
    right = sum(answer == example.reference for answer, example in zip(answers, examples, strict=True))
    assert right / len(examples) > 0.8  # one of three labels by chance
    assert seen.started == [("en", 144, 0)]
    assert seen.steps == [
        (step.step, 144, step.loss, step.learning_rate, step.tokens, step.seconds) for step in result.history
    ]
    assert not (tmp_path / "checkpoints").exists()


def test_the_adapter_records_its_language_and_which_base_it_was_trained_on(
    base: BaseModel, base_folder: Path, tmp_path: Path
) -> None:
    train(job(base), tmp_path / "out", tmp_path / "checkpoints")
    told = Adapter.open(tmp_path / "out").metadata
    assert told["adapterctl.lang"] == "en"
    assert told["adapterctl.base_config"] == sha256((base_folder / "config.json").read_bytes()).hexdigest()
    assert told["adapterctl.tokenizer"] == sha256((base_folder / "tokenizer.json").read_bytes()).hexdigest()


def test_the_folder_is_a_plain_adapter_of_the_named_base(base: BaseModel, tmp_path: Path) -> None:
    result = train(job(base), tmp_path / "out", tmp_path / "checkpoints")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "training.json",
    ]
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "tiny-base"
    assert (config["r"], config["lora_alpha"], config["peft_type"]) == (4, 12, "LORA")
    assert config["target_modules"] == sorted(config["target_modules"])
    tensors = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert sum(tensor.numel() for tensor in tensors.values()) == result.trainable_parameters
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    stored = json.loads((tmp_path / "out" / "training.json").read_text())
    assert stored["content_hash"] == Adapter.open(tmp_path / "out").content_hash
    assert stored["rows"] == 18


def test_usage_is_counted(base: BaseModel, tmp_path: Path) -> None:
    result = train(job(base, epochs=3), tmp_path / "out", tmp_path / "checkpoints")
    tokenizer = AutoTokenizer.from_pretrained(base.location)
    texts = [f"<s>Review: {row.input}\nSentiment: {row.reference}</s>" for row in rows()]
    # Prompt and answer are tokenised apart; no token of this vocabulary crosses from one to the other.
    assert result.tokens == 3 * sum(len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts)
    assert result.tokens <= result.padded_tokens
    layer = 32 * 32 * 2 + 32 * 16 * 2 + 3 * 32 * 64 + 2 * 32
    assert result.flops == (4 * (2 * layer + 32) + 6 * result.trainable_parameters) * result.tokens
    assert 0 < result.history[-1].seconds < result.seconds


def test_what_is_there_is_not_trained_again(base: BaseModel, tmp_path: Path) -> None:
    out, checkpoints = tmp_path / "out", tmp_path / "checkpoints"
    first = train(job(base), out, checkpoints)
    before = folder_bytes(out)
    seen = Recorder()
    again = train(job(base, examples=rows()[::-1], checkpoint_every_steps=3), out, checkpoints, seen)
    assert (again.reused, first.reused) == (True, False)
    assert again.as_dict() == first.as_dict()
    assert seen.started == []
    # Another job replaces it, a damaged adapter is not taken for whole, and the same job gives the same bytes again.
    other = train(job(base, seed=1), out, checkpoints)
    assert not other.reused
    assert folder_bytes(out)["adapter_model.safetensors"] != before["adapter_model.safetensors"]
    train(job(base), out, checkpoints)
    assert folder_bytes(out) == before
    os.truncate(out / "adapter_model.safetensors", 500)
    assert not train(job(base), out, checkpoints).reused
    assert folder_bytes(out) == before


def test_the_process_is_left_as_it_was(base: BaseModel, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    random.seed(3)
    np.random.seed(3)
    torch.manual_seed(3)
    before = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state(), torch.get_num_threads())
    verbosity = transformers_logging.get_verbosity()
    train(job(base, threads=1), tmp_path / "a", tmp_path / "checkpoints")
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])
    assert torch.get_num_threads() == before[3]
    assert transformers_logging.get_verbosity() == verbosity
    assert capfd.readouterr() == ("", "")
    random.seed(4)
    torch.manual_seed(4)
    train(job(base, threads=1), tmp_path / "b", tmp_path / "checkpoints")
    assert folder_bytes(tmp_path / "a") == folder_bytes(tmp_path / "b")


def test_languages_start_alike_unless_told_otherwise(base: BaseModel) -> None:
    def start(**changes: Any) -> torch.Tensor:
        model = with_adapter(load_model(base), job(base, **changes))
        value: torch.Tensor = model.base_model.model.model.layers[1].mlp.down_proj.lora_A["default"].weight
        return value.detach()

    assert torch.equal(start(lang="en"), start(lang="ja"))
    assert not torch.equal(start(lang="en"), start(lang="en", seed=1))
    assert not torch.equal(start(lang="en", shared_init=False), start(lang="ja", shared_init=False))
    assert torch.equal(start(r=4), start(r=6)[:4])
    assert float(start().abs().max()) <= 1 / 64**0.5


def test_loss_and_gradients_are_those_of_all_logits_with_a_mask(base: BaseModel) -> None:
    batch = Collator(0)([TokenRow("a", (7, 8, 9, 10), 2), TokenRow("b", (7, 8, 9, 10, 11, 12, 13), 4)])
    labels, ids = batch["labels"], batch["input_ids"]
    model = with_adapter(load_model(base), job(base, dropout=0.0))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.uniform_(parameter, -0.1, 0.1, generator=torch.Generator().manual_seed(1))
    plain = model(input_ids=ids, attention_mask=(ids != 0).long(), labels=labels).loss
    plain.backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}
    model.zero_grad()
    positions = answer_positions(labels)
    logits = model(input_ids=ids, logits_to_keep=positions, use_cache=False).logits
    assert logits.shape[1] == len(positions) == 5
    found = answer_loss(logits, labels, positions, 5)
    found.backward()
    assert found.item() == pytest.approx(plain.item(), rel=1e-5)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=1e-6)


def test_accumulated_batches_make_the_step_of_one_large_batch(base: BaseModel, tmp_path: Path) -> None:
    whole = train(job(base, batch_size=18, dropout=0.0, epochs=3), tmp_path / "a", tmp_path / "checkpoints")
    accumulated = job(base, batch_size=4, gradient_accumulation=5, dropout=0.0, epochs=3)
    parts = train(accumulated, tmp_path / "b", tmp_path / "checkpoints")
    assert whole.steps == parts.steps == 3
    assert [step.loss for step in parts.history] == pytest.approx([step.loss for step in whole.history], rel=1e-4)


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_adapter_of_a_quantised_base_works_on_the_whole_one(
    base_folder: Path, tmp_path: Path, quantization: str
) -> None:
    quantised = tiny_base(base_folder, quantization=quantization)
    result = train(
        job(quantised, epochs=5, learning_rate=0.01, gradient_checkpointing=True, mixed_precision="bf16"),
        tmp_path / "out",
        tmp_path / "checkpoints",
    )
    assert result.final_loss < 0.6 * result.history[0].loss
    assert set(_said(base_folder, tmp_path / "out", rows(3))) != set(_said_by_base(base_folder))
    assert Adapter.open(tmp_path / "out").rank("model.layers.0.self_attn.q_proj") == 4


def _said_by_base(base: Path) -> list[str]:
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base).eval()
    ids = tokenizer("<s>Review: the warm\nSentiment:", return_tensors="pt", add_special_tokens=False)["input_ids"]
    return [tokenizer.decode(model.generate(ids, max_new_tokens=6, do_sample=False)[0, ids.shape[1] :])]


@pytest.mark.parametrize(
    "changes",
    [
        {"mixed_precision": "bf16", "gradient_checkpointing": True},
        {"optimizer": "adamw8bit"},
        {"optimizer": "paged_adamw8bit"},
        {"schedule": "constant", "warmup_steps": 2},
        {"schedule": "linear", "length_grouped": False},
        {"target_modules": ["v_proj", "q_proj"], "rslora": True},
        {"shared_init": False},
    ],
)
def test_every_way_to_train_works(base: BaseModel, tmp_path: Path, changes: dict[str, Any]) -> None:
    result = train(job(base, epochs=3, **changes), tmp_path / "out", tmp_path / "checkpoints")
    assert result.final_loss < 0.75 * result.history[0].loss
    if changes.get("schedule") == "constant":
        assert [step.learning_rate for step in result.history[:4]] == pytest.approx([0, 0.01, 0.02, 0.02])
    if changes.get("schedule") == "linear":
        assert result.history[-1].learning_rate < 0.003


def test_rows_with_their_own_prompt_are_trained_on(base: BaseModel, tmp_path: Path) -> None:
    tasks = TASKS | {"instruction": TASKS["recap"]}
    given = [
        {"prompt": "the sea is", "completion": " blue"},
        {"prompt": "the fire is", "completion": " red"},
        {"task": "mood", "prompt": "the soup:", "completion": "good"},
    ]
    examples = tuple(parse_row(row, lang="en", tasks=tasks, fallback_id=f"r{i}") for i, row in enumerate(given))
    result = train(
        job(base, examples=examples, tasks=tasks, epochs=25, dropout=0.0), tmp_path / "out", tmp_path / "checkpoints"
    )
    assert result.final_loss < 0.2 * result.history[0].loss


def test_chats_are_trained_on(base_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "chatty"
    folder.mkdir()
    for path in base_folder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"
    (folder / "chat_template.jinja").write_text(template)
    row = {"messages": [{"role": "user", "content": "the sea"}, {"role": "assistant", "content": " blue"}]}
    tasks = TASKS | {"instruction": TASKS["recap"]}
    examples = (parse_row(row, lang="en", tasks=tasks, fallback_id="r"), *rows(3))
    result = train(
        job(tiny_base(folder, prompt_format="chat"), examples=examples, tasks=tasks, epochs=20, dropout=0.0),
        tmp_path / "out",
        tmp_path / "checkpoints",
    )
    assert result.final_loss < 0.5 * result.history[0].loss


def test_training_goes_on_from_an_adapter(base: BaseModel, tmp_path: Path) -> None:
    first = train(job(base, epochs=6), tmp_path / "first", tmp_path / "checkpoints")
    more = train(job(base, start_from=tmp_path / "first"), tmp_path / "more", tmp_path / "checkpoints")
    anew = train(job(base), tmp_path / "anew", tmp_path / "checkpoints")
    assert more.history[0].loss < 1.3 * first.final_loss < 0.7 * anew.history[0].loss
    assert more.key != anew.key


def test_an_adapter_of_another_shape_is_refused_with_every_reason(base: BaseModel, tmp_path: Path) -> None:
    train(job(base, target_modules=["q_proj"]), tmp_path / "first", tmp_path / "checkpoints")
    config = tmp_path / "first" / "adapter_config.json"
    config.write_text(config.read_text().replace("tiny-base", "other-base"))
    with pytest.raises(AdapterError) as caught:
        train(job(base, r=6, start_from=tmp_path / "first"), tmp_path / "out", tmp_path / "checkpoints")
    reasons = " ".join(problem.message for problem in caught.value.problems)
    for part in ("r is 4", "other-base", "lacks 12 modules"):
        assert part in reasons
    assert not (tmp_path / "out").exists()


def test_mistakes_are_told_before_anything_is_written(base: BaseModel, tmp_path: Path) -> None:
    out, checkpoints = tmp_path / "out", tmp_path / "checkpoints"
    with pytest.raises(ConfigError, match="query") as caught:
        train(job(base, target_modules=["query"]), out, checkpoints)
    assert "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj" in caught.value.hint
    long = Example(id="far-too-long", lang="en", task="mood", reference="bad", input="the soup " * 200)
    with pytest.raises(DataError) as refused:
        train(job(base, examples=(*rows(), long)), out, checkpoints)
    assert [problem.where for problem in refused.value.problems] == ["far-too-long"]
    with pytest.raises(DataError, match="no row"):
        train(job(base, examples=()), out, checkpoints)
    assert not out.exists()


def test_divergence_is_told_with_its_step(base: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def infinite(*args: Any) -> torch.Tensor:
        return answer_loss(*args) * float("inf")

    monkeypatch.setattr("adapterctl.training.loop.answer_loss", infinite)
    with pytest.raises(AdapterError, match=r"diverged: the loss is inf in step 1") as caught:
        train(job(base), tmp_path / "out", tmp_path / "checkpoints")
    assert "training.learning_rate" in caught.value.hint


def test_lack_of_memory_is_told_with_what_helps(
    base: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_much(*args: Any) -> torch.Tensor:
        return torch.empty(2**60)

    monkeypatch.setattr("adapterctl.training.loop.answer_loss", too_much)
    with pytest.raises(AdapterError, match="out of memory") as caught:
        train(job(base), tmp_path / "out", tmp_path / "checkpoints")
    assert "batch_size" in caught.value.hint


def test_a_place_that_cannot_be_written_is_named(base: BaseModel, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="file"):
        train(job(base), tmp_path / "out", tmp_path / "file" / "checkpoints")
    with pytest.raises(StorageError, match="file"):
        train(job(base), tmp_path / "file" / "out", tmp_path / "checkpoints")
