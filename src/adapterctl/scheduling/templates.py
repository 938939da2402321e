"""The texts in ``templates/``: what stands between two ``@`` is filled in once and never read again."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files

_MARK = re.compile(r"@([a-z_]+)@")


def fill(name: str, values: Mapping[str, str]) -> str:
    """Return a template with its marks filled in.

    A mark that has a line to itself stands for as many lines as its value has, indented alike; for none where it is
    empty, and the empty line before it goes too.

    Raises:
        KeyError: The template has a mark that ``values`` does not.
    """
    text = files("adapterctl.scheduling").joinpath("templates", name).read_text(encoding="utf-8")
    lines: list[str] = []
    for line in text.splitlines():
        alone = _MARK.fullmatch(line.strip())
        if alone:
            indent = line[: len(line) - len(line.lstrip())]
            if not values[alone[1]] and lines and not lines[-1]:
                lines.pop()
            lines += [f"{indent}{part}".rstrip() for part in values[alone[1]].splitlines()]
        else:
            lines.append(_MARK.sub(lambda mark: values[mark[1]], line))
    return "\n".join(lines) + "\n"
