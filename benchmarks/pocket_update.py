"""The pocket update: new Japanese rows, one update, and the retrain-all it is measured against, over seeds.

    python benchmarks/pocket_update.py --seeds 3 --out benchmarks/results/pocket-update.json

Every seed is a workspace of its own with other training rows. The commands are the command line's, each a process of
its own, so that interpreter start and imports count. Run it on a machine that does nothing else: the result is a ratio
of times measured in one run.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from record import write_result

from adapterctl.pocket import rows, world
from adapterctl.workflows.init import init_workspace
from adapterctl.workspace.presets import rows_text


def make(folder: Path, seed: int) -> None:
    """Make a pocket workspace with the training rows of a seed."""
    shutil.rmtree(folder, ignore_errors=True)
    init_workspace(folder, "pocket")
    for lang in world.LANGUAGES:
        for task in rows.TASKS:
            text = rows_text(rows.task_rows(lang, task, "train", seed=seed))
            (folder / f"adapters/data/{lang}/{task}.train.jsonl").write_text(text, encoding="utf-8")


def command(folder: Path, *words: str) -> dict[str, Any]:
    """Run a command and return what it prints as JSON; a failed gate is a result too."""
    done = subprocess.run(
        [sys.executable, "-m", "adapterctl", "--quiet", "-C", str(folder), *words, "--json"],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode not in (0, 3):
        sys.exit(f"{' '.join(words)} ended with {done.returncode}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def one_seed(folder: Path, seed: int) -> dict[str, Any]:
    make(folder, seed)
    command(folder, "setup")
    command(folder, "baseline")
    shutil.copytree(folder / "incoming/ja", folder, dirs_exist_ok=True)
    made = command(folder, "update", "--lang", "ja")["candidate"]
    costs = command(folder, "cost", "report")["comparison"]
    failed = [f"{cell['lang']}.{cell['task']}" for cell in made["verdict"]["cells"] if not cell["passed"]]
    result = {
        "passed": made["passed"],
        "failed": failed,
        "languages": {one["lang"]: one["difference"] for one in made["verdict"]["languages"]},
        "new_rows": {one["task"]: [one["champion"], one["candidate"]] for one in made["new_rows"]},
        "update_seconds": costs["update"]["seconds"]["value"],
        "retrain_seconds": costs["retrain"]["seconds"]["value"],
        "time_ratio": costs["time_ratio"]["value"],
        "money_ratio": costs["money_ratio"]["value"],
        "measured": costs["measured"],
    }
    print(seed, json.dumps(result), flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path("build/pocket-update"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/pocket-update.json"))
    arguments = parser.parse_args()
    seeds = [one_seed(arguments.work / f"seed{seed}", seed) for seed in range(arguments.seeds)]
    what = "adapterctl update --lang ja against adapterctl baseline, whole processes, same machine and run"
    write_result(arguments.out, what, seeds=seeds)


if __name__ == "__main__":
    main()
