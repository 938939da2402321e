"""The gate on 2,000 simulated comparisons a scenario: what passes at the margin, and what passes without a loss.

benchmarks/gate_simulation.py simulates more scenarios, each with and without a loss, with more resamples.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from benchmarks.gate_simulation import SCENARIOS, Scenario, rates

CASES = 2000
RESAMPLES = 199
CHOSEN = {
    (scenario.metric, scenario.n): scenario
    for scenario in SCENARIOS
    if scenario.name in ("accuracy, 20 % discordant", "macro-F1, three classes", "ROUGE, 40 % ties")
}


def noise(share: float) -> float:
    """Return three Monte-Carlo standard errors."""
    return 3 * math.sqrt(share * (1 - share) / CASES)


@pytest.mark.parametrize("place", [("accuracy", 100), ("macro_f1", 150), ("rouge_l", 150)], ids=lambda place: place[0])
def test_a_true_loss_of_the_margin_passes_in_one_case_of_twenty_at_most(place: tuple[str, int]) -> None:
    scenario = replace(CHOSEN[place], margin=CHOSEN[place].limit)
    found = rates(scenario, scenario.limit, CASES, RESAMPLES)
    assert found.passed <= 0.05 + noise(0.05)
    assert found.passed > 0.01  # and it is no gate that lets nothing pass
    assert found.passed + found.failed + found.inconclusive == pytest.approx(1)


def test_a_candidate_that_is_as_good_passes_as_often_as_is_stated() -> None:
    """With as many rows as make the margin detectable, 80 % of equal candidates pass."""
    scenario = CHOSEN["accuracy", 100]
    found = rates(scenario, 0.0, CASES, RESAMPLES)
    assert found.passed >= 0.8 - noise(0.8)
    assert found.detectable == pytest.approx(scenario.limit, rel=0.05)
    assert found.error == pytest.approx(math.sqrt(found.passed * (1 - found.passed) / CASES))


def test_few_rows_without_a_loss_do_not_let_a_rare_loss_pass() -> None:
    """60 rows miss a loss of 2 % in 30 % of the cases; the gate calls them too few instead of letting them pass."""
    scenario = next(one for one in SCENARIOS if one.name == "accuracy, losses only" and one.n == 60)
    found = rates(scenario, 0.02, 200, RESAMPLES)
    assert found.passed == 0
    assert found.inconclusive > 0.8


def test_a_scenario_without_a_closed_form_asks_the_gate_what_is_detectable() -> None:
    scenario: Scenario = CHOSEN["macro_f1", 150]
    assert math.isnan(scenario.sd)
    assert 0.05 < scenario.limit < 0.15
