"""A Llama of some ten thousand numbers that was never trained, with a byte-level tokenizer, in a folder."""

from __future__ import annotations

from pathlib import Path

from adapterctl.base_model import BaseModel, BaseModelSettings, find

LINES = (
    "Review: the soup was warm and the night was long Sentiment: good bad fair",
    "the sea is blue, the fire is red, the grass is green; where does it live",
    "おいしい まずい ふつう 今日は海へ行きました",
)


def save_tiny_llama(folder: Path, *, seed: int = 5, hidden: int = 32, layers: int = 2, positions: int = 256) -> Path:
    """Write model and tokenizer into ``folder``; the same arguments give the same files."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(LINES, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", model_max_length=positions
    )
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=positions,
        tie_word_embeddings=True,
        # With the usual 0.02 the tied output layer could not prefer any token by much, whatever an adapter does.
        initializer_range=0.25,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
        model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def tiny_base(folder: Path, **settings: str) -> BaseModel:
    """Return the model in ``folder`` as a base model named by its relative path."""
    return find(BaseModelSettings.model_validate({"path": folder.name, **settings}), folder.parent)
