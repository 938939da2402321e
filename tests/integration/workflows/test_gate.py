"""What a candidate that is worse, or has to wait, leaves untouched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.program import Programs
from tests.support.small_workspace import change, read_lines, write_rows
from tests.support.store import registry_of

Copy = Callable[[Path], Path]
UPDATE = ("update", "--lang", "en", "--json")


@pytest.fixture
def worse(served: Path, copy: Copy) -> Path:
    """A workspace whose English rows teach one wrong answer, under a gate that tolerates nothing."""
    root = copy(served)
    for path in root.glob("adapters/data/en/*.jsonl"):
        if "reasoning" not in path.name:
            path.unlink()
            continue
        write_rows(path, [{**row, "task": "sentiment", "reference": "neutral", "input": row["question"]}
                          for row in read_lines(path)])  # fmt: skip
    change(root, "adapterctl.yaml", "    learning_rate: 5.0e-4", "    learning_rate: 5.0e-2")
    change(root, "adapterctl.yaml", "  lambda: auto", "  lambda: 3.0")
    change(root, "adapterctl.yaml", "  margin: 0.9", "  margin: 0.0001")
    return root


def test_a_candidate_that_is_worse_leaves_the_champion_alone(worse: Path, program: Programs) -> None:
    done = program(worse, *UPDATE)
    assert done.exit_code == 3, done.err
    candidate = done.json["candidate"]
    assert (candidate["version"], candidate["passed"], candidate["promoted"]) == (2, False, False)
    assert not candidate["verdict"]["passed"]
    aliases = {"candidate": 2, "champion": 1}
    assert registry_of(worse).aliases("pocket-merged") == aliases
    said = program(worse, "update", "--lang", "en")
    assert (said.exit_code, registry_of(worse).aliases("pocket-merged")) == (3, aliases)
    assert "the champion is untouched" in said.out
    refused = program(worse, "promote")
    assert (refused.exit_code, refused.out) == (3, "")
    assert 'adapterctl promote --version 2 --override-gate --reason "..."' in refused.err
    by_number = program(worse, "promote", "--version", "2", "--json")
    assert (by_number.exit_code, by_number.json["error"]["type"]) == (3, "GateFailed")
    assert registry_of(worse).aliases("pocket-merged") == aliases
    assert "gate FAILED" in program(worse, "status").out
    assert [past["gate"] for past in program(worse, "history", "--json").json["releases"]] == ["failed", "first"]
    assert len(registry_of(worse).versions("pocket-merged")) == 2
    assert "--override-gate needs --reason" in program(worse, "promote", "--override-gate").err
    forced = program(worse, "promote", "--override-gate", "--reason", "the rows are wrong", "--json")
    assert forced.json["champion"]["version"] == 2
    assert registry_of(worse).aliases("pocket-merged") == {"champion": 2, "previous": 1}


@pytest.fixture
def undecided(measured: Path, copy: Copy) -> Path:
    """A workspace with new Japanese rows whose gate wants more test rows than there are."""
    root = copy(measured)
    change(root, "adapterctl.yaml", "  min_examples: 1\n", "  min_examples: 50\n")
    return root


def test_too_few_rows_to_decide_fail_by_default(undecided: Path, program: Programs) -> None:
    done = program(undecided, "update", "--lang", "ja")
    assert done.exit_code == 3, done.err
    assert "rows are too few to decide" in done.out
    assert "the champion is untouched" in done.out
    refused = program(undecided, "promote", "--json")
    assert (refused.exit_code, refused.json["error"]["type"]) == (3, "GateFailed")
    assert "too few rows to decide" in refused.json["error"]["message"]
    assert [past["gate"] for past in program(undecided, "history", "--json").json["releases"]] == [
        "inconclusive", "first",
    ]  # fmt: skip
    assert program(undecided, "promote", "--override-gate", "--reason", "enough").exit_code == 0


def test_too_few_rows_to_decide_wait_for_a_person_where_the_policy_says_so(undecided: Path, program: Programs) -> None:
    change(undecided, "adapterctl.yaml", "  min_examples: 50\n", "  min_examples: 50\n  inconclusive: review\n")
    done = program(undecided, "update", "--lang", "ja", "--json")
    assert done.exit_code == 0, done.err
    candidate = done.json["candidate"]
    told = (candidate["passed"], candidate["promoted"], candidate["outcome"], candidate["waits"])
    assert told == (False, False, "inconclusive", True)
    aliases = {"candidate": 2, "champion": 1}
    assert registry_of(undecided).aliases("pocket-merged") == aliases
    said = program(undecided, "update", "--lang", "ja")
    assert said.exit_code == 0
    assert "version 2 waits for a person, the champion is untouched" in said.out
    status = program(undecided, "status").out
    assert "gate inconclusive" in status
    assert "the candidate waits for a person" in status
    assert program(undecided, "promote", "--json").json["champion"]["version"] == 2
    assert registry_of(undecided).aliases("pocket-merged") == {"champion": 2, "previous": 1}


def test_a_required_gain_that_is_not_shown_keeps_the_champion(measured: Path, copy: Copy, program: Programs) -> None:
    root = copy(measured)
    change(root, "adapterctl.yaml", "  min_examples: 1\n", "  min_examples: 1\n  required_gain: 0.99\n")
    done = program(root, "update", "--lang", "ja", "--json")
    assert done.exit_code == 3, done.err
    verdict = done.json["candidate"]["verdict"]
    assert {cell["outcome"] for cell in verdict["cells"]} == {"pass"}
    assert (verdict["gain"]["lang"], verdict["gain"]["outcome"]) == ("ja", "fail")
    assert "a gain of more than 0.990 was required and is not shown" in program(root, "update", "--lang", "ja").out
    assert registry_of(root).aliases("pocket-merged") == {"candidate": 2, "champion": 1}


def test_with_review_a_candidate_waits(measured: Path, copy: Copy, program: Programs) -> None:
    root = copy(measured)
    change(root, "adapterctl.yaml", "promotion: auto", "promotion: review")
    done = program(root, "update", "--lang", "ja")
    assert done.exit_code == 0, done.err
    assert "Version 2 passed the gate and waits: adapterctl promote" in done.out
    aliases = {"candidate": 2, "champion": 1}
    assert registry_of(root).aliases("pocket-merged") == aliases
    again = program(root, "update", "--lang", "ja", "--json")
    assert (again.exit_code, again.json["candidate"]["version"]) == (0, 2)
    assert registry_of(root).aliases("pocket-merged") == aliases
    assert program(root, "evaluate", "candidate", "--lang", "ja").exit_code == 0
    assert program(root, "promote", "--json").json["champion"]["version"] == 2
    assert registry_of(root).aliases("pocket-merged") == {"champion": 2, "previous": 1}
    assert program(root, "update", "--lang", "ja", "--if-changed", "--json").json["changed"] is False
