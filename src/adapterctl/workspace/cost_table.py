"""A published table of hours and money, for ``adapterctl cost audit``: CSV or YAML.

Columns, one row a line:

- ``name``: unique; ``hours`` and ``money``: as printed, since ``1.0`` was rounded to tenths and ``45`` to whole hours.
- ``kind``: ``busy`` (default), the hours that are paid for, or ``wall``, the hours that passed while several machines
  worked.
- ``hours_unit``, ``money_unit``: what the numbers were rounded to, where their last digit does not say it (``0.5`` for
  half hours).
- ``against``: the row that savings are measured by; ``time_saved``, ``money_saved``: savings as printed, in per cent.

In YAML the rows are a list, at the top or under ``rows``, whose items have the same keys; write numbers that end in
zero in quotes.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import SequenceNode

from adapterctl.accounting.audit import Kind, Printed, Row, faults
from adapterctl.errors import DataError, Problem
from adapterctl.workspace import documents

REQUIRED = ("name", "hours", "money")
COLUMNS = (*REQUIRED, "kind", "hours_unit", "money_unit", "against", "time_saved", "money_saved")
_NUMBER = re.compile(r"^-?\d{1,15}(\.\d{1,9})?$")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_MOST_BYTES = 2**20
_MOST_ROWS = 1000


def load_table(path: Path) -> tuple[Row, ...]:
    """Return the rows of a table of hours and money.

    Raises:
        DataError: The file cannot be read or used; ``problems`` names every fault of it.
    """
    problems: list[Problem] = []
    if path.suffix.lower() in (".yaml", ".yml"):
        records = _yaml_records(path, problems)
    elif path.suffix.lower() == ".csv":
        records = _csv_records(path, problems)
    else:
        records = []
        problems.append(Problem(str(path), "is neither .csv nor .yaml", "the columns are " + ", ".join(COLUMNS)))
    if len(records) > _MOST_ROWS:
        problems.append(Problem(str(path), f"has {len(records)} rows; a printed table has at most {_MOST_ROWS}"))
        records = []
    rows: list[Row] = []
    places: dict[str, str] = {}
    for where, record in records:
        row = _row(where, record, problems)
        if row is not None:
            rows.append(row)
            places.setdefault(row.name, where)
    if not problems and not rows:
        problems.append(Problem(str(path), "has no rows"))
    if not problems:
        problems += [Problem(places.get(found.where, str(path)), found.message, found.hint) for found in faults(rows)]
    if problems:
        raise DataError(
            f"the table {path} cannot be audited",
            problems=problems,
            hint="columns and examples are shown by: adapterctl cost audit --help",
        )
    return tuple(rows)


def _read(path: Path, most_bytes: int, problems: list[Problem]) -> str | None:
    """Return the text of a file; None, and a problem more, where it has none that can be used."""
    content = b""
    try:
        with path.open("rb") as handle:
            content = handle.read(most_bytes + 1)
        text = content.decode("utf-8-sig")
    except OSError as error:
        problems.append(Problem(str(path), f"cannot be read: {error.strerror}"))
        return None
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        problems.append(Problem(f"{path}:{line}", "is not UTF-8", "save the file as UTF-8"))
        return None
    if len(content) > most_bytes:
        problems.append(Problem(str(path), f"is larger than {most_bytes // 2**10} KiB, which no printed table is"))
        return None
    if found := _CONTROL.search(text):
        line = text.count("\n", 0, found.start()) + 1
        problems.append(Problem(f"{path}:{line}", "holds a control character", "remove it"))
        return None
    return text


def _csv_records(path: Path, problems: list[Problem]) -> list[tuple[str, dict[str, str]]]:
    text = _read(path, _MOST_BYTES, problems)
    if text is None:
        return []
    # Spreadsheets of many countries write semicolons.
    head = text.partition("\n")[0]
    reader = csv.reader(io.StringIO(text), delimiter=";" if head.count(";") > head.count(",") else ",")
    records: list[tuple[str, dict[str, str]]] = []
    names: list[str] = []
    try:
        for cells in reader:
            where = f"{path}:{reader.line_num}"
            if not any(cell.strip() for cell in cells):
                continue
            if not names:
                names = [cell.strip().lower() for cell in cells]
                problems += _bad_columns(where, names)
            elif len(cells) > len(names):
                problems.append(Problem(where, f"has {len(cells)} cells, the table has {len(names)} columns"))
            else:
                records.append((where, {name: cell.strip() for name, cell in zip(names, cells, strict=False)}))
    except csv.Error as error:
        problems.append(Problem(f"{path}:{reader.line_num}", f"is not CSV: {error}"))
    return [] if problems else records


def _bad_columns(where: str, names: list[str]) -> list[Problem]:
    problems = [
        Problem(where, f"unknown column '{name}'", "the columns are " + ", ".join(COLUMNS))
        for name in names
        if name not in COLUMNS
    ]
    problems += [Problem(where, f"the column '{name}' is missing") for name in REQUIRED if name not in names]
    return problems + [
        Problem(where, f"the column '{name}' stands there twice")
        for name in sorted(set(names))
        if names.count(name) > 1
    ]


def _yaml_records(path: Path, problems: list[Problem]) -> list[tuple[str, dict[str, str]]]:
    text = _read(path, documents.LARGEST_FILE, problems)
    if text is None:
        return []
    document, found = _list_of_rows(text, str(path)) or documents.parse(text, str(path))
    problems += found
    if found:
        return []
    place = document.place(()).where
    problems += [
        Problem(document.place((key,)).where, f"unknown key '{key}'", "the rows stand under 'rows'")
        for key in document.value
        if key != "rows"
    ]
    items = document.value.get("rows")
    if not isinstance(items, list):
        problems.append(Problem(place, "has no list 'rows'", "write a list of rows: - name: ..."))
        return []
    records = []
    for position, item in enumerate(items):
        where = document.place(("rows", position)).where
        if not isinstance(item, Mapping):
            problems.append(Problem(where, "a row must be keys with values"))
            continue
        problems += [
            Problem(document.place(("rows", position, key)).where, f"unknown key '{key}'")
            for key in item
            if key not in COLUMNS
        ]
        records.append((where, {key: _text(value) for key, value in item.items() if value is not None}))
    return records


def _list_of_rows(text: str, name: str) -> tuple[documents.Document, list[Problem]] | None:
    """Return a YAML text that is a list as if it stood under ``rows``; None for every other text."""
    yaml = YAML(typ="safe", pure=True)
    try:
        node = yaml.compose(text)
        if not isinstance(node, SequenceNode):
            return None
        builder = documents._Builder(name, yaml)
        value = {"rows": builder.build(node, ("rows",))}
    except (YAMLError, RecursionError, documents._Unreadable):
        # Whoever reads it as keys with values meets the same and says what it is.
        return None
    return documents.Document(value, {(): documents.Place(f"{name}:1", ""), **builder.places}), builder.problems


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else repr(value)


def _row(where: str, record: Mapping[str, str], problems: list[Problem]) -> Row | None:
    before = len(problems)
    name = record.get("name", "")
    if not name:
        problems.append(Problem(where, "the row has no name"))
    kind: Kind = "wall" if record.get("kind") == "wall" else "busy"
    if record.get("kind", "") not in ("", "busy", "wall"):
        problems.append(Problem(where, f"kind is '{record['kind']}'", "busy or wall"))
    hours = _printed(where, record, "hours", "hours_unit", problems)
    money = _printed(where, record, "money", "money_unit", problems)
    saved = {
        key: _printed(where, record, key, "", problems) for key in ("time_saved", "money_saved") if record.get(key)
    }
    if saved and not record.get("against"):
        problems.append(Problem(where, "has a saving, but no row to measure it by", "name that row under against"))
    if len(problems) > before or hours is None or money is None:
        return None
    return Row(name, hours, money, kind, record.get("against", ""), saved.get("time_saved"), saved.get("money_saved"))


def _printed(where: str, record: Mapping[str, str], key: str, unit_key: str, problems: list[Problem]) -> Printed | None:
    """Return a number with what it was rounded to: one unit of its last digit where nothing else is said."""
    text = record.get(key, "")
    if not _NUMBER.match(text):
        shown = f"'{text}'" if text else "empty"
        problems.append(Problem(where, f"{key} is {shown}", "write a plain number, such as 113.4, without currency"))
        return None
    unit = Decimal(1).scaleb(int(Decimal(text).as_tuple().exponent))
    wanted = record.get(unit_key, "") if unit_key else ""
    if wanted:
        if not _NUMBER.match(wanted) or Decimal(wanted) <= 0:
            problems.append(Problem(where, f"{unit_key} is '{wanted}'", "write what was rounded to, such as 0.5"))
            return None
        unit = Decimal(wanted)
    return Printed(float(text), float(unit))
