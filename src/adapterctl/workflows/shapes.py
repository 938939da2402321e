"""What the free parts of a ``release.json`` must look like: others may have written the file it is read from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def require_scores(scores: Mapping[str, Any]) -> None:
    """Refuse scores that are no summary of a scorecard.

    Raises:
        ValueError: They are not; what is missing altogether is not refused.
    """
    average, languages, cells = scores.get("average"), scores.get("languages", {}), scores.get("cells", [])
    if average is not None and not _is_number(average):
        raise ValueError("its average is no number")
    if not isinstance(languages, Mapping) or not all(map(_is_number, languages.values())):
        raise ValueError("its means by language are no numbers")
    if not isinstance(cells, list) or not all(map(_is_cell, cells)):
        raise ValueError("its cells are none")


def _is_cell(cell: Any) -> bool:
    return (
        isinstance(cell, Mapping)
        and all(isinstance(cell.get(name), str) for name in ("lang", "task"))
        and isinstance(cell.get("primary", ""), str)
        and _is_number(cell.get("value"))
        and _is_number(cell.get("n", 0))
        and all(isinstance(cell.get(name, {}), Mapping) for name in ("metrics", "signatures"))
    )


def require_verdict(verdict: Mapping[str, Any]) -> None:
    """Refuse a verdict that does not say whether the gate let it pass.

    Raises:
        ValueError: It does not.
    """
    if not isinstance(verdict.get("passed"), bool):
        raise ValueError("its verdict does not say whether the gate let it pass")
    if not isinstance(verdict.get("cells", []), list):
        raise ValueError("the cells of its verdict are none")
