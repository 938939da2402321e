"""What a written text is worth beside its reference, row by row: ROUGE, and the counts behind chrF and BLEU."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from adapterctl.evaluation.tokenizer import TokenizerName, tokenizer_of

ROUGE = {"rouge_1": "rouge1", "rouge_2": "rouge2", "rouge_l": "rougeL"}
"""Our names of the metrics, and those of rouge-score."""

_BLEU_TOKENIZERS = {"zh": "zh", "yue": "zh"} | dict.fromkeys(("ja", "th", "lo", "km", "my", "bo"), "char")


def bleu_tokenizer(lang: str) -> str:
    """Return the name of sacrebleu's tokenizer for a language: characters where words are not written apart."""
    return _BLEU_TOKENIZERS.get(lang.split("-")[0], "13a")


@cache
def _rouge_scorer(tokenizer: TokenizerName) -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(list(ROUGE.values()), tokenizer=tokenizer_of(tokenizer))


def rouge(prediction: str, reference: str, tokenizer: TokenizerName = "unicode") -> dict[str, float]:
    """Return ``rouge_1``, ``rouge_2`` and ``rouge_l`` of a text, F-measures from 0 to 1 (Lin 2004).

    Equal texts score 1 even where they hold nothing to count, such as punctuation only or a single word's bigrams.

    Raises:
        UsageError: The tokenizer is not installed.
    """
    if prediction.strip() == reference.strip():
        return dict.fromkeys(ROUGE, 1.0)
    scores = _rouge_scorer(tokenizer).score(reference, prediction)
    return {name: float(scores[theirs].fmeasure) for name, theirs in ROUGE.items()}


@cache
def _chrf() -> Any:
    from sacrebleu.metrics import CHRF

    return CHRF()


@cache
def _bleu(tokenizer: str) -> Any:
    from sacrebleu.metrics import BLEU

    # It would otherwise advise to detokenise what a model wrote; the score is the same.
    return BLEU(tokenize=tokenizer, effective_order=True, force=True)


def chrf_counts(predictions: Sequence[str], references: Sequence[str]) -> list[list[int]]:
    """Return sacrebleu's counts behind chrF2 for every text.

    By length 1 to 6 of n-grams of characters: those of the prediction, those of the reference, matches.
    """
    return _counts(_chrf(), predictions, references)


def bleu_counts(predictions: Sequence[str], references: Sequence[str], lang: str) -> list[list[int]]:
    """Return sacrebleu's counts behind BLEU for every text, tokenised as the language asks.

    Tokens of prediction and reference, then by length 1 to 4 of n-grams: matches, and those of the prediction.
    """
    return _counts(_bleu(bleu_tokenizer(lang)), predictions, references)


def _counts(metric: Any, predictions: Sequence[str], references: Sequence[str]) -> list[list[int]]:
    # Not a public method, but the one that sacrebleu's own paired bootstrap resamples from.
    rows = metric._extract_corpus_statistics(list(predictions), [list(references)])
    return [[int(count) for count in row] for row in rows]


def sentence_bleu(counts: Sequence[int]) -> float:
    """Return the BLEU of one text from its counts, from 0 to 1.

    Of n-grams longer than the text nothing is asked (sacrebleu's effective order); otherwise a text of three words
    would be worth nothing.
    """
    score = _bleu("13a").compute_bleu(
        correct=list(counts[2:6]),
        total=list(counts[6:10]),
        sys_len=counts[0],
        ref_len=counts[1],
        smooth_method="exp",
        effective_order=True,
    )
    return float(score.score) / 100
