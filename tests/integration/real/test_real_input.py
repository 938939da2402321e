"""The whole sentence on real rows: set-up, new Japanese rows, update, and the champion served without adapterctl."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.integration.real.conftest import RealWorkspace, make_workspace

from adapterctl.api import Workspace

pytestmark = pytest.mark.slow

PLAIN = Path(__file__).with_name("plain.py")
ROWS, SETUP_EPOCHS, UPDATE_EPOCHS = 200, 1, 8
ASKED = 8
LABELS = ("entertainment", "geography", "health", "politics", "science/technology", "sports", "travel")

FIRST_WORDS = {label.split("/")[0] for label in (*LABELS, "positive", "negative")}


@dataclass(frozen=True)
class Life:
    """What the commands said.

    Attributes:
        workspace: Where they ran.
        arrived: How many rows were new.
        setup, update: What these commands said.
    """

    workspace: RealWorkspace
    arrived: int
    setup: dict[str, Any]
    update: dict[str, Any]


def deliver_in_trl_forms(workspace: RealWorkspace) -> int:
    """Put the rows that arrive beside the others, as people who train with TRL have them; return their number."""
    rows = workspace.rows("incoming/ja/adapters/data/ja/*.jsonl")
    for number, row in enumerate(rows):
        asked = f"{row['input']}\n{'Topic' if row['task'] == 'topic' else 'Sentiment'}:"
        user, answer = {"role": "user", "content": asked}, {"role": "assistant", "content": row["reference"]}
        form = (
            {"prompt": asked, "completion": row["reference"]},
            {"prompt": [user], "completion": [answer]},
            {"messages": [user, answer]},
        )[number % 3]
        kind = ("text", "conversational", "messages")[number % 3]
        with (workspace.root / f"adapters/data/ja/{kind}.train.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({**form, "task": row["task"]}, ensure_ascii=False) + "\n")
    return len(rows)


@pytest.fixture(scope="module")
def life(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Life:
    root = tmp_path_factory.mktemp("real") / "workspace"
    options = ("--rows", str(ROWS), "--test-rows", "100", "--epochs", str(SETUP_EPOCHS))
    workspace = make_workspace(root, shared, "--lang", "ja", "--lang", "zh", *options)
    config = root / "adapterctl.yaml"
    # A hundred test rows tell little: with this margin the update is promoted, whatever the other language lost.
    config.write_text(config.read_text("utf-8").replace("margin: 0.15", "margin: 1.0"), encoding="utf-8")
    setup = workspace.run("setup")
    arrived = deliver_in_trl_forms(workspace)
    with config.open("a", encoding="utf-8") as file:
        file.write(f"update:\n  training:\n    epochs: {UPDATE_EPOCHS}\n")
    return Life(workspace, arrived, setup, workspace.run("update", "--lang", "ja"))


def values(card: dict[str, Any]) -> dict[tuple[str, str], float]:
    return {(cell["lang"], cell["task"]): cell["value"] for cell in card["cells"]}


def test_a_champion_comes_of_the_set_up(life: Life) -> None:
    assert life.setup["candidate"]["promoted"] is True
    assert set(values(life.setup["candidate"]["scores"])) == {
        (lang, task) for lang in ("ja", "zh") for task in ("topic", "sentiment")
    }


def test_the_update_trains_japanese_alone_on_the_new_rows_too(life: Life) -> None:
    assert life.arrived == 2 * 60
    workspace = Workspace.open(life.workspace.root)
    update, setup = workspace.history()
    pins = [{lang: pinned.version for lang, pinned in past.release.adapters.items()} for past in (update, setup)]
    assert pins == [{"ja": 2, "zh": 1}, {"ja": 1, "zh": 1}]
    assert (update.aliases, setup.aliases) == (("champion",), ("previous",))
    folder = workspace.files.paths.adapter(update.release.adapters["ja"].training_key)
    trained = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    assert (trained["lang"], trained["rows"]) == ("ja", 2 * ROWS)


def test_japanese_has_learnt_both_tasks(life: Life) -> None:
    """Chance: macro-F1 0.06 for one topic always, 0.33 for one sentiment always; the base is near that."""
    workspace = Workspace.open(life.workspace.root)
    base, own = workspace.evaluate("base", ["ja"]), workspace.evaluate("ja", ["ja"])
    assert base.cell("ja", "topic").value < 0.13
    assert own.cell("ja", "topic").value > base.cell("ja", "topic").value + 0.08
    assert own.cell("ja", "sentiment").value > base.cell("ja", "sentiment").value + 0.15


def test_the_champion_is_served_without_adapterctl(life: Life, shared: Path, tmp_path: Path) -> None:
    workspace = life.workspace
    texts = {row["id"]: row["input"] for row in workspace.rows("evaluation/data/ja/topic.test.jsonl")}
    card = Workspace.open(workspace.root).evaluate("champion", ["ja"])
    scored = card.cell("ja", "topic").scores[:ASKED]
    asked = {"labels": LABELS, "prompts": [f"{texts[score.id]}\nTopic:" for score in scored]}
    (tmp_path / "asked.json").write_text(json.dumps(asked), encoding="utf-8")
    uri = f"sqlite:///{workspace.root}/registry/mlflow.db"
    done = subprocess.run(
        [sys.executable, "-I", str(PLAIN), uri, "real-merged", str(shared / "base-real"),
         str(tmp_path / "asked.json"), str(tmp_path / "told.json")],
        capture_output=True, text=True, check=False, env=workspace.environment, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    told = json.loads((tmp_path / "told.json").read_text(encoding="utf-8"))
    assert told["foreign"] == []
    assert len(told["answers"]) == ASKED
    for answer, score in zip(told["answers"], scored, strict=True):
        found = [answer["log_likelihoods"][label] for label in LABELS]
        assert found == pytest.approx(score.details["log_likelihoods"], abs=2e-3)
    # Written freely the answer begins with a label; where to stop, so small a merged model does not always know.
    assert sum(answer["text"].split("/")[0] in FIRST_WORDS for answer in told["answers"]) >= ASKED // 2
