"""Make the pocket base model from nothing: tokenizer, then weights. About twenty minutes on one CPU core.

The one command: ``adapterctl pocket build --out DIR``. The same seed gives the same tokenizer and, with the same
torch build and one thread, the same weights.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from adapterctl.files import staged_folder
from adapterctl.pocket import corpus, world
from adapterctl.randomness import generator, integer_seed

PAD, START, END = "<pad>", "<s>", "</s>"


@dataclass(frozen=True)
class PretrainPlan:
    """Size of the model and of its pre-training.

    Attributes:
        hidden, layers, feed_forward, heads, vocabulary: Shape of the Llama model.
        steps: Optimizer steps of ``batch`` packed sequences of ``length`` tokens.
        learning_rate: Peak of a cosine that ends at 5 %, after 50 steps of warm-up.
        seed: Of the text, the tokenizer and the first weights.
    """

    hidden: int = 192
    layers: int = 4
    feed_forward: int = 512
    heads: int = 6
    vocabulary: int = 3072
    steps: int = 4400
    batch: int = 16
    length: int = 96
    learning_rate: float = 3e-3
    seed: int = 0


def _tokenizer_texts(seed: int) -> Iterator[str]:
    texts = corpus.documents(generator("pocket tokenizer", seed))
    for _ in range(15000):
        yield next(texts)
    for lang in world.LANGUAGES:
        for label in world.tables()["labels"][lang].values():
            # Often enough that every label becomes a single token: labels of equal length are compared fairly.
            yield from [f" {label}"] * 150


def make_tokenizer(plan: PretrainPlan) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer trained on the micro-world."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=plan.vocabulary,
        special_tokens=[PAD, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=3,
        show_progress=False,
    )
    tokenizer.train_from_iterator(_tokenizer_texts(plan.seed), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, bos_token=START, eos_token=END, model_max_length=512
    )


def make_model(plan: PretrainPlan, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Return an untrained model; its first weights depend on ``plan.seed`` alone."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=plan.hidden,
        intermediate_size=plan.feed_forward,
        num_hidden_layers=plan.layers,
        num_attention_heads=plan.heads,
        num_key_value_heads=plan.heads,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.04,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(integer_seed("pocket weights", plan.seed))
        return LlamaForCausalLM(config)


def _blocks(plan: PretrainPlan, tokenizer: PreTrainedTokenizerFast) -> Iterator[torch.Tensor]:
    """Yield batches of packed token sequences, shape ``batch × length``."""
    texts = corpus.documents(generator("pocket corpus", plan.seed))
    buffer: list[int] = []
    size = plan.batch * plan.length
    while True:
        while len(buffer) < size:
            encoded = tokenizer(next(texts), add_special_tokens=False)["input_ids"]
            buffer += [tokenizer.bos_token_id, *encoded, tokenizer.eos_token_id]
        yield torch.tensor(buffer[:size]).view(plan.batch, plan.length)
        del buffer[:size]


def _optimizers(model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    """Muon (Jordan et al. 2024) for the matrices, AdamW for embeddings and norms."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    chosen = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in chosen]
    return [
        torch.optim.Muon(matrices, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def pretrain(
    plan: PretrainPlan, out: Path, *, report: Callable[[int, int, float, float], None] | None = None
) -> dict[str, Any]:
    """Train tokenizer and base model and write them to ``out``: bf16 safetensors, ``tokenizer.json``, configs.

    Args:
        plan: Size of model and training.
        out: Folder to write; replaced as a whole when the training is done.
        report: Called every 50 steps with step, steps, running loss and seconds so far.

    Returns:
        Steps, tokens, last running loss and seconds.
    """
    started = time.monotonic()
    # Sums in another order give other last digits, and so in the end other weights.
    torch.set_num_threads(1)
    tokenizer = make_tokenizer(plan)
    model = make_model(plan, tokenizer)
    optimizers = _optimizers(model)
    running = 0.0
    blocks = _blocks(plan, tokenizer)
    for step in range(plan.steps):
        rate = min(1.0, (step + 1) / 50) * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / plan.steps)))
        tokens = next(blocks)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(input_ids=tokens).logits
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].float().flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = plan.learning_rate * rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        running = loss.item() if step == 0 else 0.97 * running + 0.03 * loss.item()
        if report and (step + 1) % 50 == 0:
            report(step + 1, plan.steps, running, time.monotonic() - started)
    with staged_folder(out) as folder:
        model.to(torch.bfloat16).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return {
        "steps": plan.steps,
        "tokens": plan.steps * plan.batch * plan.length,
        "loss": running,
        "seconds": time.monotonic() - started,
    }
