import json
from dataclasses import replace

from adapterctl.accounting.entries import Entry
from adapterctl.accounting.pages import compact, pages, run_key, summary
from adapterctl.accounting.usage import Usage


def entry(step="train", *, usage=None, **changes):
    made = Entry.now(
        command="update",
        subject="ja",
        step=step,
        key="k" * 64,
        usage=usage or Usage(wall_seconds=2.0),
        update_id="u1",
        machine="box",
    )
    return replace(made, **{"process": "12@1700", "time": "2026-01-01T00:00:10.000+00:00", **changes})


def test_what_is_done_again_under_the_same_name_comes_into_its_run_and_the_rest_into_one_a_process():
    assert run_key(entry()) == "update:u1"
    assert run_key(entry(update_id="")) == "books:box:12@1700"
    assert run_key(entry(command="evaluate", update_id="", machine="a box'; drop", process="1@2")) == (
        "books:a-box---drop:1@2"
    )
    assert len(run_key(entry(update_id="u" * 1000))) == 240


def test_a_page_knows_its_time_and_how_it_ended():
    # 2026-01-01T00:00:10Z is 1767225610 seconds after 1970.
    first = entry()
    whole = entry("process", time="2026-01-01T00:00:12.500+00:00", usage=Usage(wall_seconds=8.5))
    other = entry("process", command="evaluate", update_id="", outcome="failed")
    together, alone = pages([first, other, whole])
    assert (together.key, together.name, together.status, together.own) == ("update:u1", "update ja", "FINISHED", False)
    assert (together.started, together.ended) == (1767225604000, 1767225612500)
    assert [values["id"] for values in together.entries] == [first.id, whole.id]
    assert (alone.name, alone.command, alone.status, alone.own) == ("evaluate", "evaluate", "FAILED", True)
    assert (alone.started, alone.ended) == (1767225608000, 1767225610000)


def test_a_command_without_an_entry_of_the_whole_was_killed():
    assert [page.status for page in pages([entry()])] == ["KILLED"]


def test_entries_are_packed_without_losing_anything():
    usage = Usage(wall_seconds=1.25, tokens=3, devices={"H200": 2.5}, energy_joules=9.0, energy_measured=True)
    one = entry(usage=usage, reused=True, measured=False, outcome="failed")
    packed = compact(one)
    assert Entry.from_dict(json.loads(json.dumps(packed))) == one
    assert packed["usage"] == {
        "wall_seconds": 1.25, "tokens": 3, "devices": {"H200": 2.5}, "energy_joules": 9.0, "energy_measured": True,
    }  # fmt: skip


def test_an_entry_of_any_length_fits_into_a_tag():
    packed = compact(entry(subject="日" * 5000, key="k" * 5000))
    assert len(json.dumps(packed)) < 4800


def test_the_metrics_are_sums_over_the_attempts_and_the_highest_peak():
    entries = [
        entry(usage=Usage(wall_seconds=2.0, cpu_seconds=1.5, tokens=10, peak_memory_bytes=700), outcome="failed"),
        entry(usage=Usage(wall_seconds=3.0, cpu_seconds=2.0, tokens=30, peak_memory_bytes=500, flops=8e9)),
        entry("choose scale", usage=Usage(wall_seconds=1.0, devices={"H200": 0.5, "A100": 0.25})),
    ]
    assert summary([*map(compact, entries), {"id": "of a later version"}]) == {
        "usage.train.wall_seconds": 5.0,
        "usage.train.cpu_seconds": 3.5,
        "usage.train.tokens": 40.0,
        "usage.train.flops": 8e9,
        "usage.train.peak_memory_bytes": 700.0,
        "usage.choose_scale.wall_seconds": 1.0,
        "usage.choose_scale.device_seconds": 0.75,
    }


def test_a_time_before_all_times_is_no_time_of_a_run():
    (page,) = pages([entry(usage=Usage(wall_seconds=1e30))])
    assert page.started == 0
