"""The published numbers of arXiv 2601.16127, computed: 31.5 an hour, two workers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapterctl.accounting.amounts import Amount
from adapterctl.accounting.scenarios import (
    BreakEven,
    Job,
    Scenario,
    Way,
    bill,
    break_even,
    costs_of,
    over_languages,
    over_updates,
)

HOUR, RATE = 3600.0, 31.5


def job(name, hours, measured=True, low=None, high=None):
    seconds = Amount(hours * HOUR, measured, low and low * HOUR, high and high * HOUR)
    return Job(name, seconds, seconds.times(RATE / HOUR))


def way(*hours, steps=()):
    return Way(tuple(job(str(place), one) for place, one in enumerate(hours)), tuple(steps))


# Five adapters of 3.4 hours in all.
MERGED, COMBINED = way(0.8, 0.7, 0.7, 0.7, 0.5), way(3.6)
START = Scenario("set-up", MERGED, COMBINED)
UPDATE = Scenario("update", way(1.0), way(3.8))


def hours(amount):
    return pytest.approx(amount * HOUR)


def test_the_papers_set_up():
    found = costs_of(START, 2, "busy")
    assert found.merged.busy.value == hours(3.4)
    assert found.merged.money.value == pytest.approx(107.10)
    assert found.combined.wall.value == hours(3.6)
    assert found.combined.money.value == pytest.approx(113.40)
    assert round(100 * found.money_saved.value, 1) == 5.6


def test_a_wall_time_of_two_point_two_hours_saves_what_follows_from_it():
    # 1.2 | 1.1, and the last 1.1 follows on the second worker.
    found = costs_of(Scenario("set-up", way(1.1, 1.1, 1.2), COMBINED), 2, "busy")
    assert found.merged.wall.value == hours(2.2)
    assert (round(100 * found.time_saved.value, 1), round(100 * found.money_saved.value, 1)) == (38.9, 5.6)


def test_the_papers_update():
    found = costs_of(UPDATE, 2, "busy")
    assert found.combined.money.value == pytest.approx(119.70)
    assert found.merged.money.value == pytest.approx(31.50)
    assert round(100 * found.time_saved.value, 1) == round(100 * found.money_saved.value, 1) == 73.7


def test_the_papers_case_study():
    rate = 31.5
    start = costs_of(Scenario("set-up", way(22.5, 1400 / rate - 22.5), way(1416 / rate)), 2, "busy")
    update = costs_of(Scenario("update", way(20.5), way(54.5)), 2, "busy")
    assert round(100 * (1 - start.merged.wall.value / (45 * HOUR)), 0) == 50
    assert round(100 * start.money_saved.value, 1) == 1.1
    assert round(100 * update.time_saved.value, 1) == 62.4


def test_reserved_machines_are_paid_while_they_wait():
    three = Way((job("a", 1.1), job("b", 1.1), job("c", 1.2)))
    # Two machines for 2.2 hours: 2 · 2.2 · 31.5
    assert bill(three, 2, "reserved").money.value == pytest.approx(138.6)
    assert bill(three, 1, "reserved").money.value == pytest.approx(3.4 * RATE)
    # A fourth machine would have nothing to do, and one training needs one machine.
    assert bill(three, 9, "reserved").money.value == pytest.approx(3 * 1.2 * RATE)
    assert bill(COMBINED, 9, "reserved").money.value == pytest.approx(113.4)


def test_steps_come_after_the_trainings_on_one_machine():
    found = bill(way(1.0, 1.0, steps=[job("merge", 0.1), job("evaluate", 0.4)]), 2, "busy")
    assert found.wall.value == hours(1.5)
    assert found.busy.value == hours(2.5)
    assert found.money.value == pytest.approx(2.5 * RATE)
    reserved = bill(way(1.0, 1.0, steps=[job("merge", 0.1), job("evaluate", 0.4)]), 2, "reserved")
    assert reserved.money.value == pytest.approx(2 * 1.5 * RATE)


def test_a_schedule_that_nobody_saw_is_a_projection():
    assert bill(MERGED, 1, "busy").wall.measured
    assert bill(COMBINED, 4, "busy").wall.measured
    two = bill(MERGED, 2, "busy")
    assert (two.wall.measured, two.money.measured) == (False, True)
    assert not bill(MERGED, 2, "reserved").money.measured


def test_a_projected_job_gives_its_interval_to_everything():
    found = bill(Way((job("a", 1.0, False, 0.5, 2.0), job("b", 0.8))), 2, "busy")
    assert (found.wall.value, found.wall.least, found.wall.most) == (HOUR, hours(0.8), hours(2.0))
    assert (found.busy.least, found.busy.most) == (hours(1.3), hours(2.8))
    assert (found.money.least, found.money.most) == (pytest.approx(1.3 * RATE), pytest.approx(2.8 * RATE))
    assert not found.money.measured


def test_nothing_to_do_costs_nothing():
    empty = bill(Way(()), 3, "reserved")
    assert (empty.wall.value, empty.busy.value, empty.money.value) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("merged", "combined", "found"),
    [
        ((107.1, 31.5), (113.4, 119.7), BreakEven(0)),
        # 30 more at the start, 20 less each: ahead when 20 k > 30
        ((130, 80), (100, 100), BreakEven(2)),
        # exactly even after one update, ahead after two
        ((120, 80), (100, 100), BreakEven(2)),
        ((100, 90), (100, 100), BreakEven(1)),
        ((100, 100), (100, 100), BreakEven(None)),
        ((130, 100), (100, 80), BreakEven(None)),
        ((90, 100), (100, 100), BreakEven(0)),
        # ahead by 10, losing 4 each: 10 − 4 k > 0 up to 2
        ((90, 104), (100, 100), BreakEven(0, 2)),
        ((90, 105), (100, 100), BreakEven(0, 1)),
    ],
)
def test_the_first_update_from_which_merging_is_cheaper(merged, combined, found):
    assert break_even(*merged, *combined) == found


money = st.integers(0, 10**4).map(float)


@given(money, money, money, money)
def test_the_break_even_is_that_of_counting(m0, mu, c0, cu):
    found = break_even(m0, mu, c0, cu)
    cheaper = [k for k in range(300) if m0 + k * mu < c0 + k * cu]
    first = 300 if found.first is None else found.first
    last = 300 if found.last is None else found.last
    assert cheaper == [k for k in range(300) if first <= k <= last]


def test_what_was_spent_update_after_update():
    start, each = costs_of(START, 1, "busy"), costs_of(UPDATE, 1, "busy")
    points = over_updates(start, each, 3, "money")
    assert [point.at for point in points] == [0, 1, 2, 3]
    assert [point.merged.value for point in points] == pytest.approx([107.1, 138.6, 170.1, 201.6])
    assert [point.combined.value for point in points] == pytest.approx([113.4, 233.1, 352.8, 472.5])
    # One update was measured; that the next is like it is a projection.
    assert [point.merged.measured for point in points] == [True, True, False, False]


def test_what_was_spent_language_after_language():
    steps = (job("merge", 0.1), job("start and rest", 0.2))
    start = Scenario("set-up", way(1.0, 1.0, steps=steps), way(2.0, steps=steps[1:]))
    add = Scenario("add", way(1.0, steps=steps), way(3.0, steps=steps[1:]))
    points = over_languages(start, add, 2, 4, workers=1, billing="busy", quantity="wall")
    assert [point.at for point in points] == [2, 3, 4]
    # One adapter each time; merging four takes 4/3 of merging three; starting takes as long as ever.
    assert [point.merged.value / HOUR for point in points] == pytest.approx([2.3, 2.3 + 1.3, 3.6 + 1.2 + 0.1 * 4 / 3])
    # The combined adapter is trained on all rows again: 3 hours for three languages, 4 for four.
    assert [point.combined.value / HOUR for point in points] == pytest.approx([2.2, 2.2 + 3.2, 5.4 + 4.2])
    assert [point.merged.measured for point in points] == [True, True, False]


def test_the_dictionary_keeps_the_flags():
    plain = costs_of(START, 2, "busy").as_dict()
    assert plain["merged"]["wall_seconds"]["measured"] is False
    assert plain["money_saved"] == {"value": pytest.approx(0.0555556), "measured": True}
