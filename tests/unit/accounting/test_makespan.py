from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapterctl.accounting.makespan import lpt

times = st.lists(st.floats(0, 100), min_size=1, max_size=7)
workers = st.integers(1, 4)


def least_wall(times: list[float], workers: int) -> float:
    """Return a bound that no schedule beats."""
    return max(max(times, default=0.0), sum(times) / workers)


def best_wall(jobs, count):
    """Every way of giving the jobs to workers, tried."""
    return min(
        max(sum(job for job, worker in zip(jobs, chosen, strict=True) if worker == one) for one in range(count))
        for chosen in product(range(count), repeat=len(jobs))
    )


@given(times, workers)
@settings(max_examples=60, deadline=None)
def test_longest_first_is_at_most_a_third_worse_than_the_best(jobs, count):
    best = best_wall(jobs, count)
    wall = lpt(jobs, count).wall
    assert best <= wall * (1 + 1e-12) + 1e-12
    assert wall <= (4 / 3 - 1 / (3 * count)) * best + 1e-9


@given(st.lists(st.floats(0, 1e6), max_size=30), st.integers(1, 40))
def test_the_wall_time_lies_between_its_bounds(jobs, count):
    found = lpt(jobs, count)
    slack = 1e-9 * (1 + sum(jobs))
    assert max(jobs, default=0.0) <= found.wall <= sum(jobs) + slack
    assert found.wall >= least_wall(jobs, count) - slack
    assert found.wall == max(found.loads)


@given(st.lists(st.floats(0, 1e3), min_size=1, max_size=12), workers)
def test_every_job_is_on_one_worker(jobs, count):
    found = lpt(jobs, count)
    for worker, load in enumerate(found.loads):
        own = [job for job, chosen in zip(jobs, found.worker, strict=True) if chosen == worker]
        assert load == pytest.approx(sum(own))


def test_one_worker_takes_the_sum_and_many_take_the_longest():
    jobs = [1.0, 0.5, 2.5, 2.0]
    assert lpt(jobs, 1).wall == 6.0
    assert lpt(jobs, 4).wall == lpt(jobs, 99).wall == 2.5
    assert least_wall(jobs, 2) == 3.0


def test_the_bound_is_reached_by_its_known_example():
    # Graham's example for two workers: 3, 3, 2, 2, 2 can be done in 6; longest first needs 7 = (4/3 − 1/6) · 6.
    assert best_wall([3, 3, 2, 2, 2], 2) == 6
    assert lpt([3, 3, 2, 2, 2], 2).wall == 7


def test_five_equal_adapters_on_two_workers_take_three_of_them():
    assert lpt([0.7] * 5, 2).wall == pytest.approx(2.1)


def test_no_job_takes_no_time():
    assert lpt([], 3).wall == 0.0


@pytest.mark.parametrize(("jobs", "count"), [([1.0], 0), ([-1.0], 1), ([float("nan")], 1), ([float("inf")], 2)])
def test_what_is_no_job_is_refused(jobs, count):
    with pytest.raises(ValueError, match=r"workers|times"):
        lpt(jobs, count)
