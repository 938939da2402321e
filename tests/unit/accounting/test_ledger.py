import json
from dataclasses import replace

import pytest

from adapterctl.accounting.ledger import Entry, Ledger
from adapterctl.accounting.usage import Usage
from adapterctl.errors import StorageError


def entry(step="train", subject="ja", **changes):
    made = Entry.now(
        command="update", subject=subject, step=step, key="k" * 64, usage=Usage(wall_seconds=1.5), update_id="u1"
    )
    return replace(made, **changes)


def test_entries_come_back_as_they_were_written(tmp_path):
    ledger = Ledger(tmp_path / "state" / "ledger.jsonl")
    written = [entry(), entry("merge", "merged", reused=True), entry("process", outcome="failed", measured=False)]
    for one in written:
        ledger.append(one)
    assert ledger.read().entries == tuple(written)
    assert ledger.read().notes == ()


def test_an_entry_names_its_moment_and_its_process():
    first, second = entry(), entry()
    assert first.id != second.id
    assert first.process == second.process != ""
    assert first.time.endswith("+00:00")


def test_no_ledger_is_an_empty_one(tmp_path):
    assert Ledger(tmp_path / "none.jsonl").read().entries == ()


def test_a_half_written_last_line_is_passed_over_with_a_note(tmp_path):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    first, second, third = entry(), entry("merge"), entry("evaluate")
    ledger.append(first)
    ledger.append(second)
    ledger.path.write_bytes(ledger.path.read_bytes()[:-40])
    assert ledger.read().entries == (first,)
    assert ledger.read().notes == ("ledger.jsonl:2 is half a line, as a power cut leaves it; it is passed over",)
    ledger.append(third)
    contents = ledger.read()
    assert contents.entries == (first, third)
    assert len(contents.notes) == 1
    assert contents.notes[0].startswith("ledger.jsonl:2 is no entry")


@pytest.mark.parametrize(
    "line",
    ["[]", "3", '{"id": 1}', "\xff", '{"usage": {}}', "[" * 100_000, "\x00\x00\x00"],
    ids=["list", "number", "wrong type", "latin", "missing", "deep", "nul"],
)
def test_a_line_that_is_no_entry_hides_no_other(tmp_path, line):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    first, second = entry(), entry()
    ledger.append(first)
    with ledger.path.open("ab") as handle:
        handle.write(line.encode("latin-1") + b"\n")
    ledger.append(second)
    contents = ledger.read()
    assert contents.entries == (first, second)
    assert len(contents.notes) == 1


def test_fields_of_a_later_version_are_passed_over(tmp_path):
    one = entry()
    path = tmp_path / "ledger.jsonl"
    path.write_text(json.dumps({**one.as_dict(), "weather": "fine"}) + "\n")
    assert Ledger(path).read().entries == (one,)


def test_entries_are_chosen_by_their_fields(tmp_path):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    for one in (entry(), entry(subject="de"), entry("merge"), entry("process", update_id="u2")):
        ledger.append(one)
    assert [one.subject for one in ledger.entries(step="train")] == ["ja", "de"]
    assert [one.step for one in ledger.entries(subject="ja", update_id="u1")] == ["train", "merge"]
    assert ledger.last_update_id("update") == "u2"
    assert ledger.last_update_id("baseline") is None


def test_what_failed_or_found_nothing_to_do_is_not_the_last_command(tmp_path):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    for one in (
        entry("process", update_id="u3", outcome="failed"),
        entry("process", update_id="u2"),
        entry("process", update_id=""),
        entry("process", update_id="u4", outcome="failed"),
    ):
        ledger.append(one)
    assert ledger.last_update_id("update") == "u2"
    assert ledger.last_update_id("setup") is None


def test_a_full_disk_is_a_storage_error_and_leaves_no_half_line(tmp_path, monkeypatch):
    import os

    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.append(entry())
    before = ledger.path.read_bytes()
    real = os.write
    # The kernel takes what still fits, and says how much that was.
    monkeypatch.setattr(os, "write", lambda descriptor, content: real(descriptor, content[:17]))
    with pytest.raises(StorageError, match="the disk is full"):
        ledger.append(entry())
    assert ledger.path.read_bytes() == before


def test_the_device_that_is_always_full():
    from pathlib import Path

    with pytest.raises(StorageError, match="cannot write /dev/full: the disk is full"):
        Ledger(Path("/dev/full")).append(entry())


def test_a_ledger_that_cannot_be_read_is_a_storage_error(tmp_path):
    with pytest.raises(StorageError, match="cannot read"):
        Ledger(tmp_path).read()
