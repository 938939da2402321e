"""When an update is worth it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from adapterctl.errors import RegistryError
from adapterctl.examples import Example
from adapterctl.training.job import row_hashes, rows_hash
from adapterctl.workflows import triggers
from adapterctl.workflows.triggers import Triggers

NOW = datetime(2026, 11, 27, 3, 0, tzinfo=UTC)
THIRTY = timedelta(days=30)


def rows(*texts: str) -> tuple[Example, ...]:
    return tuple(Example(id=text, lang="ja", task="topic", input=text, reference="x") for text in texts)


def session_with(*, known: Any = (), trained: str = "2026-11-20T03:00:00+00:00") -> Any:
    """Return a session whose champion's adapter was trained on rows of these hashes."""

    def read_json(run: str, path: str) -> Any:
        assert (run, path) == ("run 3", "rows.json")
        if known is None:
            raise RegistryError("there is no such file")
        return known

    version = SimpleNamespace(run_id="run 3", tags={"adapterctl.trained": trained}, created="2020-01-01T00:00:00+00:00")
    registry = SimpleNamespace(version=lambda name, number: version, read_json=read_json)
    return SimpleNamespace(registry=registry, project="shop")


def due(session: Any, present: tuple[Example, ...], change: str, wanted: Triggers, known: Any = "a pin") -> Any:
    pin = SimpleNamespace(version=3, rows=4) if known else None
    part: Any = SimpleNamespace(lang="ja", known=pin, change=change, trains=bool(change))
    return triggers._due(session, part, present, wanted, NOW)


OLD = rows("a", "b", "c", "d")


@pytest.mark.parametrize(
    ("present", "wanted", "is_due", "why"),
    [
        (rows("a", "b", "c", "d", "e"), Triggers(if_changed=True), True, "1 new row"),
        (rows("a", "b", "c", "d", "e", "f"), Triggers(min_new_rows=2), True, "2 new rows"),
        (rows("a", "b", "c", "d", "e"), Triggers(min_new_rows=2), False, "1 new row: fewer than 2"),
        # A row that says something else now is new; a row that was taken out is never too little.
        (rows("a", "b", "c"), Triggers(min_new_rows=9), True, "0 new rows, 1 taken out"),
        (rows("a", "b", "c", "d", "d"), Triggers(min_new_rows=2), False, "1 new row: fewer than 2"),
        (rows("a", "b", "c", "d", "e"), Triggers(min_new_rows=2, max_age=timedelta(days=6)), True,
         "1 new row: fewer than 2, but the adapter is 7 days old"),
        (rows("a", "b", "c", "d", "e"), Triggers(min_new_rows=2, max_age=THIRTY), False, "1 new row: fewer than 2"),
    ],
)  # fmt: skip
def test_new_rows(present: tuple[Example, ...], wanted: Triggers, is_due: bool, why: str) -> None:
    found = due(session_with(known=row_hashes(OLD)), present, "data", wanted)
    assert (found.due, found.why) == (is_due, why)
    assert found.age_days == 7


def test_settings_and_code_do_not_wait_for_rows() -> None:
    for change in ("settings", "code"):
        found = due(session_with(known=row_hashes(OLD)), OLD, change, Triggers(min_new_rows=99))
        assert (found.due, found.why) == (True, f"{change} changed")
    new = due(session_with(), OLD, "new language", Triggers(min_new_rows=99), known=None)
    assert (new.due, new.why, new.age_days) == (True, "not served yet", None)


def test_what_is_old_but_unchanged_is_looked_at_and_not_trained() -> None:
    found = due(session_with(), OLD, "", Triggers(max_age=timedelta(days=6)))
    assert (found.due, found.aged) == (False, True)
    assert found.why == "nothing changed, though it is 7 days old: training again would give the same"
    assert not due(session_with(), OLD, "", Triggers(max_age=THIRTY)).aged


@pytest.mark.parametrize(
    ("trained", "days"),
    [
        ("2030-01-01T00:00:00+00:00", 0),
        ("2026-11-26T03:00:00", 1),
        ("yesterday", None),
        ("", (NOW - datetime(2020, 1, 1, tzinfo=UTC)).days),
    ],
)
def test_the_age_is_never_below_zero_whatever_the_clock_says(trained: str, days: float | None) -> None:
    found = due(session_with(trained=trained), OLD, "", Triggers(if_changed=True))
    assert found.age_days == (days if days is None or days < 100 else pytest.approx(days, abs=1))


@pytest.mark.parametrize("known", [None, {"a": 1}, "text", 7])
def test_where_nobody_noted_the_rows_their_number_counts(known: Any) -> None:
    found = due(
        session_with(known=known), rows("a", "b", "c", "d", "e", "f"), "rows or settings", Triggers(min_new_rows=2)
    )
    assert (found.due, found.new_rows, found.removed_rows) == (True, 2, None)
    small = due(session_with(known=known), rows("a", "b", "c", "d", "e"), "rows or settings", Triggers(min_new_rows=2))
    assert (small.due, small.why) == (False, "1 new row: fewer than 2")


def test_a_language_that_is_held_is_not_due(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triggers, "pinned_versions", lambda session: {"ja": SimpleNamespace(version=2)})
    (found,) = triggers.due_languages(session_with(), ["ja"], {}, None, Triggers())  # type: ignore[arg-type]
    assert (found.due, found.why) == (False, "pinned to version 2")


def test_rows_are_known_again_without_their_text_and_in_any_order() -> None:
    assert row_hashes(OLD) == row_hashes(OLD[::-1])
    assert rows_hash(OLD) == rows_hash(OLD[::-1]) != rows_hash(OLD[1:])
    assert all(len(one) == 32 for one in row_hashes(OLD))
    assert len(set(row_hashes(OLD))) == 4
