"""A tiny random model and rows of every kind, in three languages."""

from __future__ import annotations

from typing import Any

import pytest

from adapterctl.examples import Example
from adapterctl.tasks import TaskSettings

TASKS = {
    "sentiment": TaskSettings(
        kind="classification",
        prompt="{input}\nSentiment:",
        labels={"en": ["good", "bad"], "de": ["gut", "schlecht"], "ja": ["良い", "悪い"]},
    ),
    "reasoning": TaskSettings(kind="multiple-choice", prompt="{question}\n{choices}\nAnswer:"),
    "letters": TaskSettings(kind="multiple-choice", prompt="{question}\n{choices}\nAnswer:", answer="letter"),
    "summary": TaskSettings(kind="generation", prompt="{input}\nSummary:", max_new_tokens=9),
    "headline": TaskSettings(kind="generation", prompt="{input}\nHeadline:", max_new_tokens=5, metric="rouge_1"),
}

SENTENCES = {
    "en": ["the soup was warm and good", "a bad film about nothing at all, and too long", "rain", "two trains met"],
    "de": ["die Größe der Suppe überrascht", "ein schlechter Film", "Regen und noch mehr Regen am See", "gut so"],
    "ja": ["スープは温かくて良い", "東京は日本の首都です。", "悪い映画", "雨が降り、列車は二本とも遅れて駅に着いた。"],
}


@pytest.fixture(scope="session")
def tasks() -> dict[str, TaskSettings]:
    return TASKS


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<pad>", "<s>", "</s>", "<turn>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # The English labels become single tokens; the others stay longer.
    bpe.train_from_iterator([*SENTENCES["en"], *[" good", " bad", " A", " B", " C"] * 20], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


@pytest.fixture(scope="session")
def model(tokenizer: Any) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=len(tokenizer),
        max_position_embeddings=400,
        initializer_range=0.3,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="session")
def examples() -> tuple[Example, ...]:
    rows = []
    for lang, sentences in SENTENCES.items():
        labels = TASKS["sentiment"].labels_for(lang)
        for number, text in enumerate(sentences):
            choices = (text, sentences[number - 1], labels[0])[: 2 + number % 2]
            place = {"id": f"{number}", "lang": lang}
            rows += [
                Example(**place, task="sentiment", reference=labels[number % 2], input=text),
                Example(
                    **place, task="reasoning", reference="A", question=text, choices=choices, answer_index=number % 2
                ),
                Example(**place, task="letters", reference="A", question=text, choices=choices, answer_index=0),
                Example(**place, task="summary", reference=sentences[number - 1], input=text * (1 + number % 2)),
                Example(**place, task="headline", reference=text, input=text),
            ]
    return tuple(rows)
