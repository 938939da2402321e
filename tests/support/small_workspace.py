"""Pocket workspaces with so few rows that a set-up takes seconds."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from adapterctl.workflows.init import init_workspace

LANGUAGES = ("de", "en", "ja")
ROWS = {"train": 10, "dev": 4, "test": 6}


def write_rows(path: Path, rows: Iterable[dict[str, object]]) -> None:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")


def read_lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def change(root: Path, file: str, old: str, new: str) -> None:
    """Replace a text, that stands in a file once at least."""
    text = (root / file).read_text(encoding="utf-8")
    assert old in text, f"{file} has no {old!r}"
    (root / file).write_text(text.replace(old, new, 1), encoding="utf-8")


def make_small_workspace(root: Path, languages: Iterable[str] = LANGUAGES) -> Path:
    """Make a pocket workspace and keep the first rows of every file; the same call makes the same files."""
    init_workspace(root, "pocket", languages=list(languages))
    for path in root.glob("**/*.jsonl"):
        split = path.name.split(".")[-2]
        write_rows(path, read_lines(path)[: ROWS.get(split, 3)])
    for path in root.glob("**/summarization.*"):
        write_rows(path, read_lines(path)[:2])
    change(root, "adapterctl.yaml", "    epochs: 4", "    epochs: 2")
    change(
        root, "adapterctl.yaml", "    epochs: 2\n    learning_rate: 5.0e-4", "    epochs: 1\n    learning_rate: 5.0e-4"
    )
    change(root, "evaluation/suite.yaml", "max_new_tokens: 24", "max_new_tokens: 4")
    # A handful of rows shows nothing: only what is plainly worse may fail.
    change(root, "adapterctl.yaml", "  margin: 0.1", "  margin: 0.9\n  resamples: 500\n  min_examples: 1")
    return root


DIALECTS = {"de-AT": "de", "en-GB": "en", "fr-CA": "fr"}
"""Languages that the pocket model does not have, with those whose rows they take: it has five, and eight are wanted."""


def make_eight_languages(root: Path) -> Path:
    """Make a small workspace of eight languages, with rows that wait in ``incoming`` for each of them."""
    make_small_workspace(root, [*dict.fromkeys(DIALECTS.values()), "ja", "zh"])
    # One task and no search for λ: what is tried with eight at once is who comes when, not how good they are.
    for path in [*root.glob("**/reasoning.*.jsonl"), *root.glob("**/summarization.*.jsonl")]:
        path.unlink()
    change(root, "adapterctl.yaml", "lambda: auto", "lambda: 1.0")
    change(root, "adapterctl.yaml", "    epochs: 2", "    epochs: 1")
    suite, project = root / "evaluation/suite.yaml", root / "adapterctl.yaml"
    listed = ", ".join(DIALECTS)
    text = project.read_text(encoding="utf-8").replace("languages: [", f"languages: [{listed}, ")
    project.write_text(text, encoding="utf-8")
    for tag, source in DIALECTS.items():
        text = re.sub(rf"^(      ){source}: (.*)$", rf"\g<0>\n\g<1>{tag}: \g<2>", suite.read_text("utf-8"), flags=re.M)
        suite.write_text(text, encoding="utf-8")
        (root / "adapters" / f"{tag}.yaml").write_text(
            (root / "adapters" / f"{source}.yaml").read_text("utf-8"), "utf-8"
        )
        for path in [p for p in root.glob("**/*.jsonl") if source in p.relative_to(root).parts]:
            parts = [tag if part == source else part for part in path.relative_to(root).parts]
            copy = root.joinpath(*parts)
            copy.parent.mkdir(parents=True, exist_ok=True)
            rows = read_lines(path)
            write_rows(copy, [{**row, "lang": tag, "id": f"{row['id']}-{tag}"} for row in rows])
    return root


def search_in_updates(root: Path) -> None:
    """Let an update have every step that there can be: λ is searched for anew."""
    change(root, "adapterctl.yaml", "  scale: keep", "  scale: search")


def bring_new_rows(root: Path, lang: str = "ja") -> None:
    """Copy the rows that wait in ``incoming`` beside the others."""
    shutil.copytree(root / "incoming" / lang, root, dirs_exist_ok=True)


def tree(root: Path) -> dict[str, bytes]:
    """Return every file that a person or a step made; MLflow's store and the books change with every look."""
    kept = {}
    for path in root.rglob("*"):
        name = path.relative_to(root).as_posix()
        if (
            path.is_file()
            and not name.startswith("registry/")
            and path.name not in ("ledger.jsonl", "lock", "seen.json")
        ):
            kept[name] = path.read_bytes()
    return kept
