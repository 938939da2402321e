"""A price sheet in a file of its own, with the place of every fault."""

from __future__ import annotations

from pathlib import Path

from adapterctl.accounting.prices import PriceSheet
from adapterctl.errors import ConfigError, Problem
from adapterctl.workspace import documents
from adapterctl.workspace.validation import problem_at, validate

BLOCK = "prices"
"""The block of a file such as ``adapterctl.yaml`` that holds the sheet, where its keys do not stand on their own."""


def load_prices(path: Path) -> PriceSheet:
    """Return the price sheet in a file: its keys alone, or in a block ``prices``.

    Raises:
        ConfigError: The file is missing or not valid; ``problems`` names every fault of it.
    """
    document, problems = documents.read(path, str(path))
    if BLOCK in document.value:
        if not isinstance(document.value[BLOCK], dict):
            problems.append(problem_at(document, (BLOCK,), "must be a block of keys", "indent the keys below it"))
        document = document.part(BLOCK)
    elif not problems and not document.value:
        problems.append(Problem(str(path), "holds no prices"))
    sheet, found = (None, []) if problems else validate(PriceSheet, document)
    if sheet is None:
        raise ConfigError(
            f"the price sheet {path} cannot be used",
            problems=[*problems, *found],
            hint="correct these lines; the keys are those of 'prices' in: adapterctl config schema",
        )
    return sheet
