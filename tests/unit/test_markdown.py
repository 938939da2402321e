"""Names that others wrote stand in Markdown as they are."""

from __future__ import annotations

from html import unescape

import pytest

from adapterctl.markdown import code, line, plain, table

HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "<script>alert('1')</script>",
    "**bold** _em_ ~~gone~~ `code`",
    "[click](javascript:alert(1)) ![i](https://evil.example/x.png)",
    "| a | b |",
    "https://evil.example www.evil.example me@evil.example @someone :smile:",
    "&lt;b&gt; &#60;b&#62;",
    "# head",
    "- item",
    "1. item",
    "\\*not\\*",
    "=====",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_is_read_as_markup_and_everything_is_shown(text: str) -> None:
    made = plain(text)
    assert unescape(made) == text
    for sign in "<>*[]|`~\\@":
        assert sign not in made
    assert "://" not in made
    assert not made.startswith(("- ", "# ", "=", "1."))


def test_ordinary_texts_stay_readable() -> None:
    for text in ("ja", "pt-BR", "rouge_l", "12 s, 0.004 USD", "merged/8 (update ja)", "R & D", "a: b"):
        assert plain(text) == text


def test_one_line_of_visible_characters() -> None:
    assert line("a\nb\x1b[31m\u202ec\t d\x00") == "a b [31m c d"
    assert line("x" * 500, 10) == "x" * 9 + "…"
    assert line(" " * 500 + "x", 10).endswith("…")
    assert len(plain("<" * 10**6)) <= 120 * len("&#60;")


def test_code_fits_into_a_cell() -> None:
    assert code("a`b|c\n") == "`a'b¦c`"
    assert code("") == "` `"


def test_a_table_whose_heads_are_wider_than_what_stands_below() -> None:
    made = table(["language", "score", "id"], [["ja", "▲ +0.500", "7"], ["**de**", "0", "a&#42;"]], words=1)
    assert made.splitlines() == [
        # Five letters, eight below them, two more: five are missing, and each em is as wide as two letters.
        "| language&emsp; | score&emsp;&emsp;&emsp; | id |",
        "| --- | ---: | ---: |",
        "| ja | ▲ +0.500 | 7 |",
        "| **de** | 0 | a&#42; |",
    ]
    assert table(["a"], [], words=1) == "| a |\n| --- |"
