"""Values written so that each format reads back exactly what went in, and never more."""

from __future__ import annotations

import json
import shlex
import unicodedata
from collections.abc import Sequence

_NOT_TEXT = ("Cc", "Cs", "Zl", "Zp")


def is_plain(text: str) -> bool:
    """Return whether a text is one line without control characters and without bytes that are no text.

    No format here can hold anything else: a line end would begin a line of its own in a crontab or a unit.
    """
    return not any(unicodedata.category(char) in _NOT_TEXT for char in text)


def shell(words: Sequence[str]) -> str:
    """Return a command as a POSIX shell reads it."""
    return shlex.join(words)


def crontab(words: Sequence[str]) -> str:
    """Return a command for a line of a crontab, where a bare ``%`` ends it."""
    return shlex.join(words).replace("%", r"\%")


def systemd(text: str, *, argument: bool = False) -> str:
    """Return a value for a unit file, in quotes.

    Args:
        text: The value.
        argument: Whether it is an argument of ``ExecStart=``, where ``$`` begins a variable. In the path of the
            program, in ``Environment=`` and in lists of paths it does not.
    """
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped.replace("$", "$$") if argument else escaped}"'


def systemd_command(words: Sequence[str]) -> str:
    """Return a command for ``ExecStart=``."""
    program, *arguments = words
    return " ".join([systemd(program), *(systemd(word, argument=True) for word in arguments)])


def yaml(text: str) -> str:
    """Return a string for YAML, in quotes; JSON's strings are strings of YAML too."""
    return json.dumps(text, ensure_ascii=False)


def kubernetes(text: str) -> str:
    """Return an argument or a variable of a container, where ``$(NAME)`` would be replaced by a variable."""
    return yaml(text.replace("$", "$$"))


def kubernetes_list(words: Sequence[str]) -> str:
    """Return arguments of a container."""
    return "[" + ", ".join(map(kubernetes, words)) + "]"


def github(text: str) -> str:
    """Return a string for a workflow of GitHub, where ``${{`` in a text would begin an expression."""
    return yaml(text.replace("${{", "${{ '${{' }}"))
