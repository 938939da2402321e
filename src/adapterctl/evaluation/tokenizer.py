"""The tokenizer ROUGE is computed with: words where they are written apart, characters where they are not.

rouge-score's own tokenizer keeps ASCII letters and digits only: identical Japanese sentences score 0, sentences that
share nothing but their numbers score 1, and ``Größe`` equals ``Grüße``.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from typing import Literal

TOKENIZER = "unicode/1"
"""Name and version, recorded with every score: scores of different tokenizers are never compared."""

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


class UnicodeTokenizer:
    """Tokens of letters, marks and numbers after NFKC and case folding.

    Han, kana, Thai, Lao, Khmer, Myanmar and Tibetan give one token a character with its marks; every other script
    gives words, Hangul among them. Invisible format characters (joiners, soft hyphens) neither count nor divide.
    """

    def tokenize(self, text: str) -> list[str]:
        """Return the tokens of ``text`` in order."""
        folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
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
