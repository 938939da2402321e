"""`adapterctl cost audit`: tables of hours and money from elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.cli import invoke

EXAMPLE = Path(__file__).parents[3] / "docs" / "examples" / "cost-table.csv"


def test_the_table_of_the_paper_is_audited_without_a_workspace(here: Path) -> None:
    done = invoke("cost", "audit", EXAMPLE)
    assert done.exit_code == 0, done.err
    assert "31.35 to 31.66 an hour" in done.out
    assert "Initial combined: 113.4 for 3.4 h is 33.35 an hour" in done.out
    assert "either the hours are 3.6 or the money is 107.1" in done.out
    assert "35.3 % is printed, 38.9 % follows" in done.out
    assert done.out.count("CONTRADICTS") == 2
    plain = invoke("cost", "audit", EXAMPLE, "--rate", "31.5", "--json").json
    assert plain["used_rate"] == 31.5
    assert [row["name"] for row in plain["rows"] if not row["consistent"]] == ["Initial combined"]
    assert list(here.iterdir()) == []


def test_a_table_that_agrees_says_so(here: Path) -> None:
    (here / "t.yaml").write_text("rows:\n  - {name: a, hours: 2.5, money: 25.0}\n", encoding="utf-8")
    done = invoke("cost", "audit", "t.yaml")
    assert "All numbers agree within their rounding." in done.out
    assert "CONTRADICTS" not in done.out


def test_a_table_of_two_camps_is_disputed_until_a_rate_decides(here: Path) -> None:
    (here / "t.csv").write_text("name,hours,money\na,1.0,31.5\nb,2.0,63.0\nc,3.4,113.4\n", encoding="utf-8")
    done = invoke("cost", "audit", "t.csv")
    assert done.exit_code == 0, done.err
    assert [line.split()[-1] for line in done.out.splitlines()[2:5]] == ["ok", "disputed", "disputed"]
    assert "30.71 to 32.33 an hour (a, b); 32.86 to 33.21 an hour (a, c)" in done.out
    assert "--rate, decides" in done.out
    assert "most rows" not in done.out
    assert "CONTRADICTS" not in done.out
    rows = invoke("cost", "audit", "t.csv", "--json").json["rows"]
    assert [row["status"] for row in rows] == ["ok", "disputed", "disputed"]
    rows = invoke("cost", "audit", "t.csv", "--rate", "31.5", "--json").json["rows"]
    assert [row["status"] for row in rows] == ["ok", "ok", "contradicts"]


def test_a_list_of_rows_is_a_table_as_the_help_says(here: Path) -> None:
    lines = [line.strip() for line in invoke("cost", "audit", "--help").out.splitlines()]
    rows = [line for line in lines if line.startswith("- {")]
    assert len(rows) == 2
    (here / "t.yaml").write_text("\n".join(rows) + "\n", encoding="utf-8")
    # 94.5 / 3.0 and 47.3 / 1.5 are both 31.5 an hour.
    assert "All numbers agree within their rounding." in invoke("cost", "audit", "t.yaml").out


def test_a_table_that_is_wrong_names_its_lines(here: Path) -> None:
    (here / "t.csv").write_text("name,hours\na,1\n", encoding="utf-8")
    done = invoke("cost", "audit", "t.csv")
    assert (done.exit_code, done.out) == (6, "")
    assert "t.csv:1: the column 'money' is missing" in done.err


@pytest.mark.parametrize("rate", ["nan", "inf", "0", "-1"])
def test_a_rate_that_is_no_price_is_refused(here: Path, rate: str) -> None:
    done = invoke("cost", "audit", EXAMPLE, "--rate", rate)
    assert (done.exit_code, done.out) == (2, "")
    assert "--rate" in done.err
