"""What the gate says, as values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from adapterctl.errors import DataError
from adapterctl.evaluation.policy import OnInconclusive
from adapterctl.evaluation.scorecard import SCHEMA, require_schema

Outcome = Literal["pass", "fail", "inconclusive"]
"""``inconclusive``: a loss beyond the margin is neither excluded nor shown, and there are too few rows for either."""

_DERIVED = ("schema", "outcome", "passed")


def worst(outcomes: Iterable[Outcome]) -> Outcome:
    """Return what several outcomes are together: one failure fails, one that is inconclusive leaves it open."""
    found = set(outcomes)
    return "fail" if "fail" in found else "inconclusive" if "inconclusive" in found else "pass"


@dataclass(frozen=True)
class CellVerdict:
    """The comparison in one language and task.

    Attributes:
        lang, task, metric: What was compared, by the task's primary metric.
        n: Rows that both have.
        champion, candidate: The metric on these rows.
        difference: Candidate − champion, in metric points, turned where a lower metric is better: above 0 is better.
        lower_bound: One-sided lower confidence bound of the difference.
        low, high: Two-sided confidence interval of the difference.
        margin: The loss that is tolerated, in points of the metric.
        outcome: ``pass``: the loss is below the margin; ``fail``: that is not shown; ``inconclusive``: too few rows.
        detectable: Smallest loss these rows show with 80 % probability.
        units: How many rows or groups of rows were resampled; ``n`` where no row is of a group.
        unseen: Share of all rows whose right answer may be lost although none of these was; 0 where some were, where
            no answer changed at all, or where answers are not just right or wrong.
        unpaired: Ids of rows that only one of the two has, or that ask something else now; not compared.
    """

    lang: str
    task: str
    metric: str
    n: int
    champion: float
    candidate: float
    difference: float
    lower_bound: float
    low: float
    high: float
    margin: float
    outcome: Outcome
    detectable: float
    units: int
    unseen: float = 0.0
    unpaired: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether the loss is shown to be below the margin."""
        return self.outcome == "pass"


@dataclass(frozen=True)
class LanguageVerdict:
    """The mean over one language's tasks.

    Attributes:
        lang: Which.
        champion, candidate, difference: Means over the tasks of the metrics compared; tasks whose metric does not go
            from 0 to 1 count only where there are no others.
        low, high: Two-sided confidence interval of the mean difference, tasks resampled independently.
        outcome: The worst of all its tasks.
        p_value: How often chance alone gives a gain as large, by the paired randomisation test.
        adjusted: The same, corrected for the number of languages (Benjamini and Hochberg 1995).
        improved: Whether the language is better, among all languages at the false discovery rate of the settings.
    """

    lang: str
    champion: float
    candidate: float
    difference: float
    low: float
    high: float
    outcome: Outcome
    p_value: float = 1.0
    adjusted: float = 1.0
    improved: bool = False

    @property
    def passed(self) -> bool:
        """Whether every task passed."""
        return self.outcome == "pass"


@dataclass(frozen=True)
class GainVerdict:
    """Whether the updated language gained what it has to.

    Attributes:
        lang: The updated language.
        required: What the mean over its tasks must gain.
        difference: What it gained.
        lower_bound: One-sided lower confidence bound of that.
        outcome: ``pass`` where the bound is above ``required`` and there are rows enough; ``inconclusive`` where only
            the gain itself is above it; else ``fail``.
    """

    lang: str
    required: float
    difference: float
    lower_bound: float
    outcome: Outcome


@dataclass(frozen=True)
class Verdict:
    """What the gate says.

    Attributes:
        candidate, champion: The models, in words for a person.
        cells: By language and task.
        languages: By language.
        confidence: Of the bounds and intervals.
        inconclusive: What an inconclusive outcome means: ``fail``, ``review`` or ``pass``.
        gain: The gain that was required of the updated language; None where none was.
    """

    candidate: str
    champion: str
    cells: tuple[CellVerdict, ...]
    languages: tuple[LanguageVerdict, ...]
    confidence: float
    inconclusive: OnInconclusive = "fail"
    gain: GainVerdict | None = None

    @property
    def outcome(self) -> Outcome:
        """The worst of all cells and of the required gain."""
        return worst([cell.outcome for cell in self.cells] + ([self.gain.outcome] if self.gain else []))

    @property
    def passed(self) -> bool:
        """Whether the candidate may be promoted without a person."""
        return self.outcome == "pass" or (self.outcome == "inconclusive" and self.inconclusive == "pass")

    @property
    def waits(self) -> bool:
        """Whether a person is to decide: nothing failed, too few rows to pass, and the policy says ``review``."""
        return self.outcome == "inconclusive" and self.inconclusive == "review"

    @property
    def failed(self) -> tuple[CellVerdict, ...]:
        """The cells that failed."""
        return tuple(cell for cell in self.cells if cell.outcome == "fail")

    @property
    def undecided(self) -> tuple[CellVerdict, ...]:
        """The cells with too few rows to decide."""
        return tuple(cell for cell in self.cells if cell.outcome == "inconclusive")

    def cell(self, lang: str, task: str) -> CellVerdict:
        """Return the comparison in a language and task.

        Raises:
            DataError: It was not compared.
        """
        for cell in self.cells:
            if (cell.lang, cell.task) == (lang, task):
                return cell
        raise DataError(f"the gate did not compare '{lang}', task '{task}'")

    def language(self, lang: str) -> LanguageVerdict:
        """Return the mean over a language's tasks.

        Raises:
            DataError: It was not compared.
        """
        for found in self.languages:
            if found.lang == lang:
                return found
        raise DataError(f"the gate did not compare '{lang}'")

    def as_dict(self) -> dict[str, Any]:
        """Return the verdict as JSON values; what follows from the rest (``passed``) is told too."""
        return asdict(self) | {
            "schema": SCHEMA,
            "outcome": self.outcome,
            "passed": self.passed,
            "cells": [asdict(cell) | {"passed": cell.passed, "unpaired": list(cell.unpaired)} for cell in self.cells],
            "languages": [asdict(one) | {"passed": one.passed} for one in self.languages],
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Verdict:
        """Return the verdict that ``as_dict`` wrote.

        Raises:
            DataError: It was written in another form.
        """
        require_schema(value, "verdict")
        fields = {name: part for name, part in value.items() if name not in _DERIVED}
        cells = [_without_passed(cell) | {"unpaired": tuple(cell["unpaired"])} for cell in value["cells"]]
        fields["cells"] = tuple(CellVerdict(**cell) for cell in cells)
        fields["languages"] = tuple(LanguageVerdict(**_without_passed(one)) for one in value["languages"])
        fields["gain"] = GainVerdict(**value["gain"]) if value["gain"] else None
        return cls(**fields)


def _without_passed(value: Mapping[str, Any]) -> dict[str, Any]:
    return {name: part for name, part in value.items() if name != "passed"}
