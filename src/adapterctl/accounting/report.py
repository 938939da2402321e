"""The books as a report: Markdown, and one HTML file that needs nothing beside it and runs no script."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape


@dataclass(frozen=True)
class Table:
    """A table whose first column is text and whose others are numbers."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def only(self, columns: Sequence[str]) -> Table:
        """Return the table with these columns alone."""
        places = [self.head.index(name) for name in columns]
        return Table(tuple(columns), tuple(tuple(row[place] for place in places) for row in self.rows))


@dataclass(frozen=True)
class Picture:
    """A picture beside the report.

    Attributes:
        file: Name of its file.
        png: Its content.
        says: What it shows, for who cannot see it.
    """

    file: str
    png: bytes = field(repr=False)
    says: str


@dataclass(frozen=True)
class Section:
    """A part of the report: sentences, then a picture, then a table."""

    title: str
    sentences: tuple[str, ...] = ()
    picture: Picture | None = None
    table: Table | None = None


def markdown(title: str, sections: Sequence[Section]) -> str:
    """Return the report as Markdown; its pictures are files beside it."""
    parts = [f"# {_plain(title)}"]
    for section in sections:
        parts.append(f"## {_plain(section.title)}")
        parts += [_plain(sentence) for sentence in section.sentences]
        if section.picture:
            parts.append(f"![{_plain(section.picture.says)}]({section.picture.file})")
        if section.table:
            parts.append(_markdown_table(section.table))
    return "\n\n".join(parts) + "\n"


def _plain(text: str) -> str:
    """Return a text that Markdown shows as it is: one line, nothing read as markup or HTML."""
    kept = " ".join(text.split())
    for sign in "\\`*_[]<>|":
        kept = kept.replace(sign, f"\\{sign}")
    return kept


def _markdown_table(table: Table) -> str:
    lines = [
        "| " + " | ".join(_plain(name) for name in table.head) + " |",
        "|---|" + "---:|" * (len(table.head) - 1),
        *("| " + " | ".join(_plain(cell) for cell in row) + " |" for row in table.rows),
    ]
    return "\n".join(lines)


_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 80rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
img { max-width: min(100%, 68rem); height: auto; border: 1px solid #ddd; border-radius: 4px; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .875rem; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
thead th { border-bottom: 2px solid #888; }
"""


def html(title: str, sections: Sequence[Section]) -> str:
    """Return the report as one HTML page with its pictures inside."""
    body = [f"<h1>{escape(title)}</h1>"]
    for section in sections:
        body.append(f"<h2>{escape(section.title)}</h2>")
        body += [f"<p>{escape(sentence)}</p>" for sentence in section.sentences]
        if section.picture:
            data = base64.b64encode(section.picture.png).decode("ascii")
            body.append(f'<img alt="{escape(section.picture.says)}" src="data:image/png;base64,{data}">')
        if section.table:
            body.append(_html_table(section.table))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">\n"
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def _html_table(table: Table) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in table.head)
    rows = "\n".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows)
    return f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table></div>'
