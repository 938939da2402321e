"""Each format reads back exactly what went in. The readers are the programs, or written from their manuals."""

from __future__ import annotations

import re
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML
from tests.support.scheduled import HOSTILE

from adapterctl.scheduling import quoting

PLAIN = st.text(st.characters(blacklist_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1)


@pytest.mark.parametrize("text", ["a\nb", "a\tb", "a\x00", "\x85", "\u2028", "\udcff", "\x7f"])
def test_what_is_not_plain(text: str) -> None:
    assert not quoting.is_plain(text)


def test_what_is_plain() -> None:
    assert quoting.is_plain(HOSTILE)


def from_crontab(command: str) -> str:
    """Return what cron hands to the shell; a bare % would end the command (crontab(5))."""
    assert not re.search(r"(?<!\\)%", command)
    return command.replace(r"\%", "%")


def test_a_shell_reads_what_cron_hands_on() -> None:
    words = ["printf", "%s|", "/a b/50%/it's $HOME `id`", "%"]
    done = subprocess.run(
        ["sh", "-c", from_crontab(quoting.crontab(words))], capture_output=True, text=True, check=True
    )
    assert done.stdout == "/a b/50%/it's $HOME `id`|%|"


def from_systemd(text: str, *, argument: bool) -> str:
    """Return what systemd reads (systemd.syntax, .unit, .service): quotes, then specifiers, then variables."""
    assert text[0] == text[-1] == '"'
    inner = text[1:-1]
    assert not re.search(r'(?<!\\)(?:\\\\)*"', inner)
    unescaped = re.sub(r"\\(.)", lambda found: {"\\": "\\", '"': '"'}[found[1]], inner)
    assert not re.search(r"%[^%]", unescaped.replace("%%", ""))
    plain = unescaped.replace("%%", "%")
    return plain.replace("$$", "$") if argument else plain


@given(PLAIN)
def test_systemd_reads_an_argument_back(text: str) -> None:
    assert from_systemd(quoting.systemd(text, argument=True), argument=True) == text
    assert from_systemd(quoting.systemd(text), argument=False) == text


@given(PLAIN)
def test_yaml_reads_a_string_back(text: str) -> None:
    assert YAML(typ="safe").load(f"a: {quoting.yaml(text)}") == {"a": text}


def from_kubernetes(text: str, variables: dict[str, str]) -> str:
    """Return what Kubernetes makes of an argument: $$ is $, $(NAME) a variable."""
    return re.sub(
        r"\$(\$|\((\w+)\))", lambda found: "$" if found[1] == "$" else variables.get(found[2], found[0]), text
    )


@pytest.mark.parametrize("text", [HOSTILE, "$(HOME)", "$$(HOME)", "a$", "$$"])
def test_kubernetes_replaces_nothing(text: str) -> None:
    (read,) = YAML(typ="safe").load(quoting.kubernetes_list([text]))
    assert from_kubernetes(read, {"HOME": "/tmp", "id": "0"}) == text


@pytest.mark.parametrize("text", [HOSTILE, "${{ github.token }}", "$${{", "${{ '${{' }}"])
def test_github_evaluates_nothing(text: str) -> None:
    read = YAML(typ="safe").load(quoting.github(text))
    expressions = re.findall(r"\$\{\{ *(.*?) *\}\}", read)
    # Every expression that is left is a constant.
    assert set(expressions) <= {"'${{'"}
    assert re.sub(r"\$\{\{ '(\$\{\{)' \}\}", r"\1", read) == text
