from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapterctl.evaluation.tokenizer import UnicodeTokenizer

tokenize = UnicodeTokenizer().tokenize


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("東京は日本の首都です。", [*"東京は日本の首都です"]),
        ("売上は2024年に10%増加した。", ["売", "上", "は", "2024", "年", "に", "10", "増", "加", "し", "た"]),
        ("２０２４年", ["2024", "年"]),
        ("ｽｰﾊﾟｰ", ["ス", "ー", "パ", "ー"]),
        ("人々", ["人", "々"]),
        ("他们在北京。", [*"他们在北京"]),
        ("𠮷野家", ["𠮷", "野", "家"]),
        ("Die Größe überrascht", ["die", "grösse", "überrascht"]),
        ("L'été, c'est fini!", ["l", "été", "c", "est", "fini"]),
        ("한국어는 재미있다", ["한국어는", "재미있다"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("ที่นี่", ["ที่", "นี่"]),
        ("ລາວ", ["ລ", "າ", "ວ"]),
        ("ខ្មែរ", ["ខ្", "មែ", "រ"]),
        ("می\u200cخواهم", ["میخواهم"]),
        ("co\u00adoperate snake_case", ["cooperate", "snake", "case"]),
        ("x² ½", ["x2", "1", "2"]),
        ("… — !?", []),
        ("", []),
    ],
)
def test_tokens(text, tokens):
    assert tokenize(text) == tokens


def test_composed_and_decomposed_marks_are_the_same():
    text = "Größe は がぎぐ é"
    assert tokenize(unicodedata.normalize("NFD", text)) == tokenize(unicodedata.normalize("NFC", text))


@given(st.text())
def test_tokens_hold_every_letter_and_number_once_and_nothing_else(text):
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    wanted = [one for one in folded if unicodedata.category(one)[0] in "LN"]
    got = [one for one in "".join(tokenize(text)) if unicodedata.category(one)[0] != "M"]
    assert got == wanted
    assert "" not in tokenize(text)
