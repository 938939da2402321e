"""Texts on which the libraries' own defaults mislead: each default is shown beside what we make of it."""

from __future__ import annotations

import pytest
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU, CHRF

from adapterctl.evaluation.scorecard import ExampleScore
from adapterctl.evaluation.sums import from_sums, row_statistics
from adapterctl.evaluation.texts import bleu_counts, bleu_tokenizer, chrf_counts, rouge

PLAIN = RougeScorer(["rougeL", "rougeLsum"])
NEAR = ("東京が日本の首都だ。", "東京は日本の首都です。")
WRONG = ("大阪へ電車で行った。", "東京は日本の首都です。")


def corpus(metric: str, prediction: str, reference: str, lang: str = "ja") -> float:
    if metric == "chrf":
        counts = chrf_counts([prediction], [reference])
    else:
        counts = bleu_counts([prediction], [reference], lang)
    row = ExampleScore("1", lang, "t", prediction, reference, 0.0, details={f"{metric}_stats": counts[0]})
    return float(from_sums(metric, row_statistics(metric, [row]).sum(0)))


@pytest.mark.parametrize("text", ["東京は日本の首都です。", "他们在北京。", "한국어는 재미있다", "مرحبا بالعالم"])
def test_a_text_equals_itself_in_every_script(text):
    assert PLAIN.score(text, text)["rougeL"].fmeasure == 0.0
    # Not by being equal only: with a word in front the rest is found as well.
    assert rouge(text, text) == {"rouge_1": 1.0, "rouge_2": 1.0, "rouge_l": 1.0}
    assert 0.7 < rouge(f"x {text}", text)["rouge_1"] < 1


def test_numbers_alone_do_not_make_sentences_equal():
    prediction, reference = "犬は2024年に10匹生まれた。", "売上は2024年に10%増加した。"
    assert PLAIN.score(reference, prediction)["rougeL"].fmeasure == 1.0
    # 11 tokens each; in common and in this order は 2024 年 に 10 た; pairs: は-2024, 2024-年, 年-に, に-10.
    expected = {"rouge_1": 6 / 11, "rouge_2": 4 / 10, "rouge_l": 6 / 11}
    assert rouge(prediction, reference) == pytest.approx(expected)


def test_umlauts_are_letters():
    prediction, reference = "Die Größe überrascht", "Die Grüße überrascht"
    assert PLAIN.score(reference, prediction)["rougeL"].fmeasure == 1.0
    assert rouge(prediction, reference) == pytest.approx({"rouge_1": 2 / 3, "rouge_2": 0.0, "rouge_l": 2 / 3})


def test_the_ends_of_japanese_lines_do_not_count():
    prediction, reference = "明日は晴れ。今日は雨。", "今日は雨。\n明日は晴れ。"
    # The longest of both halves in order: 明日は晴れ, 5 of 9 tokens; with the sentences on lines or not.
    assert rouge(prediction, reference)["rouge_l"] == pytest.approx(5 / 9)
    assert rouge(prediction.replace("。", "。\n"), reference)["rouge_l"] == pytest.approx(5 / 9)


def test_a_near_sentence_is_nearer_than_a_wrong_one():
    # Characters: 9 and 10; in common and in order 東京日本の首都: 7, and nothing but で for the wrong one of 9 tokens.
    assert rouge(*NEAR)["rouge_l"] == pytest.approx(2 * 7 / (9 + 10))
    assert rouge(*WRONG)["rouge_l"] == pytest.approx(2 * 1 / (9 + 10))


def test_morphemes_of_sudachi_are_counted_instead_of_characters():
    pytest.importorskip("sudachipy", reason="needs the extra adapterctl[ja]")
    # 東京|が|日本|の|首都|だ and 東京|は|日本|の|首都|です: 4 of 6; pairs 日本-の and の-首都.
    assert rouge(*NEAR, "sudachi") == pytest.approx({"rouge_1": 4 / 6, "rouge_2": 2 / 5, "rouge_l": 4 / 6})
    assert rouge(*WRONG, "sudachi")["rouge_l"] == 0.0


def test_chrf_needs_no_tokenizer():
    for pair in (NEAR, WRONG, (NEAR[1], NEAR[1])):
        assert corpus("chrf", *pair) == pytest.approx(CHRF().corpus_score([pair[0]], [[pair[1]]]).score / 100)
    assert corpus("chrf", NEAR[1], NEAR[1]) == pytest.approx(1.0)
    assert corpus("chrf", *NEAR) > 3 * corpus("chrf", *WRONG)


def test_bleu_by_characters_where_words_are_not_written_apart():
    assert BLEU().corpus_score([NEAR[0]], [[NEAR[1]]]).score == 0.0
    assert corpus("bleu", *NEAR) > 0.2 > corpus("bleu", *WRONG)


def test_bleu_of_chinese_by_sacrebleus_own_tokenizer():
    prediction, reference = "他们昨天在北京开会。", "他们昨天在上海开会。"
    assert BLEU().corpus_score([prediction], [[reference]]).score == 0.0
    theirs = BLEU(tokenize="zh").corpus_score([prediction], [[reference]]).score
    assert corpus("bleu", prediction, reference, "zh") == pytest.approx(theirs / 100)
    assert theirs > 30


@pytest.mark.parametrize(
    ("lang", "tokenizer"),
    [("zh", "zh"), ("zh-Hant", "zh"), ("ja", "char"), ("th", "char"), ("lo", "char"), ("km", "char"), ("my", "char"),
     ("de", "13a"), ("ko", "13a"), ("en-GB", "13a")],
)  # fmt: skip
def test_the_tokenizer_of_bleu_goes_by_the_language(lang, tokenizer):
    assert bleu_tokenizer(lang) == tokenizer


@pytest.mark.parametrize("lang", ["de", "ja", "zh"])
def test_an_empty_prediction_is_worth_nothing(lang):
    assert rouge("", "雨が降る") == {"rouge_1": 0.0, "rouge_2": 0.0, "rouge_l": 0.0}
    assert corpus("chrf", "", "雨が降る", lang) == corpus("bleu", "", "雨が降る", lang) == 0.0
