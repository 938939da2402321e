import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapterctl.accounting.amounts import Amount, added


@st.composite
def amounts(draw):
    value, measured = draw(st.floats(0.1, 1e6)), draw(st.booleans())
    if measured or draw(st.booleans()):
        return Amount(value, measured)
    return Amount(value, False, value * draw(st.floats(0.1, 1)), value * draw(st.floats(1, 10)))


@given(amounts(), amounts())
def test_what_is_computed_from_a_projection_is_a_projection(a, b):
    results = [a + b, a - b, a.over(b), a.saved(b)]
    assert all(result.measured == (a.measured and b.measured) for result in results)


@given(amounts(), amounts(), st.floats(0, 1), st.floats(0, 1))
def test_an_interval_holds_what_any_two_numbers_of_its_parts_give(a, b, here, there):
    one = a.least + here * (a.most - a.least)
    other = b.least + there * (b.most - b.least)
    for result, value in ((a - b, one - other), (a.over(b), one / other), (a.saved(b), 1 - one / other)):
        assert result.least - 1e-6 * (1 + abs(value)) <= value <= result.most + 1e-6 * (1 + abs(value))
        assert result.least <= result.value <= result.most


def test_intervals_add_up_end_by_end():
    assert Amount(3.0, False, 2.0, 5.0) + Amount(4.0) == Amount(7.0, False, 6.0, 9.0)
    assert added([Amount(1.0), Amount(2.0, False, 1.5, 2.5), Amount(1.0, False)]) == Amount(4.0, False, 3.5, 4.5)
    assert added([]) == Amount(0.0)


def test_a_product_keeps_flag_and_interval():
    assert Amount(3.0, False, 2.0, 5.0).times(2) == Amount(6.0, False, 4.0, 10.0)
    assert Amount(3.0).times(2) == Amount(6.0)


def test_there_is_no_ratio_to_nothing():
    assert Amount(3.0).over(Amount(0.0)) is None
    assert Amount(3.0).saved(Amount(0.0)) is None
    assert Amount(1.0).saved(Amount(4.0)).value == 0.75


def test_a_projection_is_marked_wherever_it_is_shown():
    assert Amount(3.0, False).text("3 s") == "~3 s (projected)"
    assert Amount(3.0, True).text("3 s") == "3 s"
    assert Amount(3.0, False).as_dict() == {"value": 3.0, "measured": False}
    assert Amount(3.0, False, 2.0, 4.0).as_dict() == {"value": 3.0, "measured": False, "low": 2.0, "high": 4.0}


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (Amount(3.0), "3 s"), (Amount(3.0, False), "~3 s"), (Amount(3.0, False, 2.0, 9.0), "~3 s [2 … 9 s]"),
        (Amount(3.0, False, 2.0, 200.0), "~3 s [2 s … 3 min]"), (Amount(3.0, False, 3.0, 3.0), "~3 s"),
    ],
)  # fmt: skip
def test_an_interval_stands_in_brackets_with_its_unit_once(amount, text):
    assert amount.shown(lambda value: f"{value / 60:.0f} min" if value > 100 else f"{value:.0f} s") == text


def test_ends_without_a_unit_stand_as_they_are():
    assert Amount(3.0, False, 2.0, 4.0).shown(lambda value: f"{value:.0f}") == "~3 [2 … 4]"
