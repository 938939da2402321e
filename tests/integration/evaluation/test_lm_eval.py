"""lm-evaluation-harness on a small model and local tasks; every value is computed a second time by other means."""

from __future__ import annotations

import json
import math
import os
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sacrebleu
import torch
from tests.support.tiny_llama import save_tiny_llama
from transformers import AutoModelForCausalLM, AutoTokenizer

from adapterctl.errors import AdapterctlError, ConfigError, DataError, UsageError
from adapterctl.evaluation.lm_eval_tasks import run_lm_eval
from adapterctl.evaluation.scorecard import Cell, Scorecard

CHOICES = [
    ("the soup was", ["warm", "long and cold"], 1),
    ("the sea is", ["blue", "red", "green and good"], 0),
    ("where does it", ["live", "a"], 1),
    ("the night", ["was long", "is", "good bad fair"], 1),
    ("今日は海へ", ["行きました", "おいしい"], 0),
]
QUESTIONS = ["the soup was", "the sea is blue, the fire", "the grass is"]
TEXTS = ["the soup was warm and the night was long", "おいしい まずい ふつう", "the sea is blue"]

CHOICE_TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{q}}}}"
doc_to_choice: "{{{{c}}}}"
doc_to_target: "{{{{a}}}}"
metric_list: [{{metric: acc}}, {{metric: acc_norm}}]
metadata: {{version: 1.5}}
"""
TEXT_TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{q}}}}"
doc_to_target: "{{{{a}}}}"
generation_kwargs: {{until: ["e"], max_gen_toks: 6, do_sample: false}}
metric_list: [{{metric: chrf}}, {{metric: exact_match}}]
metadata: {{version: 2}}
"""
READING_TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{t}}}}"
metric_list: [{{metric: bits_per_byte}}, {{metric: word_perplexity}}]
metadata: {{version: 1}}
"""


@pytest.fixture(scope="module", autouse=True)
def _harness(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The harness, and a cache of data of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("cache")))
        pytest.importorskip(
            "lm_eval", reason="lm-evaluation-harness is not installed: pip install 'adapterctl[lm-eval]'"
        )
        import datasets

        patch.setattr(datasets.config, "HF_DATASETS_CACHE", Path(os.environ["HF_DATASETS_CACHE"]))
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder)


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(folder)


def written(model: Any, tokenizer: Any, question: str) -> str:
    """The model's greedy answer of six tokens, up to the first e."""
    given = torch.tensor([tokenizer(question, add_special_tokens=False)["input_ids"]])
    made = model.generate(given, attention_mask=torch.ones_like(given), max_new_tokens=6, do_sample=False)
    return tokenizer.decode(made[0, given.shape[1] :], skip_special_tokens=True).split("e")[0]


def log_likelihood(model: Any, before: list[int], tokens: list[int]) -> float:
    with torch.inference_mode():
        logs = model(torch.tensor([before + tokens])).logits[0].double().log_softmax(-1)
    return sum(logs[len(before) + place - 1, token].item() for place, token in enumerate(tokens))


def ids(tokenizer: Any, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def write_task(folder: Path, name: str, form: str, rows: list[dict[str, Any]]) -> Path:
    folder.mkdir(exist_ok=True)
    data = folder / f"{name}.jsonl"
    data.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    path = folder / f"{name}.yaml"
    path.write_text(form.format(name=name, data=data), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def references(model: Any, tokenizer: Any) -> list[str]:
    """The first answer is right, the others are not."""
    return [written(model, tokenizer, QUESTIONS[0]), "blue", "green and red"]


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory, references: list[str]) -> Path:
    folder = tmp_path_factory.mktemp("tasks")
    write_task(folder, "choices_de", CHOICE_TASK, [{"q": q, "c": c, "a": a} for q, c, a in CHOICES])
    rows = [{"q": question, "a": answer} for question, answer in zip(QUESTIONS, references, strict=True)]
    write_task(folder, "texts_zh", TEXT_TASK, rows)
    write_task(folder, "readings", READING_TASK, [{"t": text} for text in TEXTS])
    return folder


@pytest.fixture(scope="module")
def cells(model: Any, tokenizer: Any, tasks: Path) -> dict[str, Cell]:
    found = run_lm_eval(model, tokenizer, [str(tasks)], batch_size=2, langs=["de", "ja", "zh"])
    return {cell.task: cell for cell in found}


def test_cells_are_of_the_language_that_the_name_ends_with(cells: dict[str, Cell]) -> None:
    assert {task: cell.lang for task, cell in cells.items()} == {
        "choices_de": "de",
        "texts_zh": "zh",
        "readings": "und",
    }


def test_choices_are_judged_by_their_log_likelihood(cells: dict[str, Cell], model: Any, tokenizer: Any) -> None:
    cell = cells["choices_de"]
    right, right_norm = [], []
    for score, (question, choices, answer) in zip(cell.scores, CHOICES, strict=True):
        before = ids(tokenizer, question)
        values = [log_likelihood(model, before, ids(tokenizer, f" {choice}")) for choice in choices]
        best = values.index(max(values))
        by_length = [value / len(choice) for value, choice in zip(values, choices, strict=True)]
        assert score.details["log_likelihoods"] == pytest.approx(values, abs=1e-4)
        assert (score.prediction, score.reference) == (choices[best], choices[answer])
        assert score.score == score.details["acc"] == (best == answer)
        right.append(best == answer)
        right_norm.append(by_length.index(max(by_length)) == answer)
    assert (cell.primary, cell.n) == ("acc", 5)
    assert cell.metrics == {"acc": sum(right) / 5, "acc_norm": sum(right_norm) / 5}
    assert cell.metrics["acc"] != cell.metrics["acc_norm"], "or the test could not tell them apart"


def test_an_adapter_is_measured_with_its_base(model: Any, folder: Path, tokenizer: Any, tasks: Path) -> None:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=4, lora_alpha=12, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    with torch.random.fork_rng():
        torch.manual_seed(11)
        adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(folder), config)
    (cell,) = run_lm_eval(adapted, tokenizer, [str(tasks / "choices_de.yaml")], batch_size=4)
    question, choices, _ = CHOICES[0]
    before, tokens = ids(tokenizer, question), [ids(tokenizer, f" {choice}") for choice in choices]
    found = cell.scores[0].details["log_likelihoods"]
    assert found == pytest.approx([log_likelihood(adapted.eval(), before, one) for one in tokens], abs=1e-4)
    assert found != pytest.approx([log_likelihood(model, before, one) for one in tokens], abs=0.1)


def test_texts_are_judged_as_sacrebleu_does(
    cells: dict[str, Cell], model: Any, tokenizer: Any, references: list[str]
) -> None:
    cell = cells["texts_zh"]
    answers = [written(model, tokenizer, question) for question in QUESTIONS]
    assert [score.prediction for score in cell.scores] == [answer.strip() for answer in answers]
    assert [score.score for score in cell.scores] == [1.0, 0.0, 0.0]
    # A text that is right counts as an accuracy, which comes before a metric of all texts together.
    assert (cell.primary, cell.value) == ("exact_match", pytest.approx(1 / 3))
    assert cell.metrics["chrf"] == pytest.approx(sacrebleu.corpus_chrf(answers, [references]).score)
    alone = [sacrebleu.corpus_chrf([a], [[r]]).score for a, r in zip(answers, references, strict=True)]
    assert [score.details["chrf"] for score in cell.scores] == pytest.approx(alone)


def test_texts_that_are_read(cells: dict[str, Cell], model: Any, tokenizer: Any) -> None:
    cell = cells["readings"]
    nats = [-log_likelihood(model, [tokenizer.bos_token_id], ids(tokenizer, text)) for text in TEXTS]
    sizes = [len(text.encode()) for text in TEXTS]
    words = [len(text.split()) for text in TEXTS]
    assert cell.metrics["bits_per_byte"] == pytest.approx(sum(nats) / math.log(2) / sum(sizes), rel=1e-5)
    assert cell.metrics["word_perplexity"] == pytest.approx(math.exp(sum(nats) / sum(words)), rel=1e-4)
    assert [score.details["nats"] for score in cell.scores] == pytest.approx(nats, abs=1e-3)
    assert [score.details["bytes"] for score in cell.scores] == sizes
    # Less is better, so that a row's score is below 0. Bits per byte stand for the cell, and count in no mean.
    assert (cell.primary, cell.averaged) == ("bits_per_byte", False)
    assert [score.score for score in cell.scores] == pytest.approx(
        [-nat / math.log(2) / size for nat, size in zip(nats, sizes, strict=True)], rel=1e-5
    )


def test_values_are_those_of_the_harness_itself(
    cells: dict[str, Cell], model: Any, tokenizer: Any, tasks: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    harness = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=3)
    said = simple_evaluate(model=harness, tasks=manager.all_subtasks, task_manager=manager, bootstrap_iters=0)
    assert set(said["results"]) == set(cells)
    for name, values in said["results"].items():
        shown = {key.removesuffix(",none"): value for key, value in values.items() if key.endswith(",none")}
        shown = {key: value for key, value in shown.items() if not key.endswith("_stderr")}
        assert cells[name].metrics == pytest.approx(shown, rel=1e-5)


def test_what_values_depend_on_is_in_their_signature(cells: dict[str, Cell]) -> None:
    from importlib.metadata import version

    signature = cells["choices_de"].signatures["acc"]
    assert signature.startswith(f"acc|lm-eval:{version('lm-eval')}|task:choices_de@1.5|config:")
    assert signature.endswith("|shots:0|rows:all|engine:transformers")
    assert set(cells["texts_zh"].signatures) == {"chrf", "exact_match"}


def test_another_prompt_has_another_signature(
    model: Any, tokenizer: Any, tmp_path: Path, cells: dict[str, Cell]
) -> None:
    form = CHOICE_TASK.replace("{{{{q}}}}", "{{{{q}}}}?")
    path = write_task(tmp_path / "t", "choices_de", form, [{"q": q, "c": c, "a": a} for q, c, a in CHOICES])
    same = write_task(tmp_path / "s", "choices_de", CHOICE_TASK, [{"q": q, "c": c, "a": a} for q, c, a in CHOICES])
    (cell,) = run_lm_eval(model, tokenizer, [str(path)], batch_size=4)
    (moved,) = run_lm_eval(model, tokenizer, [str(same)], batch_size=4)
    known = cells["choices_de"]
    assert cell.signatures["acc"] != known.signatures["acc"] == moved.signatures["acc"]
    assert [score.row for score in moved.scores] == [score.row for score in known.scores]
    assert not {score.row for score in cell.scores} & {score.row for score in known.scores}


def test_a_limit_measures_the_first_rows(model: Any, tokenizer: Any, tasks: Path, cells: dict[str, Cell]) -> None:
    (cell,) = run_lm_eval(model, tokenizer, [str(tasks / "choices_de.yaml")], batch_size=4, limit=2, langs=["de"])
    assert cell.n == 2
    assert [score.row for score in cell.scores] == [score.row for score in cells["choices_de"].scores[:2]]
    assert "|rows:2|engine" in cell.signatures["acc"]
    with pytest.raises(UsageError, match="limit of 0 rows"):
        run_lm_eval(model, tokenizer, [str(tasks)], batch_size=4, limit=0)


def test_cells_are_stored_and_read(cells: dict[str, Cell]) -> None:
    card = Scorecard("tiny", tuple(cells.values()))
    assert Scorecard.from_dict(json.loads(json.dumps(card.as_dict(), allow_nan=False))) == card


def seed_all() -> None:
    random.seed(3)
    np.random.seed(3)
    torch.manual_seed(3)


def test_everything_else_stays_as_it_was(
    model: Any, tokenizer: Any, tasks: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "0")
    seed_all()
    expected = (random.random(), np.random.random(), torch.rand(1).item())
    seed_all()
    model.train()
    before = (dict(os.environ), repr(tokenizer))
    capfd.readouterr()
    run_lm_eval(model, tokenizer, [str(tasks)], batch_size=4)
    assert capfd.readouterr() == ("", "")
    assert model.training
    assert (dict(os.environ), repr(tokenizer)) == before
    assert (random.random(), np.random.random(), torch.rand(1).item()) == expected


def fails(tasks: list[str], model: Any, tokenizer: Any) -> AdapterctlError:
    with pytest.raises(AdapterctlError) as caught:
        run_lm_eval(model, tokenizer, tasks, batch_size=4)
    return caught.value


def test_unknown_tasks_are_all_named(model: Any, tokenizer: Any, tasks: Path, tmp_path: Path) -> None:
    wanted = [str(tasks), "helaswag", "qqqq", str(tmp_path / "no.yaml"), str(tmp_path)]
    error = fails(wanted, model, tokenizer)
    assert isinstance(error, UsageError)
    messages = [str(problem) for problem in error.problems]
    assert messages[0].startswith("lm-evaluation-harness has no task 'helaswag' (did you mean hellaswag")
    assert messages[1] == "lm-evaluation-harness has no task 'qqqq'"
    assert messages[2] == f"{tmp_path / 'no.yaml'}: there is no such file or folder"
    assert messages[3] == f"{tmp_path}: the folder holds no YAML file of a task"
    assert "lm-eval ls tasks" in error.hint


def test_no_task_is_an_error(model: Any, tokenizer: Any) -> None:
    assert "no task" in fails([], model, tokenizer).message


def test_data_that_are_elsewhere_are_not_downloaded(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    far = tmp_path / "far.yaml"
    far.write_text(CHOICE_TASK.format(name="far", data="x").replace("dataset_path: json", "dataset_path: some/set"))
    gone = write_task(tmp_path / "gone", "gone", CHOICE_TASK, [])
    (tmp_path / "gone" / "gone.jsonl").unlink()
    broken = write_task(tmp_path / "broken", "broken", CHOICE_TASK, [])
    (tmp_path / "broken" / "broken.jsonl").write_text("{no json\n")
    error = fails([str(far), str(gone), str(broken)], model, tokenizer)
    assert isinstance(error, DataError)
    assert [problem.where for problem in error.problems] == [str(far), str(gone), str(broken)]
    assert "some/set" in error.problems[0].message
    assert "gone.jsonl" in error.problems[1].message
    assert "data_files" in error.hint


@pytest.mark.parametrize(
    ("form", "kind", "said"),
    [
        (CHOICE_TASK.replace("output_type: multiple_choice", "output_type: guessing"), ConfigError, "guessing"),
        (CHOICE_TASK.replace("test_split: test", "test_split: other"), AdapterctlError, "other"),
        (CHOICE_TASK + "\n  bad: [", ConfigError, "ParserError"),
        (CHOICE_TASK.replace("{{{{c}}}}", "{{{{nothing}}}}"), AdapterctlError, "nothing"),
    ],
)
def test_a_task_that_cannot_be_used(
    model: Any, tokenizer: Any, tmp_path: Path, form: str, kind: type[AdapterctlError], said: str
) -> None:
    path = write_task(tmp_path / "t", "bad", form, [{"q": q, "c": c, "a": a} for q, c, a in CHOICES])
    error = fails([str(path)], model, tokenizer)
    assert isinstance(error, kind)
    assert said in error.message
    assert error.hint


def test_one_name_for_two_tasks_is_refused(model: Any, tokenizer: Any, tasks: Path, tmp_path: Path) -> None:
    rows = [{"q": q, "c": c, "a": a} for q, c, a in CHOICES]
    other = write_task(tmp_path / "t", "choices_de", CHOICE_TASK, rows)
    error = fails([str(tasks / "choices_de.yaml"), str(other)], model, tokenizer)
    assert "task 'choices_de' is named twice" in error.message


@pytest.mark.parametrize("missing", ["lm_eval", "lm_eval.evaluator", "datasets"])
def test_without_the_harness_its_extra_is_named(
    model: Any, tokenizer: Any, tasks: Path, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    if missing == "datasets":
        for name in [name for name in sys.modules if name.startswith("lm_eval")]:
            monkeypatch.delitem(sys.modules, name)
    error = fails([str(tasks)], model, tokenizer)
    assert isinstance(error, UsageError)
    assert error.hint == "run: pip install 'adapterctl[lm-eval]'"
