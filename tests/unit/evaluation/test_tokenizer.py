from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapterctl.errors import UsageError
from adapterctl.evaluation import tokenizer as module
from adapterctl.evaluation.tokenizer import UnicodeTokenizer, tokenizer_of, tokenizer_signature

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


@pytest.fixture(scope="module")
def sudachi():
    pytest.importorskip("sudachipy", reason="needs the extra adapterctl[ja]")
    pytest.importorskip("sudachidict_core", reason="needs the extra adapterctl[ja]")
    return tokenizer_of("sudachi").tokenize


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("東京は日本の首都です。", ["東京", "は", "日本", "の", "首都", "です"]),
        # Mode A gives the shortest units; widths and case are folded.
        ("国家公務員", ["国家", "公務", "員"]),
        ("２０２４年のＡＩ", ["2024", "年", "の", "ai"]),
        ("… — ！？", []),
        ("", []),
    ],
)
def test_morphemes(sudachi, text, tokens):
    assert sudachi(text) == tokens


def test_texts_longer_than_sudachi_takes_are_cut_at_ends_of_sentences(sudachi):
    sentence = "東京都へ行った。"
    assert sudachi(sentence * 4000) == sudachi(sentence) * 4000
    assert len("".join(sudachi("𠮷" * 20_000))) == 20_000


def test_signatures_name_tokenizer_and_version(sudachi):
    from importlib.metadata import version

    assert tokenizer_signature("unicode") == "unicode/1"
    known = f"sudachi-a/{version('sudachipy')}/core-{version('SudachiDict-core')}"
    assert tokenizer_signature("sudachi") == known


@pytest.mark.parametrize("missing", ["sudachipy", "SudachiDict-core"])
def test_without_sudachi_the_extra_is_named(monkeypatch, missing):
    def version(name: str) -> str:
        if name == missing:
            raise module.PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(module, "version", version)
    for ask in (lambda: tokenizer_signature("sudachi"), module.SudachiTokenizer):
        with pytest.raises(UsageError, match=missing) as caught:
            ask()
        assert "pip install 'adapterctl[ja]'" in caught.value.hint
