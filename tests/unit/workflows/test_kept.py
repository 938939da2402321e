"""Scores that are kept: what they are found by, and what becomes of a damaged file."""

from __future__ import annotations

import json

import pytest

from adapterctl.evaluation.scorecard import ExampleScore
from adapterctl.examples import Example
from adapterctl.tasks import TaskSettings
from adapterctl.workflows.kept import KeptScores, row_key, scores_key

TASK = TaskSettings(kind="summarization", prompt="{input}\n")
ROW = Example("1", "ja", "recap", "短い", input="長い")
SCORE = ExampleScore(
    "1", "ja", "recap", "短", "短い", 0.5, row="abc", group="g", details={"rouge_l": 0.5, "ended": True}
)


def key(model: str = "m", lang: str = "ja", name: str = "recap", task: TaskSettings = TASK, **other: object) -> str:
    options = {"chat": False, "engine": "transformers"} | other
    return scores_key(model, lang, name, task, **options)


def test_whatever_changes_an_answer_changes_the_key() -> None:
    others = [
        key(model="n"),
        key(lang="zh"),
        key(name="headline"),
        key(chat=True),
        key(engine="openai"),
        key(task=TASK.model_copy(update={"prompt": "{input}!"})),
        key(task=TASK.model_copy(update={"separator": "\n"})),
        key(task=TASK.model_copy(update={"max_new_tokens": 3})),
        key(task=TaskSettings(kind="translation", prompt="{input}\n")),
    ]
    assert len({key(), *others}) == 1 + len(others)


def test_how_answers_are_judged_does_not_change_the_key() -> None:
    assert key(task=TASK.model_copy(update={"metric": "chrf", "metrics": ["chrf", "bleu"]})) == key()


def test_rows_are_known_by_what_they_say() -> None:
    same = Example("1", "ja", "recap", "短い", input="長い")
    others = [
        Example("2", "ja", "recap", "短い", input="長い"),
        Example("1", "ja", "recap", "短", input="長い"),
        Example("1", "ja", "recap", "短い", input="長い。"),
        Example("1", "ja", "recap", "短い", input="長い", group="g"),
        Example("1", "ja", "recap", "短い", input="長い", direction="en-ja"),
    ]
    assert row_key(same) == row_key(ROW)
    assert len({row_key(row) for row in [ROW, *others]}) == 6


def test_scores_come_back_as_they_were(tmp_path) -> None:
    kept = KeptScores(tmp_path / "scores" / "k.json")
    kept.add(["r1"], [SCORE], {"rouge_l": "some signature"}, "rouge_l")
    kept.write()
    again = KeptScores.read(kept.path, "ja", "recap")
    assert again == kept
    rows = {"r1": ROW, "r2": ROW}
    assert again.scores == {"r1": SCORE}
    assert again.missing(rows) == ["r2"]


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b'{"scores": {}}',
     b'{"signatures": {}, "primary": "", "sets": {}, "scores": {"r": {"id": "1"}}}',
     b'{"signatures": {}, "primary": "", "sets": {}, "scores": {"r": {"id": "1", "made_up": 2}}}',
     b'{"signatures": 3, "primary": "chrf", "sets": {}, "scores": {}}', b"\xff\xfe"],
)  # fmt: skip
def test_a_damaged_file_holds_nothing(tmp_path, content: bytes) -> None:
    path = tmp_path / "k.json"
    path.write_bytes(content)
    assert KeptScores.read(path, "ja", "recap").scores == {}


def test_a_file_cut_anywhere_holds_nothing_or_everything(tmp_path) -> None:
    kept = KeptScores(tmp_path / "k.json")
    kept.add(["r1"], [SCORE], {"rouge_l": "s"}, "rouge_l")
    kept.write()
    whole = kept.path.read_bytes()
    assert json.loads(whole)["scores"]["r1"]["prediction"] == "短"
    for end in range(0, len(whole.rstrip()), 7):
        kept.path.write_bytes(whole[:end])
        assert KeptScores.read(kept.path, "ja", "recap").scores == {}


def test_another_first_metric_of_the_same_ones_judges_differently(tmp_path) -> None:
    kept, signatures = KeptScores(tmp_path / "k.json"), {"rouge_l": "s", "chrf": "t"}
    kept.add(["r1"], [SCORE], signatures, "rouge_l")
    kept.write()
    again = KeptScores.read(kept.path, "ja", "recap")
    assert again.judged_by({"chrf": "t", "rouge_l": "s"}, "rouge_l")
    assert not again.judged_by(signatures, "chrf")
    assert not again.judged_by({**signatures, "chrf": "u"}, "rouge_l")
