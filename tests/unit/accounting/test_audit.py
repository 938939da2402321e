"""The published table of arXiv 2601.16127, and tables made to measure."""

import re
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from adapterctl.accounting.audit import Printed, Row, audit, explanations, faults, rates


def printed(text, unit=None):
    decimals = len(text.partition(".")[2])
    return Printed(float(text), unit or 10.0**-decimals)


def row(name, hours, money, kind="busy", against="", time=None, paid=None, unit=None):
    return Row(
        name, printed(hours, unit), printed(money), kind, against,
        printed(time) if time else None, printed(paid) if paid else None,
    )  # fmt: skip


PAPER = (
    row("initial combined", "3.4", "113.4"),
    row("initial merged", "2.2", "107.1", "wall", "initial combined", "35.3", "5.6"),
    row("update combined", "3.8", "119.7"),
    row("update merged", "1.0", "31.5", "busy", "update combined", "73.7", "73.7"),
    row("case initial combined", "45", "1416"),
    row("case initial merged", "22.5", "1400", "wall", "case initial combined", "50", "1.1", unit=0.5),
    row("case update combined", "54.5", "1717", unit=0.5),
    row("case update merged", "20.5", "645", "busy", "case update combined", "62.4", "62.4", unit=0.5),
)
FOUND = audit(PAPER)
BY_NAME = {one.row.name: one for one in FOUND.rows}


def test_the_papers_rows_have_a_rate_in_common():
    assert (round(FOUND.rate.low, 2), round(FOUND.rate.high, 2)) == (31.35, 31.66)
    assert FOUND.rate.holds(31.5)
    assert 31.35 < FOUND.used < 31.66


def test_one_cell_of_the_paper_cannot_be_right():
    wrong = [one.row.name for one in FOUND.rows if not one.consistent]
    assert wrong == ["initial combined"]
    found = BY_NAME["initial combined"]
    # 113.4 / 31.5 = 3.6 h; 3.4 h · 31.5 = 107.1
    assert found.busy_hours.holds(3.6)
    assert not found.busy_hours.holds(3.4)
    assert found.due_money.holds(107.1)
    assert "either the hours are 3.6 or the money is 107.1" in found.reason
    assert not FOUND.consistent


def test_merged_money_pays_for_the_sum_of_hours_and_not_for_the_wall():
    assert BY_NAME["initial merged"].busy_hours.holds(3.4)
    assert BY_NAME["case initial merged"].busy_hours.holds(1400 / 31.5)
    assert BY_NAME["initial merged"].consistent


def test_the_savings_that_follow_and_the_one_that_does_not():
    due = {(one.row, one.quantity): round(one.due, 1) for one in FOUND.savings}
    assert due == {
        ("initial merged", "time"): 38.9, ("initial merged", "money"): 5.6,
        ("update merged", "time"): 73.7, ("update merged", "money"): 73.7,
        ("case initial merged", "time"): 50.0, ("case initial merged", "money"): 1.1,
        ("case update merged", "time"): 62.4, ("case update merged", "money"): 62.4,
    }  # fmt: skip
    wrong = [one for one in FOUND.savings if not one.consistent]
    assert [(one.row, one.quantity, one.printed) for one in wrong] == [("initial merged", "time", 35.3)]
    assert wrong[0].reason == "35.3 % is printed, 38.9 % follows; 35.3 % follows from the 3.4 h, which are wrong"


def test_the_same_cell_is_found_where_every_last_digit_is_believed():
    plain = audit([replace(one, hours=printed(f"{one.hours.value:g}")) for one in PAPER])
    assert [one.row.name for one in plain.rows if not one.consistent] == ["initial combined"]
    assert plain.rate.holds(31.5)


def test_with_the_right_hours_everything_agrees_with_the_corrected_saving():
    mended = [row("initial combined", "3.6", "113.4"), replace(PAPER[1], time_saved=printed("38.9")), *PAPER[2:]]
    found = audit(mended, rate=31.5, workers=2)
    assert found.consistent
    assert found.used == 31.5


def test_a_rate_that_the_rows_do_not_allow_is_told():
    found = audit(PAPER[2:4], rate=40)
    assert "given rate of 40 is not among the rates" in found.notes[0]
    assert not found.consistent


def test_wall_hours_bound_what_money_can_pay_for():
    too_few = [row("a", "2.0", "20.0"), row("b", "3.0", "10.0", "wall")]
    assert "fewer than the 3.0 h that passed" in audit(too_few).rows[1].reason
    too_many = [row("a", "2.0", "20.0"), row("b", "3.0", "100.0", "wall")]
    assert audit(too_many).consistent
    assert "more than 2 machines work in 3.0 h" in audit(too_many, workers=2).rows[1].reason


def test_of_two_camps_the_larger_is_believed():
    rows = [row("a", "10.0", "100.0"), row("b", "20.0", "200.0"), row("c", "10.0", "150.0")]
    assert [one.consistent for one in audit(rows).rows] == [True, True, False]


hours = st.integers(10, 999).map(lambda tenths: tenths / 10)


@given(st.floats(0.5, 500), st.lists(hours, min_size=1, max_size=8))
def test_a_table_made_with_one_rate_is_consistent(rate, all_hours):
    rows = [
        Row(str(place), Printed(value, 0.1), Printed(round(value * rate, 2), 0.01))
        for place, value in enumerate(all_hours)
    ]
    found = audit(rows)
    assert found.consistent
    assert found.rate.holds(rate)


@given(st.floats(5, 500), st.lists(hours, min_size=3, max_size=6), st.floats(1.5, 3))
def test_the_row_that_was_changed_is_found(rate, all_hours, factor):
    rows = [
        Row(str(place), Printed(value, 0.1), Printed(round(value * rate, 2), 0.01))
        for place, value in enumerate(all_hours)
    ]
    changed = replace(rows[0], money=Printed(round(rows[0].money.value * factor, 2), 0.01))
    assume(not rates(changed).meets(explanations(rows[1:])[0].rate))
    found = audit([changed, *rows[1:]])
    assert [one.consistent for one in found.rows] == [False, *[True] * (len(rows) - 1)]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row("a", "0", "5")], "no price"),
        ([row("a", "1", "5"), row("a", "2", "5")], "more than once"),
        ([row("a", "1", "5", against="b")], "'b', which it is compared with, is no row"),
        ([row("a", "1", "5", against="a")], "with itself"),
        ([row("a", "1", "5", "wall")], "no row has busy hours"),
        ([], "no row has busy hours"),
    ],
)
def test_rows_that_cannot_be_audited(rows, message):
    assert any(message in found.message for found in faults(rows))
    with pytest.raises(ValueError, match=re.escape(faults(rows)[0].message)):
        audit(rows)


def test_the_dictionary_says_all():
    plain = FOUND.as_dict()
    assert plain["rate"] == [pytest.approx(31.3516, abs=1e-4), pytest.approx(31.6590, abs=1e-4)]
    assert plain["consistent"] is False
    assert [one["name"] for one in plain["rows"] if not one["consistent"]] == ["initial combined"]
    assert plain["savings"][0]["due_percent"] == pytest.approx(38.8889, abs=1e-4)


def test_rows_that_cost_nothing_are_no_division_by_zero():
    found = audit([row("a", "1", "0"), row("b", "1", "0"), row("c", "1.0", "100", against="b", time="10", paid="150")])
    assert (found.rate.low, found.rate.high) == (0.0, 1.0)
    assert [one.consistent for one in found.rows] == [True, True, False]
    assert found.as_dict()["rows"][0]["busy_hours"] == [0.0, None]
    # Money of nothing leaves nothing to save from, and never 150 % of it.
    money = next(one for one in found.savings if one.quantity == "money")
    assert (money.due, money.consistent) == (None, False)
    assert money.reason == "150 % is printed, there is nothing to save from"


def test_savings_against_hours_that_should_be_none():
    rows = [row("a", "45", "450"), row("b", "45", "450"), row("c", "45", "0.1"), row("d", "45", "450", against="c")]
    time, money = audit(rows).savings
    # 0.1 at 10 an hour are no hour at all.
    assert time.due is None
    assert money.due == pytest.approx(100 * (1 - 450 / 0.1))


def test_hours_that_may_be_none_tell_no_rate():
    (found,) = faults([row("a", "0.5", "10", unit=1.0)])
    assert (found.where, found.message) == ("a", "0.5 hours, rounded to 1, may be none and tell no rate")


def test_a_given_rate_corrects_hours_and_savings_alike():
    rows = [row("a", "1", "30"), row("b", "2", "60"), row("wrong", "9", "60"), row("c", "1", "30", against="wrong")]
    found = audit(rows, rate=20.0)
    assert "either the hours are 3 " in next(one.reason for one in found.rows if one.row.name == "wrong")
    # Against 60 / 20 = 3 h, not against 60 / 30 = 2 h.
    assert found.savings[0].due == pytest.approx(100 * (1 - 1 / 3))


def test_large_amounts_are_told_with_all_their_digits():
    found = audit([row("a", "1000", "1234567"), row("b", "2000", "2469134"), row("c", "1000", "2234567")])
    assert found.rows[2].reason.startswith("2234567 for 1000 h is 2234.57 an hour; ")


# 31.45/1.05 to 31.55/0.95, 62.95/2.05 to 63.05/1.95 and 113.35/3.45 to 113.45/3.35.
TIED = (row("a", "1.0", "31.5"), row("b", "2.0", "63.0"), row("c", "3.4", "113.4"))


def told(found):
    return {one.row.name: one.status for one in found.rows}


def test_of_two_camps_of_one_size_none_is_believed():
    found = audit(TIED)
    assert told(found) == {"a": "ok", "b": "disputed", "c": "disputed"}
    assert [one.rows for one in found.explanations] == [("a", "b"), ("a", "c")]
    assert (found.rate, found.used, found.consistent) == (None, None, False)
    assert found.notes == (
        "2 sets of 2 rows agree, none larger: 30.71 to 32.33 an hour (a, b); 32.86 to 33.21 an hour (a, c); "
        "the table does not say which is right; the hourly rate, given with --rate, decides",
    )
    assert found.rows[1].reason == "63.0 for 2.0 h is 31.50 an hour, which 1 of 2 explanations allow"


def test_of_two_rows_that_disagree_none_is_blamed():
    found = audit([row("a", "1.0", "31.5"), row("c", "3.4", "150.4")])
    assert told(found) == {"a": "disputed", "c": "disputed"}
    # 150.35/3.45 to 150.45/3.35
    assert found.notes[0].startswith("no two rows agree: 29.95 to 33.21 an hour (a); 43.58 to 44.91 an hour (c); ")


@pytest.mark.parametrize(
    ("rate", "statuses", "end"),
    [
        (31.5, ["ok", "ok", "contradicts"], "the given rate of 31.5 decides for 30.71 to 32.33"),
        (33.0, ["ok", "contradicts", "ok"], "the given rate of 33 decides for 32.86 to 33.21"),
        (40.0, ["ok", "disputed", "disputed"], "the given rate of 40 is in none of them"),
    ],
)
def test_a_given_rate_decides_between_camps(rate, statuses, end):
    found = audit(TIED, rate=rate)
    assert [one.status for one in found.rows] == statuses
    assert found.notes[0].endswith(end)
    assert found.used == rate


def test_the_order_of_rows_decides_nothing():
    assert told(audit(TIED)) == told(audit(TIED[::-1]))


def test_a_dispute_stands_in_the_dictionary():
    plain = audit(TIED).as_dict()
    assert (plain["rate"], plain["used_rate"], plain["consistent"]) == (None, None, False)
    assert [(one["status"], one["consistent"]) for one in plain["rows"]] == [
        ("ok", True), ("disputed", False), ("disputed", False),
    ]  # fmt: skip
    assert plain["explanations"] == [
        {"rate": [pytest.approx(62.95 / 2.05), pytest.approx(63.05 / 1.95)], "rows": ["a", "b"]},
        {"rate": [pytest.approx(113.35 / 3.45), pytest.approx(31.55 / 0.95)], "rows": ["a", "c"]},
    ]


def test_what_no_camp_allows_contradicts_them_all():
    # 10 machine hours at most for 30.71 to 33.21 an hour; 1000.0 pay for 30 at least.
    rows = [*TIED, row("d", "1.0", "90.0"), row("few", "9.0", "31.5", "wall"), row("many", "5.0", "1000.0", "wall")]
    found = audit(rows, workers=2)
    assert told(found) == {
        "a": "ok", "b": "disputed", "c": "disputed", "d": "contradicts", "few": "contradicts", "many": "contradicts",
    }  # fmt: skip
    reasons = {one.row.name: one.reason for one in found.rows}
    assert reasons["d"] == "90.0 for 1.0 h is 90.00 an hour, which no explanation allows"
    assert "fewer than the 9.0 h that passed" in reasons["few"]
    assert "more than 2 machines work in 5.0 h" in reasons["many"]


def test_wall_hours_that_one_camp_allows_are_disputed():
    # 66.0 pay for 2.04 to 2.15 hours at 30.71 to 32.33, for 1.99 to 2.01 at 32.86 to 33.21; 2.03 passed.
    found = audit([*TIED, Row("w", Printed(2.03, 0.01), Printed(66.0, 0.1), "wall")])
    assert told(found)["w"] == "disputed"


def test_many_camps_are_counted_and_not_all_named():
    found = audit([row(f"r{place}", "1.000", f"{10 * place}") for place in range(1, 9)])
    assert len(found.explanations) == 8
    assert "(r5); and 3 more; " in found.notes[0]
    assert "r6" not in found.notes[0]


def test_the_published_table_has_one_explanation():
    (one,) = FOUND.explanations
    assert len(one.rows) == 5
    assert told(FOUND)["initial combined"] == "contradicts"
    assert {status for name, status in told(FOUND).items() if name != "initial combined"} == {"ok"}


def test_a_rate_beyond_all_prices_is_told_shortly():
    rows = [row("a", "1", "30"), row("b", "2", "60"), row("wrong", "9", "60"), row("c", "1", "30", against="wrong")]
    found = audit(rows, rate=1e300)
    assert found.rows[2].reason.endswith("at 1.00e+300 either the hours are 0 or the money is 9.00e+300")
    # 60 / 1e-308 hours are more than a number holds.
    assert all(one.due is not None for one in audit(rows, rate=1e-308).savings)
