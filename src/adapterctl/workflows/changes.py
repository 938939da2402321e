"""The parts of a difference between two versions: settings, rows, scores, costs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from adapterctl.accounting import comparison as compare
from adapterctl.accounting.amounts import Amount
from adapterctl.accounting.ledger import Entry
from adapterctl.errors import RegistryError
from adapterctl.workflows.steps import ROWS_FILE

if TYPE_CHECKING:
    from adapterctl.accounting.prices import PriceSheet
    from adapterctl.registry.client import Registry
    from adapterctl.registry.versions import Version
    from adapterctl.workflows.releases import Release


@dataclass(frozen=True)
class Change:
    """A value that differs; None where one side has none."""

    key: str
    before: Any
    after: Any


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Change]:
    """Yield the keys whose values differ, sorted; nested settings by their dotted keys."""
    first, second = _flat(before), _flat(after)
    for key in sorted({*first, *second}):
        if first.get(key) != second.get(key):
            yield Change(key, first.get(key), second.get(key))


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        if isinstance(inner, Mapping) and inner:
            flat |= _flat(inner, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = inner
    return flat


@dataclass(frozen=True)
class Known:
    """What is known of an adapter's training rows.

    Attributes:
        number: Version of the adapter.
        sha256: Of the rows; empty where it was not noted.
        rows: How many; None where unknown.
        version: The version in the registry; None where it is gone.
    """

    number: int
    sha256: str
    rows: int | None
    version: Version | None


@dataclass(frozen=True)
class DataChange:
    """The training rows of one language on both sides.

    Attributes:
        lang: Which, or the registered model's name.
        before, after: Version of the adapter; None where the language is not served.
        rows_before, rows_after: How many rows; None where unknown.
        same: Whether the rows are the same; None where nobody knows.
        added, removed: How many rows came and went; None where the rows of one side were not noted one by one.
    """

    lang: str
    before: int | None
    after: int | None
    rows_before: int | None
    rows_after: int | None
    same: bool | None
    added: int | None = None
    removed: int | None = None


def data_change(registry: Registry, lang: str, before: Known | None, after: Known | None) -> DataChange:
    """Return what is different about the rows of a language; None stands for a side that does not serve it."""
    same, added, removed = None, None, None
    if before and after and before.sha256 and after.sha256:
        same = before.sha256 == after.sha256
    if same:
        added, removed = 0, 0
    elif before and after:
        old, new = (_row_hashes(registry, one.version) for one in (before, after))
        if old is not None and new is not None:
            # Counted, for a row may stand twice.
            added, removed = (new - old).total(), (old - new).total()
    return DataChange(
        lang=lang,
        before=before.number if before else None,
        after=after.number if after else None,
        rows_before=before.rows if before else None,
        rows_after=after.rows if after else None,
        same=same,
        added=added,
        removed=removed,
    )


def _row_hashes(registry: Registry, version: Version | None) -> Counter[str] | None:
    """Return the hashes of an adapter's training rows; None where its run has none that can be read."""
    if version is None:
        return None
    try:
        noted = registry.read_json(version.run_id, ROWS_FILE)
    except RegistryError:
        return None
    return Counter(noted) if isinstance(noted, list) and all(isinstance(one, str) for one in noted) else None


@dataclass(frozen=True)
class ScoreChange:
    """One cell of the scorecards.

    Attributes:
        lang, task, metric: What was measured; by the right side's primary metric where they differ.
        before, after: The values; None where one side was not measured.
        why_not: Why the two cannot be compared; empty where they can.
    """

    lang: str
    task: str
    metric: str
    before: float | None
    after: float | None
    why_not: str = ""

    @property
    def difference(self) -> float | None:
        """What was gained; None where the values cannot be compared."""
        return None if self.why_not or self.before is None or self.after is None else self.after - self.before

    def as_dict(self) -> dict[str, Any]:
        """Return the cell as plain values."""
        return asdict(self) | {"difference": self.difference}


def score_changes(before: Release, after: Release) -> Iterator[ScoreChange]:
    """Yield what is different about the scores, every cell, by language and task.

    Where the right side was gated against the left one, the left one's values are those that the gate measured on the
    same rows; else the values are what each was measured with at its time.
    """
    first, second = _cells(before.scores.get("cells")), _cells(after.scores.get("cells"))
    gated = _cells(after.verdict.get("cells")) if after.verdict and after.compared_with == before.version else {}
    for place in sorted({*first, *second}):
        old, new = first.get(place), second.get(place)
        metric = str((new or old or {}).get("primary", ""))
        known = gated.get(place, {})
        if old and new and known.get("metric") == metric and finite(known.get("champion")) is not None:
            yield ScoreChange(*place, metric, finite(known["champion"]), finite(new.get("value")))
            continue
        values = [finite(cell.get("value")) if cell else None for cell in (old, new)]
        yield ScoreChange(*place, metric, values[0], values[1], _why_not(old, new))


def averages(before: Release, after: Release) -> tuple[float | None, float | None]:
    """Return the means over the languages, on the same rows where the gate has measured them: see ``score_changes``.

    None where there is none, such as of rows that the left side was never measured on.
    """
    mean = finite(after.scores.get("average"))
    if not after.verdict or after.compared_with != before.version:
        return finite(before.scores.get("average")), mean
    told = after.verdict.get("languages")
    found = {
        str(one.get("lang")): finite(one.get("champion"))
        for one in (told if isinstance(told, list) else ())
        if isinstance(one, Mapping)
    }
    known = [value for value in found.values() if value is not None]
    same = found.keys() == set(after.scores.get("languages", {})) and len(known) == len(found) > 0
    return (sum(known) / len(known) if same else None), mean


def _cells(cells: Any) -> dict[tuple[str, str], Mapping[str, Any]]:
    """Return cells by language and task; what is none is passed over."""
    found = [cell for cell in (cells if isinstance(cells, list) else ()) if isinstance(cell, Mapping)]
    return {(str(cell.get("lang")), str(cell.get("task"))): cell for cell in found}


def _why_not(first: Mapping[str, Any] | None, second: Mapping[str, Any] | None) -> str:
    if first is None or second is None:
        return "measured on one side only"
    metric = second.get("primary")
    if first.get("primary") != metric:
        return f"another metric before: {first.get('primary')}"
    if len({str((cell.get("signatures") or {}).get(metric)) for cell in (first, second)}) > 1:
        return "the metric was computed differently"
    if first.get("n") != second.get("n"):
        return f"other test rows: {first.get('n')} before, {second.get('n')} now"
    return ""


def finite(value: Any) -> float | None:
    """Return a number as one, None for anything else and for NaN and infinities."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


@dataclass(frozen=True)
class CostChange:
    """What it took to make each side; None where the books do not tell.

    Attributes:
        seconds_before, seconds_after: Wall seconds of all attempts.
        money_before, money_after: At the workspace's prices.
        currency: Of the money.
    """

    seconds_before: Amount | None
    seconds_after: Amount | None
    money_before: Amount | None
    money_after: Amount | None
    currency: str

    def as_dict(self) -> dict[str, Any]:
        """Return the costs as plain values; each says whether it was measured."""
        return {name: value.as_dict() if isinstance(value, Amount) else value for name, value in vars(self).items()}


def cost_change(prices: PriceSheet, before: Sequence[Entry], after: Sequence[Entry]) -> CostChange:
    """Return what each side cost by its entries of the books; where there are none, None and not zero."""
    sides = [compare.side("update", entries, prices) if entries else None for entries in (before, after)]
    seconds = [side.seconds if side else None for side in sides]
    money = [side.money if side else None for side in sides]
    return CostChange(seconds[0], seconds[1], money[0], money[1], prices.currency)
