import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from adapterctl.accounting.entries import Entry, attempts
from adapterctl.accounting.ledger import Ledger
from adapterctl.accounting.usage import Usage
from adapterctl.errors import RegistryError, StorageError


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
    ledger.outbox.path.write_bytes(ledger.outbox.path.read_bytes()[:-40])
    assert ledger.read().entries == (first,)
    assert ledger.read().notes == ("ledger.jsonl:2 is half a line, as a power cut leaves it; it is passed over",)
    ledger.append(third)
    contents = ledger.read()
    assert contents.entries == (first, third)
    assert len(contents.notes) == 1
    assert contents.notes[0].startswith("ledger.jsonl:2 is no entry")


@pytest.mark.parametrize(
    "line",
    [
        "[]",
        "3",
        '{"id": 1}',
        "\xff",
        '{"usage": {}}',
        "[" * 100_000,
        "\x00\x00\x00",
        json.dumps({**entry().as_dict(), "time": "yesterday"}),
        json.dumps({**entry().as_dict(), "time": "2026-01-01T00:00:00"}),
    ],
    ids=["list", "number", "wrong type", "latin", "missing", "deep", "nul", "no time", "no time zone"],
)
def test_a_line_that_is_no_entry_hides_no_other(tmp_path, line):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    first, second = entry(), entry()
    ledger.append(first)
    with ledger.outbox.path.open("ab") as handle:
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
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.append(entry())
    before = ledger.outbox.path.read_bytes()
    real = os.write
    # The kernel takes what still fits, and says how much that was.
    monkeypatch.setattr(os, "write", lambda descriptor, content: real(descriptor, content[:17]))
    with pytest.raises(StorageError, match="the disk is full"):
        ledger.append(entry())
    assert ledger.outbox.path.read_bytes() == before


def test_the_device_that_is_always_full():
    with pytest.raises(StorageError, match="cannot write /dev/full: the disk is full"):
        Ledger(Path("/dev/full")).append(entry())


def test_a_ledger_that_cannot_be_read_is_a_storage_error(tmp_path):
    with pytest.raises(StorageError, match="cannot read"):
        Ledger(tmp_path).read()


class MemoryStore:
    """Keeps what it is given; refuses the keys in ``refused``."""

    def __init__(self, refused=()):
        self.written, self.refused, self.reads = {}, refused, 0

    def read_books(self):
        self.reads += 1
        return [values for together in self.written.values() for values in together], []

    def write_books(self, *, key, entries, **_):
        if key in self.refused:
            raise RegistryError(f"no {key}")
        held = self.written.setdefault(key, [])
        held += [values for values in entries if values["id"] not in {known["id"] for known in held}]


def test_what_is_delivered_leaves_the_outbox_and_is_read_from_the_store(tmp_path):
    store = MemoryStore()
    ledger = Ledger(tmp_path / "ledger.jsonl", lambda: store)
    written = [entry(), entry("merge", "merged"), entry("process", update_id="u2")]
    for one in written:
        ledger.append(one)
    assert ledger.deliver(store) == 3
    assert not ledger.outbox.path.exists()
    assert store.written.keys() == {"update:u1", "update:u2"}
    ledger.append(late := entry("evaluate"))
    assert ledger.read().entries == (*written, late)
    assert ledger.deliver(store) == 1
    assert ledger.deliver(store) == 0
    assert Ledger(ledger.outbox.path, lambda: store).read().entries == (*written, late)


def test_an_entry_in_both_places_counts_once(tmp_path):
    store = MemoryStore()
    ledger = Ledger(tmp_path / "ledger.jsonl", lambda: store)
    one = entry()
    ledger.append(one)
    before = ledger.outbox.path.read_bytes()
    ledger.deliver(store)
    # As a kill leaves it between the two.
    ledger.outbox.path.write_bytes(before)
    assert ledger.read().entries == (one,)
    ledger.deliver(store)
    assert [values["id"] for values in store.written["update:u1"]] == [one.id]


def test_what_the_store_refuses_waits_and_the_rest_does_not(tmp_path):
    store = MemoryStore(refused={"update:u2"})
    ledger = Ledger(tmp_path / "ledger.jsonl", lambda: store)
    written = [entry(update_id=name, time=f"2026-01-01T00:00:0{name[1]}.000+00:00") for name in ("u1", "u2", "u3")]
    for one in written:
        ledger.append(one)
    with pytest.raises(RegistryError):
        ledger.deliver(store)
    assert ledger.outbox.read().items == tuple(written[1:])
    assert ledger.read().entries == tuple(written)


def test_the_store_is_read_once_and_again_after_a_delivery(tmp_path):
    store = MemoryStore()
    ledger = Ledger(tmp_path / "ledger.jsonl", lambda: store)
    ledger.append(entry())
    assert (len(ledger.entries()), len(ledger.entries()), store.reads) == (1, 1, 1)
    ledger.deliver(store)
    assert (len(ledger.entries()), store.reads) == (1, 2)


def test_appending_does_not_ask_for_the_store(tmp_path):
    def nobody_answers():
        raise RegistryError("no MLflow answers")

    ledger = Ledger(tmp_path / "ledger.jsonl", nobody_answers)
    ledger.append(entry())
    with pytest.raises(RegistryError):
        ledger.entries()


def test_lines_that_nobody_can_read_stay_in_the_outbox(tmp_path):
    ledger, store = Ledger(tmp_path / "ledger.jsonl"), MemoryStore()
    ledger.append(entry())
    with ledger.outbox.path.open("ab") as handle:
        handle.write(b'{"id": 1}\nhalf a li')
    ledger.deliver(store)
    assert ledger.outbox.path.read_bytes() == b'{"id": 1}\nhalf a li\n'
    assert len(ledger.read().notes) == 2


def test_the_order_is_that_of_the_times(tmp_path):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    moments = ["2026-01-01T10:00:00.000+00:00", "2026-01-01T09:59:00.000+00:00", "2026-01-01T12:30:00.000+03:00"]
    for moment in moments:
        ledger.append(entry(time=moment))
    # 12:30 in the third time zone is 9:30.
    assert [one.time for one in ledger.entries()] == [moments[2], moments[1], moments[0]]


def test_what_the_store_holds_of_a_later_version_is_noted(tmp_path):
    store, one = MemoryStore(), entry()
    store.written["update:u1"] = [one.as_dict(), {**entry().as_dict(), "id": "odd", "usage": "much"}]
    contents = Ledger(tmp_path / "ledger.jsonl", lambda: store).read()
    assert contents.entries == (one,)
    assert contents.notes == ("what the registry holds as entry 'odd' is none: 'usage' is missing; it is passed over",)


def test_a_command_about_very_many_models_has_a_short_subject():
    made = Entry.now(command="evaluate", subject="m/1 " * 1000, step="process", key="", usage=Usage())
    assert (len(made.subject), made.subject[-1]) == (300, "…")


def test_attempts_end_with_the_one_that_was_done():
    failed, lost, done = entry(process="1"), entry("process", process="2", outcome="failed"), entry("process")
    again, other = entry("process", process="3"), entry(update_id="u2")
    assert attempts([failed, other, lost, done, again], "u1") == [failed, lost, done]
    assert attempts([failed, lost], "u1") == [failed, lost]


@pytest.mark.parametrize("seconds", [10**400, 1e300, -1, True, float("nan"), float("inf")])
def test_amounts_that_nobody_can_use_are_no_entry(seconds):
    values = entry().as_dict()
    values["usage"]["wall_seconds"] = seconds
    with pytest.raises(ValueError, match="wall_seconds") as caught:
        Entry.from_dict(values)
    assert len(str(caught.value)) <= 200


def test_texts_of_others_do_nothing_to_terminals_and_files():
    values = {**entry().as_dict(), "subject": "\x1b[2Jja\ud800"}
    values["usage"]["devices"] = {"H\x07200\udfff": 1.0}
    read = Entry.from_dict(values)
    assert (read.subject, dict(read.usage.devices)) == ("�[2Jja�", {"H�200�": 1.0})
    assert Entry.now(command="x", subject="a\udcffb", step="s", key="", usage=Usage()).subject == "a�b"
