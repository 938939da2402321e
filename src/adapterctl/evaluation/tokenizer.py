"""The tokenizers ROUGE is computed with: words where they are written apart, characters or morphemes where not.

rouge-score's own tokenizer keeps ASCII letters and digits only: identical Japanese sentences score 0, sentences that
share nothing but their numbers score 1, and ``Größe`` equals ``Grüße``.
"""

from __future__ import annotations

import unicodedata
from functools import cache, lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal, Protocol

from adapterctl.errors import UsageError

TokenizerName = Literal["unicode", "sudachi"]

_UNICODE_VERSION = 1

# SudachiPy refuses texts of more than 49,149 bytes; no character takes more than four.
_LONGEST_FOR_SUDACHI = 12_000


class Tokenizer(Protocol):
    """What rouge-score asks of a tokenizer."""

    def tokenize(self, text: str) -> list[str]:
        """Return the tokens of ``text`` in order."""


_WRITTEN_TOGETHER = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x0F00, 0x0FFF),  # Tibetan
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x19E0, 0x19FF),  # Khmer symbols
    (0x2E80, 0x2FDF),  # radicals
    (0x3005, 0x3007),  # iteration mark, closing mark, ideographic zero
    (0x3021, 0x3029),  # Hangzhou numerals
    (0x3031, 0x303C),  # kana repeat marks
    (0x3040, 0x312F),  # kana, bopomofo
    (0x31A0, 0x31FF),  # more bopomofo and katakana
    (0x3400, 0x4DBF),  # Han, extension A
    (0x4E00, 0x9FFF),  # Han
    (0xA9E0, 0xA9FF),  # Myanmar, extension B
    (0xAA60, 0xAA7F),  # Myanmar, extension A
    (0xF900, 0xFAFF),  # Han, compatibility
    (0x1AFF0, 0x1B16F),  # more kana
    (0x20000, 0x3FFFF),  # Han, all further extensions
)


@lru_cache(maxsize=65536)
def _kind(character: str) -> Literal["word", "single", "mark", "invisible", "apart"]:
    category = unicodedata.category(character)
    if category[0] == "M":
        return "mark"
    if category == "Cf":
        return "invisible"
    if category[0] not in "LN":
        return "apart"
    code = ord(character)
    return "single" if any(first <= code <= last for first, last in _WRITTEN_TOGETHER) else "word"


def fold(text: str) -> str:
    """Return the text without differences of width, composition and case (NFKC, case folding, NFKC)."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


class UnicodeTokenizer:
    """Tokens of letters, marks and numbers after NFKC and case folding.

    Han, kana, Thai, Lao, Khmer, Myanmar and Tibetan give one token a character with its marks; every other script
    gives words, Hangul among them. Invisible format characters (joiners, soft hyphens) neither count nor divide.
    """

    def tokenize(self, text: str) -> list[str]:
        """Return the tokens of ``text`` in order."""
        folded = fold(text)
        tokens: list[str] = []
        before = "apart"
        for character in folded:
            kind = _kind(character)
            if kind == "invisible":
                continue
            if kind == "mark" and before != "apart":
                tokens[-1] += character
                continue
            if kind == "word" and before == "word":
                tokens[-1] += character
            elif kind != "apart":
                tokens.append(character)
            before = kind
        return tokens


class SudachiTokenizer:
    """Morphemes of Japanese by SudachiPy, mode A (the shortest units), core dictionary, after NFKC and case folding.

    Morphemes without a letter or number are left out. Needs the extra ``adapterctl[ja]``.

    Raises:
        UsageError: SudachiPy or its dictionary is not installed.
    """

    def __init__(self) -> None:
        _sudachi_versions()
        from sudachipy import Dictionary, SplitMode

        dictionary = Dictionary(dict="core")
        # Called ``create`` before SudachiPy 0.7.
        make = getattr(dictionary, "tokenizer", None) or dictionary.create
        self._tokenizer: Any = make(mode=SplitMode.A)

    def tokenize(self, text: str) -> list[str]:
        """Return the tokens of ``text`` in order."""
        morphemes = (one.surface() for part in _parts(fold(text)) for one in self._tokenizer.tokenize(part))
        return [one for one in morphemes if any(unicodedata.category(character)[0] in "LN" for character in one)]


def _parts(text: str) -> list[str]:
    """Return the text in parts that SudachiPy takes, cut at ends of sentences where there are any."""
    parts = []
    while len(text) > _LONGEST_FOR_SUDACHI:
        head = text[:_LONGEST_FOR_SUDACHI]
        cut = max(head.rfind("。"), head.rfind("\n")) + 1 or _LONGEST_FOR_SUDACHI
        parts.append(text[:cut])
        text = text[cut:]
    return [*parts, text]


def _sudachi_versions() -> tuple[str, str]:
    try:
        return version("sudachipy"), version("SudachiDict-core")
    except PackageNotFoundError as error:
        raise UsageError(
            f"rouge_tokenizer 'sudachi' needs {error.name}, which is not installed",
            hint="pip install 'adapterctl[ja]', or remove rouge_tokenizer from the suite file",
        ) from error


@cache
def tokenizer_of(name: TokenizerName) -> Tokenizer:
    """Return the tokenizer of a name.

    Raises:
        UsageError: It is not installed.
    """
    return SudachiTokenizer() if name == "sudachi" else UnicodeTokenizer()


def tokenizer_signature(name: TokenizerName) -> str:
    """Return name and version of a tokenizer, and of its dictionary; nothing is loaded.

    Raises:
        UsageError: It is not installed.
    """
    if name == "sudachi":
        software, dictionary = _sudachi_versions()
        return f"sudachi-a/{software}/core-{dictionary}"
    return f"unicode/{_UNICODE_VERSION}"
