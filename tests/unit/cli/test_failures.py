from __future__ import annotations

import errno
import json
import os
import re
from pathlib import Path

import click
import pytest
from tests.support.cli import Result, invoke

from adapterctl.cli import main as program
from adapterctl.cli.failures import MOST_PROBLEMS
from adapterctl.errors import AdapterctlError, ConfigError, GateFailed, Problem


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Run a command that ends with the given exception."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def fail(error: BaseException, *args: str) -> Result:
        @click.command()
        @click.option("--json", is_flag=True)
        def broken(json: bool) -> None:
            raise error

        monkeypatch.setattr(program.cli, "get_command", lambda ctx, name: broken)
        return invoke(*args)

    return fail


def test_an_error_names_problems_and_mend_on_standard_error(failing) -> None:
    error = ConfigError(
        "the workspace has 2 problems",
        problems=[Problem("adapterctl.yaml:3", "unknown key", "did you mean 'merge'?"), Problem("", "no rows")],
        hint="correct these lines",
    )
    assert failing(error, "status") == Result(
        2,
        "",
        "Error: the workspace has 2 problems\n"
        "  adapterctl.yaml:3: unknown key (did you mean 'merge'?)\n"
        "  no rows\n"
        "To mend it: correct these lines\n",
    )


def test_with_json_it_is_the_one_object_on_standard_output(failing) -> None:
    error = GateFailed("ja is worse", problems=[Problem("ja", "accuracy")], hint="look at it")
    result = failing(error, "status", "--json")
    assert result.json == {
        "error": {
            "type": "GateFailed",
            "message": "ja is worse",
            "hint": "look at it",
            "problems": [{"where": "ja", "message": "accuracy", "hint": ""}],
        },
        "exit_code": 3,
    }
    assert (result.exit_code, result.err) == (3, "")


def test_many_problems_stay_on_one_screen_and_json_has_all(failing) -> None:
    error = ConfigError("many", problems=[Problem(f"f:{n}", "bad") for n in range(300)])
    lines = failing(error, "status").err.splitlines()
    assert len(lines) == 1 + MOST_PROBLEMS + 1 <= 24
    assert lines[-1] == "  ... and 280 more; --json gives them all"
    assert len(failing(error, "status", "--json").json["error"]["problems"]) == 300


@pytest.mark.parametrize("kind", AdapterctlError.__subclasses__())
def test_the_class_decides_the_exit_code(failing, kind: type[AdapterctlError]) -> None:
    assert failing(kind("x"), "status").exit_code == kind.exit_code


def test_an_interruption_says_how_to_go_on(failing) -> None:
    result = failing(KeyboardInterrupt(), "update")
    assert result.exit_code == 130
    assert result.err.strip() == "Error: interrupted; run the same command again to go on"


def test_an_unforeseen_error_is_one_line_and_a_saved_traceback(failing, tmp_path: Path) -> None:
    result = failing(ZeroDivisionError("division\nby zero"), "status")
    assert result.exit_code == 1
    assert len(result.err.splitlines()) == 1
    assert "ZeroDivisionError: division by zero" in result.err
    saved = re.search(r"report it with (\S+)", result.err)
    assert saved is not None
    text = Path(saved[1]).read_text(encoding="utf-8")
    assert Path(saved[1]).parent == tmp_path
    assert "Traceback (most recent call last)" in text
    assert "arguments: ['status']" in text


def test_no_secret_is_shown_or_saved(failing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "s3cretCanary")
    told = "login with s3cretCanary at https://me:geheim@host failed"
    shown = [failing(ValueError(told), *words) for words in (("status",), ("--debug", "status"), ("status", "--json"))]
    problem = Problem("s3cretCanary", told, told)
    shown.append(failing(ConfigError(told, hint=told, problems=[problem]), "status", "--json"))
    shown.append(failing(click.UsageError(told), "status"))
    texts = [result.out + result.err for result in shown]
    texts += [path.read_text(encoding="utf-8") for path in tmp_path.glob("adapterctl-traceback-*.txt")]
    # Three tracebacks of the error that nobody foresaw; the text of one lies on the screen as well.
    assert len(texts) == len(shown) + 3
    for text in texts:
        assert "***" in text
        assert "s3cretCanary" not in text
        assert "geheim" not in text


def test_where_no_traceback_can_be_saved_debug_is_offered(failing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/nowhere/at/all")
    assert "adapterctl --debug" in failing(ZeroDivisionError(), "status").err


def test_debug_shows_the_traceback_of_every_error(failing) -> None:
    assert "Traceback" not in failing(ConfigError("x"), "status").err
    result = failing(ConfigError("x"), "--debug", "status")
    assert "Traceback (most recent call last)" in result.err
    assert result.err.endswith("Error: x\n")


def test_a_full_disk_is_a_storage_error(failing) -> None:
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data/x.bin")
    result = failing(error, "merge")
    assert result.exit_code == 7
    assert "/data/x.bin: the disk is full" in result.err


def test_a_result_that_was_printed_stays_the_only_object(failing, monkeypatch: pytest.MonkeyPatch) -> None:
    from adapterctl.cli.output import emit, json_option

    @click.command()
    @json_option
    @click.pass_context
    def gated(ctx: click.Context) -> None:
        emit(ctx, {"passed": False}, lambda console: None)
        raise GateFailed("ja is worse")

    monkeypatch.setattr(program.cli, "get_command", lambda ctx, name: gated)
    result = invoke("update", "--json")
    assert result.json == {"passed": False}
    assert (result.exit_code, result.err) == (3, "Error: ja is worse\n")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["statis"], "Did you mean 'status'?"),
        (["xyzzy"], "There is no command 'xyzzy'."),
        (["--no-such-option"], "No such option"),
        (["pocket", "rows", "--count", "0"], "--count"),
        (["pocket", "rows"], "Missing option"),
    ],
)
def test_a_wrong_call_is_exit_code_2_and_points_to_the_help(args: list[str], said: str) -> None:
    result = invoke(*args)
    assert (result.exit_code, result.out) == (2, "")
    assert said in result.err
    assert "--help" in result.err
    assert json.loads(invoke(*args, "--json").out)["exit_code"] == 2
