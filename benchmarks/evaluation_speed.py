"""The pocket suite in five languages: a whole command, and the scoring alone beside lm-evaluation-harness.

    python benchmarks/evaluation_speed.py --out benchmarks/results/evaluation-speed.json

Whole commands are processes, interpreter start and imports included: ``adapterctl evaluate base`` on a new workspace,
then again with every answer kept. The harness scores the same rows with the same model in this process, from local
task files; imports, model loading and the building of its tasks are left out on both sides; accuracies are compared.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from record import write_result

from adapterctl import base_model
from adapterctl.evaluation.answers import answer, prepare
from adapterctl.evaluation.metrics import judge, make_cell, signatures_of
from adapterctl.evaluation.scoring import LocalEngine
from adapterctl.examples import Example
from adapterctl.prompts import render
from adapterctl.tasks import TaskSettings
from adapterctl.workflows.init import init_workspace
from adapterctl.workflows.session import Session, reading
from adapterctl.workspace.data import load_data
from adapterctl.workspace.workspace import Workspace

Cells = Mapping[tuple[str, str], Sequence[Example]]


def command(root: Path, threads: int) -> float:
    """Return the seconds of one whole command."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(threads)}
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "adapterctl", "-C", str(root), "--quiet", "evaluate", "base", "--json"],
        stdout=subprocess.DEVNULL,
        check=True,
        env=environment,
    )
    return time.perf_counter() - started


def ours(session: Session, model: Any, tokenizer: Any, cells: Cells) -> tuple[float, dict[tuple[str, str], float]]:
    """Score the rows; return seconds and accuracies."""
    suite = session.workspace.suite
    started = time.perf_counter()
    engine = LocalEngine(model, tokenizer, batch_size=suite.batch_size, batch_tokens=suite.batch_tokens)
    wanted = [row for rows in cells.values() for row in rows]
    context = base_model.context_of(session.base)
    prepared = prepare(tokenizer, wanted, suite.all_tasks, chat=session.base.chat, context=context)
    answers = answer(engine, prepared)
    values, start = {}, 0
    for (lang, name), rows in cells.items():
        part = slice(start, start + len(rows))
        task, start = suite.all_tasks[name], start + len(rows)
        scores = judge(prepared[part], answers[part], suite)
        values[lang, name] = make_cell(scores, task, signatures_of(task, lang, suite, "local")).metrics
    seconds = time.perf_counter() - started
    return seconds, {place: found["accuracy"] for place, found in values.items() if "accuracy" in found}


def write_task(folder: Path, name: str, rows: Sequence[Example], task: TaskSettings, start: str) -> None:
    """Write rows as a task of the harness that asks and offers what the suite's task does, start token included."""
    lines = []
    for row in rows:
        made = render(row, task)
        choices = [text.strip() for text in made.candidates]
        line = {"ask": f"{start}{made.prompt}", "choices": choices, "answer": made.answer}
        lines.append(json.dumps(line | {"target": row.reference}, ensure_ascii=False))
    (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    document: dict[str, Any] = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / f"{name}.jsonl")}},
        "test_split": "test",
        "doc_to_text": "{{ask}}",
        "target_delimiter": task.separator,
    }
    if task.chooses:
        document |= {"output_type": "multiple_choice", "doc_to_choice": "{{choices}}", "doc_to_target": "{{answer}}"}
        document["metric_list"] = [{"metric": "acc"}]
    else:
        limits = {"until": ["</s>"], "max_gen_toks": task.max_new_tokens, "do_sample": False}
        document |= {"output_type": "generate_until", "doc_to_target": "{{target}}", "generation_kwargs": limits}
        document["metric_list"] = [{"metric": "chrf"}]
    (folder / f"{name}.yaml").write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")


def theirs(model: Any, tokenizer: Any, tasks: Mapping[str, Any], batch: int) -> tuple[float, dict[str, float]]:
    """Let the harness score the rows; return seconds and accuracies."""
    from lm_eval import evaluate
    from lm_eval.models.huggingface import HFLM

    wrapped = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch, add_bos_token=False)
    started = time.perf_counter()
    found = evaluate(lm=wrapped, task_dict=dict(tasks), bootstrap_iters=0, log_samples=True)
    seconds = time.perf_counter() - started
    return seconds, {name: row["acc,none"] for name, row in found["results"].items() if "acc,none" in row}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        root = init_workspace(Path(temporary) / "pocket")
        session = reading(Workspace.open(root), "benchmark")
        whole: dict[str, list[float]] = {"new": [], "kept": []}
        for _ in range(options.rounds):
            for file in root.glob(".adapterctl/scores/*"):
                file.unlink()
            whole["new"].append(command(root, 2))
            whole["kept"].append(command(root, 2))
        suite, data = session.workspace.suite, load_data(session.workspace, session.workspace.languages)
        cells: dict[tuple[str, str], list[Example]] = {}
        for lang, rows in data.items():
            for row in rows.test:
                cells.setdefault((lang, row.task), []).append(row)
        model, tokenizer = base_model.load_model(session.base), base_model.load_tokenizer(session.base)

        from lm_eval.tasks import TaskManager, get_task_dict

        folder = Path(temporary) / "tasks"
        folder.mkdir()
        for (lang, name), found in cells.items():
            write_task(folder, f"{name}_{lang}", found, suite.all_tasks[name], tokenizer.bos_token)
        manager = TaskManager(include_path=str(folder), include_defaults=False)
        tasks = get_task_dict([f"{name}_{lang}" for lang, name in cells], manager)
        times: dict[str, list[float]] = {"ours": [], "harness": []}
        for _ in range(options.rounds):
            seconds, accuracies = ours(session, model, tokenizer, cells)
            times["ours"].append(seconds)
            seconds, others = theirs(model, tokenizer, tasks, suite.batch_size)
            times["harness"].append(seconds)
    differ = {place: (accuracies[place], others[f"{place[1]}_{place[0]}"]) for place in accuracies}
    worst = max(abs(one - other) for one, other in differ.values())
    middle = {name: statistics.median(values) for name, values in {**whole, **times}.items()}
    rows = sum(map(len, cells.values()))
    print(f"{rows} rows, five languages, three tasks")
    print(f"whole command, 2 threads: {middle['new']:.1f} s; again, all kept: {middle['kept']:.2f} s")
    ratio = middle["harness"] / middle["ours"]
    print(f"scoring alone, 1 thread: {middle['ours']:.2f} s; lm-eval: {middle['harness']:.2f} s; {ratio:.1f}×")
    print(f"largest difference of an accuracy: {worst:.4f}")
    if options.out:
        write_result(
            options.out,
            "evaluation of the pocket suite",
            rows=rows,
            seconds={name: [round(value, 3) for value in values] for name, values in {**whole, **times}.items()},
            ratio=ratio,
            largest_difference=worst,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
