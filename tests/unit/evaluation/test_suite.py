from __future__ import annotations

import pytest
from pydantic import ValidationError

from adapterctl.evaluation.policy import GateSettings
from adapterctl.evaluation.suite import SuiteSettings

TASK = {"kind": "generation"}
SUITE = {"tasks": {"summary": TASK}, "dev": ["data/{lang}.dev*.jsonl"], "test": ["data/{lang}.test.jsonl"]}


def test_files_of_a_split(tmp_path):
    (tmp_path / "data").mkdir()
    for name in ("ja.dev.jsonl", "ja.dev-new.jsonl", "de.dev.jsonl", "ja.test.jsonl"):
        (tmp_path / "data" / name).write_text("")
    suite = SuiteSettings.model_validate(SUITE)
    files, problems = suite.files("dev", "ja", tmp_path)
    assert [path.name for path in files] == ["ja.dev-new.jsonl", "ja.dev.jsonl"]
    assert problems == ()
    files, problems = suite.files("test", "de", tmp_path)
    assert files == ()
    assert "de.test.jsonl" in problems[0].where
    assert "split test" in problems[0].message


def test_rows_that_bring_their_own_prompt_have_a_task():
    assert set(SuiteSettings.model_validate(SUITE).all_tasks) == {"summary", "instruction"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tasks": {}}, "at least 1"),
        ({"test": []}, "at least 1"),
        ({"tasks": {"a/b": TASK}}, "task name 'a/b'"),
        ({"test": ["data/all.jsonl"]}, "must name the language"),
        ({"test": ["data/{lang}.{split}.jsonl"]}, "nothing else in braces"),
        ({"test": ["/data/{lang}.jsonl"]}, "relative"),
        ({"test": ["data/**{lang}.jsonl"]}, "the two stars must stand alone between slashes"),
        ({"test": SUITE["dev"]}, "dev and test must be different"),
        ({"batch_size": 0}, "greater than or equal to 1"),
        ({"batch_tokens": 0}, "greater than or equal to 1"),
        ({"batchsize": 8}, "Extra inputs"),
        ({"rouge_tokenizer": {"ja": "mecab"}}, "'unicode' or 'sudachi'"),
        ({"bertscore": {"encoder": "xlm-r"}}, "layers"),
        ({"bertscore": {"encoder": "xlm-r", "layers": 0}}, "greater than or equal to 1"),
        ({"external": {"comet": {"command": []}}}, "at least 1"),
        ({"external": {"comet": {"command": ["comet"], "timeout_seconds": 0}}}, "greater than 0"),
        ({"external": {"chrf": {"command": ["x"]}}}, "metric 'chrf' is built in; give the external one another name"),
        ({"external": {"a|b": {"command": ["x"]}}}, r"metric name 'a\|b'"),
        (
            {"tasks": {"summary": {"kind": "translation", "metrics": ["chrf", "comet"]}}},
            "metric 'comet' of task 'summary' is neither built in nor declared under external",
        ),
        (
            {"tasks": {"summary": {"kind": "summarization", "metric": "bertscore"}}},
            "metric 'bertscore' of task 'summary' needs the block bertscore: encoder and layers",
        ),
    ],
)
def test_what_a_suite_may_not_say(change, message):
    with pytest.raises(ValidationError, match=message):
        SuiteSettings.model_validate(SUITE | change)


def test_metrics_of_other_programs_and_encoders_are_declared():
    suite = SuiteSettings.model_validate(
        SUITE
        | {
            "tasks": {"summary": {"kind": "translation", "metrics": ["chrf", "comet", "bertscore"]}},
            "external": {"comet": {"command": ["comet-score", "--quiet"], "signature": "wmt22"}},
            "bertscore": {"encoder": "../xlm-r", "layers": 17},
            "rouge_tokenizer": {"ja": "sudachi"},
        }
    )
    assert suite.external["comet"].command == ["comet-score", "--quiet"]
    assert suite.external["comet"].timeout_seconds == 3600
    assert (suite.bertscore.encoder, suite.bertscore.layers) == ("../xlm-r", 17)


def test_without_a_word_batches_have_a_budget_and_overlap_is_refused():
    suite = SuiteSettings.model_validate(SUITE)
    assert (suite.batch_size, suite.batch_tokens, suite.allow_overlap) == (64, 16384, False)


def test_margins():
    settings = GateSettings(margin=0.03, margins={"summary": 0.1})
    assert (settings.margin_for("summary"), settings.margin_for("sentiment")) == (0.1, 0.03)
    assert GateSettings().margin == 0.02


@pytest.mark.parametrize(
    "change", [{"margin": 0}, {"margin": 2}, {"margins": {"a": 0}}, {"confidence": 1}, {"confidence": 0.5}]
)
def test_what_a_gate_may_not_say(change):
    with pytest.raises(ValidationError):
        GateSettings.model_validate(change)
