"""``adapterctl evaluate``: which models, which rows, what is kept, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest
from tests.integration.conftest import Copy
from tests.support.adapters import make_adapter
from tests.support.completion_server import CompletionServer
from tests.support.program import Programs
from tests.support.small_workspace import change, read_lines, write_rows


@pytest.fixture(scope="module")
def served(served: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for these tests: measuring is work too, and leaves its time and answers behind."""
    return Path(shutil.copytree(served, tmp_path_factory.mktemp("measured") / "workspace"))


def kept_rows(root: Path) -> int:
    files = root.glob(".adapterctl/scores/*.json")
    return sum(len(json.loads(path.read_text("utf-8"))["scores"]) for path in files)


def score_files(root: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in root.glob(".adapterctl/scores/*.json")}


def test_several_models_side_by_side(served: Path, program: Programs) -> None:
    done = program(
        served, "evaluate", "base", "ja@champion", "merged/1", "--lang", "ja", "--task", "reasoning", "--json"
    )
    assert done.exit_code == 0, done.err
    assert [card["model"] for card in done.json["models"]] == ["base", "ja@champion", "merged/1"]
    for card in done.json["models"]:
        [cell] = card["cells"]
        assert (cell["lang"], cell["task"], cell["primary"]) == ("ja", "reasoning", "accuracy")
        assert set(cell["metrics"]) == {"accuracy", "accuracy_norm", "macro_f1"} == set(cell["signatures"])
    text = program(served, "evaluate", "base", "ja", "--lang", "ja")
    assert "base" in text.out
    assert "accuracy" in text.out


def test_the_same_adapter_by_all_its_names_has_one_scorecard(served: Path, program: Programs) -> None:
    named = ["ja", "ja@champion", "ja/1"]
    done = program(served, "evaluate", *named, "--lang", "ja", "--json")
    assert done.exit_code == 0, done.err
    cells = [card["cells"] for card in done.json["models"]]
    assert cells[0] == cells[1] == cells[2]


@pytest.mark.parametrize(
    ("named", "told"),
    [
        (["nobody"], "there is no model 'nobody'"),
        (["merged/99"], "has no version 99"),
        (["ja/99"], "has no version 99"),
        (["merged@nobody"], "has no nobody"),
        (["ja@candidate"], "ja has no alias 'candidate'"),
        (["./nowhere"], "there is no folder './nowhere'"),
        (["ja@champion/1"], "there is no model"),
        (["../../etc"], "there is no folder"),
        (["~nobody-of-that-name/x"], "there is no folder"),
        (["combined"], "there is no combined adapter yet"),
        (["base", "--task", "poems"], "the suite has no task 'poems'"),
        (["base", "--lang", "ko"], "language 'ko' is not in this workspace"),
        (["base", "--url", "http://localhost:1/v1"], "--engine openai and --url go together"),
        (["base", "--lm-eval", "x", "--task", "reasoning"], "--lm-eval brings its own tasks"),
        (["base", "--lm-eval", ","], "--lm-eval names no task"),
        (["base", "--suite", "none.yaml"], "none.yaml"),
    ],
)
def test_what_is_not_there_is_named(served: Path, program: Programs, named: list[str], told: str) -> None:
    done = program(served, "evaluate", *named)
    assert done.exit_code == 2, done.err
    assert told in done.err
    assert "Traceback" not in done.err


def test_new_rows_alone_are_answered(served: Path, copy: Copy, program: Programs) -> None:
    root = copy(served)
    assert program(root, "evaluate", "base").exit_code == 0
    before = kept_rows(root)
    file = root / "evaluation" / "data" / "ja" / "reasoning.test.jsonl"
    rows = read_lines(file)
    rows.append({**rows[0], "id": "new", "question": f"{rows[0]['question']}?"})
    write_rows(file, rows)
    done = program(root, "evaluate", "base", "--json")
    assert done.exit_code == 0, done.err
    assert kept_rows(root) == before + 1
    counts = Counter({(cell["lang"], cell["task"]): cell["n"] for cell in done.json["models"][0]["cells"]})
    assert counts["ja", "reasoning"] == len(rows)
    files = score_files(root)
    assert program(root, "evaluate", "base", "--json").json == done.json
    assert score_files(root) == files


def test_another_metric_needs_no_new_answer(served: Path, copy: Copy, program: Programs) -> None:
    root = copy(served)
    assert program(root, "evaluate", "base").exit_code == 0
    change(root, "evaluation/suite.yaml", "kind: summarization", "kind: summarization\n    metric: chrf")
    # A base model that cannot be loaded shows that nothing is asked of it.
    done = program(root, "evaluate", "base", "--task", "summarization", "--json", HF_HUB_OFFLINE="1")
    assert done.exit_code == 0, done.err
    assert {cell["primary"] for cell in done.json["models"][0]["cells"]} == {"chrf"}
    assert "reused" not in done.err
    before = kept_rows(root)
    assert program(root, "evaluate", "base", "--json").exit_code == 0
    assert kept_rows(root) == before


def test_kept_scores_under_another_first_metric_are_those_of_a_fresh_evaluation(
    served: Path, copy: Copy, program: Programs, tmp_path: Path
) -> None:
    root = copy(served)
    for split in ("dev", "test"):
        assert program(root, "evaluate", "base", "--split", split).exit_code == 0
    before = kept_rows(root)
    metrics = "[rouge_l, rouge_1, rouge_2, chrf]"
    change(
        root,
        "evaluation/suite.yaml",
        "kind: summarization",
        f"kind: summarization\n    metric: chrf\n    metrics: {metrics}",
    )
    kept, fresh = tmp_path / "kept.jsonl", tmp_path / "fresh.jsonl"
    done = program(root, "evaluate", "base", "--json", "--predictions", str(kept))
    assert done.exit_code == 0, done.err
    # The answers to the dev rows, which nobody asked for, are kept too.
    assert kept_rows(root) == before
    shutil.rmtree(root / ".adapterctl" / "scores")
    again = program(root, "evaluate", "base", "--json", "--predictions", str(fresh))
    assert again.json == done.json
    assert kept.read_text("utf-8") == fresh.read_text("utf-8")


def test_other_end_tokens_are_other_answers(served: Path, copy: Copy, program: Programs) -> None:
    root = copy(served)
    assets = Path(str(files("adapterctl.pocket").joinpath("assets")))
    shutil.copytree(assets, root / "model")
    change(root, "adapterctl.yaml", "path: pocket", "path: ./model")
    asked = ("evaluate", "base", "--task", "summarization", "--lang", "de")
    assert program(root, *asked).exit_code == 0
    before = kept_rows(root)
    settings = root / "model" / "generation_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text("utf-8")), "eos_token_id": [1, 7]}), "utf-8")
    assert program(root, *asked).exit_code == 0
    assert kept_rows(root) == before + 2


def test_a_suite_of_its_own(served: Path, copy: Copy, program: Programs) -> None:
    root = copy(served)
    done = program(root, "evaluate", "base", "champion", "--suite", "evaluation/general.yaml", "--json")
    assert done.exit_code == 0, done.err
    for card in done.json["models"]:
        assert {cell["task"] for cell in card["cells"]} == {"general"}
        assert {cell["primary"] for cell in card["cells"]} == {"bits_per_byte"}
        assert card["average"] is None
    text = program(root, "evaluate", "base", "--suite", "evaluation/general.yaml")
    assert text.exit_code == 0, text.err
    assert "bits_per_byte" in text.out
    assert "mean" not in text.out


def test_predictions_are_written_by_row(served: Path, program: Programs, tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    done = program(served, "evaluate", "champion", "base", "--lang", "de", "--predictions", str(file), "--json")
    assert done.exit_code == 0, done.err
    rows = read_lines(file)
    assert len(rows) == sum(cell["n"] for card in done.json["models"] for cell in card["cells"])
    assert set(rows[0]) == {"model", "lang", "task", "id", "prediction", "reference", "score"}
    accuracy = [row["score"] for row in rows if (row["model"], row["task"]) == ("base", "reasoning")]
    [cell] = [cell for cell in done.json["models"][1]["cells"] if cell["task"] == "reasoning"]
    assert sum(accuracy) / len(accuracy) == pytest.approx(cell["metrics"]["accuracy"])


def test_an_adapter_that_answers_with_nan_is_refused(served: Path, copy: Copy, program: Programs) -> None:
    from safetensors.torch import load_file, save_file

    root = copy(served)
    folder = next(iter((root / ".adapterctl" / "adapters").iterdir()))
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    name = next(iter(tensors))
    tensors[name] = tensors[name] * float("nan")
    save_file(tensors, file, metadata={"format": "pt"})
    done = program(root, "evaluate", str(folder), "--lang", "de")
    assert done.exit_code == 6, done.err
    assert "NaN" in done.err or "finite" in done.err


def test_test_rows_that_are_trained_on_are_refused_or_told(served: Path, copy: Copy, program: Programs) -> None:
    root = copy(served)
    trained = read_lines(next(iter((root / "adapters" / "data" / "ja").glob("reasoning.*"))))
    file = root / "evaluation" / "data" / "ja" / "reasoning.test.jsonl"
    write_rows(file, [*read_lines(file), {**trained[0], "id": "seen"}])
    done = program(root, "evaluate", "base")
    assert done.exit_code == 6, done.err
    assert "row 'seen' asks the same as training row" in done.err
    assert "allow_overlap" in done.err
    suite = root / "evaluation" / "suite.yaml"
    suite.write_text(suite.read_text("utf-8") + "\nallow_overlap: true\n", encoding="utf-8")
    done = program(root, "evaluate", "base", "--json")
    assert done.exit_code == 0, done.err
    assert any("'seen'" in warning for warning in done.json["warnings"])
    assert "warning:" in program(root, "evaluate", "base").out


def test_an_adapter_of_another_base_is_refused(served: Path, program: Programs, tmp_path: Path) -> None:
    done = program(served, "evaluate", str(make_adapter(tmp_path / "other")))
    assert done.exit_code == 6, done.err
    assert "does not fit the base model" in done.err
    assert len(done.err) < 4000


@pytest.fixture(scope="module")
def endpoint() -> Iterator[CompletionServer]:
    """The pocket model, served under the name ``pocket-base``."""
    from adapterctl import base_model

    base = base_model.find(base_model.BaseModelSettings(), Path())
    model, tokenizer = base_model.load_model(base), base_model.load_tokenizer(base)
    model.generation_config.eos_token_id = [tokenizer.eos_token_id]
    with CompletionServer(model, tokenizer, "pocket-base") as server:
        yield server


def test_a_served_model_scores_what_it_scores_here(
    served: Path, copy: Copy, program: Programs, endpoint: CompletionServer
) -> None:
    root = copy(served)
    here = program(root, "evaluate", "base", "--lang", "de", "--json")
    before = score_files(root)
    asked = ("--engine", "openai", "--url", endpoint.url, "--lang", "de")
    unnamed = program(root, "evaluate", *asked)
    assert unnamed.exit_code == 2, unnamed.err
    assert "the endpoint serves 2 models" in unnamed.err
    assert "another, pocket-base" in unnamed.err
    done = program(root, "evaluate", "pocket-base", *asked, "--json")
    assert done.exit_code == 0, done.err
    assert done.json["models"][0]["model"] == "pocket-base"
    for ours, theirs in zip(here.json["models"][0]["cells"], done.json["models"][0]["cells"], strict=True):
        assert theirs["metrics"] == pytest.approx(ours["metrics"])
        assert all(signature.endswith("engine:openai") for signature in theirs["signatures"].values())
    assert score_files(root) == before


def test_an_endpoint_that_is_not_there_is_worth_a_retry(served: Path, copy: Copy, program: Programs) -> None:
    root = copy(served)
    done = program(root, "evaluate", "--engine", "openai", "--url", "http://user:secret@127.0.0.1:9/v1")
    assert done.exit_code == 5, done.err
    assert "secret" not in done.err
    books = (root / ".adapterctl" / "ledger.jsonl").read_text("utf-8")
    assert '"evaluate"' in books
    assert "secret" not in books
    assert "Traceback" not in done.err


def test_tasks_of_the_harness_join_the_scorecard(served: Path, program: Programs, tmp_path: Path) -> None:
    pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed: pip install 'adapterctl[lm-eval]'")
    write_rows(tmp_path / "rows.jsonl", [{"q": "Wo ist das Klavier?", "c": ["im Meer", "im Theater"], "a": 1}] * 3)
    (tmp_path / "quiz_de.yaml").write_text(
        f"task: quiz_de\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {tmp_path / 'rows.jsonl'}}}}}\n"
        'test_split: test\noutput_type: multiple_choice\ndoc_to_text: "{{q}}"\ndoc_to_choice: "{{c}}"\n'
        'doc_to_target: "{{a}}"\nmetric_list: [{metric: acc}]\n',
        encoding="utf-8",
    )
    done = program(served, "evaluate", "base", "--lm-eval", str(tmp_path / "quiz_de.yaml"), "--json")
    assert done.exit_code == 0, done.err
    [cell] = done.json["models"][0]["cells"]
    assert (cell["lang"], cell["task"], cell["n"], cell["primary"]) == ("de", "quiz_de", 3, "acc")
    assert cell["value"] in (0.0, 1.0)
    assert "lm-eval:" in cell["signatures"]["acc"]


@pytest.mark.parametrize(
    ("file", "code", "told"),
    [
        ("", 2, "predictions cannot be written to"),
        ("nowhere/x.jsonl", 2, "predictions cannot be written to"),
        ("evaluation", 2, "is a directory"),
        ("x" * 300, 7, "the name is too long"),
        ("adapterctl.yaml", 2, "is a file that the evaluation reads"),
        ("evaluation/suite.yaml", 2, "is a file that the evaluation reads"),
        ("evaluation/data/ja/../ja/reasoning.test.jsonl", 2, "is a file that the evaluation reads"),
    ],
)
def test_predictions_that_cannot_be_written_are_refused_before_anything_is_asked(
    served: Path, copy: Copy, program: Programs, file: str, code: int, told: str
) -> None:
    root = copy(served)
    before = (root / "adapterctl.yaml").read_text("utf-8")
    done = program(root, "evaluate", "base", "--predictions", file)
    assert done.exit_code == code, done.err
    assert told in done.err
    assert "evaluate base" not in done.err
    other = program(root, "evaluate", "base", "--suite", "evaluation/general.yaml",
                    "--predictions", "evaluation/general/ja.jsonl")  # fmt: skip
    assert (other.exit_code, "is a file that the evaluation reads" in other.err) == (2, True)
    unknown = program(root, "evaluate", "nobody", "--predictions", "new.jsonl")
    assert (unknown.exit_code, (root / "new.jsonl").exists()) == (2, False)
    assert (root / "adapterctl.yaml").read_text("utf-8") == before


def test_predictions_follow_a_link_and_leave_a_device_a_device(served: Path, program: Programs, tmp_path: Path) -> None:
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "target.jsonl")
    done = program(served, "evaluate", "base", "--lang", "de", "--predictions", str(tmp_path / "link.jsonl"))
    assert done.exit_code == 0, done.err
    assert (tmp_path / "link.jsonl").is_symlink()
    assert len(read_lines(tmp_path / "target.jsonl")) > 3
    os.mkfifo(tmp_path / "pipe")
    with subprocess.Popen(["cat", str(tmp_path / "pipe")], stdout=subprocess.PIPE) as reader:
        done = program(served, "evaluate", "base", "--lang", "de", "--predictions", str(tmp_path / "pipe"))
        said, _ = reader.communicate(timeout=60)
    assert done.exit_code == 0, done.err
    assert said == (tmp_path / "target.jsonl").read_bytes()


def test_a_prompt_that_asks_for_what_no_row_has_is_refused(served: Path, copy: Copy, program: Programs) -> None:
    root = copy(served)
    change(root, "evaluation/suite.yaml", "{question}", "{direction} {question}")
    done = program(root, "evaluate", "base")
    assert done.exit_code == 6, done.err
    assert "names {direction}, but no row of" in done.err


def test_every_metric_with_its_signature(served: Path, program: Programs) -> None:
    done = program(served, "evaluate", "base", "--lang", "de", "--details")
    assert done.exit_code == 0, done.err
    assert "accuracy_norm" in done.out
    assert "rouge-score:" in done.out
    done = program(served, "evaluate", "base", "--lang", "de", "--suite", "evaluation/general.yaml", "--details")
    assert "lower is better" in done.out


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_standard_output_that_is_full_is_told(served: Path, form: list[str]) -> None:
    args = [sys.executable, "-m", "adapterctl", "-C", str(served), "status", *form]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(args, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 7, done.stderr
    assert "standard output" in done.stderr
    assert "Traceback" not in done.stderr
