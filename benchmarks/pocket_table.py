"""The pocket table: base, own adapters (INDV), combined (COMB) and every merge method, over seeds, on the test split.

    python benchmarks/pocket_table.py --seeds 3 --out benchmarks/results/pocket-table.json

A seed draws other training rows and another order of them; dev and test rows and the start of A stay. λ is chosen on
dev for each seed and method, densities are the recipes' defaults; the test split is read once for each model. Results
are kept under ``--work`` by content, so that an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from record import write_result

from adapterctl.examples import Example, parse_row
from adapterctl.lora.adapter import Adapter
from adapterctl.merging.engine import merge, merge_key
from adapterctl.merging.recipe import MergeRecipe
from adapterctl.merging.scale import choose_scale
from adapterctl.pocket import rows, world
from adapterctl.training.job import TrainingJob, training_key
from adapterctl.training.trainer import train
from adapterctl.workflows.init import init_workspace
from adapterctl.workflows.scoring import BASE, Scorer, Subject
from adapterctl.workflows.session import Session, reading
from adapterctl.workflows.steps import language_job
from adapterctl.workspace.data import load_data
from adapterctl.workspace.workspace import Workspace

METHODS = ("core-tsv", "knots-ties", "ties", "dare-ties", "core-iso-c", "linear")
LANGS = world.LANGUAGES

Values = dict[str, dict[str, float]]
"""Language, then task, then the task's primary metric."""


def training_rows(session: Session, lang: str, seed: int) -> tuple[Example, ...]:
    tasks = session.workspace.suite.all_tasks
    made = [row for task in rows.TASKS for row in rows.task_rows(lang, task, "train", seed=seed)]
    return tuple(parse_row(row, lang=lang, tasks=tasks, fallback_id="") for row in made)


def trained(session: Session, job: TrainingJob) -> Path:
    folder = session.workspace.paths.adapter(training_key(job))
    train(job, folder, session.workspace.paths.checkpoints)
    return folder


def values_of(scorer: Scorer, subject: Subject, langs: Sequence[str], split: str) -> Values:
    card = scorer.score(subject, langs, split)
    return {lang: {task: card.cell(lang, task).value for task in card.tasks} for lang in langs}


def mean(values: Values) -> float:
    return statistics.fmean(statistics.fmean(tasks.values()) for tasks in values.values())


def merged(session: Session, scorer: Scorer, folders: Mapping[str, Path], method: str) -> tuple[Values, float]:
    recipe = MergeRecipe(method=method)  # type: ignore[arg-type]
    adapters = [Adapter.open(folder, lang) for lang, folder in folders.items()]
    key = merge_key(adapters, recipe)
    folder = session.workspace.paths.merged(key)
    report = merge(adapters, recipe, folder)

    def on_dev(scale: float) -> float:
        return mean(values_of(scorer, Subject(method, key, folder, scale), LANGS, "dev"))

    choice = choose_scale(on_dev, report.suggested_scale or 1.0)
    return values_of(scorer, Subject(method, key, folder, choice.scale), LANGS, "test"), choice.scale


def one_seed(session: Session, scorer: Scorer, seed: int) -> dict[str, Values]:
    table: dict[str, Values] = {"base": values_of(scorer, BASE, LANGS, "test")}
    jobs = {lang: language_job(session, lang, training_rows(session, lang, seed)) for lang in LANGS}
    jobs = {lang: replace(job, training=job.training.model_copy(update={"seed": 0})) for lang, job in jobs.items()}
    folders = {lang: trained(session, job) for lang, job in jobs.items()}
    table["INDV"] = {
        lang: values_of(scorer, Subject(lang, Adapter.open(folder).content_hash, folder), [lang], "test")[lang]
        for lang, folder in folders.items()
    }
    everything = tuple(example for job in jobs.values() for example in job.examples)
    combined = trained(session, replace(jobs["en"], lang="combined", examples=everything))
    table["COMB"] = values_of(scorer, Subject("COMB", Adapter.open(combined).content_hash, combined), LANGS, "test")
    for method in METHODS:
        table[method], scale = merged(session, scorer, folders, method)
        print(f"  seed {seed}: {method} λ {scale:g} {mean(table[method]):.3f}", flush=True)
    return table


def summary(tables: Sequence[dict[str, Values]]) -> dict[str, object]:
    """Return mean ± sd over seeds of every cell, and the share of INDV's gain that each model keeps."""
    result: dict[str, object] = {}
    for model in tables[0]:
        kept = [
            (mean(table[model]) - mean(table["base"])) / (mean(table["INDV"]) - mean(table["base"])) for table in tables
        ]
        cells = {
            f"{lang}.{task}": _spread([table[model][lang][task] for table in tables])
            for lang in LANGS
            for task in rows.TASKS
        }
        result[model] = {
            "mean": _spread([mean(table[model]) for table in tables]),
            "kept": _spread(kept),
            "cells": cells,
        }
    return result


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"mean": statistics.fmean(values), "sd": statistics.stdev(values) if len(values) > 1 else 0.0}


def markdown(models: Mapping[str, dict[str, dict[str, dict[str, float]]]]) -> str:
    """Return the table of docs/pocket-model.md: means over languages, then every language and task."""
    lines = ["| model | mean | kept |", "|---|---:|---:|"]
    for name, row in models.items():
        mean, kept = row["mean"], row["kept"]
        lines.append(f"| {name} | {mean['mean']:.3f} ± {mean['sd']:.3f} | {kept['mean']:.0%} ± {kept['sd']:.0%} |")
    for task in rows.TASKS:
        lines += [
            "",
            f"{task.capitalize()}:",
            "",
            "| model | " + " | ".join(LANGS) + " |",
            "|---|" + "---:|" * len(LANGS),
        ]
        for name, row in models.items():
            cells = [row["cells"][f"{lang}.{task}"] for lang in LANGS]
            lines.append(f"| {name} | " + " | ".join(f"{cell['mean']:.2f} ± {cell['sd']:.2f}" for cell in cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path("build/pocket-table"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/pocket-table.json"))
    arguments = parser.parse_args()
    if not (arguments.work / "adapterctl.yaml").is_file():
        init_workspace(arguments.work, "pocket")
    session = reading(Workspace.open(arguments.work), "benchmark")
    scorer = Scorer(session, load_data(session.workspace, LANGS))
    started = time.monotonic()
    tables = []
    for seed in range(arguments.seeds):
        tables.append(one_seed(session, scorer, seed))
        print(f"seed {seed}: {time.monotonic() - started:.0f} s", flush=True)
    models = summary(tables)
    what = "primary metric on the test split, mean and sd over seeds"
    write_result(arguments.out, what, seeds=arguments.seeds, models=models)
    print(markdown(models))  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
