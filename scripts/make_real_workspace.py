#!/usr/bin/env python3
"""Make a workspace over a base model and rows of real text: `scripts/make_real_workspace.py DIR`.

Needs nothing but Python. The rows are topic and sentiment rows, ``<task>/<lang>.{train,dev}.jsonl``; see
docs/real-data.md. What the data folder calls dev becomes the test split, whole. The dev split, on which λ is chosen,
and the rows that arrive later, in ``incoming/``, are dealt out of its training rows by the hash of a row's ``group``:
rows of one group stay together, in every language alike, so that no split holds a translation of another split's row.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

LANGUAGES = ("en", "de", "fr", "ja", "zh")
MOST_ROWS = {"topic": 600, "sentiment": 500}
DEV_SHARE, ARRIVING_SHARE = 0.1, 0.3
MOST_DEV_ROWS = 60

PROJECT = """\
# A small base model that was pre-trained on real text, and real rows. See docs/real-data.md.
version: 1
project: real
base_model:
  path: {base}
  prompt_format: chat
languages: [{languages}]

defaults:
  data:
    - data/{{lang}}/*.train.jsonl
  lora:
    r: 8
    alpha: 16
    dropout: 0.0
    target_modules: all-linear
  training:
    epochs: {epochs}
    learning_rate: 2.5e-3
    warmup_steps: 10
    batch_size: 8
    mixed_precision: none
    max_length: 512

merge:
  method: core-tsv
  lambda: auto

# The test split has 99 topic rows and 140 to 160 sentiment rows a language: smaller losses cannot be told from chance.
gate:
  margin: 0.15

promotion: auto
prices:
  currency: USD
  cpu_core_hour: 0.04
"""

SUITE = """\
tasks:
  topic:
    kind: classification
    prompt: "{input}\\nTopic:"
    labels: [entertainment, geography, health, politics, science/technology, sports, travel]
  sentiment:
    kind: classification
    prompt: "{input}\\nSentiment:"
    labels: [negative, positive]
dev:
  - data/{lang}/*.dev.jsonl
test:
  - data/{lang}/*.test.jsonl
"""

Row = dict[str, Any]


def read(path: Path) -> list[Row]:
    """Return the rows of a JSONL file."""
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines if line.strip()]


def write(path: Path, rows: Iterable[Row]) -> None:
    """Write rows as a JSONL file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def place(text: str) -> float:
    """Return a number from 0 to 1 that depends on nothing but ``text``."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def deal(rows: Sequence[Row], most: int) -> dict[str, list[Row]]:
    """Deal training rows out into ``dev``, ``arriving`` and ``train``; the last two have ``most`` rows together."""
    ordered = sorted(rows, key=lambda row: place(f"row {row['id']}"))
    dealt: dict[str, list[Row]] = {"dev": [], "arriving": [], "train": []}
    for row in ordered:
        where = place(f"group {row['group']}")
        share = "dev" if where < DEV_SHARE else "arriving" if where < DEV_SHARE + ARRIVING_SHARE else "train"
        dealt[share].append(row)
    arriving = dealt["arriving"][: round(most * ARRIVING_SHARE)]
    return {
        "dev": dealt["dev"][: min(MOST_DEV_ROWS, most // 8)],
        "arriving": arriving,
        "train": dealt["train"][: most - len(arriving)],
    }


def make_workspace(
    directory: Path,
    shared: Path,
    *,
    base: Path | None = None,
    languages: Sequence[str] = LANGUAGES,
    arriving: Sequence[str] = ("ja",),
    tasks: Sequence[str] = tuple(MOST_ROWS),
    rows: int | None = None,
    test_rows: int | None = None,
    epochs: int = 8,
) -> None:
    """Write the workspace's files.

    Args:
        directory: Where to; must not be a workspace yet.
        shared: The folder with ``data`` and ``base-real``.
        base: The base model's folder, where it is another than ``base-real``.
        languages: Tags.
        arriving: The languages of which three training rows in ten arrive later.
        tasks: ``topic``, ``sentiment`` or both.
        rows: The most training rows a language and task, those that arrive later included.
        test_rows: The most test rows a language and task.
        epochs: How often every row is used.
    """
    if (directory / "adapterctl.yaml").exists():
        raise SystemExit(f"{directory} is a workspace already; remove it or choose another folder")
    folder = (base or shared / "base-real").resolve()
    for lang in languages:
        for task in tasks:
            given = read(shared / "data" / task / f"{lang}.train.jsonl")
            dealt = deal(given, min(MOST_ROWS[task], rows or len(given)))
            test = read(shared / "data" / task / f"{lang}.dev.jsonl")
            test.sort(key=lambda row: place(f"row {row['id']}"))
            training, evaluation = directory / "adapters" / "data" / lang, directory / "evaluation" / "data" / lang
            later = lang in arriving
            write(training / f"{task}.train.jsonl", dealt["train"] + ([] if later else dealt["arriving"]))
            write(evaluation / f"{task}.dev.jsonl", dealt["dev"])
            write(evaluation / f"{task}.test.jsonl", test[:test_rows])
            if later:
                arrived = directory / "incoming" / lang / "adapters" / "data" / lang
                write(arrived / f"{task}.arrived.train.jsonl", dealt["arriving"])
        (directory / "adapters" / f"{lang}.yaml").write_text("# All settings are the defaults of adapterctl.yaml.\n")
    (directory / "evaluation" / "suite.yaml").write_text(SUITE, encoding="utf-8")
    project = PROJECT.format(base=json.dumps(str(folder)), languages=", ".join(languages), epochs=epochs)
    # Last: a folder is a workspace when this file is there.
    (directory / "adapterctl.yaml").write_text(project, encoding="utf-8")


def main() -> int:
    """Read the command line and write the workspace."""
    beside = Path(__file__).resolve().parents[2] / "shared"
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("directory", type=Path, help="where the workspace is made")
    parser.add_argument(
        "--shared",
        type=Path,
        default=Path(os.environ.get("ADAPTERCTL_SHARED") or beside),
        help="folder with data/ and base-real/ (default: $ADAPTERCTL_SHARED, or ../shared beside the checkout)",
    )
    parser.add_argument("--base", type=Path, help="the base model's folder (default: base-real in that folder)")
    parser.add_argument("--lang", action="append", choices=LANGUAGES, help="a language; once for each (default: all)")
    parser.add_argument(
        "--arriving", action="append", choices=LANGUAGES, help="a language with rows that arrive later (default: ja)"
    )
    parser.add_argument("--task", action="append", choices=list(MOST_ROWS), help="a task; once for each (default: all)")
    parser.add_argument("--rows", type=int, help="most training rows a language and task (default: topic 600, 500)")
    parser.add_argument("--test-rows", type=int, help="most test rows a language and task (default: all)")
    parser.add_argument("--epochs", type=int, default=8, help="how often every row is used (default: 8)")
    options = parser.parse_args()
    for needed in (options.shared / "data", options.base or options.shared / "base-real"):
        if not needed.is_dir():
            print(f"there is no folder {needed}; name the folder with data/ and base-real/: --shared", file=sys.stderr)
            return 2
    make_workspace(
        options.directory.absolute(),
        options.shared,
        base=options.base,
        languages=options.lang or LANGUAGES,
        arriving=options.arriving or ("ja",),
        tasks=options.task or tuple(MOST_ROWS),
        rows=options.rows,
        test_rows=options.test_rows,
        epochs=options.epochs,
    )
    print(f"Made {options.directory}. Next: adapterctl -C {options.directory} doctor, then setup.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
