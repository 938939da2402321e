"""Status, history and lineage of a project that is years old: 50 languages and 500 releases in an sqlite store.

    python benchmarks/registry_scale.py --out benchmarks/results/registry-scale.json

The store is made through the registry's own client, which is MLflow's: every release is a published version with its
run, its inputs and its ``release.json``. What is measured are whole commands, interpreter start included, each a
process of its own. ``--keep`` measures a store that was made before.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from record import write_result

from adapterctl.fingerprint import fingerprint
from adapterctl.registry.client import Registry
from adapterctl.registry.names import CHAMPION, PREVIOUS, adapter_name, merged_name
from adapterctl.training.job import rows_hash, training_key
from adapterctl.workflows import releases, review_tags
from adapterctl.workflows.releases import Pin, Release
from adapterctl.workflows.session import Session, options_of, reading
from adapterctl.workflows.steps import language_job
from adapterctl.workflows.summaries import release_lineage, release_tags
from adapterctl.workspace.data import load_data
from adapterctl.workspace.workspace import Workspace

# fmt: off
LANGUAGES = (
    "af", "ar", "az", "be", "bg", "bn", "bs", "ca", "cs", "cy", "da", "de", "el", "en", "es", "et", "eu", "fa", "fi",
    "fr", "ga", "gl", "gu", "he", "hi", "hr", "hu", "hy", "id", "is", "it", "ja", "ka", "kk", "ko", "lt", "lv", "mk",
    "ml", "mr", "nb", "nl", "pl", "pt", "ro", "ru", "sk", "sl", "sv", "zh",
)
# fmt: on
TASKS = ("intent", "topic")
LABELS = ("first", "second", "third")
ROWS = {"train": 240, "dev": 70, "test": 190}
"""A language and task: about what the pocket workspace has."""
COMMANDS = (
    ("status",),
    ("history",),
    ("history", "--limit", "{releases}"),
    ("history", "--json"),
    ("lineage", "merged@champion"),
    ("lineage", "{lang}@champion"),
    ("diff", "previous", "champion"),
)

PROJECT = """
version: 1
project: scale
base_model:
  path: pocket
languages: [{languages}]
defaults:
  data: ["data/{{lang}}/*.train.jsonl"]
merge:
  method: core-tsv
promotion: review
registry:
  uri: ""
"""
SUITE = """
tasks:
{tasks}
dev: ["data/{{lang}}/*.dev.jsonl"]
test: ["data/{{lang}}/*.test.jsonl"]
"""
TASK = "  {name}: {{kind: classification, prompt: 'Text: {{input}} Answer:', labels: [first, second, third]}}"


def make_workspace(root: Path, languages: Sequence[str], rows: dict[str, int]) -> None:
    """Write the files of a workspace, rows included."""
    (root / "adapters").mkdir(parents=True)
    (root / "evaluation").mkdir()
    (root / "adapterctl.yaml").write_text(PROJECT.format(languages=", ".join(languages)), encoding="utf-8")
    tasks = "\n".join(TASK.format(name=name) for name in TASKS)
    (root / "evaluation/suite.yaml").write_text(SUITE.format(tasks=tasks), encoding="utf-8")
    draw = random.Random(0)
    for lang in languages:
        (root / f"adapters/{lang}.yaml").write_text(f"# {lang}\n", encoding="utf-8")
        for split, count in rows.items():
            folder = root / ("adapters" if split == "train" else "evaluation") / "data" / lang
            folder.mkdir(parents=True, exist_ok=True)
            for task in TASKS:
                lines = (
                    {
                        "id": f"{task}-{split}-{place}",
                        "lang": lang,
                        "task": task,
                        "input": f"{split} {place} " + " ".join(str(draw.randrange(10**6)) for _ in range(12)),
                        "reference": draw.choice(LABELS),
                    }
                    for place in range(count)
                )
                text = "".join(json.dumps(line) + "\n" for line in lines)
                (folder / f"{task}.{split}.jsonl").write_text(text, encoding="utf-8")


def scores_of(languages: Sequence[str], draw: random.Random) -> dict[str, Any]:
    """Return a summary of a scorecard as evaluation writes it."""
    cells = [
        {
            "lang": lang,
            "task": task,
            "n": ROWS["test"],
            "primary": "macro_f1",
            "value": draw.uniform(0.5, 0.9),
            "metrics": {name: draw.uniform(0.5, 0.9) for name in ("macro_f1", "accuracy", "macro_recall")},
            "empty": 0,
            "cut": 0,
            "shortened": 0,
            "signatures": {"macro_f1": "f1|average:macro|version:1"},
        }
        for lang in languages
        for task in TASKS
    ]
    means = {lang: sum(cell["value"] for cell in cells if cell["lang"] == lang) / len(TASKS) for lang in languages}
    return {"model": "candidate", "average": sum(means.values()) / len(means), "languages": means, "cells": cells}


def verdict_of(languages: Sequence[str], draw: random.Random) -> dict[str, Any]:
    """Return a gate's verdict, as large as the gate writes it."""
    parts = [
        {"lang": lang, "task": task, "outcome": "pass", "passed": True, "difference": draw.uniform(-0.01, 0.02)}
        | {name: draw.uniform(0, 1) for name in ("champion", "candidate", "low", "high", "lower_bound", "margin", "n")}
        for lang in languages
        for task in TASKS
    ]
    return {"passed": True, "outcome": "pass", "cells": parts, "confidence": 0.95}


class Maker:
    """Makes the versions of a project, one release after another."""

    def __init__(self, session: Session, registry: Registry, folder: Path) -> None:
        self.session, self.registry, self.folder = session, registry, folder
        self.draw = random.Random(1)
        self.project = registry.project

    def publish(self, name: str, unique: str, **named: Any) -> Any:
        """Publish a folder of its own content."""
        (self.folder / "adapter_model.safetensors").write_text(unique, encoding="utf-8")
        with self.registry.run(f"{name}:{unique}", named.pop("run_name")) as run:
            return run, self.registry.publish(name, self.folder, content_hash=fingerprint(unique), run=run, **named)

    def adapter(self, lang: str, number: int, inputs_key: str, data: str, rows: int) -> Pin:
        """Publish the next adapter of a language; only the last is trained from the rows there are."""
        unique, base = f"{lang}-{number}", self.session.base
        training = fingerprint(["training", unique])
        tags = {
            "lang": lang,
            "adapterctl.training_key": training,
            "adapterctl.inputs_key": inputs_key,
            "adapterctl.base_model": base.name,
            "adapterctl.base_identity": base.identity,
            "adapterctl.data_sha256": data,
            "adapterctl.rows": rows,
        }
        _, version = self.publish(
            adapter_name(self.project, lang), unique, run_name=f"train {lang}", model_type="lora-adapter", tags=tags
        )
        return Pin(
            lang=lang,
            version=version.version,
            content_hash=version.content_hash,
            training_key=training,
            inputs_key=inputs_key,
            data_hash=data,
            rows=rows,
        )

    def release(self, pins: dict[str, Pin], number: int, reason: str) -> Release:
        """Publish the merged adapter of these pins, with its release."""
        base, unique = self.session.base, f"merged-{number}"
        release = Release(
            version=0,
            created="",
            reason=reason,
            base=base.name,
            base_identity=base.identity,
            recipe=options_of(self.session.workspace.config.merge),
            scale=0.3,
            adapters=pins,
            content_hash=fingerprint(unique),
            merge_key=fingerprint(["merge", unique]),
            scores=scores_of(tuple(pins), self.draw),
            verdict=verdict_of(tuple(pins), self.draw) if number else None,
            compared_with=number or None,
            update_id=fingerprint(["update", unique]),
        )
        inputs = [self.versions[lang, pin.version] for lang, pin in sorted(pins.items())]
        run, version = self.publish(
            merged_name(self.project),
            unique,
            run_name=reason,
            model_type="merged-adapter",
            inputs=inputs,
            description="x" * 4000,
            lineage=release_lineage(release),
        )
        known = {"version": version.version, "created": version.created, "run_id": run.run_id}
        release = release.model_copy(update=known)
        releases.publish_release(run, release, {})
        self.registry.set_version_tags(version, release_tags(release, self.project))
        review_tags.record(self.registry, version, review_tags.PROMOTED, reason="nightly")
        return release

    def make(self, count: int) -> None:
        """Make ``count`` releases: a set-up, then one update after another, every language in turn."""
        workspace = self.session.workspace
        languages, data = workspace.languages, load_data(workspace, workspace.languages)
        keys = {lang: training_key(language_job(self.session, lang, data[lang].train)) for lang in languages}
        last = {languages[(number - 1) % len(languages)]: number for number in range(1, count)}
        pins: dict[str, Pin] = {}
        self.versions: dict[tuple[str, int], Any] = {}

        def train(lang: str, number: int) -> None:
            present = last.get(lang, 0) == number
            rows = len(data[lang].train) - (0 if present else min(len(data[lang].train) - 1, count - number))
            digest = rows_hash(data[lang].train) if present else fingerprint([lang, number])
            key = keys[lang] if present else fingerprint(["inputs", lang, number])
            pins[lang] = self.adapter(lang, number, key, digest, rows)
            name = adapter_name(self.project, lang)
            self.versions[lang, pins[lang].version] = self.registry.version(name, pins[lang].version)

        for number in range(count):
            for lang in languages if number == 0 else (languages[(number - 1) % len(languages)],):
                train(lang, number)
            reason = f"update {languages[(number - 1) % len(languages)]}" if number else "setup"
            release = self.release(dict(pins), number, reason)
            if number % 50 == 0:
                print(f"  release {release.version}", flush=True)
        name = merged_name(self.project)
        self.registry.set_alias(name, CHAMPION, count)
        self.registry.set_alias(name, PREVIOUS, count - 1)
        for lang, pin in pins.items():
            self.registry.set_alias(adapter_name(self.project, lang), CHAMPION, pin.version)


def make_store(root: Path, releases_count: int) -> None:
    """Make the store of a workspace, without waiting for the disk."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    def hurry(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA synchronous = OFF")

    event.listen(Engine, "connect", hurry)
    workspace = Workspace.open(root)
    registry = Registry.connect(workspace.config.registry.resolve(root), workspace.config.project)
    folder = root / "folder"
    folder.mkdir()
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 4, "lora_alpha": 12}', encoding="utf-8")
    try:
        with registry.exclusive("benchmark"):
            Maker(reading(workspace, "benchmark"), registry, folder).make(releases_count)
    finally:
        event.remove(Engine, "connect", hurry)
        shutil.rmtree(folder)


def timed(root: Path, words: Sequence[str]) -> tuple[float, float]:
    """Return the wall seconds and the CPU seconds of a command."""
    began, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "adapterctl", "-C", str(root), *words], capture_output=True, text=True, check=False
    )
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(f"{' '.join(words)} ended with {done.returncode}: {done.stderr}")
    return seconds, after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime


def measure(root: Path, repeats: int, releases_count: int) -> dict[str, dict[str, Any]]:
    """Return what every command takes: the first time, when no row was hashed yet, and the median of the others."""
    (root / ".adapterctl/seen.json").unlink(missing_ok=True)
    found = {}
    for command in COMMANDS:
        words = [word.format(lang="ja", releases=releases_count) for word in command]
        first, *others = [timed(root, words) for _ in range(repeats + 1)]
        found[" ".join(words)] = {
            "first_seconds": round(first[0], 3),
            "median_seconds": round(median(wall for wall, _ in others), 3),
            "slowest_seconds": round(max(wall for wall, _ in others), 3),
            "median_cpu_seconds": round(median(cpu for _, cpu in others), 3),
        }
        print(" ".join(words), found[" ".join(words)], flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--releases", type=int, default=500)
    parser.add_argument("--languages", type=int, default=50, choices=range(2, 51), metavar="2..50")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--keep", action="store_true", help="measure the store that is there")
    parser.add_argument("--work", type=Path, default=Path("build/registry-scale"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/registry-scale.json"))
    arguments = parser.parse_args()
    root = arguments.work.absolute()
    if not arguments.keep:
        shutil.rmtree(root, ignore_errors=True)
        make_workspace(root, LANGUAGES[: arguments.languages], ROWS)
        make_store(root, arguments.releases)
    commands = measure(root, arguments.repeats, arguments.releases)
    what = "whole commands on an sqlite store, interpreter start included"
    write_result(
        arguments.out,
        what,
        languages=arguments.languages,
        releases=arguments.releases,
        rows=arguments.languages * len(TASKS) * sum(ROWS.values()),
        store_megabytes=round((root / "registry/mlflow.db").stat().st_size / 1e6, 1),
        load_average=[round(load, 2) for load in os.getloadavg()],
        commands=commands,
    )


if __name__ == "__main__":
    main()
