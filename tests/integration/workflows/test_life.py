"""The life of a workspace through the program: what is printed where, what is done once, and what is left alone."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.program import Programs
from tests.support.small_workspace import bring_new_rows, change, tree
from tests.support.store import ledger_of, read_store, registry_of

from adapterctl.lora.adapter import Adapter
from adapterctl.workspace.workspace import Workspace

Copy = Callable[[Path], Path]


def test_an_update_without_a_champion_names_setup_and_its_cost_and_trains_nothing(
    fresh: Path, copy: Copy, program: Programs
) -> None:
    root = copy(fresh)
    before = tree(root)
    done = program(root, "update", "--lang", "ja")
    assert (done.exit_code, done.out) == (2, "")
    assert "project 'pocket' has no champion yet" in done.err
    assert "adapterctl setup" in done.err
    assert done.err.count("(projected)") == 2
    assert "USD" in done.err
    assert tree(root) == before
    assert read_store(root).runs == {}
    assert program(root, "cost", "report").exit_code == 2
    assert program(root, "history", "--json").json == {"releases": []}


def test_the_real_program_keeps_results_and_progress_apart(served: Path, copy: Copy) -> None:
    root = copy(served)
    bring_new_rows(root)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "adapterctl", "-C", str(root), "update", "--lang", "ja", "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["langs"], said["changed"], said["before"]) == (["ja"], True, 1)
    assert said["changes"] == ["data of ja"]
    assert said["candidate"]["promoted"]
    assert {rows["lang"] for rows in said["candidate"]["new_rows"]} == {"ja"}
    # Every line says when that was.
    lines = [re.fullmatch(r"2\d{3}-\d\d-\d\dT\d\d:\d\d:\d\dZ (.*)", line) for line in done.stderr.splitlines()]
    assert all(lines), done.stderr
    told = [line[1] for line in lines if line]
    steps = [line[2:].partition(" — ")[0].partition(" · ")[0] for line in told if line[0] == "✓"]
    assert steps[0] == "train ja"
    assert steps[-1] == "set the aliases"
    assert "changed: data of ja" in told
    assert all(line.startswith(("…", "✓", "  ", "changed: ")) for line in told), done.stderr


def test_the_plan_tells_what_the_update_then_does(arrived: Path, updated: Path, program: Programs) -> None:
    before = tree(arrived)
    plan = program(arrived, "plan", "--lang", "ja", "--json").json
    assert (plan["command"], plan["champion"], plan["changed"]) == ("update", 1, True)
    reused = {(step["step"], step["subject"]): step["reused"] for step in plan["steps"]}
    assert reused == {
        ("train", "ja"): False, ("train", "de"): True, ("train", "en"): True, ("merge", "merged"): False,
        ("evaluate", "merged"): False, ("gate", "merged"): False, ("register", "merged"): False,
    }  # fmt: skip
    assert not plan["comparison"]["update"]["seconds"]["measured"]
    assert tree(arrived) == before
    trained = {entry.subject for entry in ledger_of(updated).entries(command="update", step="train")}
    assert trained == {"ja"}


def test_what_is_done_is_not_done_again(updated: Path, copy: Copy, program: Programs) -> None:
    root = copy(updated)
    before, store = tree(root), read_store(root)
    quick = program(root, "update", "--lang", "ja", "--if-changed", "--json").json
    assert (quick["changed"], quick["candidate"], quick["checked"]) == (False, None, None)
    checked = program(root, "update", "--lang", "ja", "--json").json
    assert checked["checked"]["languages"].keys() == {"de", "en", "ja"}
    plan = program(root, "plan", "--lang", "ja", "--json").json
    assert not plan["changed"]
    assert all(step["reused"] for step in plan["steps"])
    assert tree(root) == before
    assert read_store(root) == store


def test_the_cost_report_is_about_the_last_update_that_did_something(
    updated: Path, copy: Copy, program: Programs
) -> None:
    root = copy(updated)
    report = program(root, "cost", "report", "--json").json
    program(root, "update", "--lang", "de")
    program(root, "update", "--lang", "ja", "--if-changed")
    assert program(root, "cost", "report", "--json").json == report
    assert report["lang"] == "ja"
    assert report["comparison"]["update"]["seconds"]["measured"]
    assert not report["comparison"]["retrain"]["seconds"]["measured"]
    lines = {line["step"] for line in report["comparison"]["update"]["steps"]}
    assert {"train", "merge", "evaluate", "register"} <= lines


def test_baseline_makes_the_comparison_a_measured_one(updated: Path, copy: Copy, program: Programs) -> None:
    root = copy(updated)
    assert program(root, "evaluate", "combined").exit_code == 2
    done = program(root, "baseline", "--json")
    assert done.exit_code == 0, done.err
    assert done.json["version"] == 1
    assert registry_of(root).aliases("pocket-merged") == {"champion": 2, "previous": 1}
    report = program(root, "cost", "report", "--json").json
    assert report["comparison"]["retrain"]["seconds"]["measured"]
    assert report["comparison"]["measured"]
    again = program(root, "baseline", "--json")
    assert again.json == done.json
    assert program(root, "evaluate", "combined", "--lang", "ja").exit_code == 0
    store = read_store(root)
    assert store.versions["pocket-combined"].keys() == {1}
    assert set(store.runs.values()) == {1}


def test_status_and_history(updated: Path, program: Programs) -> None:
    status = program(updated, "status", "--json").json
    assert (status["champion"]["version"], status["previous"]["version"], status["candidate"]) == (2, 1, None)
    assert {one["lang"]: (one["version"], one["state"]) for one in status["languages"]} == {
        "de": (1, "up to date"), "en": (1, "up to date"), "ja": (2, "up to date"),
    }  # fmt: skip
    releases = program(updated, "history", "--json").json["releases"]
    told = [(past["version"], past["reason"], past["gate"], past["aliases"]) for past in releases]
    assert told == [(2, "update ja", "passed", ["champion"]), (1, "setup", "first", ["previous"])]


def test_there_and_back_again(updated: Path, copy: Copy, program: Programs) -> None:
    root = copy(updated)
    back = program(root, "rollback", "--json").json
    assert (back["champion"]["version"], back["before"]["version"]) == (1, 2)
    forth = program(root, "promote", "--version", "2", "--json").json
    assert (forth["champion"]["version"], forth["before"]["version"]) == (2, 1)
    assert registry_of(root).aliases("pocket-merged") == {"champion": 2, "previous": 1}
    assert program(root, "promote", "--version", "2").exit_code == 0
    assert registry_of(root).aliases("pocket-merged") == {"champion": 2, "previous": 1}


def test_an_export_is_the_champion_and_is_written_again_where_it_was_damaged(
    updated: Path, copy: Copy, program: Programs
) -> None:
    root = copy(updated)
    made = program(root, "export", "serving", "--target", "vllm", "--json").json
    folder = Path(made["folder"])
    assert Adapter.open(folder).content_hash == made["content_hash"]
    assert made["version"] == 2
    assert made["rank"] <= made["max_lora_rank"]
    tensors = folder / "adapter_model.safetensors"
    whole = tensors.read_bytes()
    tensors.write_bytes(whole[:-100])
    assert program(root, "export", "serving", "--target", "vllm", "--json").json == made
    assert tensors.read_bytes() == whole


def test_damaged_results_are_made_or_fetched_again(updated: Path, copy: Copy, program: Programs) -> None:
    root = copy(updated)
    for file in [*root.glob(".adapterctl/adapters/*/adapter_model.safetensors"),
                 *root.glob(".adapterctl/merged/*/adapter_model.safetensors")]:  # fmt: skip
        file.write_bytes(file.read_bytes()[:-64])
    for cell in root.glob(".adapterctl/scores/*.json"):
        cell.write_text("{")
    (root / ".adapterctl" / "journal.json").write_text("{")
    scores = program(root, "evaluate", "--json")
    assert scores.exit_code == 0, scores.err
    said = json.loads((root / "said.json").read_text(encoding="utf-8"))
    assert scores.json["models"][0]["cells"] == said["candidate"]["scores"]["cells"]
    versions = read_store(root).versions
    merged = program(root, "merge", "--json").json
    hashes = set(versions["pocket-merged"].values())
    if merged["scale"] == said["candidate"]["scale"]:
        assert Adapter.open(Path(merged["folder"])).content_hash in hashes
    else:
        assert Adapter.open(Path(merged["folder"])).tensor_names
    # An adapter that is asked for is trained again, to the very bytes that are registered.
    trained = program(root, "train", "--lang", "de", "--json")
    assert trained.exit_code == 0, trained.err
    assert trained.json["de"]["content_hash"] == versions["pocket-de"][1]
    assert read_store(root).versions == versions


def test_a_workspace_that_lost_its_state_goes_on_from_the_registry(
    updated: Path, copy: Copy, program: Programs, tmp_path: Path
) -> None:
    root = copy(updated)
    done = program(root, "evaluate", "ja", "--lang", "ja", ADAPTERCTL_STATE_DIR=str(tmp_path / "elsewhere"))
    assert done.exit_code == 0, done.err
    assert len(list((tmp_path / "elsewhere" / "pinned").iterdir())) == 1
    quick = program(root, "update", "--lang", "ja", "--if-changed", ADAPTERCTL_STATE_DIR=str(tmp_path / "elsewhere"))
    assert quick.exit_code == 0, quick.err


def test_a_language_is_added_and_taken_out_again(served: Path, copy: Copy, program: Programs) -> None:
    root = copy(served)
    assert program(root, "add", "--lang", "fr", "--json").json["lang"] == "fr"
    without_rows = program(root, "update", "--lang", "fr")
    assert without_rows.exit_code == 2
    assert "matches no file" in without_rows.err
    gone = program(root, "remove", "--lang", "fr", "--json")
    assert (gone.exit_code, gone.json["changed"]) == (0, False)
    assert program(root, "add", "--lang", "fr").exit_code == 0
    for split, folder in (("train", "adapters"), ("dev", "evaluation"), ("test", "evaluation")):
        rows = root / folder / "data" / "fr" / f"sentiment.{split}.jsonl"
        args = ("pocket", "rows", "--lang", "fr", "--task", "sentiment", "--split", split, "--count", "6")
        assert program(root, *args, "--out", str(rows)).exit_code == 0
    change(root, "evaluation/suite.yaml", "    labels:\n", '    labels:\n      fr: ["positif", "négatif", "neutre"]\n')
    change(root, "evaluation/suite.yaml", "    prompt:\n", '    prompt:\n      fr: "Avis : {input}\\nSentiment :"\n')
    labels = {json.loads(line)["reference"] for line in rows.read_text(encoding="utf-8").splitlines()}
    change(root, "evaluation/suite.yaml", '["positif", "négatif", "neutre"]', json.dumps(sorted(labels)))
    status = program(root, "status", "--json").json
    assert {one["lang"]: one["state"] for one in status["languages"]}["fr"] == "not served"
    done = program(root, "update", "--lang", "fr", "--json")
    assert done.exit_code in (0, 3), done.err
    assert set(done.json["candidate"]["scores"]["languages"]) == {"de", "en", "fr", "ja"}
    assert {cell["lang"] for cell in done.json["candidate"]["verdict"]["cells"]} == {"de", "en", "ja"}
    entries = ledger_of(root).entries(command="update", step="train", outcome="done")
    assert {entry.subject for entry in entries} == {"fr"}


def test_another_base_model_is_not_mixed_in(served: Path, copy: Copy, program: Programs) -> None:
    root = copy(served)
    from tests.support.tiny_llama import save_tiny_llama

    save_tiny_llama(root / "other")
    change(root, "adapterctl.yaml", "path: pocket", "path: other")
    for command in (("update", "--lang", "ja"), ("plan", "--lang", "ja"), ("remove", "--lang", "de")):
        done = program(root, *command)
        assert (done.exit_code, done.out) == (2, ""), done.err
        assert "another base model" in done.err
        assert "base_model" in done.err.partition("To mend it:")[2]
    assert "de" in Workspace.open(root).languages


def test_setup_does_not_replace_a_champion(served: Path, copy: Copy, program: Programs) -> None:
    root = copy(served)
    store = read_store(root)
    assert program(root, "setup").exit_code == 0
    assert read_store(root) == store
    change(root, "adapterctl.yaml", "method: core-tsv", "method: linear")
    done = program(root, "setup")
    assert done.exit_code == 2
    assert "has a champion already" in done.err
    assert read_store(root) == store


@pytest.mark.parametrize(
    "model", ["base", "champion", "ja", "ja@champion", "ja/1", "merged@champion", "merged/1", "folder"]
)
def test_models_that_can_be_evaluated(served: Path, copy: Copy, program: Programs, model: str) -> None:
    root, named = copy(served), model
    if model == "folder":
        named = str(next(iter((root / ".adapterctl" / "adapters").iterdir())))
    done = program(root, "evaluate", named, "--lang", "ja", "--json")
    assert done.exit_code == 0, done.err
    [card] = done.json["models"]
    assert (card["model"], list(card["languages"])) == (named, ["ja"])
