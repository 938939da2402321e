"""Whether the gate is right: how often it lets a loss of the margin pass, and how often an equal candidate.

    python benchmarks/gate_simulation.py [--cases 2000] [--resamples 999] [--out results.json]

Every case draws the rows of one language and task anew, champion and candidate from a known distribution, and asks the
gate itself. A true loss of exactly the margin should pass in 5 % of the cases at most; where there is no loss, and the
margin is what the rows can detect as ``plan`` states it, 80 % should pass. Monte-Carlo standard errors stand beside.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adapterctl.evaluation.gate import gate
from adapterctl.evaluation.policy import GateSettings
from adapterctl.evaluation.scorecard import Cell, ExampleScore, Scorecard
from adapterctl.evaluation.statistics import detectable_difference

Pair = tuple[list[dict[str, object]], list[dict[str, object]]]
"""What metrics are computed from, of every row: the champion's and the candidate's."""
Draw = Callable[[np.random.Generator, int, float], Pair]
"""From random numbers, a number of rows and a true loss to the rows."""

_PILOT = 200


@dataclass(frozen=True)
class Scenario:
    """One kind of comparison.

    Attributes:
        name: For the table.
        metric: Which the gate compares.
        draw: Makes the rows of a case, with a true loss.
        n: Number of rows.
        sd: Standard deviation of one row's difference without a loss, for the stated power.
            NaN where it has no closed form: what the gate itself states in a pilot is taken.
        margin: None for what the rows detect with 80 % probability.
    """

    name: str
    metric: str
    draw: Draw
    n: int
    sd: float
    margin: float | None = None

    @property
    def limit(self) -> float:
        """The margin."""
        if self.margin is not None:
            return self.margin
        if math.isnan(self.sd):
            return rates(replace(self, margin=0.5), 0.0, _PILOT, 199).detectable
        return detectable_difference(self.n, self.sd, step=1 / self.n if self.metric == "accuracy" else 0.0)


def flips(discordant: float) -> Draw:
    """Right and wrong answers: a share of the rows in which one model is right and the other is not."""

    def draw(random: np.random.Generator, n: int, loss: float) -> Pair:
        lost = (max(discordant, loss) + loss) / 2
        gained = lost - loss
        kind = random.choice(3, p=[lost, gained, 1 - lost - gained], size=n)
        both = random.random(n) < 0.7
        before = np.where(kind == 0, 1, np.where(kind == 1, 0, both))
        after = np.where(kind == 0, 0, np.where(kind == 1, 1, both))
        # Both models give their answers with a log-likelihood of their own: equal answers are no equal models.
        return tuple(  # type: ignore[return-value]
            [{"chosen": int(right), "answer": 1, "log_likelihoods": [float(side), 0.0]} for right in column]
            for side, column in enumerate((before, after))
        )

    return draw


def classes(agreement: float, right: float) -> Draw:
    """Three classes of unequal size, in which the models err alike in a share of the rows; the loss is of macro-F1.

    Errors fall on the other classes in proportion to their sizes, so that a model that is right with probability p in
    every class has the macro-F1 that ``expected_f1`` gives; the candidate's p is chosen for the loss.
    """
    sizes = np.array([0.5, 0.3, 0.2])

    def expected_f1(p: float) -> float:
        named = np.array([sizes[k] * p + sum(sizes[j] * (1 - p) * sizes[k] / (1 - sizes[j]) for j in range(3) if j != k)
                          for k in range(3)])  # fmt: skip
        return float((2 * sizes * p / (sizes + named)).mean())

    def solve(value: float) -> float:
        low, high = 0.0, 1.0
        for _ in range(50):
            middle = (low + high) / 2
            low, high = (middle, high) if expected_f1(middle) < value else (low, middle)
        return low

    def draw(random: np.random.Generator, n: int, loss: float) -> Pair:
        worse = solve(expected_f1(right) - loss)
        answers = random.choice(3, p=sizes, size=n)
        shared = random.random(n) < agreement
        luck = random.random(n)
        columns = []
        # One of the two other classes, in proportion to their sizes.
        first, second = (answers + 1) % 3, (answers + 2) % 3
        wrong = np.where(random.random(n) < sizes[first] / (sizes[first] + sizes[second]), first, second)
        for p in (right, worse):
            own = np.where(shared, luck, random.random(n))
            columns.append(np.where(own < p, answers, wrong))
        return tuple(  # type: ignore[return-value]
            [{"chosen": int(c), "answer": int(a), "log_likelihoods": [float(side)] * 3}
             for c, a in zip(column, answers, strict=True)]
            for side, column in enumerate(columns)
        )  # fmt: skip

    return draw


def texts(ties: float, spread: float) -> Draw:
    """Scores of texts such as ROUGE: many rows tie exactly, the others move."""

    def draw(random: np.random.Generator, n: int, loss: float) -> Pair:
        before = random.beta(2, 3, n)
        moved = random.normal(-loss / (1 - ties), spread, n)
        after = np.where(random.random(n) < ties, before, before + moved)
        return [{"rouge_l": float(x)} for x in before], [{"rouge_l": float(x)} for x in after]

    return draw


def collapses(severity: float) -> Draw:
    """Scores of texts where a few texts of the candidate collapse, and nothing else is worse: the hardest case."""

    def draw(random: np.random.Generator, n: int, loss: float) -> Pair:
        before = np.full(n, severity) + random.normal(0, 0.05, n)
        noise = random.normal(0, 0.02, n)
        gone = random.random(n) < loss / severity
        after = np.where(gone, before - severity, before + noise)
        return [{"rouge_l": float(x)} for x in before], [{"rouge_l": float(x)} for x in after]

    return draw


def corpus(agreement: float) -> Draw:
    """Counts of n-grams of texts of unequal length, measured by corpus chrF."""

    def draw(random: np.random.Generator, n: int, loss: float) -> Pair:
        length = random.integers(20, 120, n)
        quality = random.beta(6, 6, n)
        sides: list[list[dict[str, object]]] = [[], []]
        for number in range(n):
            own = random.normal(0, 0.1, 2) * math.sqrt(1 - agreement)
            for side in (0, 1):
                share = float(np.clip(quality[number] + own[side] - side * loss, 0.0, 1.0))
                counts: list[int] = []
                for order in range(6):
                    total = int(length[number]) - order
                    counts += [total, total, round(total * share)]
                sides[side].append({"chrf_stats": counts})
        return sides[0], sides[1]

    return draw


SCENARIOS = (
    Scenario("accuracy, 10 % discordant", "accuracy", flips(0.1), 200, math.sqrt(0.1)),
    Scenario("accuracy, 20 % discordant", "accuracy", flips(0.2), 100, math.sqrt(0.2)),
    Scenario("accuracy, 20 % discordant", "accuracy", flips(0.2), 600, math.sqrt(0.2)),
    Scenario("accuracy, losses only", "accuracy", flips(0.0), 60, 0.0, 0.02),
    Scenario("accuracy, losses only", "accuracy", flips(0.0), 200, 0.0, 0.02),
    Scenario("macro-F1, three classes", "macro_f1", classes(0.6, 0.75), 150, math.nan),
    Scenario("ROUGE, 40 % ties", "rouge_l", texts(0.4, 0.2), 60, math.sqrt(0.6) * 0.2),
    Scenario("ROUGE, 40 % ties", "rouge_l", texts(0.4, 0.2), 150, math.sqrt(0.6) * 0.2),
    Scenario("ROUGE, 80 % ties", "rouge_l", texts(0.8, 0.3), 150, math.sqrt(0.2) * 0.3),
    Scenario("ROUGE, texts collapse", "rouge_l", collapses(0.4), 60, 0.02, 0.05),
    Scenario("ROUGE, texts collapse", "rouge_l", collapses(0.4), 200, 0.02, 0.05),
    Scenario("corpus chrF", "chrf", corpus(0.5), 100, math.nan),
)


def card(model: str, metric: str, rows: list[dict[str, object]]) -> Scorecard:
    """Return the scorecard of one language and task; its value plays no part."""
    scores = tuple(
        ExampleScore(
            f"{number:04d}", "de", "task", "", "",
            float(row["chosen"] == row["answer"]) if "chosen" in row else float(row.get("rouge_l", 0.5)),  # type: ignore[arg-type]
            row=str(number), details=row,
        )
        for number, row in enumerate(rows)
    )  # fmt: skip
    return Scorecard(model, (Cell("de", "task", len(scores), metric, 0.0, {metric: 0.0}, scores),))


def outcomes(scenario: Scenario, loss: float, cases: int, resamples: int) -> Iterator[tuple[str, float]]:
    """Ask the gate, case by case; give its outcome and what it says is detectable."""
    settings = GateSettings(margin=scenario.limit, resamples=resamples)
    for case in range(cases):
        before, after = scenario.draw(np.random.default_rng([case, scenario.n]), scenario.n, loss)
        verdict = gate(
            card("candidate", scenario.metric, after),
            card("champion", scenario.metric, before),
            settings.model_copy(update={"seed": case}),
        )
        yield verdict.cells[0].outcome, verdict.cells[0].detectable


@dataclass(frozen=True)
class Rates:
    """How often the gate said what.

    Attributes:
        passed, failed, inconclusive: Shares of the cases.
        cases: How many.
        detectable: Median of what the gate said is detectable.
    """

    passed: float
    failed: float
    inconclusive: float
    cases: int
    detectable: float

    @property
    def error(self) -> float:
        """The Monte-Carlo standard error of ``passed``."""
        return math.sqrt(self.passed * (1 - self.passed) / self.cases)


def rates(scenario: Scenario, loss: float, cases: int, resamples: int) -> Rates:
    """Simulate a scenario with a true loss."""
    found = list(outcomes(scenario, loss, cases, resamples))
    words = [word for word, _ in found]
    detectable: NDArray[np.float64] = np.array([value for _, value in found])
    share = {word: words.count(word) / cases for word in ("pass", "fail", "inconclusive")}
    return Rates(share["pass"], share["fail"], share["inconclusive"], cases, float(np.median(detectable)))


def main() -> None:
    """Simulate all scenarios, print the table and write it."""
    from record import write_result

    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--resamples", type=int, default=999)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/gate-simulation.json"))
    arguments = parser.parse_args()
    table = []
    print("| scenario | rows | margin | false passes | true passes | stated |")
    print("|---|---:|---:|---:|---:|---:|")
    started = time.monotonic()
    for given in SCENARIOS:
        stated = "80 %" if given.margin is None else ""
        scenario = replace(given, margin=given.limit)
        wrong = rates(scenario, scenario.limit, arguments.cases, arguments.resamples)
        right = rates(scenario, 0.0, arguments.cases, arguments.resamples)
        print(
            f"| {scenario.name} | {scenario.n} | {scenario.limit:.3f} | {wrong.passed:.1%} ± {wrong.error:.1%} | "
            f"{right.passed:.1%} ± {right.error:.1%} | {stated} |",
            flush=True,
        )
        table.append(
            {
                "scenario": scenario.name,
                "metric": scenario.metric,
                "rows": scenario.n,
                "margin": scenario.limit,
                "stated_power": 0.8 if stated else None,
                "loss_of_the_margin": vars(wrong) | {"standard_error": wrong.error},
                "no_loss": vars(right) | {"standard_error": right.error},
            }
        )
    write_result(
        arguments.out,
        "Simulated comparisons by the gate: how often it lets a loss of the margin pass, and an equal candidate",
        cases=arguments.cases,
        resamples=arguments.resamples,
        seconds=round(time.monotonic() - started, 1),
        scenarios=table,
    )


if __name__ == "__main__":
    main()
