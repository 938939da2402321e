"""The bootstrap beside scipy's, the randomisation test beside scipy's and beside counting, and the closed formulas."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from adapterctl.evaluation.statistics import (
    Bootstrap,
    bootstrap,
    detectable_difference,
    expected_sd,
    jackknife_sd,
    mean_of,
    p_value,
    paired_bootstrap,
    randomised_differences,
    unseen_share,
)

FEW = {"resamples": 999, "names": ("test",)}


def mean(sums):
    return sums[..., 0] / sums[..., 1]


def pairs_of(values):
    """Return the statistics of a mean: value and 1."""
    return np.stack([np.asarray(values, dtype=float), np.ones(len(values))], axis=1)


def of_mean(values, **options):
    """Resample paired differences: a champion of nothing, a candidate of the values."""
    return paired_bootstrap(pairs_of(np.zeros(len(values))), pairs_of(values), mean, **{**FEW, **options})


def samples() -> dict[str, np.ndarray]:
    random = np.random.default_rng(11)
    return {
        "normal": random.normal(0.02, 0.2, 80),
        "skewed": -(random.exponential(0.1, 60)),
        "flips": random.choice([-1.0, 0.0, 1.0], p=[0.05, 0.85, 0.1], size=120),
    }


def expanded(confidence: float, n: int) -> float:
    """Return the confidence whose normal quantile is √(n/(n−1)) times Student's, for bounds on one side."""
    return float(scipy.stats.norm.cdf(scipy.stats.t.ppf(confidence, n - 1) * math.sqrt(n / (n - 1))))


@pytest.mark.parametrize("name", ["normal", "skewed", "flips"])
def test_the_bounds_are_scipys(name):
    values = samples()[name]
    n = len(values)
    # Two bootstraps agree up to the noise of their resampling, some per cent of the standard error, and the grid of
    # possible means.
    noise = 0.1 * values.std() / math.sqrt(n) + (1 / n if name == "flips" else 0)
    result = of_mean(values, resamples=20000)
    for confidence in (0.95, 0.975):
        wanted = scipy.stats.bootstrap(
            (values,), np.mean, method="BCa", n_resamples=20000, alternative="greater",
            confidence_level=expanded(confidence, n), rng=np.random.default_rng(1),
        ).confidence_interval.low  # fmt: skip
        assert result.bound(1 - confidence) == pytest.approx(wanted, abs=noise)
    assert result.interval(0.95) == pytest.approx((result.bound(0.025), result.bound(0.975)))


def one_hot(answers, chosen, classes):
    """Return right, named and answers of every row by class."""
    every = np.eye(classes)
    return np.concatenate([every[answers] * every[chosen], every[chosen], every[answers]], axis=1)


def macro_f1(sums):
    right, named, answers = np.moveaxis(sums.reshape(*sums.shape[:-1], 3, -1), -2, 0)
    return (2 * right / np.maximum(named + answers, 1)).mean(axis=-1)


def test_macro_f1_difference_agrees_with_scipy_and_scikit_learn():
    random = np.random.default_rng(4)
    answers = random.integers(0, 3, 70)
    champion = np.where(random.random(70) < 0.7, answers, random.integers(0, 3, 70))
    candidate = np.where(random.random(70) < 0.5, answers, random.integers(0, 3, 70))

    def f1(right, chosen):
        # 2·TP / (support + predicted) of each class; scikit-learn, the same, would take seconds for all resamples.
        every = [((right == one) & (chosen == one), (right == one).sum() + (chosen == one).sum()) for one in range(3)]
        return sum(2 * hit.sum() / max(of, 1) for hit, of in every) / 3

    assert f1(answers, champion) == pytest.approx(f1_score(answers, champion, average="macro"))

    def difference(right, before, after):
        return f1(right, after) - f1(right, before)

    wanted = scipy.stats.bootstrap(
        (answers, champion, candidate), difference, paired=True, vectorized=False, method="BCa", n_resamples=999,
        rng=np.random.default_rng(2),
    )  # fmt: skip
    old, new = (one_hot(answers, chosen, 3) for chosen in (champion, candidate))
    got = paired_bootstrap(old, new, macro_f1, resamples=20000, names=("a",))
    assert got.value == pytest.approx(difference(answers, champion, candidate))
    assert got.replicates.std() == pytest.approx(wanted.standard_error, rel=0.1)
    assert got.unit_sd == pytest.approx(wanted.standard_error * math.sqrt(70), rel=0.15)
    assert got.interval(0.95) == pytest.approx(tuple(wanted.confidence_interval), abs=0.25 * wanted.standard_error)


def test_every_resample_has_as_many_units():
    seen = []

    def measure(sums):
        seen.append(np.atleast_1d(sums[..., 1]))
        return mean(sums)

    bootstrap(pairs_of([1.0, 1.0, 2.0, 5.0, 5.0, 5.0]), measure, **FEW)
    assert set(seen[0]) == {6}
    assert set(np.concatenate(seen)) == {5, 6}  # the jackknife leaves one out


@pytest.mark.parametrize("value", [-0.02, 0.1, 1 / 3])
@pytest.mark.parametrize("n", [1, 2, 7])
def test_equal_differences_have_an_exact_bound(value, n):
    result = of_mean([value] * n)
    told = (result.value, result.bound(0.05), *result.interval(0.95))
    assert told == pytest.approx((value,) * 4, abs=1e-15)
    assert result.constant
    assert result.unit_sd == 0


def test_a_loss_of_the_same_size_in_every_row_is_exact_although_the_rows_differ():
    champion = np.random.default_rng(2).random(60)
    result = paired_bootstrap(pairs_of(champion), pairs_of(champion - 0.037), mean, **FEW)
    assert (result.value, result.bound(0.05), result.bound(0.95)) == pytest.approx((-0.037,) * 3, abs=1e-12)
    assert (result.constant, result.unit_sd) == (True, 0.0)


def test_the_same_statistics_differ_by_exactly_nothing():
    same = one_hot(np.array([0, 1, 1, 2]), np.array([0, 0, 1, 1]), 3)
    result = paired_bootstrap(same, same.copy(), macro_f1, **FEW)
    assert (result.value, result.bound(0.05), result.interval(0.95)) == (0.0, 0.0, (0.0, 0.0))
    assert result.units == 4


def test_where_bca_is_not_defined_the_bound_is_the_percentile():
    replicates = np.linspace(1, 2, 1001)
    result = Bootstrap(0.5, replicates, 50, 1.0, 0.5)
    assert result.bias is None
    z = scipy.stats.t.ppf(0.05, 49) * math.sqrt(50 / 49)
    assert result.bound(0.05) == pytest.approx(1 + scipy.stats.norm.cdf(z), abs=1e-3)


def test_the_formula_of_bca():
    """z₀ = Φ⁻¹(0.6), a = 0.1, n so large that Student's quantile is the normal one; replicates are uniform."""
    replicates = np.linspace(0, 1, 100_001)
    result = Bootstrap(0.6, replicates, 10**9, 1.0, 0.6)
    assert result.acceleration == pytest.approx(0.1)
    z = scipy.stats.norm.ppf(0.6) + scipy.stats.norm.ppf(0.05)
    wanted = scipy.stats.norm.cdf(scipy.stats.norm.ppf(0.6) + z / (1 - 0.1 * z))
    assert result.bound(0.05) == pytest.approx(wanted, abs=1e-4)


def test_on_a_grid_the_bound_is_half_a_step_further_out():
    """Ten rows of which five are right: of the means 0, 0.1, …, the bounds lie between two."""
    result = bootstrap(pairs_of([0.0] * 5 + [1.0] * 5), mean, resamples=20000, names=("a",))
    # Student's quantile for 9 degrees times √(10/9) is 1.932, Φ(−1.932) = 0.027: P(X ≤ 1) = 0.011, P(X ≤ 2) = 0.055.
    assert result.bound(0.05) == pytest.approx(0.15)
    assert result.bound(0.95) == pytest.approx(0.85)
    outermost = Bootstrap(0.5, np.array([0.0] * 50 + [1.0] * 50), 10, 1.0, 0.0)
    assert (outermost.bound(0.05), outermost.bound(0.95)) == (0.0, 1.0)


def test_a_skew_beyond_the_formula_gives_the_outermost_replicate():
    result = Bootstrap(0.5, np.linspace(0, 1, 1001), 10**6, 1.0, 6 * 0.7)
    # 1 − 0.7 · 1.645 is negative.
    assert result.bound(0.95) == 1.0
    assert result.bound(0.05) < 0.5


def test_the_order_of_rows_changes_nothing_and_names_change_the_numbers():
    values = [0.1, -0.4, 0.0, 0.3, 0.3, -0.05]
    one, other = (of_mean(given).replicates for given in (values, values[::-1]))
    np.testing.assert_array_equal(one, other)
    assert not np.array_equal(of_mean(values, names=("other",)).replicates, one)


def test_many_distinct_rows_are_drawn_in_parts():
    values = np.random.default_rng(0).normal(size=2500)
    result = of_mean(values, resamples=2000)
    assert result.replicates.shape == (2000,)
    assert result.replicates.std() == pytest.approx(values.std() / 50, rel=0.1)
    assert result.unit_sd == pytest.approx(values.std())


def test_no_rows_are_refused():
    with pytest.raises(ValueError, match="no rows"):
        of_mean([])
    with pytest.raises(ValueError, match="no rows"):
        jackknife_sd(pairs_of([]), mean)
    with pytest.raises(ValueError, match="no tasks"):
        mean_of([])


def test_a_single_unit_has_no_spread():
    result = bootstrap(pairs_of([0.5]), mean, **FEW)
    assert (result.value, result.bound(0.05), result.unit_sd, result.acceleration) == (0.5, 0.5, 0.0, 0.0)


def test_groups_make_wide_intervals_that_rows_would_not():
    """Twenty groups of ten equal rows are twenty observations: the interval is √10 times as wide."""
    values = np.random.default_rng(5).normal(0, 0.2, 20)
    grouped = bootstrap(np.stack([values * 10, np.full(20, 10.0)], axis=1), mean, resamples=4000, names=("a",))
    rows = bootstrap(pairs_of(np.repeat(values, 10)), mean, resamples=4000, names=("a",))
    assert grouped.value == pytest.approx(rows.value)
    wide, narrow = (np.diff(one.interval(0.95))[0] for one in (grouped, rows))
    assert wide / narrow == pytest.approx(math.sqrt(10), rel=0.12)


def test_the_mean_of_independent_parts():
    random = np.random.default_rng(3)
    first, second = random.normal(0.1, 0.2, 60), random.exponential(0.3, 90)
    parts = [of_mean(first, names=("a",), resamples=20000), of_mean(second, names=("b",), resamples=20000)]
    both = mean_of(parts)
    assert both.value == pytest.approx((first.mean() + second.mean()) / 2)
    variance = first.var() / 60 + second.var() / 90
    assert both.replicates.std() == pytest.approx(math.sqrt(variance) / 2, rel=0.03)
    # The third cumulants of means add up: Σ(x − x̄)³ / n³; the acceleration is a sixth of the mean's skewness.
    third = sum(((x - x.mean()) ** 3).sum() / len(x) ** 3 for x in (first, second))
    assert -both.acceleration * 6 == pytest.approx(-third / variance**1.5, rel=0.05)
    assert both.units == 60


def test_randomisation_counts_what_all_exchanges_give():
    """Five rows: all 2⁵ exchanges are counted by hand."""
    champion, candidate = np.array([0.1, 0.5, 0.4, 0.0, 0.9]), np.array([0.6, 0.5, 0.9, 0.3, 0.8])
    gains = candidate - champion
    every = [np.dot(signs, gains) / 5 for signs in product((-1, 1), repeat=5)]
    wanted = np.mean([value >= gains.mean() - 1e-12 for value in every])
    drawn = randomised_differences(pairs_of(champion), pairs_of(candidate), mean, resamples=40000, names=("a",))
    assert p_value(gains.mean(), drawn) == pytest.approx(wanted, abs=0.01)
    assert set(np.round(drawn, 9)) == set(np.round(every, 9))


def test_the_randomisation_test_is_scipys():
    random = np.random.default_rng(8)
    champion = random.random(40)
    candidate = champion + random.normal(0.03, 0.1, 40)

    def statistic(x, y, axis):
        return x.mean(axis=axis) - y.mean(axis=axis)

    wanted = scipy.stats.permutation_test(
        (candidate, champion), statistic, permutation_type="samples", alternative="greater", n_resamples=20000,
        vectorized=True, rng=random,
    ).pvalue  # fmt: skip
    drawn = randomised_differences(pairs_of(champion), pairs_of(candidate), mean, resamples=20000, names=("a",))
    assert p_value(candidate.mean() - champion.mean(), drawn) == pytest.approx(wanted, abs=0.01)


def test_where_nothing_differs_chance_explains_all():
    same = pairs_of([0.1, 0.4, 0.4])
    drawn = randomised_differences(same, same, mean, **FEW)
    assert drawn.shape == (999,)
    assert p_value(0.0, drawn) == 1.0
    assert p_value(1.0, drawn) == 1 / 1000


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=40))
def test_bounds_are_ordered_and_lie_among_the_possible_means(rows):
    champion, candidate = np.array(rows).T
    result = paired_bootstrap(pairs_of(champion), pairs_of(candidate), mean, resamples=199, names=("a",))
    low, high = result.interval(0.95)
    differences = candidate - champion
    assert differences.min() - 1e-9 <= low <= result.bound(0.05) <= result.bound(0.95) <= high
    assert high <= differences.max() + 1e-9


@pytest.mark.parametrize(("n", "wanted"), [(10, 0.2589), (30, 0.0950), (100, 0.0295), (149, 0.0199)])
def test_the_rule_of_three(n, wanted):
    assert unseen_share(n, 0.95) == pytest.approx(wanted, abs=1e-4)
    # A kind that is as frequent is missed in one case of twenty.
    assert (1 - unseen_share(n, 0.95)) ** n == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("sd", "margin", "n"), [(0.2, 0.01, 2474), (0.2, 0.02, 619), (0.2, 0.05, 99), (0.3, 0.02, 1392)]
)
def test_rows_needed_for_a_margin(sd, margin, n):
    assert detectable_difference(n, sd) <= margin * 1.001
    assert detectable_difference(n - 2, sd) > margin


def test_expected_sd():
    assert expected_sd(0.3) == pytest.approx(0.3)
    assert expected_sd(0.3, correlation=0.0) == pytest.approx(0.3 * math.sqrt(2))
    assert expected_sd(None) == expected_sd(0.0) == pytest.approx(0.5)


def test_the_spread_of_one_unit_is_that_of_the_values():
    values = np.random.default_rng(1).random(37)
    assert jackknife_sd(pairs_of(values), mean) == pytest.approx(values.std())
