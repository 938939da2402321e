"""kill -9 anywhere in a merge, two merges at once, and a disk that fills up."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest
from tests.support.adapters import make_family
from tests.support.merge_process import CONTEXT, REFUSED, kill_everywhere, start
from tests.support.merging import opened

from adapterctl.errors import StorageError
from adapterctl.files import TEMPORARY_PREFIX
from adapterctl.merging.cache import FactorCache
from adapterctl.merging.engine import merge
from adapterctl.merging.recipe import MergeRecipe

LARGE = {f"model.layers.{layer}.mlp.up_proj": (256, 192) for layer in range(6)}
KEYS = {"method": "knots-ties", "density": 0.4, "rank": 8}
OTHER = {"method": "core-tsv", "rank": 6}
DECIDED = ("adapter_model.safetensors", "adapter_config.json")
"""The files of a merge that do not say how long it took."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_family(tmp_path_factory.mktemp("in"), shapes=LARGE, rank=4)


def content(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in DECIDED}


@pytest.fixture(scope="module")
def expected(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return merged_here(folders, KEYS, tmp_path_factory.mktemp("expected") / "out")


@pytest.fixture(scope="module")
def other(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return merged_here(folders, OTHER, tmp_path_factory.mktemp("other") / "out")


def merged_here(folders: dict[str, Path], keys: dict[str, object], out: Path) -> dict[str, bytes]:
    merge(opened(folders), MergeRecipe.model_validate(keys), out, threads=1)
    return content(out)


def check_what_is_left(root: Path, whole: list[dict[str, bytes]]) -> None:
    """Nothing that looks finished and is not: a whole result, or nothing of that name, and marked leftovers."""
    assert all(path.name == "out" or path.name.startswith(TEMPORARY_PREFIX) for path in root.iterdir())
    if (root / "out").exists():
        assert (root / "out" / "merge_report.json").exists()
        assert content(root / "out") in whole


@pytest.mark.parametrize("replacing", [False, True], ids=["new", "replacing"])
def test_killed_at_every_touch_of_the_folder(tmp_path: Path, replacing: bool) -> None:
    folders = make_family(tmp_path / "in")
    expected, other = (merged_here(folders, keys, tmp_path / "here" / "out") for keys in (KEYS, OTHER))
    roots = [tmp_path / f"{touch}" for touch in range(1, 100)]
    for root in roots:
        root.mkdir()
        if replacing:
            shutil.copytree(tmp_path / "here" / "out", root / "out")
    killed = kill_everywhere(folders, KEYS, roots, tmp_path / "codes")
    assert killed > 10
    before = [other] if replacing else []
    for touch, root in enumerate(roots[: killed + 1]):
        check_what_is_left(root, [expected, *before])
        if touch == killed:
            assert [path.name for path in root.iterdir()] == ["out"]
        assert merged_here(folders, KEYS, root / "out") == expected
        check_what_is_left(root, [expected])


@pytest.mark.parametrize("threads", [1, 2])
def test_killed_at_any_time(folders: dict[str, Path], expected: dict[str, bytes], tmp_path: Path, threads: int) -> None:
    begun = time.monotonic()
    process = start(folders, KEYS, tmp_path / "whole", threads=threads)
    process.join()
    length = time.monotonic() - begun
    assert process.exitcode == 0
    killed = 0
    for moment in range(8):
        root = tmp_path / str(moment)
        root.mkdir()
        process = start(folders, KEYS, root / "out", threads=threads)
        time.sleep(length * (moment + 0.5) / 8)
        process.kill()
        process.join()
        killed += process.exitcode == -signal.SIGKILL
        check_what_is_left(root, [expected])
        assert merged_here(folders, KEYS, root / "out") == expected
    assert killed >= 3


@pytest.mark.parametrize("there", [False, True], ids=["new", "replacing"])
def test_two_merges_into_one_folder_at_once(
    folders: dict[str, Path], expected: dict[str, bytes], other: dict[str, bytes], tmp_path: Path, there: bool
) -> None:
    for attempt in range(3):
        root = tmp_path / str(attempt)
        root.mkdir()
        if there:
            merged_here(folders, {"method": "linear"}, root / "out")
        barrier = CONTEXT.Barrier(2)
        processes = [start(folders, keys, root / "out", barrier=barrier) for keys in (KEYS, OTHER)]
        for process in processes:
            process.join()
        assert sorted(process.exitcode for process in processes) in ([0, 0], [0, REFUSED])
        assert content(root / "out") in (expected, other)
        assert [path.name for path in root.iterdir()] == ["out"]


class TestFullDisk:
    def test_nothing_is_left_and_with_room_it_works(
        self, folders: dict[str, Path], expected: dict[str, bytes], tiny_disk: Path
    ) -> None:
        with pytest.raises(StorageError, match="the disk is full"):
            merged_here(folders, KEYS, tiny_disk / "out")
        assert list(tiny_disk.iterdir()) == []
        subprocess.run(["mount", "-o", "remount,size=20m", str(tiny_disk)], check=True)
        assert merged_here(folders, KEYS, tiny_disk / "out") == expected

    def test_what_was_there_before_stays(self, folders: dict[str, Path], tiny_disk: Path) -> None:
        small = merged_here(folders, {"method": "linear", "rank": 1}, tiny_disk / "out")
        with pytest.raises(StorageError, match="the disk is full"):
            merged_here(folders, {**KEYS, "rank": 12}, tiny_disk / "out")
        assert content(tiny_disk / "out") == small
        assert [path.name for path in tiny_disk.iterdir()] == ["out"]

    def test_no_room_for_the_cache_is_no_reason_to_fail(
        self, folders: dict[str, Path], expected: dict[str, bytes], tiny_disk: Path, tmp_path: Path
    ) -> None:
        with suppress(OSError):
            (tiny_disk / "ballast").write_bytes(bytes(200_000))
        for _ in range(2):
            cache = FactorCache(tiny_disk / "cache")
            merge(opened(folders), MergeRecipe.model_validate(KEYS), tmp_path / "out", cache=cache)
            assert content(tmp_path / "out") == expected
