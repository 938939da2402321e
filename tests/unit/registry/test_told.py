"""What a run says of its failure: enough to find it, never what a row says."""

from __future__ import annotations

import pytest

from adapterctl.errors import DataError, EndpointError, Problem, RegistryError, UsageError
from adapterctl.registry.runs import told


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


def test_a_known_error_is_told_without_its_problems() -> None:
    error = UsageError("there is no champion yet\nmore", problems=[Problem("a.jsonl:3", "a row")], hint="a hint")
    assert told(raised(error)) == "UsageError: there is no champion yet"


def test_no_secret_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "s3cretCanary")
    assert told(RegistryError("no answer to s3cretCanary at http://me:x@h")) == (
        "RegistryError: no answer to *** at http://***@h"
    )
    assert len(told(UsageError("x" * 9000))) == 1000


@pytest.mark.parametrize(
    "error", [DataError("the row 'private text'"), EndpointError("private text"), KeyError("private text")]
)
def test_what_may_quote_a_row_is_told_by_its_class_alone(error: Exception) -> None:
    said = told(raised(error))
    assert said == f"{type(error).__name__}; the command that failed has told the rest"


def test_the_place_is_one_of_our_own_lines() -> None:
    from adapterctl.evaluation.scorecard import Scorecard

    with pytest.raises(DataError) as caught:
        Scorecard("private", ()).average  # noqa: B018 (raises)
    said = told(caught.value)
    assert said.startswith("DataError in scorecard.py, line ")
    assert "private" not in said
