"""Metrics of other programs, such as COMET, whose libraries cannot be installed beside ours.

A suite names them under ``external``, and tasks name them among their metrics:

.. code-block:: yaml

    external:
      comet:
        command: [/opt/comet/bin/python, comet_score.py, --model, wmt22-comet-da]
        signature: wmt22-comet-da
        timeout_seconds: 1800

The contract:

* The command is started without a shell, once for the rows of a language and task, in the suite file's folder.
* It reads UTF-8 from standard input to its end, one JSON object a line, one line a row:
  ``{"id": "7", "lang": "de", "source": "…", "prediction": "…", "reference": "…"}``. ``source`` is what the model was
  asked about: the row's ``input``, else its ``question``, its own ``prompt`` or the last turn of its chat. Texts may be
  empty, ``prediction`` above all.
* It writes UTF-8 to standard output, in any order, one JSON object a line: ``{"id": "7", "score": 0.83}``, exactly one
  for every row. Higher is better; from 0 to 1 where the metric is to count in a language's mean.
* Its first line may be ``{"signature": "…"}``, what it is in its own words. Scores of different signatures are never
  compared. Kept scores are found again by the ``command`` and ``signature`` of the suite: change ``signature`` when
  the program or its model changes.
* Messages for people belong on standard error; the last lines are shown when something is wrong.
* It ends with exit code 0. After ``timeout_seconds`` it is ended, with all processes it started in its group.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapterctl.errors import DataError, Problem
from adapterctl.examples import Example
from adapterctl.fingerprint import fingerprint, short

if TYPE_CHECKING:
    from adapterctl.evaluation.suite import ExternalMetric

_LINES_SHOWN = 8
_PROBLEMS_SHOWN = 10


def command_signature(metric: ExternalMetric) -> str:
    """Return what the suite tells of a command: the signature it gives, and a hash of program and arguments."""
    named = f"{metric.signature}|" if metric.signature else ""
    return f"{named}command:{short(fingerprint(list(metric.command)))}"


def source_of(example: Example) -> str:
    """Return what the model was asked about."""
    last_turn = example.messages[-1][1] if example.messages else ""
    return example.input or example.question or example.prompt or last_turn


def external_scores(
    name: str, metric: ExternalMetric, examples: Sequence[Example], predictions: Sequence[str], folder: Path
) -> tuple[list[float], str]:
    """Return what the command says of every row, in their order, and the signature it gives of itself, or ``""``.

    Args:
        name: The metric's name in the suite.
        metric: What to run.
        examples: Of one language and task.
        predictions: The text for each of them.
        folder: Where the command runs.

    Raises:
        DataError: The command cannot be started, does not end in time or not with 0, or breaks the contract; all
            lines at fault are named.
    """
    rows = [
        {
            "id": example.id,
            "lang": example.lang,
            "source": source_of(example),
            "prediction": prediction,
            "reference": example.reference,
        }
        for example, prediction in zip(examples, predictions, strict=True)
    ]
    asked = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    answered, errors = _run(name, metric, asked, folder)
    scores, signature, problems = _read(answered, [example.id for example in examples])
    if problems:
        shown = problems[:_PROBLEMS_SHOWN]
        if len(problems) > len(shown):
            shown.append(Problem("", f"and {len(problems) - len(shown)} more"))
        raise _failed(name, "does not answer as agreed", errors, shown)
    return [scores[example.id] for example in examples], signature


def _failed(name: str, what: str, errors: bytes, problems: Sequence[Problem] = ()) -> DataError:
    lines = errors.decode("utf-8", "replace").strip().splitlines()[-_LINES_SHOWN:]
    said = "; its standard error ends with:\n" + "\n".join(f"    {line}" for line in lines) if lines else ""
    return DataError(
        f"the command of metric '{name}' {what}{said}",
        problems=problems,
        hint=f"mend external.{name} in the suite file, or take '{name}' out of the task's metrics",
    )


def _run(name: str, metric: ExternalMetric, asked: str, folder: Path) -> tuple[bytes, bytes]:
    try:
        process = subprocess.Popen(
            list(metric.command),
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        # ValueError: a zero byte in the program's name or its arguments.
        why = error.strerror if isinstance(error, OSError) else error
        raise _failed(name, f"cannot be started: {metric.command[0]}: {why}", b"") from error
    with process:
        try:
            answered, errors = process.communicate(asked.encode("utf-8"), timeout=metric.timeout_seconds)
        except BaseException as error:
            _end(process)
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            what = f"did not end within {metric.timeout_seconds:g} seconds"
            raise _failed(name, what, _said(process)) from None
    if process.returncode:
        how = f"exit code {process.returncode}" if process.returncode > 0 else f"signal {-process.returncode}"
        raise _failed(name, f"ended with {how}", errors)
    return answered, errors


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the command and what it started, so that nobody holds its pipes open."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        process.kill()


def _said(process: subprocess.Popen[bytes]) -> bytes:
    """Return the standard error of an ended command; nothing where something outside its group still holds the pipe."""
    try:
        return process.communicate(timeout=2)[1]
    except subprocess.TimeoutExpired:
        return b""


def _read(answered: bytes, ids: Sequence[str]) -> tuple[dict[str, float], str, list[Problem]]:
    """Return scores by id, the signature, and everything that is wrong with the answer."""
    scores: dict[str, float] = {}
    problems: list[Problem] = []
    signature, wanted, first = "", set(ids), True
    for number, line in enumerate(answered.decode("utf-8", "replace").split("\n"), start=1):
        if not line.strip():
            continue
        value = _json(line)
        if first and isinstance(value, dict) and isinstance(value.get("signature"), str) and "id" not in value:
            signature = value["signature"]
        else:
            wrong = _wrong(value, line, wanted, scores)
            if wrong:
                problems.append(Problem(f"line {number}", wrong))
            else:
                scores[value["id"]] = float(value["score"])
        first = False
    missing = [one for one in ids if one not in scores]
    if missing and not problems:
        names = ", ".join(f"'{one}'" for one in missing[:5]) + (", …" if len(missing) > 5 else "")
        problems.append(Problem("", f"{len(missing)} of {len(ids)} rows have no score: {names}"))
    return scores, signature, problems


def _json(line: str) -> Any:
    try:
        value = json.loads(line)
        # Half of a surrogate pair, which JSON can write, can stand in no file and on no screen.
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError):
        return None
    return value


def _wrong(value: Any, line: str, wanted: set[str], scores: dict[str, float]) -> str:
    """Return what is wrong with one line; nothing when it is a score of a row that has none yet."""
    if not isinstance(value, dict) or "id" not in value or "score" not in value:
        return f'not of the form {{"id": …, "score": …}}: {line[:80]}'
    one, score = value["id"], value["score"]
    if not isinstance(one, str) or one not in wanted:
        return f"id {json.dumps(one, ensure_ascii=False)} was not asked for"
    if one in scores:
        return f"id '{one}' is scored twice"
    if not _finite(score):
        return f"the score of id '{one}' is not a number: {json.dumps(score, ensure_ascii=False)}"
    return ""


def _finite(value: Any) -> bool:
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False
