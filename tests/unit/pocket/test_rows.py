from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from tests.unit.pocket.reading import (
    LANGUAGES,
    PARTS,
    contains,
    entries,
    read_question,
    read_review,
    read_summary,
    world,
)

import adapterctl
from adapterctl.examples import overlap, parse_row
from adapterctl.pocket import rows as rows_module
from adapterctl.pocket.rows import ROWS_PER_TASK, TASKS, task_rows
from adapterctl.tasks import TaskSettings
from adapterctl.workflows.init import init_workspace

SPLITS = tuple(ROWS_PER_TASK)
HELD = ("train", "dev", "test")
languages = pytest.mark.parametrize("lang", LANGUAGES)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, TaskSettings]:
    """The tasks of a pocket workspace, as they stand in its suite."""
    root = tmp_path_factory.mktemp("pocket") / "workspace"
    init_workspace(root, "pocket", languages=list(LANGUAGES))
    suite = YAML(typ="safe", pure=True).load((root / "evaluation" / "suite.yaml").read_text(encoding="utf-8"))
    return {name: TaskSettings.model_validate(task) for name, task in suite["tasks"].items()}


def parsed(lang: str, split: str, tasks: Mapping[str, TaskSettings], seed: int = 0) -> list[Any]:
    rows = [row for task in TASKS for row in task_rows(lang, task, split, seed=seed)]
    return [parse_row(json.loads(json.dumps(row)), lang=lang, tasks=tasks, fallback_id="none") for row in rows]


@languages
def test_rows_of_every_split_can_be_read_and_no_two_splits_ask_the_same(
    lang: str, tasks: Mapping[str, TaskSettings]
) -> None:
    examples = {split: parsed(lang, split, tasks) for split in SPLITS}
    ids = [(e.task, e.id) for rows in examples.values() for e in rows]
    assert len(set(ids)) == len(ids)
    for position, split in enumerate(SPLITS):
        assert len({example.asked for example in examples[split]}) == len(examples[split])
        for other in SPLITS[:position]:
            assert overlap(examples[other], examples[split], split, other=other) == []


@languages
@pytest.mark.parametrize("table", ["roles", "deeds", "cities", "judgements", "things"])
def test_no_entry_of_a_table_stands_in_two_splits(lang: str, table: str) -> None:
    if table == "judgements":
        lists = [*world()["judgements"].values(), *world()["arrived_judgements"].values()]
        words = [word for by_language in lists for word in by_language.get(lang, [])]
    elif table == "things":
        words = [thing[LANGUAGES.index(lang)] for name in ("things", "arrived_things") for thing in world()[name]]
    else:
        words = world()[table][lang] + (world()["arrived_deeds"][lang] if table == "deeds" else [])
    assert [word for word, count in Counter(words).items() if count > 1] == []


@languages
@pytest.mark.parametrize("seed", [0, 3])
def test_reviews_of_a_split_use_its_words_and_templates(lang: str, seed: int) -> None:
    templates = {"train": range(4), "dev": range(4, 6), "test": range(6, 8)}
    for split in HELD:
        words = {label: set(entries(by_language[lang], split)) for label, by_language in world()["judgements"].items()}
        for row in task_rows(lang, "sentiment", split, seed=seed):
            template, word = read_review(lang, row["input"])
            (label,) = [label for label in words if word in words[label]]
            assert template in templates[split]
            assert row["reference"] == world()["labels"][lang][label]


@languages
@pytest.mark.parametrize("split", HELD)
def test_questions_of_a_split_are_about_its_things_and_rightly_answered(lang: str, split: str) -> None:
    column = LANGUAGES.index(lang)
    things = {thing[column]: thing for thing in entries(world()["things"], split)}
    for row in task_rows(lang, "reasoning", split):
        kind, name = read_question(lang, row["question"])
        right = things[name][5 if kind == "group" else 6]
        assert row["choices"][row["answer_index"]] == world()[f"{kind}s"][right][column]
        assert row["reference"] == "ABC"[row["answer_index"]]
        assert len(set(row["choices"])) == 3


@languages
@pytest.mark.parametrize("split", HELD)
def test_summaries_of_a_split_tell_its_roles_deeds_and_cities(lang: str, split: str) -> None:
    cities = entries(world()["cities"][lang], split)
    invented = 0
    rows = task_rows(lang, "summarization", split)
    for row in rows:
        told = read_summary(lang, row["reference"])
        assert told["who"] in entries(world()["roles"][lang], split)
        assert told["deed"] in entries(world()["deeds"][lang], split)
        assert all(told[slot].lower() in row["input"].lower() for slot in ("who", "deed", "city"))
        invented += told["city"] not in cities
    # Six of ten training rows name a town that does not exist; the held-out ones never do.
    assert 0.4 < invented / len(rows) < 0.8 if split == "train" else invented == 0


@languages
def test_what_arrives_later_stands_in_no_other_split(lang: str) -> None:
    column = LANGUAGES.index(lang)
    words = [word for by_language in world()["arrived_judgements"].values() for word in by_language.get(lang, [])]
    names = [thing[column] for thing in world()["arrived_things"]]
    deeds = world()["arrived_deeds"][lang]
    for split in ("arrived", "arrived-dev", "arrived-test"):
        for row in task_rows(lang, "sentiment", split):
            assert read_review(lang, row["input"])[1] in words
        for row in task_rows(lang, "reasoning", split):
            assert read_question(lang, row["question"])[1] in names
        for row in task_rows(lang, "summarization", split):
            assert read_summary(lang, row["reference"])["deed"] in deeds
    for split in HELD:
        for task in TASKS:
            for row in task_rows(lang, task, split):
                text = " ".join([row.get("input", ""), row.get("question", ""), row["reference"]])
                assert not [word for word in (*words, *names, *deeds) if contains(lang, text, word)], row


@languages
@pytest.mark.parametrize("split", SPLITS)
def test_classes_and_answers_are_balanced(lang: str, split: str) -> None:
    rows = task_rows(lang, "sentiment", split)
    counts = Counter(row["reference"] for row in rows)
    labels = 2 if split.startswith("arrived") else 3
    assert len(counts) == labels
    assert max(counts.values()) - min(counts.values()) <= 1
    rows = task_rows(lang, "reasoning", split)
    kinds = Counter(read_question(lang, row["question"])[0] for row in rows)
    assert abs(kinds["group"] - kinds["place"]) <= 1
    # Four standard deviations of a fair die with three sides.
    for letter in "ABC":
        found = sum(row["reference"] == letter for row in rows)
        assert abs(found - len(rows) / 3) <= 4 * (len(rows) * 2 / 9) ** 0.5


def test_every_split_has_the_rows_it_promises() -> None:
    for task in TASKS:
        assert len(task_rows("ja", task, "train")) == ROWS_PER_TASK["train"]
        assert len(task_rows("ja", task, "train", count=7)) == 7
    assert task_rows("ja", "sentiment", "dev", count=0) == []


def test_a_world_that_is_used_up_gives_what_it_has_and_nothing_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_module, "_MOST_TRIES", 2)
    rows = task_rows("en", "sentiment", "arrived", count=5000)
    assert 100 < len(rows) < 5000
    assert len({row["input"] for row in rows}) == len(rows)


def test_the_same_arguments_give_the_same_rows_in_any_process_and_order() -> None:
    for task in reversed(TASKS):
        assert task_rows("de", task, "dev") == task_rows("de", task, "dev")
        assert task_rows("de", task, "dev", count=5) == task_rows("de", task, "dev")[:5]
        other = task_rows("de", task, "dev", seed=1)
        assert other != task_rows("de", task, "dev")
        assert [row["id"] for row in other] == [row["id"] for row in task_rows("de", task, "dev")]
    code = "import json; from adapterctl.pocket.rows import *; print(json.dumps(task_rows('de', 'reasoning', 'dev')))"
    source = Path(adapterctl.__file__).parents[1]
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=source)
    assert json.loads(told.stdout) == task_rows("de", "reasoning", "dev")


def test_the_tables_have_the_same_shape_in_every_language() -> None:
    assert all(len(thing) == 7 for name in ("things", "arrived_things") for thing in world()[name])
    for table in ("roles", "deeds", "cities", "arrived_deeds", "reviews", "news", "fillers", "times"):
        assert len({len(world()[table][lang]) for lang in LANGUAGES}) == 1, table
    for label in world()["judgements"].values():
        assert len({len(label[lang]) for lang in LANGUAGES}) == 1
    assert all(len(world()["reviews"][lang]) == 8 for lang in LANGUAGES)
    assert sorted(position for part in PARTS.values() for position in part) == [0, 1, 2, 3]
