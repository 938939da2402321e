"""lm-evaluation-harness as an oracle: the same rows, the same model, the same log-likelihoods and answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from adapterctl import base_model
from adapterctl.base_model import BaseModelSettings
from adapterctl.evaluation.answers import answer, prepare
from adapterctl.evaluation.scoring import LocalEngine
from adapterctl.examples import Example, parse_row
from adapterctl.pocket.rows import task_rows
from adapterctl.prompts import render
from adapterctl.tasks import TaskSettings

lm_eval = pytest.importorskip(
    "lm_eval", reason="lm-evaluation-harness is not installed: pip install 'adapterctl[lm-eval]'"
)

ROWS = 24
TASKS = {
    "reasoning": TaskSettings(kind="multiple-choice", prompt="{question}\n{choices}\n="),
    "sentiment": TaskSettings(kind="classification", prompt="{input}\n:", labels=["好評", "不評", "中立"]),
    "summarization": TaskSettings(kind="summarization", prompt="{input}\n要約:", max_new_tokens=8),
}


@pytest.fixture(scope="module")
def model() -> Any:
    return base_model.load_model(base_model.find(BaseModelSettings(), Path()))


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return base_model.load_tokenizer(base_model.find(BaseModelSettings(), Path()))


def examples(task: str) -> list[Example]:
    made = task_rows("ja", task, "test", count=ROWS)
    return [parse_row(row, lang="ja", tasks=TASKS, fallback_id="") for row in made]


def harness(folder: Path, name: str, rows: list[Example], model: Any, tokenizer: Any) -> list[Any]:
    """Return what the harness finds for every row, in their order."""
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager, get_task_dict

    lines = []
    for row in rows:
        made = render(row, TASKS[name])
        # The harness adds no start token of its own; ours begins with it.
        line = {"ask": f"{tokenizer.bos_token}{made.prompt}", "right": made.answer, "text": row.reference}
        lines.append(json.dumps(line | {"choices": [text.strip() for text in made.candidates]}))
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    document: dict[str, Any] = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "rows.jsonl")}},
        "test_split": "test",
        "doc_to_text": "{{ask}}",
    }
    if TASKS[name].chooses:
        document |= {"output_type": "multiple_choice", "doc_to_choice": "{{choices}}", "doc_to_target": "{{right}}"}
        document["metric_list"] = [{"metric": "acc"}, {"metric": "acc_norm"}]
    else:
        limits = {"until": [tokenizer.eos_token], "max_gen_toks": TASKS[name].max_new_tokens, "do_sample": False}
        document |= {"output_type": "generate_until", "doc_to_target": "{{text}}", "generation_kwargs": limits}
        document["metric_list"] = [{"metric": "chrf"}]
    (folder / f"{name}.yaml").write_text(json.dumps(document), encoding="utf-8")
    tasks = get_task_dict([name], TaskManager(include_path=str(folder), include_defaults=False))
    wrapped = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=8, add_bos_token=False)
    found = lm_eval.evaluate(lm=wrapped, task_dict=tasks, bootstrap_iters=0, log_samples=True)
    samples = sorted(found["samples"][name], key=lambda sample: sample["doc_id"])
    return [found["results"][name], samples]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", list(TASKS))
def test_answers_are_those_of_the_harness(name: str, tmp_path: Path, model: Any, tokenizer: Any) -> None:
    rows = examples(name)
    results, samples = harness(tmp_path, name, rows, model, tokenizer)
    prepared = prepare(tokenizer, rows, TASKS, chat=False, context=None)
    answers = answer(LocalEngine(model, tokenizer, batch_size=5, batch_tokens=2000), prepared)
    if not TASKS[name].chooses:
        texts = [sample["filtered_resps"][0].strip() for sample in samples]
        assert [one.prediction for one in answers] == texts
        assert len(set(texts)) > 1
        return
    for one, sample in zip(answers, samples, strict=True):
        theirs = [response[0] for response in sample["filtered_resps"]]
        assert one.details["log_likelihoods"] == pytest.approx(theirs, abs=1e-3)
    right = [one.details["chosen"] == one.details["answer"] for one in answers]
    assert sum(right) / ROWS == pytest.approx(results["acc,none"])
    if name == "reasoning":
        normed = [one.details["chosen_norm"] == one.details["answer"] for one in answers]
        assert sum(normed) / ROWS == pytest.approx(results["acc_norm,none"])
