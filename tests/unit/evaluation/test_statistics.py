from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from sklearn.metrics import f1_score

from adapterctl.evaluation.statistics import (
    bootstrap,
    bootstrap_macro_f1,
    bootstrap_macro_f1_difference,
    bootstrap_mean,
    detectable_difference,
    expected_sd,
    interval_of_mean,
    lower_bound,
    macro_f1,
    macro_f1_of_counts,
)

FEW = {"resamples": 999, "names": ("test",)}


def samples() -> dict[str, np.ndarray]:
    random = np.random.default_rng(11)
    return {
        "normal": random.normal(0.02, 0.2, 80),
        "skewed": -(random.exponential(0.1, 60)),
        "flips": random.choice([-1.0, 0.0, 1.0], p=[0.05, 0.85, 0.1], size=120),
    }


@pytest.mark.parametrize("name", ["normal", "skewed", "flips"])
def test_intervals_are_scipys(name):
    values = samples()[name]
    wanted = scipy.stats.bootstrap(
        (values,), np.mean, method="BCa", n_resamples=20000, rng=np.random.default_rng(1)
    ).confidence_interval
    got = interval_of_mean(values, confidence=0.95, resamples=20000, names=("a",))
    # Two bootstraps agree up to the noise of their resampling, some per cent of the standard error, and the grid of
    # possible means.
    noise = 0.1 * values.std() / math.sqrt(len(values)) + (1 / len(values) if name == "flips" else 0)
    assert got == pytest.approx(tuple(wanted), abs=noise)


@pytest.mark.parametrize("name", ["normal", "skewed", "flips"])
def test_the_one_sided_bound_is_scipys(name):
    values = samples()[name]
    wanted = scipy.stats.bootstrap(
        (values,), np.mean, method="BCa", n_resamples=20000, alternative="greater", rng=np.random.default_rng(1)
    ).confidence_interval.low
    noise = 0.1 * values.std() / math.sqrt(len(values)) + (1 / len(values) if name == "flips" else 0)
    got = lower_bound(values, confidence=0.95, resamples=20000, names=("a",))
    assert got == pytest.approx(wanted, abs=noise)


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
    got = bootstrap_macro_f1_difference(answers, champion, candidate, classes=3, resamples=20000, names=("a",))
    assert got.value == pytest.approx(difference(answers, champion, candidate))
    assert got.standard_error == pytest.approx(wanted.standard_error, rel=0.1)
    assert got.interval(0.95) == pytest.approx(tuple(wanted.confidence_interval), abs=0.25 * wanted.standard_error)


def test_macro_f1_of_resamples_is_scikit_learns():
    random = np.random.default_rng(5)
    pairs = np.array([(answer, chosen) for answer in range(4) for chosen in range(4)])
    for counts in random.multinomial(9, np.full(16, 1 / 16), size=40):
        rows = np.repeat(pairs, counts, axis=0)
        wanted = f1_score(rows[:, 0], rows[:, 1], labels=range(4), average="macro", zero_division=0)
        assert macro_f1_of_counts(pairs[:, 0], pairs[:, 1], 4, counts[None, :])[0] == pytest.approx(wanted)
        assert macro_f1(rows[:, 0], rows[:, 1], 4) == pytest.approx(wanted)


def test_every_resample_has_as_many_rows():
    seen = []

    def statistic(counts):
        seen.append(counts)
        return counts[:, 0] / counts.sum(axis=1)

    bootstrap(np.array([3, 4, 1]), statistic, **FEW)
    assert set(np.concatenate(seen[:-1]).sum(axis=1)) == {8}


@pytest.mark.parametrize("value", [0.0, -0.02, 0.1, 1 / 3])
@pytest.mark.parametrize("n", [1, 7])
def test_equal_differences_have_an_exact_bound(value, n):
    result = bootstrap_mean([value] * n, **FEW)
    assert (result.value, result.bound(0.05), result.interval(0.95)) == (value, value, (value, value))


def test_equal_predictions_have_no_macro_f1_difference():
    result = bootstrap_macro_f1_difference([0, 1, 1, 2], [0, 0, 1, 1], [0, 0, 1, 1], classes=3, **FEW)
    assert (result.value, result.bound(0.05)) == (0.0, 0.0)


def test_where_bca_is_not_defined_the_bound_is_the_quantile():
    counts = np.ones(50, dtype=np.int64)

    def distance(drawn):
        return np.abs(drawn - 1).sum(axis=1).astype(float)

    result = bootstrap(counts, distance, **FEW)
    assert (result.value, result.bias) == (0.0, None)
    assert result.bound(0.05) == pytest.approx(np.quantile(result.replicates, 0.05))


def test_the_order_of_values_changes_nothing_and_names_change_the_numbers():
    values = [0.1, -0.4, 0.0, 0.3, 0.3, -0.05]
    one, other = (bootstrap_mean(given, **FEW).replicates for given in (values, values[::-1]))
    np.testing.assert_array_equal(one, other)
    assert not np.array_equal(bootstrap_mean(values, resamples=999, names=("other",)).replicates, one)


def test_many_distinct_rows_are_drawn_in_parts():
    values = np.random.default_rng(0).normal(size=2500)
    result = bootstrap_mean(values, resamples=2000, names=("a",))
    assert result.replicates.shape == (2000,)
    assert result.standard_error == pytest.approx(values.std() / 50, rel=0.1)


def test_no_rows_are_refused():
    with pytest.raises(ValueError, match="no rows"):
        bootstrap_mean([], **FEW)


def test_a_single_row_has_no_spread():
    result = bootstrap_macro_f1([1], [1], classes=2, **FEW)
    assert (result.value, result.bound(0.05), result.standard_error) == (0.5, 0.5, 0.0)


@pytest.mark.parametrize(
    ("flips", "n"), [((0.12, 0.83, 0.05), 200), ((0.3, 0.4, 0.3), 60)], ids=["rare flips", "many flips"]
)
def test_a_true_loss_of_the_margin_passes_in_one_case_of_twenty(flips, n):
    """Simulated at the edge: the bound lies above the true mean in 5 % of the cases, up to what 800 cases can tell."""
    random = np.random.default_rng(9)
    values = np.array([-1.0, 0.0, 1.0])
    true = float(values @ flips)
    cases = 800
    above = sum(
        lower_bound(random.choice(values, p=flips, size=n), confidence=0.95, resamples=999, names=(case,)) > true
        for case in range(cases)
    )
    assert scipy.stats.binomtest(above, cases, 0.05).pvalue > 0.001


@pytest.mark.parametrize(
    ("sd", "margin", "n"), [(0.2, 0.01, 2474), (0.2, 0.02, 619), (0.2, 0.05, 99), (0.3, 0.02, 1392)]
)
def test_rows_needed_for_a_margin(sd, margin, n):
    assert detectable_difference(n, sd) <= margin * 1.001
    assert detectable_difference(n - 2, sd) > margin


def test_the_stated_power_is_the_power():
    random = np.random.default_rng(3)
    n, sd = 60, 0.3
    margin = detectable_difference(n, sd)
    passed = sum(
        lower_bound(random.normal(0, sd, n), confidence=0.95, resamples=499, names=(case,)) > -margin
        for case in range(400)
    )
    assert scipy.stats.binomtest(passed, 400, 0.8).pvalue > 0.001


def test_expected_sd():
    assert expected_sd(0.3) == pytest.approx(0.3)
    assert expected_sd(0.3, correlation=0.0) == pytest.approx(0.3 * math.sqrt(2))
    assert expected_sd(None) == expected_sd(0.0) == pytest.approx(0.5)
