"""Real rows as token ids: the base model's chat form, whichever form the rows come in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.integration.real.conftest import make_workspace

from adapterctl import base_model
from adapterctl.examples import parse_row
from adapterctl.prompts import encode, render
from adapterctl.training.rows import token_rows
from adapterctl.workflows.session import reading
from adapterctl.workflows.steps import language_job
from adapterctl.workspace.data import load_data
from adapterctl.workspace.workspace import Workspace

LAST_WORD = {"topic": "Topic:", "sentiment": "Sentiment:"}


@pytest.fixture(scope="module")
def checked(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    root = tmp_path_factory.mktemp("rows") / "workspace"
    make_workspace(root, shared, "--lang", "ja", "--lang", "en", "--rows", "60", "--test-rows", "20")
    return Workspace.open(root)


@pytest.fixture(scope="module")
def tokenizer(checked: Workspace) -> Any:
    return base_model.load_tokenizer(base_model.find(checked.config.base_model, checked.root))


def expected_ids(tokenizer: Any, row: dict[str, str]) -> list[int]:
    """Return what the base model's description says: prompt in chat form, label word and end."""
    text = f"<s><|user|>\n{row['input']}\n{LAST_WORD[row['task']]}<|assistant|>\n{row['reference']}</s>"
    ids: list[int] = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids
    return ids


@pytest.mark.parametrize("lang", ["ja", "en"])
def test_rows_are_encoded_as_the_base_model_was_trained(checked: Workspace, tokenizer: Any, lang: str) -> None:
    rows = load_data(checked, [lang])[lang].train
    job = language_job(reading(checked, "test"), lang, rows)
    encoded = {row.id: row for row in token_rows(job, tokenizer)}
    assert len(encoded) == len(rows) == (2 * 60 if lang == "en" else 2 * 42)
    for row in rows:
        found = encoded[row.id]
        assert list(found.ids) == expected_ids(tokenizer, row.as_dict())
        answer = tokenizer.decode(found.ids[found.prompt_length :])
        assert answer == f"{row.reference}</s>"


def test_each_form_of_row_gives_the_same_tokens(checked: Workspace, tokenizer: Any) -> None:
    rows = load_data(checked, ["ja"])["ja"].train
    tasks = checked.suite.all_tasks
    for row in rows[:10] + rows[-10:]:
        asked, common = f"{row.input}\n{LAST_WORD[row.task]}", {"task": row.task, "lang": "ja", "id": row.id}
        user, answer = {"role": "user", "content": asked}, {"role": "assistant", "content": row.reference}
        forms: list[dict[str, Any]] = [
            {"prompt": asked, "completion": row.reference},
            {"prompt": [user], "completion": [answer]},
            {"messages": [user, answer]},
        ]
        native = encode(tokenizer, render(row, tasks[row.task], chat=True))
        for form in forms:
            example = parse_row({**form, **common}, lang="ja", tasks=tasks, fallback_id="")
            assert encode(tokenizer, render(example, tasks[row.task], chat=True)) == native
            # Without a task it is free text to be learnt: the same tokens, and no labels to choose from.
            free = parse_row(form, lang="ja", tasks=tasks, fallback_id="1")
            unasked = encode(tokenizer, render(free, tasks[free.task], chat=True))
            assert (unasked.prompt, unasked.target, unasked.candidates) == (native.prompt, native.target, ())


def test_no_group_is_in_two_splits(checked: Workspace, shared: Path) -> None:
    """Also not in two languages: a dev row must not be the translation of another language's training row."""
    from tests.integration.real.conftest import RealWorkspace

    files = RealWorkspace(checked.root)
    for task in ("topic", "sentiment"):
        train = {row["group"] for row in files.rows(f"**/{task}*.train.jsonl")}
        dev = {row["group"] for row in files.rows(f"evaluation/data/*/{task}.dev.jsonl")}
        test = {row["group"] for row in files.rows(f"evaluation/data/*/{task}.test.jsonl")}
        assert train
        assert dev
        assert test
        assert not (train & dev) | (train & test) | (dev & test)
