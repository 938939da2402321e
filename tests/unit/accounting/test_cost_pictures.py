import struct
from functools import partial

import pytest

from adapterctl.accounting.amounts import Amount
from adapterctl.accounting.curves import draw_cumulative, draw_scenarios
from adapterctl.accounting.report import Picture, Section, Table, html, markdown
from adapterctl.accounting.scenarios import BreakEven, Cell, Point, ScenarioCosts


def cell(value, price=1.0, **flags):
    amount = Amount(value, **flags)
    return Cell(amount, amount, amount.times(price))


MEASURED = [ScenarioCosts("set-up", cell(100.0), cell(120.0)), ScenarioCosts("update", cell(20.0), cell(130.0))]
PROJECTED = [ScenarioCosts("set-up", cell(100.0), cell(120.0, measured=False, low=110.0, high=160.0))]
RISING = tuple(
    Point(k, Amount(50.0 + 5 * k, k < 2), Amount(10.0 + 9 * k, False, 10.0 + 8 * k, 12.0 + 11 * k)) for k in range(13)
)


def size_of(path):
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", content[16:24])


def test_scenarios_are_drawn_for_time_and_money(tmp_path):
    both = draw_scenarios(MEASURED, "EUR", tmp_path / "both.png")
    marked = draw_scenarios(PROJECTED, "EUR", tmp_path / "marked.png")
    assert size_of(both) == (1860, 615)
    assert size_of(marked) == (1860, 427)


def test_without_prices_time_alone_is_drawn(tmp_path):
    free = [ScenarioCosts("update", cell(20.0, 0.0), cell(130.0, 0.0))]
    assert size_of(draw_scenarios(free, "EUR", tmp_path / "free.png"))[0] == 1020


def test_the_same_picture_is_the_same_file(tmp_path):
    first, second = (draw_scenarios(MEASURED, "EUR", tmp_path / name).read_bytes() for name in ("a.png", "b.png"))
    assert first == second


cumulative = partial(draw_cumulative, title="Spent", axis_label="updates", start_label="set-up", currency="EUR")


@pytest.mark.parametrize("even", [BreakEven(0), BreakEven(0, 4), BreakEven(11), BreakEven(40), BreakEven(None)])
def test_what_was_spent_is_drawn_with_the_break_even(tmp_path, even):
    series = {"wall": RISING, "money": RISING}
    plain = cumulative(series, path=tmp_path / "plain.png")
    marked = cumulative(series, path=tmp_path / "marked.png", even={"wall": even, "money": even})
    assert size_of(plain) == size_of(marked) == (1800, 705)
    inside = even.first is not None and even.first <= 12
    assert (plain.read_bytes() != marked.read_bytes()) == inside


def test_a_hundred_updates_fit_on_the_axis(tmp_path):
    many = tuple(Point(k, Amount(3600.0 * k), Amount(7200.0 * k, False)) for k in range(101))
    assert size_of(cumulative({"wall": many, "money": many}, path=tmp_path / "many.png")) == (1800, 705)


HOSTILE = "<script>alert('1')</script> & \"x\" | *y* [z](javascript:q)\n# head"
SECTIONS = [
    Section(HOSTILE, (HOSTILE,), Picture("a.png", b"\x89PNG", HOSTILE), Table((HOSTILE, "b"), ((HOSTILE, HOSTILE),)))
]


def test_a_page_is_one_file_without_scripts_in_which_text_stays_text():
    page = html(HOSTILE, SECTIONS)
    assert "<script" not in page
    assert "javascript:q)" in page
    assert "&lt;script&gt;alert(&#x27;1&#x27;)&lt;/script&gt; &amp; &quot;x&quot;" in page
    assert 'src="data:image/png;base64,iVBORw=="' in page
    # Nothing is loaded from anywhere.
    assert page.count("src=") == 1
    assert "href" not in page
    assert "default-src 'none'" in page
    assert page.count("<table>") == page.count("</table>") == 1


def test_markdown_reads_nothing_into_a_text():
    text = markdown("Title", SECTIONS)
    assert "<script" not in text.replace("\\<", "")
    assert "\n# head" not in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    # Two cells in every row, whatever stands in them.
    assert [line.replace("\\|", "").count("|") for line in rows] == [3, 3, 3]
    assert "](a.png)" in text


def test_a_table_keeps_the_columns_that_are_wanted():
    table = Table(("a", "b", "c"), (("1", "2", "3"), ("4", "5", "6")))
    assert table.only(("c", "a")) == Table(("c", "a"), (("3", "1"), ("6", "4")))
