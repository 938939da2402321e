"""Rows do not leave the workspace unless they may, and secrets are written nowhere at all.

Every row holds a word that stands nowhere else, and so does every secret; afterwards everything that the commands left
is searched for them: the store's tables, artifacts, the books, reports, and what was printed.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import mlflow
import pytest
from tests.support.cli import Result
from tests.support.program import Programs
from tests.support.small_workspace import bring_new_rows, change, make_small_workspace, read_lines, write_rows
from tests.support.store import registry_of

from adapterctl.evaluation.scorecard import Scorecard
from adapterctl.registry.client import Registry

pytestmark = pytest.mark.slow

ROW = "Kanarienvogel"
LANGUAGES = ("de", "ja")
SECRETS = {
    "MLFLOW_TRACKING_PASSWORD": "s3cretPassw0rd/17",
    "MLFLOW_TRACKING_TOKEN": "s3cretTrackingToken",
    "AWS_ACCESS_KEY_ID": "AKIAS3CRETS3CRETS3CR",
    "AWS_SECRET_ACCESS_KEY": "s3cretAws+Key",
    "HF_TOKEN": "hf_s3crets3crets3crets3cret",
    "OPENAI_API_KEY": "sk-s3crets3crets3crets3cret",
}
IN_AN_ADDRESS = "s3cretInTheAddress"


def marked(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row in which every text holds the word."""
    for name in ("input", "question", "context"):
        if row.get(name):
            row[name] = f"{row[name]} {ROW}"
    if row["task"] == "summarization":
        row["reference"] = f"{ROW} {row['reference']}"
    if "choices" in row:
        row["choices"] = [f"{choice} {ROW}" for choice in row["choices"]]
    return row


class Commands:
    """Runs commands with secrets in their environment, and keeps what they printed."""

    def __init__(self, program: Programs, root: Path) -> None:
        self.program, self.root, self.said = program, root, ""

    def __call__(self, *args: str, exit_codes: tuple[int, ...] = (0,), **environment: str) -> Result:
        done = self.program(self.root, *args, **{**SECRETS, **environment})
        assert done.exit_code in exit_codes, done.out + done.err
        self.said += done.out + done.err
        return done


@pytest.fixture(scope="module")
def commands(program: Programs, tmp_path_factory: pytest.TempPathFactory) -> Commands:
    """A workspace that was set up, updated and asked, and in which commands failed."""
    root = make_small_workspace(tmp_path_factory.mktemp("private") / "workspace", LANGUAGES)
    for path in root.glob("**/*.jsonl"):
        write_rows(path, [marked(row) for row in read_lines(path)[:4]])
    change(root, "adapterctl.yaml", "lambda: auto", "lambda: 1.0")
    run = Commands(program, root)
    run("setup")
    bring_new_rows(root)
    # So few rows show nothing: what the gate finds in them does not matter here.
    run("update", "--lang", "ja", exit_codes=(0, 3))
    run("status")
    run("history", "--json")
    run("config", "show")
    run("doctor", exit_codes=(0, 2))
    run("cost", "report", "--out", "report")
    fail(run)
    return run


def fail(run: Commands) -> None:
    """Let commands fail in ways that quote rows and secrets."""
    nowhere = f"http://me:{IN_AN_ADDRESS}@127.0.0.1:9/mlflow"
    for words in (("status",), ("--debug", "status"), ("status", "--json")):
        done = run(*words, exit_codes=(5,), MLFLOW_TRACKING_URI=nowhere)
        assert "127.0.0.1:9" in done.out + done.err
    # Another program quotes the rows it got, and what it finds in its environment, and fails in the middle of a run.
    script = run.root / "evaluation" / "quoting.py"
    script.write_text(
        "import os, sys\n"
        "sys.stderr.write(sys.stdin.read(4000) + os.environ['MLFLOW_TRACKING_PASSWORD'])\n"
        "sys.exit(3)\n",
        encoding="utf-8",
    )
    suite = run.root / "evaluation" / "suite.yaml"
    kept = suite.read_text(encoding="utf-8")
    change(
        run.root, "evaluation/suite.yaml", "kind: summarization", "kind: summarization\n    metrics: [rouge_l, quoting]"
    )
    with suite.open("a", encoding="utf-8") as text:
        text.write(f"external:\n  quoting:\n    command: [{sys.executable}, quoting.py]\n")
    shutil.copy(run.root / "adapters/data/de/sentiment.train.jsonl", run.root / "adapters/data/de/more.train.jsonl")
    more = run.root / "adapters/data/de/more.train.jsonl"
    write_rows(more, [{**row, "id": f"more {row['id']}", "input": f"more {row['input']}"} for row in read_lines(more)])
    done = run("update", "--lang", "de", exit_codes=(6,))
    assert ROW in done.err
    suite.write_text(kept, encoding="utf-8")


def left(root: Path) -> Iterator[tuple[str, bytes]]:
    """Give everything that the commands left in the workspace, but for its own rows."""
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_file() and path.suffix != ".jsonl" and not name.startswith("incoming/"):
            yield name, path.read_bytes()
    yield "ledger.jsonl", b"".join(path.read_bytes() for path in root.rglob("ledger.jsonl"))


def uploaded(root: Path) -> dict[str, bytes]:
    return {name: content for name, content in left(root) if name.startswith("registry/")}


def forms(text: str) -> set[bytes]:
    return {text.encode(), json.dumps(text)[1:-1].encode(), text.replace("/", "%2F").replace("+", "%2B").encode()}


def test_there_is_something_to_search(commands: Commands) -> None:
    names = [name.rsplit("/", 1)[-1] for name in uploaded(commands.root)]
    assert {"mlflow.db", "scorecard.json", "champion_scorecard.json", "verdict.md", "release.json"} <= set(names)
    with closing(sqlite3.connect(commands.root / "registry" / "mlflow.db")) as tables:
        assert tables.execute("SELECT count(*) FROM tags").fetchone()[0] > 50
    # The word would be found: it is in the rows, and in the answers that are kept beside them.
    assert ROW in (commands.root / "evaluation/data/ja/sentiment.test.jsonl").read_text(encoding="utf-8")


def test_no_row_is_in_the_registry(commands: Commands) -> None:
    assert [name for name, content in uploaded(commands.root).items() if ROW.encode() in content] == []


def test_no_answer_is_in_the_registry(commands: Commands) -> None:
    for name, content in uploaded(commands.root).items():
        if name.endswith("scorecard.json"):
            rows = [row for cell in json.loads(content)["cells"] for row in cell["scores"]]
            assert rows
            assert {(row["prediction"], row["reference"]) for row in rows} == {("", "")}
            assert all(row["row"] and row["id"] for row in rows)


def test_a_scorecard_without_texts_is_still_one(commands: Commands) -> None:
    registry = registry_of(commands.root)
    release = registry.version("pocket-merged", 2)
    run_id = release.tags["adapterctl.release_run"]
    card = Scorecard.from_dict(registry.read_json(run_id, "scorecard.json"))
    told = registry.read_json(run_id, "release.json")["scores"]["cells"]
    assert [(one["lang"], one["task"], one["n"], one["empty"]) for one in card.summary()["cells"]] == [
        (one["lang"], one["task"], one["n"], one["empty"]) for one in told
    ]


def test_the_table_of_rows_holds_ids_and_scores_alone(commands: Commands) -> None:
    for name, content in uploaded(commands.root).items():
        if name.endswith("/predictions.json"):
            assert json.loads(content)["columns"] == ["language", "task", "id", "change", "champion", "candidate"]


@pytest.mark.parametrize("name", [*SECRETS, "address"])
def test_a_secret_is_nowhere(commands: Commands, name: str) -> None:
    secret = SECRETS.get(name, IN_AN_ADDRESS)
    found = [place for place, content in left(commands.root) if any(form in content for form in forms(secret))]
    assert found == []
    assert not any(form.decode() in commands.said for form in forms(secret))


def test_what_was_printed_says_that_something_is_hidden(commands: Commands) -> None:
    assert "://***@127.0.0.1:9" in commands.said
    assert "Traceback" in commands.said


def failed_runs(registry: Registry) -> list[Any]:
    client = mlflow.MlflowClient(registry.resolved.uri, registry_uri=registry.resolved.uri)
    return [run for run in client.search_runs([registry.experiment_id]) if run.info.status == "FAILED"]


def test_a_failed_run_tells_its_reason_without_the_rows(commands: Commands) -> None:
    reasons = [
        run.data.tags["adapterctl.error"]
        for run in failed_runs(registry_of(commands.root))
        if "adapterctl.error" in run.data.tags
    ]
    assert reasons
    assert all(reason.startswith("DataError in external.py, line ") for reason in reasons), reasons


def test_the_report_is_without_rows(commands: Commands) -> None:
    for path in (commands.root / "report").iterdir():
        assert ROW.encode() not in path.read_bytes()


def test_rows_are_told_where_they_may_be(commands: Commands, program: Programs, tmp_path: Path) -> None:
    root = Path(shutil.copytree(commands.root, tmp_path / "workspace"))
    change(root, "adapterctl.yaml", "registry:\n", "registry:\n  log_examples: true\n")
    # So much of every adapter that answers differ, for better or worse.
    change(root, "adapterctl.yaml", "lambda: 1.0", "lambda: 5.0")
    Commands(program, root)("update", "--lang", "de", exit_codes=(0, 3))
    registry = registry_of(root)
    newest = registry.versions("pocket-merged")[-1]
    run_id = newest.tags["adapterctl.release_run"]
    card = Scorecard.from_dict(registry.read_json(run_id, "scorecard.json"))
    assert all(ROW in score.reference for score in card.cell("de", "summarization").scores)
    table = registry.read_json(run_id, "predictions.json")
    assert table["columns"][6:] == ["asked", "reference", "champion's answer", "candidate's answer"]
    assert all(ROW in row[6] for row in table["data"])
    for secret in (*SECRETS.values(), IN_AN_ADDRESS):
        assert not [place for place, content in left(root) if secret.encode() in content]
