"""Texts that others wrote, made harmless for Markdown: MLflow shows it in a browser, and GitHub, and editors.

Readers of Markdown differ in what they take for markup and in which characters a backslash protects. A character
reference such as ``&#42;`` is read alike by all of them, and never as markup.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import unescape

LONGEST_NAME = 120
"""Of a name that is shown; what is longer is cut."""

_ALIKE = str.maketrans("|`<>", "¦'‹›")
_ROOM, _MOST_ROOM = "&emsp;", 24
_MARKUP = re.compile(
    r"""[\\`*\[\]<>#!|~@"]         # markup wherever it stands, HTML included
    | (?<![^\W_])_ | _(?![^\W_])   # not inside of a word: rouge_l
    | &(?=[#\w])                   # a character reference of somebody else's
    | :(?=\S)                      # https://, :emoji:
    | (?<=www)\.                   # an address that becomes a link
    | ^[-+=](?=.) | ^(?<=)\d{1,9}(?=[.)]\s)  # lists and underlines at the start of a line
    """,
    re.VERBOSE | re.IGNORECASE,
)


def line(text: str, longest: int = LONGEST_NAME) -> str:
    """Return a text on one line, shortened: whatever is no visible character becomes a space."""
    # What is far too long is not looked at character by character.
    shown = "".join(char if char.isprintable() else " " for char in text[: 4 * longest])
    shown = " ".join(shown.split())
    return shown if len(shown) <= longest and len(text) <= 4 * longest else shown[: longest - 1] + "…"


def plain(text: str, longest: int = LONGEST_NAME) -> str:
    """Return a line in which nothing is read as markup, HTML or the address of a page.

    >>> plain("ja, rouge_l: <b>*x*</b>")
    'ja, rouge_l: &#60;b&#62;&#42;x&#42;&#60;/b&#62;'
    """
    return _MARKUP.sub(lambda found: "".join(f"&#{ord(char)};" for char in found[0]), line(text, longest))


def code(text: str, longest: int = LONGEST_NAME) -> str:
    """Return a line as code that fits into a cell of a table: what could end either is replaced by what looks alike."""
    return f"`{line(text, longest).translate(_ALIKE) or ' '}`"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, words: int) -> str:
    """Return a table of cells that are Markdown already; the first ``words`` columns are text, the others numbers.

    MLflow shows tables without any room between their columns: heads are made wider than what stands below them.
    """
    lines = [list(cells) for cells in rows]
    widths = [max(map(_width, column)) for column in zip(*lines, strict=True)] if lines else [0] * len(head)
    last = len(head) - 1
    wide = [
        name + _ROOM * (0 if place == last else -(-max(2, min(width, _MOST_ROOM) + 2 - len(name)) // 2))
        for place, (name, width) in enumerate(zip(head, widths, strict=True))
    ]
    ruler = ["---"] * words + ["---:"] * (len(head) - words)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (wide, ruler, *lines))


def _width(cell: str) -> int:
    return len(unescape(cell).replace("*", ""))
