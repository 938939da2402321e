"""What holds for every command of the program."""

from __future__ import annotations

from collections.abc import Iterator
from inspect import cleandoc

import click
import pytest

from adapterctl.cli.catalogue import SECTIONS
from adapterctl.cli.main import PROGRAM, cli

ENTRIES = {name: entry for section in SECTIONS.values() for name, entry in section.items()}


def walk(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    ctx = click.Context(command)
    for name in command.list_commands(ctx) if isinstance(command, click.Group) else ():
        sub = command.get_command(ctx, name)
        assert sub is not None
        yield (*path, name), sub
        yield from walk(sub, (*path, name))


@pytest.fixture(scope="module")
def commands() -> dict[str, click.Command]:
    """Every command and subcommand, by the words that call it."""
    return {" ".join(path): command for path, command in walk(cli, ())}


def test_the_commands_are_those_that_are_promised() -> None:
    assert set(ENTRIES) == {
        "init", "doctor", "plan", "setup", "train", "merge", "evaluate", "update", "add", "remove", "baseline",
        "status", "history", "lineage", "diff", "promote", "reject", "rollback", "pin", "unpin", "cost", "ui",
        "export", "config", "pocket", "adapter", "recipe", "registry", "schedule",
    }  # fmt: skip


def test_the_list_says_what_the_commands_say(commands: dict[str, click.Command]) -> None:
    listed = {name: entry.help for name, entry in ENTRIES.items()}
    told = {name: cleandoc(commands[name].help or "").partition("\n")[0] for name in ENTRIES}
    assert listed == told
    assert all(commands[name].name == name for name in ENTRIES)


def examples_of(command: click.Command) -> list[str]:
    """Return the examples in a command's help, ``adapterctl -C demo x`` written as ``adapterctl x``."""
    _, _, text = cleandoc(command.help or "").partition("\n\b\nExamples:\n")
    return [line.strip().replace(" -C demo", "") for line in text.splitlines()]


def test_every_command_shows_an_example(commands: dict[str, click.Command]) -> None:
    lacking = [
        words
        for words, command in commands.items()
        if not any(example.startswith(f"{PROGRAM} {words}") for example in examples_of(command))
    ]
    assert lacking == []


def test_every_option_is_explained(commands: dict[str, click.Command]) -> None:
    silent = [
        f"{words} {option.opts[0]}"
        for words, command in commands.items()
        for option in command.params
        if isinstance(option, click.Option) and not option.help
    ]
    assert silent == []


# It serves until it is ended, and has no result.


def test_every_command_with_a_result_speaks_json(commands: dict[str, click.Command]) -> None:
    mute = [
        words
        for words, command in commands.items()
        if not isinstance(command, click.Group) and not any("--json" in option.opts for option in command.params)
    ]
    assert mute == []
