from __future__ import annotations

from itertools import islice, pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from adapterctl.pocket import pretrain
from adapterctl.pocket.pretrain import PretrainPlan, make_model, make_tokenizer

SMALL = PretrainPlan(hidden=16, layers=1, feed_forward=24, heads=2, vocabulary=400, steps=2, batch=2, length=32)


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def few_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = list(islice(pretrain._tokenizer_texts(0), 300))
    monkeypatch.setattr(pretrain, "_tokenizer_texts", lambda seed: iter(texts))


def test_the_same_plan_gives_the_same_files_whatever_ran_before(few_texts: None, tmp_path: Path) -> None:
    told = pretrain.pretrain(SMALL, tmp_path / "a")
    torch.manual_seed(99)
    torch.rand(7)
    state = torch.get_rng_state()
    pretrain.pretrain(SMALL, tmp_path / "b")
    assert torch.equal(torch.get_rng_state(), state)
    assert (told["steps"], told["tokens"]) == (2, 2 * 2 * 32)
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(names)
    assert not [name for name in names if name.endswith((".bin", ".pt"))]
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    tensors = load_file(tmp_path / "a" / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    # Two steps have been taken.
    first = make_model(SMALL, make_tokenizer(SMALL)).state_dict()
    assert all(not torch.equal(first[name].bfloat16(), tensors[name]) for name in tensors if "norm" not in name)


def test_another_seed_gives_other_weights(few_texts: None) -> None:
    tokenizer = make_tokenizer(SMALL)
    weights = [make_model(PretrainPlan(**{**vars(SMALL), "seed": seed}), tokenizer).state_dict() for seed in (0, 0, 1)]
    name = "model.embed_tokens.weight"
    assert torch.equal(weights[0][name], weights[1][name])
    assert not torch.equal(weights[0][name], weights[2][name])


def test_steps_are_reported_every_fifty(few_texts: None, tmp_path: Path) -> None:
    told = []
    plan = PretrainPlan(**{**vars(SMALL), "steps": 51, "batch": 1, "length": 8})
    pretrain.pretrain(plan, tmp_path / "a", report=lambda *numbers: told.append(numbers[:2]))
    assert told == [(50, 51)]


def test_blocks_are_packed_documents_between_start_and_end(few_texts: None) -> None:
    tokenizer = make_tokenizer(SMALL)
    blocks = pretrain._blocks(SMALL, tokenizer)
    ids = torch.cat([next(blocks).flatten() for _ in range(40)]).tolist()
    assert ids[0] == tokenizer.bos_token_id
    starts = [i for i, token in enumerate(ids) if token == tokenizer.bos_token_id]
    assert all(ids[i - 1] == tokenizer.eos_token_id for i in starts[1:])
    texts = pretrain.corpus.documents(pretrain.generator("pocket corpus", 0))
    for start, after in pairwise(starts):
        assert tokenizer.decode(ids[start + 1 : after - 1]) == next(texts)


def test_the_shipped_tokenizer_is_the_one_that_todays_generator_makes(pocket_assets: Path) -> None:
    made = make_tokenizer(PretrainPlan())
    assert made.backend_tokenizer.to_str(pretty=True) == (pocket_assets / "tokenizer.json").read_text(encoding="utf-8")
