"""What the gate says, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from adapterctl.errors import DataError
from adapterctl.evaluation.scorecard import SCHEMA, require_schema


@dataclass(frozen=True)
class CellVerdict:
    """The comparison in one language and task.

    Attributes:
        lang, task, metric: What was compared, by the task's primary metric.
        n: Rows that both have.
        champion, candidate: The metric on these rows.
        difference: Candidate − champion, in metric points; above 0 is better.
        lower_bound: One-sided lower confidence bound of the difference.
        low, high: Two-sided confidence interval of the difference.
        margin: The loss that is tolerated.
        passed: Whether ``lower_bound`` > −``margin``.
        detectable: Smallest loss these rows show with 80 % probability.
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
    passed: bool
    detectable: float
    unpaired: tuple[str, ...] = ()


@dataclass(frozen=True)
class LanguageVerdict:
    """The mean over one language's tasks.

    Attributes:
        lang: Which.
        champion, candidate, difference: Means over the tasks of the metrics compared.
        low, high: Two-sided percentile interval of the mean difference, tasks resampled independently.
        passed: Whether every task passed.
    """

    lang: str
    champion: float
    candidate: float
    difference: float
    low: float
    high: float
    passed: bool


@dataclass(frozen=True)
class Verdict:
    """What the gate says.

    Attributes:
        passed: Whether every cell passed.
        candidate, champion: The models, in words for a person.
        cells: By language and task.
        languages: By language.
        confidence: Of the bounds and intervals.
    """

    passed: bool
    candidate: str
    champion: str
    cells: tuple[CellVerdict, ...]
    languages: tuple[LanguageVerdict, ...]
    confidence: float

    @property
    def failed(self) -> tuple[CellVerdict, ...]:
        """The cells that did not pass."""
        return tuple(cell for cell in self.cells if not cell.passed)

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
        """Return the verdict as JSON values."""
        value = asdict(self) | {"schema": SCHEMA}
        value["cells"] = [cell | {"unpaired": list(cell["unpaired"])} for cell in value["cells"]]
        return value | {"languages": list(value["languages"])}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Verdict:
        """Return the verdict that ``as_dict`` wrote.

        Raises:
            DataError: It was written in another form.
        """
        require_schema(value, "verdict")
        fields = {name: part for name, part in value.items() if name != "schema"}
        fields["cells"] = tuple(CellVerdict(**cell | {"unpaired": tuple(cell["unpaired"])}) for cell in value["cells"])
        fields["languages"] = tuple(LanguageVerdict(**lang) for lang in value["languages"])
        return cls(**fields)
