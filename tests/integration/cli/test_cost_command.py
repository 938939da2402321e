"""`adapterctl cost`: books of which every second is known, and what the commands make of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.support.cli import Result, invoke
from tests.support.small_workspace import make_small_workspace

from adapterctl.accounting.ledger import Entry, Ledger
from adapterctl.accounting.usage import Usage
from adapterctl.workflows.books import cost_report, trainings
from adapterctl.workflows.session import reading
from adapterctl.workflows.steps import _book_killed_attempts
from adapterctl.workspace.workspace import Workspace

PRICES = "as_of: 2026-11-20\ncurrency: EUR\ncpu_core_hour: 3.6\n"
"""One second of one core costs 0.001."""


def rows_of(workspace: Workspace, lang: str) -> int:
    return sum(len(path.read_text("utf-8").splitlines()) for path in workspace.training_files(lang))


def book(root: Path, command: str, subject: str, steps: list[tuple[str, str, float, int]]) -> None:
    """Put a command on the books: step, subject, wall seconds on one core, rows times epochs."""
    ledger = Ledger(Workspace.open(root).paths.ledger)
    for step, of, seconds, row_epochs in steps:
        usage = Usage(
            wall_seconds=seconds, cpu_seconds=seconds, row_epochs=row_epochs, tokens=10 * row_epochs, flops=1e9,
            peak_memory_bytes=2**30, bytes_read=2**20,
        )  # fmt: skip
        made = Entry.now(
            command=command, subject=of, step=step, key=f"{step} {of}", usage=usage, update_id=f"{command} {subject}"
        )
        ledger.append(replace(made, process=command))


def book_setup(root: Path) -> None:
    workspace = Workspace.open(root)
    trained = {
        lang: rows_of(workspace, lang) * workspace.adapters[lang].training.epochs for lang in workspace.languages
    }
    book(
        root,
        "setup",
        "",
        [
            ("train", "de", 100.0, trained["de"]),
            ("train", "en", 60.0, trained["en"]),
            ("train", "ja", 80.0, trained["ja"]),
            ("merge", "merged", 10.0, 0),
            ("evaluate", "candidate", 20.0, 0),
            ("process", "", 300.0, 0),
        ],
    )


def book_update(root: Path) -> None:
    steps = [("train", "ja", 90.0, 50), ("merge", "merged", 10.0, 0), ("evaluate", "candidate", 20.0, 0)]
    book(root, "update", "ja", [*steps, ("process", "ja", 130.0, 0)])


def book_baseline(root: Path) -> None:
    workspace = Workspace.open(root)
    rows = sum(rows_of(workspace, lang) for lang in workspace.languages)
    epochs = workspace.config.defaults.training.epochs
    steps = [("train", "combined", 260.0, rows * epochs), ("evaluate", "combined", 20.0, 0)]
    book(root, "baseline", "combined", [*steps, ("process", "combined", 300.0, 0)])


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace without books; do not change it."""
    return make_small_workspace(tmp_path_factory.mktemp("empty") / "workspace")


@pytest.fixture(scope="module")
def booked(empty: Path) -> Path:
    """Set-up, one update and a baseline; do not change it."""
    root = empty.parent / "booked"
    shutil.copytree(empty, root)
    book_setup(root)
    book_update(root)
    book_baseline(root)
    return root


@pytest.fixture
def prices(tmp_path: Path) -> Path:
    path = tmp_path / "prices.yaml"
    path.write_text(PRICES, encoding="utf-8")
    return path


@pytest.fixture
def costs(booked: Path, prices: Path) -> Callable[..., Result]:
    """Run a cost command in the booked workspace, with known prices."""

    def run(*args: str) -> Result:
        return invoke("-C", booked, "cost", *args, "--prices", prices)

    return run


@pytest.fixture
def uncertain(booked: Path, tmp_path: Path) -> Path:
    """A workspace whose trainings differ in speed, so that projections have intervals."""
    root = tmp_path / "uncertain"
    shutil.copytree(booked, root)
    book(root, "update", "de", [("train", "de", 7000.0, 30), ("process", "de", 9000.0, 0)])
    return root


@pytest.mark.parametrize("width", ["80", "120"])
@pytest.mark.parametrize("command", [("compare",), ("project", "--updates", "3")])
def test_tables_of_money_break_no_number(
    uncertain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: str, command: tuple[str, ...]
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    small = tmp_path / "small.yaml"
    small.write_text("as_of: 2026-11-20\ncurrency: USD\ncpu_core_hour: 0.004\n", encoding="utf-8")
    done = invoke("-C", uncertain, "cost", *command, "--prices", small)
    assert done.exit_code == 0, done.err
    table = done.out.partition("In time")[0].partition("In money")[0]
    assert "money" in table
    assert "USD" in table
    assert not [line for line in table.splitlines() if "[" in line and "USD" in line]
    assert "…" in table
    for line in table.splitlines():
        assert len(line) <= int(width)
        # An interval stands in one line, or breaks behind its dots.
        assert line.count("[") == line.count("…")
        assert line.count("]") == line.count("[") or width == "80"


def test_a_price_beyond_all_prices_is_written_shortly(booked: Path, tmp_path: Path) -> None:
    dear = tmp_path / "dear.yaml"
    dear.write_text("cpu_core_hour: 1.0e+308\n", encoding="utf-8")
    # 300 s of one core: 1e308 / 12
    for command in ("compare", "project"):
        done = invoke("-C", booked, "cost", command, "--prices", dear)
        assert done.exit_code == 0, done.err
        assert "8.33e+306" in done.out
        assert "0" * 20 not in done.out


def test_set_up_update_and_add_are_compared(costs: Callable[..., Result]) -> None:
    found = costs("compare", "--workers", "2", "--json").json
    assert (found["workers"], found["billing"], found["languages"], found["currency"]) == (2, "busy", 3, "EUR")
    assert found["prices_as_of"] == "2026-11-20"
    setup, update, add = found["scenarios"]
    # Longest first on two machines: 100 | 80 + 60; then 10 of merging, 20 of evaluating, 30 of the rest.
    assert setup["merged"]["wall_seconds"] == {"value": pytest.approx(200.0), "measured": False}
    assert setup["merged"]["busy_seconds"] == {"value": pytest.approx(300.0), "measured": True}
    assert setup["merged"]["money"] == {"value": pytest.approx(0.3), "measured": True}
    # The baseline was measured on these very rows.
    assert setup["combined"]["wall_seconds"] == {"value": pytest.approx(300.0), "measured": True}
    assert setup["time_saved"]["value"] == pytest.approx(1 / 3)
    assert update["merged"]["wall_seconds"] == {"value": pytest.approx(130.0), "measured": True}
    assert update["money_saved"] == {"value": pytest.approx(1 - 130 / 300), "measured": True}
    # A fourth language trains like the three do (100, 60 and now 90), a combined adapter on a third more rows.
    assert add["merged"]["wall_seconds"] == {
        "value": pytest.approx(250 / 3 + 30 * 4 / 3 + 10), "measured": False,
        "low": pytest.approx(60 + 50), "high": pytest.approx(100 + 50),
    }  # fmt: skip
    assert add["combined"]["wall_seconds"]["value"] == pytest.approx(260 * 4 / 3 + 20 * 4 / 3 + 20)
    assert not add["combined"]["wall_seconds"]["measured"]
    # 0.3 against 0.3 at the start, 0.13 against 0.3 each time.
    assert found["break_even"]["money"] == {"first": 1, "last": None}


def test_reserved_machines_cost_more(costs: Callable[..., Result]) -> None:
    found = costs("compare", "--workers", "2", "--billing", "reserved", "--json").json["scenarios"][0]
    # Two machines for 200 seconds at 0.001 each.
    assert found["merged"]["money"] == {"value": pytest.approx(0.4), "measured": False}
    assert found["combined"]["money"]["value"] == pytest.approx(0.3)


def test_the_comparison_reads_well(costs: Callable[..., Result]) -> None:
    out = costs("compare").out
    assert "update, merged takes" in out
    assert "56.7 % less" in out
    assert "In money, merging is ahead from update 1 on, the set-up included, if every update is like the last." in out
    assert "merged: measured at the last update ('ja'); combined: measured by adapterctl baseline." in out
    assert "Prices of 2026-11-20 in EUR; one machine; hours that were worked are paid." in out


def test_what_comes_later_is_projected(costs: Callable[..., Result], tmp_path: Path) -> None:
    found = costs("project", "--updates", "3", "--languages", "5", "--out", str(tmp_path), "--json").json
    money = found["updates"]["money"]
    assert [point["merged"]["value"] for point in money] == pytest.approx([0.3, 0.43, 0.56, 0.69])
    assert [point["combined"]["value"] for point in money] == pytest.approx([0.3, 0.6, 0.9, 1.2])
    assert [point["merged"]["measured"] for point in money] == [True, True, False, False]
    assert [point["at"] for point in found["growth"]["wall"]] == [3, 4, 5]
    assert [Path(file).name for file in found["files"]] == ["updates.png", "languages.png"]
    assert all(Path(file).read_bytes().startswith(b"\x89PNG") for file in found["files"])


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--updates", "0"), "0 updates cannot be projected"),
        (("--languages", "3"), "growth to 3 languages cannot be projected: the books have 3"),
        (("--languages", "100000"), "choose 4 to 200"),
        (("--workers", "0"), "--workers"),
    ],
)
def test_a_future_that_cannot_be_projected(costs: Callable[..., Result], args: tuple[str, ...], said: str) -> None:
    done = costs("project", *args)
    assert (done.exit_code, done.out) == (2, "")
    assert said in done.err


def test_the_report_is_one_page_and_its_parts(costs: Callable[..., Result], tmp_path: Path) -> None:
    out = tmp_path / "books"
    found = costs("report", "--out", str(out), "--json").json
    assert {path.name for path in out.iterdir()} == {
        "report.md", "report.html", "scenarios.png", "updates.png", "languages.png", "last_update.png",
    }  # fmt: skip
    assert {Path(file).name for file in found["files"]} == {path.name for path in out.iterdir()}
    page, text = ((out / name).read_text("utf-8") for name in ("report.html", "report.md"))
    assert page.count("data:image/png;base64,") == 4
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")
    for part in (page, text):
        assert "merging takes 56.7 % less time and 56.7 % less money than one combined adapter" in part
    assert all(f"]({path.name})" in text for path in out.glob("*.png"))


def test_the_report_tells_what_every_step_used(costs: Callable[..., Result]) -> None:
    found = costs("report", "--json").json
    usage = {one["step"]: one for one in found["usage"]}
    assert list(usage) == ["train", "merge", "evaluate", "whole command"]
    train = usage["train"]
    assert train["usage"]["wall_seconds"] == 90.0
    # 90 s of one core at 10 W
    assert (train["kwh"], train["measured_kwh"]) == (pytest.approx(900 / 3.6e6), 0.0)
    assert train["money"] == pytest.approx(0.09)
    # The process counts seconds, its steps count tokens.
    assert usage["whole command"]["usage"]["tokens"] == 500
    text = costs("report").out
    assert "~250 mWh" in text
    assert "train" in text


def test_a_language_that_came_later_is_what_adding_one_costs(booked: Path, prices: Path, tmp_path: Path) -> None:
    root = tmp_path / "workspace"
    shutil.copytree(booked, root)
    book(root, "update", "ko", [("train", "ko", 70.0, 40), ("merge", "merged", 12.0, 0), ("process", "ko", 100.0, 0)])
    found = invoke("-C", root, "cost", "compare", "--prices", prices, "--json").json
    _, update, add = found["scenarios"]
    assert update["merged"]["wall_seconds"]["value"] == pytest.approx(130.0)
    assert add["merged"]["wall_seconds"] == {"value": pytest.approx(100.0), "measured": True}
    assert "'ko' was added" in add["basis"]


def test_what_an_earlier_command_trained_counts_for_the_one_that_took_it(
    empty: Path, prices: Path, tmp_path: Path
) -> None:
    root = tmp_path / "workspace"
    shutil.copytree(empty, root)
    book(root, "train", "de", [("train", "de", 500.0, 40), ("process", "de", 510.0, 0)])
    book_setup(root)
    ledger = Workspace.open(root).paths.ledger
    lines = [json.loads(line) for line in ledger.read_text("utf-8").splitlines()]
    for line in lines:
        if (line["command"], line["step"], line["subject"]) == ("setup", "train", "de"):
            line["reused"], line["usage"]["row_epochs"] = True, 0
    ledger.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    setup = invoke("-C", root, "cost", "compare", "--prices", prices, "--json").json["scenarios"][0]
    # Its 100 seconds for taking the adapter, and the 500 of the training itself.
    assert setup["merged"]["busy_seconds"]["value"] == pytest.approx(800.0)


def test_without_an_update_or_a_baseline_everything_else_is_projected(
    empty: Path, prices: Path, tmp_path: Path
) -> None:
    root = tmp_path / "workspace"
    shutil.copytree(empty, root)
    book_setup(root)
    found = invoke("-C", root, "cost", "compare", "--prices", prices, "--json").json
    setup, update, _ = found["scenarios"]
    assert setup["merged"]["wall_seconds"] == {"value": pytest.approx(300.0), "measured": True}
    for cell in (setup["combined"], update["merged"], update["combined"]):
        assert not cell["wall_seconds"]["measured"]
        assert cell["wall_seconds"]["low"] < cell["wall_seconds"]["high"]
    assert invoke("-C", root, "cost", "report", "--prices", prices).exit_code == 2


@pytest.mark.parametrize("command", [("report",), ("compare",), ("project",)])
def test_without_books_the_way_to_them_is_told(empty: Path, command: tuple[str, ...]) -> None:
    done = invoke("-C", empty, "cost", *command)
    assert (done.exit_code, done.out) == (2, "")
    assert "on the books" in done.err
    assert "adapterctl" in done.err.partition("To mend it:")[2]


def test_a_wrong_price_sheet_is_told_with_its_line(booked: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "wrong.yaml"
    sheet.write_text("currency: EUR\nspot_factor: 3\n", encoding="utf-8")
    for command in ("report", "compare", "project"):
        done = invoke("-C", booked, "cost", command, "--prices", sheet)
        assert done.exit_code == 2
        assert "wrong.yaml:2: spot_factor: must be at most 1, not 3" in done.err


def test_running_what_was_done_once_more_makes_it_no_dearer(booked: Path, prices: Path, tmp_path: Path) -> None:
    root = tmp_path / "workspace"
    shutil.copytree(booked, root)
    commands = [("report",), ("compare",)]
    before = [invoke("-C", root, "cost", *command, "--prices", prices, "--json").json for command in commands]
    book(root, "setup", "", [("process", "", 40.0, 0)])
    book(root, "baseline", "combined", [("evaluate", "combined", 30.0, 0), ("process", "combined", 50.0, 0)])
    book(root, "update", "ja", [("evaluate", "candidate", 15.0, 0), ("process", "ja", 25.0, 0)])
    after = [invoke("-C", root, "cost", *command, "--prices", prices, "--json").json for command in commands]
    assert after == before


def test_scoring_the_champion_is_no_part_of_retraining_everything(empty: Path, prices: Path, tmp_path: Path) -> None:
    root = tmp_path / "workspace"
    shutil.copytree(empty, root)
    book_setup(root)
    book_update(root)
    workspace = Workspace.open(root)
    rows = sum(rows_of(workspace, lang) for lang in workspace.languages) * workspace.config.defaults.training.epochs
    steps = [("train", "combined", 260.0, rows), ("evaluate", "combined", 20.0, 0), ("evaluate", "champion", 15.0, 0)]
    book(root, "baseline", "combined", [*steps, ("process", "combined", 315.0, 0)])
    scenarios = invoke("-C", root, "cost", "compare", "--prices", prices, "--json").json["scenarios"]
    report = invoke("-C", root, "cost", "report", "--prices", prices, "--json").json
    # 260 + 20, and the 20 seconds that belong to no step.
    assert scenarios[0]["combined"]["busy_seconds"]["value"] == pytest.approx(300.0)
    assert report["comparison"]["retrain"]["seconds"]["value"] == pytest.approx(300.0)


def test_a_language_is_added_once_and_then_updated(booked: Path, prices: Path, tmp_path: Path) -> None:
    root = tmp_path / "workspace"
    shutil.copytree(booked, root)
    book(root, "update", "ko", [("train", "ko", 70.0, 40), ("process", "ko", 100.0, 0)])
    for path in [Workspace.open(root).paths.ledger]:
        path.write_text(path.read_text("utf-8").replace('"update ko"', '"first ko"'), encoding="utf-8")
    book(root, "update", "ko", [("train", "ko", 30.0, 10), ("process", "ko", 50.0, 0)])
    _, update, add = invoke("-C", root, "cost", "compare", "--prices", prices, "--json").json["scenarios"]
    assert add["merged"]["wall_seconds"]["value"] == pytest.approx(100.0)
    assert update["merged"]["wall_seconds"]["value"] == pytest.approx(50.0)


def test_without_prices_nothing_is_said_about_money(booked: Path, tmp_path: Path) -> None:
    free = tmp_path / "free.yaml"
    free.write_text("cpu_core_hour: 0\n", encoding="utf-8")
    assert "In money" not in invoke("-C", booked, "cost", "compare", "--prices", free).out
    told = invoke("-C", booked, "cost", "project", "--prices", free, "--out", tmp_path / "out", "--json").json
    assert list(told["break_even"]) == ["wall"]


def test_what_kills_took_is_added_to_the_command_that_went_on(booked: Path, tmp_path: Path) -> None:
    root = tmp_path / "workspace"
    shutil.copytree(booked, root)
    session = reading(Workspace.open(root), "update")
    session.update_id = "went on"
    record = SimpleNamespace(meter=SimpleNamespace(usage=Usage(wall_seconds=10.0, devices={"H200": 20.0})))
    _book_killed_attempts(session, "ja", "key", SimpleNamespace(reused=False, seconds=30.0), record)
    session.book("train", "ja", "key", Usage(wall_seconds=10.0))
    session.book("process", "ja", "", Usage(wall_seconds=25.0))
    found = cost_report(session).comparison.update
    # 25 seconds of this command and the 20 that were lost; 15 of it belong to no step.
    assert found.line("train").seconds.value == pytest.approx(30.0)
    assert found.seconds.value == pytest.approx(45.0)
    # The two accelerators of this attempt were held by those that were lost, too.
    (lost,) = session.ledger.entries(update_id="went on", outcome="failed")
    assert lost.usage.devices == {"H200": pytest.approx(40.0)}


def test_the_rest_of_an_interrupted_training_is_no_fast_training() -> None:
    """A kill took 90 of 100 seconds; the attempt that went on counts all rows, but only its own ten."""
    of = {"command": "update", "subject": "ja", "step": "train"}
    other = Entry.now(**of, key="b", usage=Usage(wall_seconds=50.0, row_epochs=100), update_id="u0")
    went_on = Entry.now(**of, key="a", usage=Usage(wall_seconds=10.0, row_epochs=100, tokens=7), update_id="u1")
    lost = Entry.now(**of, key="a", usage=Usage(wall_seconds=90.0), update_id="u1", outcome="failed")
    never = Entry.now(**of, key="c", usage=Usage(wall_seconds=5.0), update_id="u2", outcome="failed")
    first, second = trainings([other, went_on, lost, never])
    assert first == other
    assert (second.id, second.usage) == (went_on.id, Usage(wall_seconds=100.0, row_epochs=100, tokens=7))
