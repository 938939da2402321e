"""What rows can show before anything is trained; the numbers are worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from adapterctl.evaluation.metrics import make_scorecard
from adapterctl.evaluation.policy import GateSettings
from adapterctl.evaluation.power import champion_sd, power
from adapterctl.evaluation.scorecard import ExampleScore, Scorecard
from adapterctl.tasks import TaskSettings

N = 40
Z = 1.6449 + 0.8416
TASKS = {
    "label": TaskSettings(kind="classification", labels=["a", "b", "c"]),
    "choice": TaskSettings(kind="multiple-choice"),
    "text": TaskSettings(kind="generation", metrics=["rouge_l"]),
    "read": TaskSettings(kind="perplexity"),
}


def champion(group: str = "") -> Scorecard:
    made = []
    for number in range(N):
        answer, chosen = number % 3, (number + (number % 4 == 0)) % 3
        classes = {"log_likelihoods": [-1.0] * 3, "chosen": chosen, "chosen_norm": chosen, "answer": answer}
        rouge, nats = 0.6 + 0.01 * (number % 20), 100 * (1 + number % 2)
        for task, score, details in (
            ("label", float(answer == chosen), classes),
            ("choice", float(answer == chosen), classes),
            ("text", rouge, {"rouge_l": rouge}),
            ("read", -nats / 100 / math.log(2), {"nats": nats, "tokens": 30, "bytes": 100}),
        ):
            named = group.format(number // 2)
            row = ExampleScore(f"{number:02d}", "ja", task, "p", "r", score, f"h{number}", named, details)
            made.append(row)
    return make_scorecard("champion", made, TASKS)


def test_before_there_is_a_champion_it_is_the_worst_case():
    (cell,) = power({("de", "choice"): 100}, GateSettings())
    # (1.6449 + 0.8416) · 0.5 / 10
    assert cell.detectable == pytest.approx(0.12432, abs=1e-4)
    assert (cell.n, cell.margin, cell.measured, cell.enough) == (100, 0.02, False, False)


def test_with_a_champion_its_spread_counts():
    places = {("ja", "text"): 400, ("ja", "label"): 400, ("ja", "choice"): N, ("fr", "text"): 10}
    known = {(cell.lang, cell.task): cell for cell in power(places, GateSettings(margin=0.1), champion())}
    assert list(known) == sorted(places)
    spread = np.std([0.01 * (number % 20) for number in range(N)])
    assert known["ja", "text"].detectable == pytest.approx(Z * spread / 20, rel=1e-3)
    assert known["ja", "text"].enough
    # 10 of 40 are wrong; accuracy moves in steps of 1 / 40.
    assert known["ja", "choice"].detectable == pytest.approx(Z * np.sqrt(0.25 * 0.75 / N) + 1 / 80, rel=1e-3)
    assert not known["fr", "text"].measured
    # Macro-F1 of three equally frequent classes varies about as accuracy does.
    assert known["ja", "label"].detectable == pytest.approx(Z * np.sqrt(0.25 * 0.75 / 400), rel=0.25)


def test_rows_that_are_few_are_never_enough():
    (cell,) = power({("ja", "text"): 9}, GateSettings(margin=0.9), champion())
    assert cell.detectable < cell.margin
    assert not cell.enough
    assert power({("ja", "text"): 9}, GateSettings(margin=0.9, min_examples=9), champion())[0].enough


def test_text_that_is_read_has_no_worst_case():
    metrics = {"read": "bits_per_byte", "text": "rouge_l"}
    read, text = power({("ja", "read"): N, ("ja", "text"): N}, GateSettings(), None, metrics)
    assert math.isnan(read.detectable)
    assert math.isnan(read.margin)
    assert not read.enough
    assert (text.margin, text.detectable) == (0.02, pytest.approx(Z * 0.5 / math.sqrt(N), rel=1e-3))
    (known,) = power({("ja", "read"): N}, GateSettings(), champion(), metrics)
    # Bits a byte of the rows are 1 / ln 2 and 2 / ln 2: mean 1.5, spread 0.5, over ln 2; the margin is 2 % of the mean.
    assert known.margin == pytest.approx(0.02 * 1.5 / math.log(2))
    assert known.detectable == pytest.approx(Z * 0.5 / math.log(2) / math.sqrt(N), rel=1e-3)


def test_a_group_is_one_unit():
    """Two rows of a group, 100 and 200 nats, are always 1.5 on average: groups do not vary at all."""
    apart, together = champion().cell("ja", "read"), champion("pair {}").cell("ja", "read")
    assert champion_sd(apart) == pytest.approx(0.5 / math.log(2))
    assert champion_sd(together) == 0
