from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import click
import pytest

from adapterctl.cli.output import console, emit, json_option, plain
from adapterctl.cli.state import State
from adapterctl.settings import Settings


@dataclass(frozen=True)
class Score:
    value: float

    def as_dict(self) -> dict[str, Any]:
        return {"value": self.value}


class Block(Settings):
    rank: int = 4


def test_values_become_json() -> None:
    value = {
        "score": Score(0.5),
        "settings": Block(),
        "path": PurePosixPath("a/b"),
        3: (1, "ja", None, True),
        "nan": float("nan"),
        "inf": [float("inf"), -1e308],
    }
    assert plain(value) == {
        "score": {"value": 0.5},
        "settings": {"rank": 4},
        "path": "a/b",
        "3": [1, "ja", None, True],
        "nan": None,
        "inf": [None, -1e308],
    }


def test_what_json_cannot_hold_is_an_error() -> None:
    with pytest.raises(TypeError, match="object has no form in JSON"):
        plain({"thing": object()})


@click.command()
@json_option
@click.pass_context
def command(ctx: click.Context) -> None:
    emit(ctx, {"text": "日本語 [bold]"}, lambda out: out.print("日本語", end="!\n"))


def run(*args: str, state: State | None = None) -> None:
    command.main(list(args), standalone_mode=False, obj=state)


def test_one_object_with_json_and_a_text_without(capsys: pytest.CaptureFixture[str]) -> None:
    run("--json")
    assert json.loads(capsys.readouterr().out) == {"text": "日本語 [bold]"}
    run()
    assert capsys.readouterr().out == "日本語!\n"


def test_emitting_is_remembered() -> None:
    state = State()
    run(state=state)
    assert state.emitted


def test_a_file_is_wide_enough_for_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert console().width == 120
    monkeypatch.setenv("COLUMNS", "60")
    assert console().width == 60
