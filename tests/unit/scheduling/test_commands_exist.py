"""The commands that schedulers are told to run are commands that there are, with these options."""

from __future__ import annotations

import click
import pytest

from adapterctl.cli.main import PROGRAM, cli
from adapterctl.scheduling.job import Job

JOB = Job(name="a", program="adapterctl", workspace="/w", max_age="30d", min_new_rows=200, approve=True)


@pytest.mark.parametrize("words", JOB.commands(), ids=["promote", "update"])
def test_the_program_takes_the_command(words: tuple[str, ...]) -> None:
    above = cli.make_context(PROGRAM, list(words[1:4]), resilient_parsing=True)
    name, command, _ = cli.resolve_command(above, [words[3]])
    assert name == words[3]
    assert isinstance(command, click.Command)
    # Options that are unknown or have a value of the wrong form end this.
    ctx = command.make_context(name, list(words[4:]), parent=above)
    assert ctx.args == []
