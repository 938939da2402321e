"""The contract with metrics of other programs, kept and broken by real processes."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from adapterctl.errors import DataError
from adapterctl.evaluation.external import external_scores
from adapterctl.evaluation.suite import ExternalMetric
from adapterctl.examples import Example

EXAMPLES = (
    Example(id="1", lang="ja", task="t", reference="雨が降る", input="rain falls"),
    Example(id="2", lang="ja", task="t", reference="雪", question="what falls?", choices=("a", "b")),
    Example(id="3", lang="ja", task="t", reference="風", prompt="Say wind"),
    Example(id="4", lang="ja", task="t", reference="海", messages=(("system", "Be short."), ("user", "The sea?"))),
)
PREDICTIONS = ("雨\n\u2028が", "", "風", "山")


def run(script: str, folder: Path, **changes: Any) -> tuple[list[float], str]:
    metric = ExternalMetric(**{"command": [sys.executable, "-c", script], "timeout_seconds": 30, **changes})
    return external_scores("comet", metric, EXAMPLES, PREDICTIONS, folder)


def answering(*lines: object) -> str:
    """A command that reads everything and writes these lines."""
    text = "".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines)
    return f"import sys; sys.stdin.read(); sys.stdout.write({text!r})"


def scored(*places: int) -> list[dict[str, Any]]:
    return [{"id": f"{place}", "score": place / 8} for place in places]


ECHO = """
import json, pathlib, sys
rows = [json.loads(line) for line in sys.stdin.buffer.read().decode("utf-8").split("\\n") if line]
pathlib.Path("seen.json").write_text(json.dumps(rows), encoding="utf-8")
for row in reversed(rows):
    print(json.dumps({"id": row["id"], "score": len(row["prediction"])}))
print("read", len(rows), file=sys.stderr)
"""


def test_rows_go_as_lines_and_scores_come_in_any_order(tmp_path):
    assert run(ECHO, tmp_path) == ([4.0, 0.0, 1.0, 1.0], "")
    seen = json.loads((tmp_path / "seen.json").read_text(encoding="utf-8"))
    assert seen[0] == {
        "id": "1", "lang": "ja", "source": "rain falls", "prediction": "雨\n\u2028が", "reference": "雨が降る",
    }  # fmt: skip
    assert [row["source"] for row in seen] == ["rain falls", "what falls?", "Say wind", "The sea?"]


def test_the_first_line_may_be_a_signature(tmp_path):
    script = answering({"signature": "comet/2.2.7"}, "", *scored(1, 2, 3, 4))
    assert run(script, tmp_path) == ([0.125, 0.25, 0.375, 0.5], "comet/2.2.7")


@pytest.mark.parametrize(
    ("lines", "problems"),
    [
        (scored(1, 3), ["2 of 4 rows have no score: '2', '4'"]),
        ([], ["4 of 4 rows have no score: '1', '2', '3', '4'"]),
        ([*scored(1, 2, 3, 4), *scored(2)], ["line 5: id '2' is scored twice"]),
        (scored(1, 2, 3, 4, 5), ['line 5: id "5" was not asked for']),
        ([*scored(1, 2, 3), {"id": 4, "score": 0.5}], ["line 4: id 4 was not asked for"]),
        (["Loading model", *scored(1, 2, 3, 4)], ["line 1: not of the form"]),
        ([*scored(1, 2, 3, 4), {"signature": "late"}], ["line 5: not of the form"]),
        (
            [*scored(1, 2), '{"id": "3", "score": NaN}', *scored(4)],
            ["line 3: the score of id '3' is not a number: NaN"],
        ),
        ([{"id": "1", "score": "0.5"}, *scored(2, 3, 4)], ["line 1: the score of id '1' is not a number: \"0.5\""]),
        ([{"id": "1", "score": True}, *scored(2, 3, 4)], ["line 1: the score of id '1' is not a number: true"]),
        ([{"id": "1", "score": None}, *scored(2, 3, 4)], ["line 1: the score of id '1' is not a number: null"]),
        ([{"id": "1", "score": 10**400}, *scored(2, 3, 4)], ["line 1: the score of id '1' is not a number"]),
        (["[" * 100_000, *scored(1, 2, 3, 4)], ["line 1: not of the form"]),
        (['{"signature": "\\ud800"}', *scored(1, 2, 3, 4)], ["line 1: not of the form"]),
        (["1", "[]", *scored(1, 2, 3, 4, 4)], ["line 1: not of", "line 2: not of", "line 7: id '4' is scored twice"]),
    ],
)
def test_an_answer_that_is_not_as_agreed_is_refused_with_every_line_at_fault(tmp_path, lines, problems):
    with pytest.raises(DataError, match="metric 'comet' does not answer as agreed") as caught:
        run(answering(*lines), tmp_path)
    found = [str(problem) for problem in caught.value.problems]
    assert len(found) == len(problems)
    for got, wanted in zip(found, problems, strict=True):
        assert got.startswith(wanted)
    assert "external.comet" in caught.value.hint


def test_many_faults_are_counted(tmp_path):
    with pytest.raises(DataError) as caught:
        run(answering(*["noise"] * 40), tmp_path)
    assert len(caught.value.problems) == 11
    assert str(caught.value.problems[-1]) == "and 30 more"


def test_a_failure_shows_the_end_of_what_was_said(tmp_path):
    script = "import sys\nfor n in range(99): print('step', n, file=sys.stderr)\nsys.exit(3)"
    with pytest.raises(DataError, match="ended with exit code 3") as caught:
        run(script, tmp_path)
    assert "step 98" in str(caught.value)
    assert "step 9\n" not in str(caught.value)


def test_a_failure_after_all_scores_is_a_failure(tmp_path):
    with pytest.raises(DataError, match="exit code 1"):
        run(answering(*scored(1, 2, 3, 4)) + "; sys.exit(1)", tmp_path)


def test_a_killed_command_is_told(tmp_path):
    with pytest.raises(DataError, match="ended with signal 9"):
        run("import os; os.kill(os.getpid(), 9)", tmp_path)


def test_a_command_that_hangs_is_ended_with_all_it_started(tmp_path):
    script = (
        "import pathlib, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "pathlib.Path('child').write_text(str(child.pid))\n"
        "print('waiting', file=sys.stderr, flush=True)\n"
        "time.sleep(600)"
    )
    with pytest.raises(DataError, match=r"did not end within 4 seconds(.|\n)*waiting"):
        run(script, tmp_path, timeout_seconds=4)
    child = int((tmp_path / "child").read_text())
    # The signal has been sent; the system may take a moment to carry it out.
    patience = time.monotonic() + 20
    while _runs(child) and time.monotonic() < patience:
        time.sleep(0.05)
    assert not _runs(child)


def _runs(process: int) -> bool:
    """Return whether a process is alive; one that nobody has collected yet is not."""
    import psutil

    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("command", [["/no/such/program"], ["no-such-program-anywhere", "x"]])
def test_a_command_that_is_not_there(tmp_path, command):
    with pytest.raises(DataError, match=f"cannot be started: {command[0]}: No such file"):
        run("", tmp_path, command=command)


def test_arguments_are_read_by_no_shell(tmp_path):
    script = "import sys, json; sys.stdin.read(); assert sys.argv[1] == '$HOME; echo *', sys.argv[1]\n"
    script += "".join(f"print({json.dumps(one)!r})\n" for one in scored(1, 2, 3, 4))
    assert run("", tmp_path, command=[sys.executable, "-c", script, "$HOME; echo *"])[0][3] == 0.5


def test_a_command_need_not_read(tmp_path):
    script = "".join(f"print({json.dumps(one)!r})\n" for one in scored(1, 2, 3, 4))
    many = [Example(id=f"{n}", lang="ja", task="t", reference="r" * 50, input="x" * 50) for n in range(1, 5)] * 1000
    metric = ExternalMetric(command=[sys.executable, "-c", script])
    assert external_scores("m", metric, many, ["p"] * 4000, tmp_path)[0][:4] == [0.125, 0.25, 0.375, 0.5]


def test_a_zero_byte_in_an_argument(tmp_path):
    with pytest.raises(DataError, match=f"cannot be started: {sys.executable}: embedded null byte"):
        run("", tmp_path, command=[sys.executable, "a\0b"])
