import json
import struct
from dataclasses import replace

import pytest

from adapterctl.accounting.comparison import (
    REMAINDER,
    Amount,
    Comparison,
    format_money,
    format_seconds,
    side,
)
from adapterctl.accounting.figures import draw_comparison
from adapterctl.accounting.formats import format_bytes, format_count, format_small
from adapterctl.accounting.ledger import Entry
from adapterctl.accounting.prices import PriceSheet
from adapterctl.accounting.projection import project_training, projected_side, spread
from adapterctl.accounting.usage import Usage
from adapterctl.errors import UsageError

SHEET = PriceSheet(currency="EUR", cpu_core_hour=3.6, device_hour={"default": 0.0})
"""One CPU second costs 0.001."""


def entry(step, wall, cpu, process="1", **changes):
    made = Entry.now(command="update", subject="ja", step=step, key="", usage=Usage(wall_seconds=wall, cpu_seconds=cpu))
    return replace(made, process=process, **changes)


UPDATE = side(
    "update ja",
    [entry("train", 20, 30), entry("merge", 2, 3), entry("evaluate", 8, 9), entry("process", 35, 50)],
    SHEET,
)
RETRAIN = side("retrain-all", [entry("train", 90, 150), entry("evaluate", 8, 9), entry("process", 105, 170)], SHEET)


def test_a_side_adds_up_to_the_whole_process():
    assert [line.step for line in UPDATE.lines] == ["train", "merge", "evaluate", REMAINDER]
    assert UPDATE.line(REMAINDER).seconds == Amount(5.0)
    assert UPDATE.line(REMAINDER).money == Amount(pytest.approx(0.008))
    assert UPDATE.seconds == Amount(35.0)
    assert UPDATE.money.value == pytest.approx(0.050)


def test_a_killed_attempt_counts_and_its_missing_process_entry_does_not_eat_the_remainder():
    killed = entry("train", 11, 12, process="killed", outcome="failed")
    whole = side("update ja", [killed, entry("train", 20, 30), entry("process", 26, 33)], SHEET)
    assert whole.line("train").attempts == 2
    assert whole.line("train").seconds == Amount(31.0)
    assert whole.line(REMAINDER).seconds == Amount(6.0)
    assert whole.seconds == Amount(37.0)


def test_one_projected_entry_makes_its_line_and_its_side_projected():
    mixed = side("x", [entry("train", 1, 1), entry("merge", 1, 1, measured=False)], SHEET)
    assert mixed.line("train").seconds.measured
    assert not mixed.line("merge").seconds.measured
    assert not mixed.seconds.measured


def test_the_ratios_are_update_over_retrain():
    comparison = Comparison(UPDATE, RETRAIN)
    assert comparison.measured
    assert comparison.time_ratio.value == pytest.approx(35 / 105)
    assert comparison.money_ratio.value == pytest.approx(50 / 170)
    assert comparison.steps == ("train", "merge", "evaluate", REMAINDER)


def test_without_prices_there_is_no_ratio_of_money():
    free = PriceSheet(cpu_core_hour=0, device_hour=0)
    comparison = Comparison(side("a", [entry("train", 1, 1)], free), side("b", [entry("train", 2, 2)], free))
    assert comparison.money_ratio is None
    assert "cost of b" not in comparison.markdown()


def test_training_is_projected_from_the_fastest_throughput():
    slow = Usage(wall_seconds=10, cpu_seconds=10, tokens=1000, row_epochs=50)
    fast = Usage(
        wall_seconds=5, cpu_seconds=9, devices={"A100": 5.0}, tokens=1000, row_epochs=50, steps=10, flops=1e12,
        energy_joules=7.0, energy_measured=True, energy_device_seconds=5.0, bytes_read=100,
    )  # fmt: skip
    projected = project_training([slow, fast], work=4000)
    assert projected.wall_seconds == pytest.approx(20)
    assert projected.cpu_seconds == pytest.approx(36)
    assert projected.devices == {"A100": pytest.approx(20)}
    assert (projected.energy_joules, projected.energy_measured, projected.bytes_read) == (28.0, False, 400)
    assert projected.energy_device_seconds == pytest.approx(20)
    assert (projected.tokens, projected.steps, projected.flops) == (4000, 40, 4e12)
    assert project_training([slow], work=100, unit="row_epochs").wall_seconds == pytest.approx(20)
    assert project_training([slow, fast], work=4000, pace="slowest").wall_seconds == pytest.approx(40)


def test_nothing_can_be_projected_from_nothing():
    with pytest.raises(UsageError, match="no measured training"):
        project_training([Usage(wall_seconds=3)], work=10)


def test_a_projected_side_is_projected_throughout():
    training = project_training([Usage(wall_seconds=20, cpu_seconds=30, tokens=100)], work=500)
    projected = projected_side("retrain-all", training, SHEET, alike=[UPDATE.line("evaluate"), UPDATE.line(REMAINDER)])
    assert [line.step for line in projected.lines] == ["train", "evaluate", REMAINDER]
    assert not any(part.measured for line in projected.lines for part in (line.seconds, line.money))
    assert projected.seconds.value == pytest.approx(100 + 8 + 5)
    comparison = Comparison(UPDATE, projected)
    assert not comparison.measured
    assert not comparison.time_ratio.measured
    text = comparison.markdown()
    assert "**~113 s**" in text
    assert "takes ~31.0 % of the time of retrain-all" in text
    assert "not measured" in text


def test_the_slowest_training_is_the_other_end_of_the_interval():
    training = [Usage(wall_seconds=20, cpu_seconds=30, tokens=100), Usage(wall_seconds=30, cpu_seconds=40, tokens=100)]
    ends = [project_training(training, work=500, pace=pace) for pace in ("fastest", "slowest")]
    projected = projected_side("retrain-all", ends[0], SHEET, [UPDATE.line("evaluate")], slowest=ends[1])
    assert projected.line("train").seconds == Amount(100.0, False, 100.0, 150.0)
    assert projected.seconds == Amount(108.0, False, 108.0, 158.0)
    assert projected.money.low == pytest.approx(0.159)
    assert projected.money.high == pytest.approx(0.209)
    assert "~108 s [108 s … 2.6 min]" in Comparison(UPDATE, projected).markdown()


def test_measurements_that_are_alike_have_no_spread():
    assert spread(3.0, [3.0, 3.0]) == Amount(3.0, False)
    assert spread(3.0, [2.0, 5.0]) == Amount(3.0, False, 2.0, 5.0)


def test_the_table_shows_every_step_and_the_whole():
    text = Comparison(UPDATE, RETRAIN).markdown()
    assert "| train | 20 s | 0.0300 EUR | 90 s | 0.150 EUR |" in text
    assert "| merge | 2.0 s | 0.00300 EUR | – | – |" in text
    assert "| **total** | **35 s** | **0.0500 EUR** | **105 s** | **0.170 EUR** |" in text
    assert "update ja takes 33.3 % of the time of retrain-all." in text
    assert "projected" not in text
    assert "~" not in text


def test_a_step_that_was_reused_says_so():
    reused = side("a", [entry("train", 0.01, 0.01, reused=True), entry("merge", 1, 1)], SHEET)
    assert "| train | reused |" in Comparison(reused, RETRAIN).markdown()


def test_the_dictionary_is_plain_json():
    content = json.loads(json.dumps(Comparison(UPDATE, RETRAIN).as_dict()))
    assert content["update"]["steps"][0] == {
        "step": "train",
        "seconds": {"value": 20.0, "measured": True},
        "money": {"value": pytest.approx(0.03), "measured": True},
        "attempts": 1,
        "reused": False,
    }


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.44, "0.4 s"), (71.2, "71 s"), (750, "12.5 min"), (12240, "3.4 h"), (0, "0.0 s")]
)
def test_durations_for_people(seconds, text):
    assert format_seconds(seconds) == text


@pytest.mark.parametrize(
    ("amount", "text"),
    [(0, "0.00 EUR"), (33.4, "33.40 EUR"), (0.000412345, "0.000412 EUR"), (1, "1.00 EUR"), (0.5, "0.500 EUR"),
     (999e12, "999000000000000.00 EUR"), (1e15, "1.00e+15 EUR"), (1e308, "1.00e+308 EUR"), (-2.5e20, "-2.50e+20 EUR")],
)  # fmt: skip
def test_money_for_people(amount, text):
    assert format_money(amount, "EUR") == text
    assert format_money(amount, "") == text.removesuffix(" EUR")


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (940, "940"), (999.6, "1.00 k"), (12345, "12.3 k"), (999_600, "1.00 M"), (4.56e9, "4.56 G"),
     (1.2e18, "1.20 E"), (1.2e22, "12000 E"), (7.1e14, "710 T")],
)  # fmt: skip
def test_counts_for_people(number, text):
    assert format_count(number) == text


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (24 * 2**30, "24.0 GiB"), (2**41, "2.0 TiB")]
)
def test_bytes_for_people(number, text):
    assert format_bytes(number) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 Wh"), (1e-10, "0 Wh"), (5.56e-5, "55.6 µWh"), (0.0103, "10.3 mWh"), (3.5, "3.50 Wh"), (1200, "1.20 kWh")],
)
def test_small_quantities_for_people(number, text):
    assert format_small(number, "Wh") == text


def test_the_picture_is_a_png_of_its_own_size(tmp_path):
    training = project_training([Usage(wall_seconds=20, cpu_seconds=30, tokens=100)], work=500)
    projected = projected_side("retrain-all", training, SHEET, alike=[UPDATE.line("evaluate")])
    measured = draw_comparison(Comparison(UPDATE, RETRAIN), tmp_path / "figures" / "measured.png").read_bytes()
    marked = draw_comparison(Comparison(UPDATE, projected), tmp_path / "projected.png").read_bytes()
    for picture in (measured, marked):
        assert picture[:8] == b"\x89PNG\r\n\x1a\n"
        width, height = struct.unpack(">II", picture[16:24])
        assert (width, height) == (1350, 630)
    assert measured != marked


def test_what_is_left_out_is_not_in_the_remainder_either():
    entries = [
        entry("train", 50, 50), entry("evaluate", 10, 10), entry("evaluate", 20, 20, subject="champion"),
        entry("process", 100, 100),
    ]  # fmt: skip
    found = side("retrain-all", entries, SHEET, without=("champion",))
    assert (found.line("evaluate").seconds, found.line(REMAINDER).seconds) == (Amount(10.0), Amount(20.0))
    assert found.seconds == Amount(80.0)
