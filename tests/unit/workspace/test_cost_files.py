"""Tables for `cost audit` and price sheets: files that people write by hand."""

import datetime
from pathlib import Path

import pytest

from adapterctl.accounting.audit import Printed, Row
from adapterctl.accounting.prices import PriceSheet
from adapterctl.errors import ConfigError, DataError
from adapterctl.workspace.cost_table import load_table
from adapterctl.workspace.price_file import load_prices

EXAMPLE = Path(__file__).parents[3] / "docs" / "examples" / "cost-table.csv"


@pytest.fixture
def write(tmp_path):
    def written(text, name="table.csv"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return written


def test_numbers_keep_what_they_were_rounded_to(write):
    rows = load_table(write("name,hours,money\na,3.40,113\nb,45,1416.5\n"))
    assert rows == (
        Row("a", Printed(3.4, 0.01), Printed(113.0, 1.0)),
        Row("b", Printed(45.0, 1.0), Printed(1416.5, 0.1)),
    )


def test_all_columns_are_read_in_any_order_and_from_spreadsheets(write):
    text = "\ufeffmoney;name;hours;kind;hours_unit;money_unit;against;time_saved;money_saved\r\n" + (
        "100;a;2.0;;;;;;\r\n;;;;;;;;\r\n90;b;1.5;wall;0.5;10;a;25.0;10\r\n"
    )
    rows = load_table(write(text))
    assert rows[1] == Row(
        "b", Printed(1.5, 0.5), Printed(90.0, 10.0), "wall", "a", Printed(25.0, 0.1), Printed(10.0, 1.0)
    )
    assert rows[0].kind == "busy"


def test_yaml_says_the_same(write):
    text = (
        'rows:\n  - {name: a, hours: "2.0", money: 100}\n'
        "  - {name: b, hours: 1.5, money: 90, kind: wall, against: a, time_saved: 25}\n"
    )
    first, second = load_table(write(text, "table.yaml"))
    assert first == Row("a", Printed(2.0, 0.1), Printed(100.0, 1.0))
    assert (second.kind, second.against, second.time_saved) == ("wall", "a", Printed(25.0, 1.0))


@pytest.mark.parametrize(
    "text",
    [
        '# printed\n- {name: a, hours: "2.0", money: 100}\n- name: b\n  hours: 1.5\n  money: 90\n',
        '---\n- {name: a, hours: "2.0", money: 100}\n- {name: b, hours: 1.5, money: 90}\n',
        '[{"name": "a", "hours": "2.0", "money": 100},\n {"name": "b", "hours": 1.5, "money": 90}]\n',
        '\ufeff  - {name: a, hours: "2.0", money: 100}\n  - {name: b, hours: 1.5, money: 90}\n',
    ],
)
def test_a_yaml_table_may_be_a_list(write, text):
    assert load_table(write(text, "table.yaml")) == (
        Row("a", Printed(2.0, 0.1), Printed(100.0, 1.0)),
        Row("b", Printed(1.5, 0.1), Printed(90.0, 1.0)),
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]\n", "has no rows"),
        ("- 3\n", "table.yaml:1: a row must be keys with values"),
        ("- {name: a, hours: 1, money: 2}\n- {name: b, hours: x, money: 2}\n", "table.yaml:2: hours is 'x'"),
        ("- name: a\n  hours: 1\n  money: 2\n  colour: red\n", "table.yaml:4: unknown key 'colour'"),
        ("- name: a\n  name: b\n  hours: 1\n  money: 2\n", "table.yaml:2: rows[0].name: stands twice, also in line 1"),
        ("- &a [*a]\n", "an alias stands inside its own anchor"),
        ("- &a [" + "1, " * 999 + "1]\n" + "- *a\n" * 99, "holds more than 50000 values"),
        ("3\n", "must be keys with values"),
        ("- {name: a\n", "a bracket is opened and never closed"),
        ("- name: \x07\n", "table.yaml:1: holds a control character"),
        ("- name: a\n#" + "a" * 2**18, "is larger than 256 KiB"),
        (b"- name: a\n  hours: \xff\n", "table.yaml:2: is not UTF-8"),
    ],
)
def test_a_yaml_list_that_cannot_be_read(write, text, said):
    with pytest.raises(DataError) as caught:
        load_table(write(text, "table.yaml"))
    assert said in str(caught.value)


def test_the_example_of_the_documentation_is_the_published_table():
    rows = {row.name: row for row in load_table(EXAMPLE)}
    assert len(rows) == 8
    assert (rows["Initial combined"].hours.value, rows["Initial combined"].money.value) == (3.4, 113.4)
    assert rows["Case study update merged"].hours == Printed(20.5, 0.5)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no rows"),
        ("name,hours,money\n", "has no rows"),
        ("name,hours\na,1\n", "table.csv:1: the column 'money' is missing"),
        ("name,hours,money,colour\na,1,2,red\n", "unknown column 'colour'"),
        ("name,hours,money,money\na,1,2,3\n", "the column 'money' stands there twice"),
        ("name,hours,money\na,1,2,3\n", "table.csv:2: has 4 cells, the table has 3 columns"),
        ("name,hours,money\na,1 h,2\n", "hours is '1 h'"),
        ("name,hours,money\na,,2\n", "hours is empty"),
        ("name,hours,money\na,1,$2\n", "money is '$2'"),
        ("name,hours,money\na,nan,2\n", "hours is 'nan'"),
        ("name,hours,money\n,1,2\n", "the row has no name"),
        ("name,hours,money,kind\na,1,2,idle\n", "kind is 'idle'"),
        ("name,hours,money,hours_unit\na,1,2,0\n", "hours_unit is '0'"),
        ("name,hours,money,time_saved\na,1,2,5\n", "no row to measure it by"),
        ("name,hours,money,against\na,1,2,b\n", "table.csv:2: 'b', which it is compared with, is no row"),
        ("name,hours,money\na,1,2\na,1,2\n", "more than once"),
        ("name,hours,money\na,0,2\n", "0 hours for 2 are no price"),
        (b"name,hours,money\n\xff,1,2\n", "is not UTF-8"),
        ("name,hours,money\n" + "a" * 2**20, "is larger than 1024 KiB"),
    ],
)
def test_a_table_that_cannot_be_read(write, text, said):
    with pytest.raises(DataError) as caught:
        load_table(write(text))
    assert said in str(caught.value)
    assert "cost audit --help" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rows: 3\n", "has no list 'rows'"),
        ("rows:\n  - 3\n", "table.yaml:2: a row must be keys with values"),
        ("rows:\n  - {name: a, hours: 1, money: 2, colour: red}\n", "unknown key 'colour'"),
        ("table: []\n", "unknown key 'table'"),
        ("rows: [\n", "table.yaml"),
    ],
)
def test_a_yaml_table_that_cannot_be_read(write, text, said):
    with pytest.raises(DataError) as caught:
        load_table(write(text, "table.yaml"))
    assert said in str(caught.value)


def test_all_faults_are_told_at_once(write):
    with pytest.raises(DataError) as caught:
        load_table(write("name,hours,money\na,x,y\n,1,2\n"))
    assert len(caught.value.problems) == 3


def test_a_table_that_is_missing_or_of_another_kind(tmp_path, write):
    with pytest.raises(DataError, match="cannot be read: No such file"):
        load_table(tmp_path / "none.csv")
    with pytest.raises(DataError, match=r"neither \.csv nor \.yaml"):
        load_table(write("x", "table.xlsx"))


PRICES = "as_of: 2026-11-20\ncurrency: EUR\ndevice_hour:\n  H100: 3.2\nspot_factor: 0.4\nenergy:\n  kwh: 0.3\n"


@pytest.mark.parametrize("text", [PRICES, "prices:\n" + "".join(f"  {line}\n" for line in PRICES.splitlines())])
def test_a_price_sheet_of_its_own_or_in_its_block(write, text):
    sheet = load_prices(write(text, "prices.yaml"))
    assert (sheet.as_of, sheet.currency, sheet.spot_factor) == (datetime.date(2026, 11, 20), "EUR", 0.4)
    assert (sheet.device_hour, sheet.energy.kwh, sheet.billing) == ({"H100": 3.2}, 0.3, PriceSheet().billing)


def test_all_faults_of_a_price_sheet_are_told_with_their_lines(write):
    with pytest.raises(ConfigError) as caught:
        load_prices(write("as_of: soon\ncurency: EUR\nspot_factor: 2\nworkers: yes please\n", "prices.yaml"))
    told = str(caught.value)
    assert len(caught.value.problems) == 4
    assert "prices.yaml:1: as_of: must be a day such as 2026-11-20, not 'soon'" in told
    assert "did you mean 'currency'?" in told
    assert "prices.yaml:3: spot_factor: must be at most 1, not 2" in told


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "holds no prices"), ("prices: 3\n", "must be a block of keys"), ("- 1\n", "keys with values")],
)
def test_a_file_without_prices(write, text, said):
    with pytest.raises(ConfigError) as caught:
        load_prices(write(text, "prices.yaml"))
    assert said in str(caught.value)


def test_a_price_sheet_that_is_missing(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load_prices(tmp_path / "none.yaml")


@pytest.mark.parametrize("name", ["table.csv", "table.yaml"])
def test_a_table_that_nobody_printed_is_refused_before_it_takes_minutes(write, name):
    rows = "name,hours,money\n" + "".join(f"r{number},1,1\n" for number in range(1001))
    if name.endswith("yaml"):
        rows = "rows:\n" + "".join(f"  - {{name: r{number}, hours: 1, money: 1}}\n" for number in range(1001))
    with pytest.raises(DataError) as caught:
        load_table(write(rows, name))
    assert caught.value.problems[0].message == "has 1001 rows; a printed table has at most 1000"


def test_names_that_would_command_a_terminal_are_refused(write):
    with pytest.raises(DataError) as caught:
        load_table(write("name,hours,money\na,1.0,30\n\x1b[2Jb,1.0,30\n"))
    (found,) = caught.value.problems
    assert (found.where.rpartition(":")[2], found.message) == ("3", "holds a control character")
