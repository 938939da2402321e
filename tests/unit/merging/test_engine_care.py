"""What a merge must not do to others: their files, their threads, and what they keep."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.support.adapters import SHAPES, dense_deltas, make_adapter, make_family
from tests.support.merging import assert_close, opened, tensor_bytes, write_grams

from adapterctl.errors import AdapterError
from adapterctl.files import unfinished
from adapterctl.lora.adapter import Adapter
from adapterctl.merging import recipe as recipe_module
from adapterctl.merging.cache import FactorCache
from adapterctl.merging.engine import merge
from adapterctl.merging.recipe import MergeRecipe
from adapterctl.merging.selection import kth_largest, scan, settle
from adapterctl.merging.workers import workers


def test_a_cache_removes_nothing_that_is_not_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    mine = [folder / "thesis.bin", folder / "pairs" / "notes.safetensors", folder / "base" / "model.safetensors"]
    for path in mine:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 50_000)
        os.utime(path, (1, 1))
    cache = FactorCache(folder, limit_bytes=6000)
    merge(opened(make_family(tmp_path)), MergeRecipe(method="core-tsv"), tmp_path / "out", cache=cache)
    assert all(path.stat().st_size == 50_000 for path in mine)


def test_an_adapter_that_is_overwritten_while_it_is_in_use_is_refused(tmp_path: Path) -> None:
    folders = make_family(tmp_path)
    adapters = opened(folders)
    cache = FactorCache(tmp_path / "cache")
    merge(adapters, MergeRecipe(method="linear"), tmp_path / "out", cache=cache)
    other = make_adapter(tmp_path / "other", seed=99, alpha=4)
    before = (tmp_path / "out" / "adapter_model.safetensors").read_bytes()
    shutil.copyfile(other / "adapter_model.safetensors", folders["ja"] / "adapter_model.safetensors")
    with pytest.raises(AdapterError, match="was changed while it was in use"):
        merge(adapters, MergeRecipe(method="linear", rank=2), tmp_path / "out", cache=cache)
    assert (tmp_path / "out" / "adapter_model.safetensors").read_bytes() == before
    again = opened(folders)
    merge(again, MergeRecipe(method="linear", rank=2), tmp_path / "warm", cache=cache)
    merge(again, MergeRecipe(method="linear", rank=2), tmp_path / "cold")
    assert tensor_bytes(tmp_path / "warm") == tensor_bytes(tmp_path / "cold")


def test_a_threshold_of_another_schedule_is_not_taken(tmp_path: Path) -> None:
    layer = {0: [m for m in SHAPES if ".0." in m], 1: [m for m in SHAPES if ".1." in m]}
    de = make_adapter(tmp_path / "de", seed=1, shapes={module: SHAPES[module] for module in layer[0]})
    en = make_adapter(tmp_path / "en", seed=2, alpha=5)
    adapters = [Adapter.open(de, "de"), Adapter.open(en, "en")]
    keys = {"method": "ties", "density": 0.3, "missing": "zero", "rank": "full", "lambda": 1.0}
    scheduled = MergeRecipe.model_validate({**keys, "layers": {"1": {"en": 0.0}}})
    cache = FactorCache(tmp_path / "cache")
    merge(adapters, MergeRecipe.model_validate(keys), tmp_path / "first", cache=cache)
    report = merge(adapters, scheduled, tmp_path / "warm", cache=cache)
    merge(adapters, scheduled, tmp_path / "cold")
    assert report.reused is not None
    assert report.reused["thresholds"] >= 1
    assert_close(dense_deltas(tmp_path / "warm"), dense_deltas(tmp_path / "cold"), 0.0)


def test_known_thresholds_take_no_pass_over_the_model(tmp_path: Path) -> None:
    folders = make_family(tmp_path)
    recipe, cache = MergeRecipe(method="ties", density=0.4), FactorCache(tmp_path / "cache")
    told: list[tuple[int, int]] = []

    def last_step() -> tuple[int, int]:
        merge(opened(folders), recipe, tmp_path / "out", progress=lambda *step: told.append(step), cache=cache)
        return told[-1]

    assert last_step() == (3 * len(SHAPES), 3 * len(SHAPES))
    assert last_step() == (len(SHAPES), len(SHAPES))


def test_gram_files_are_read_once_for_their_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = []
    monkeypatch.setattr(recipe_module, "file_hash", lambda path: hashed.append(path.name) or "0" * 64)
    grams = write_grams(tmp_path / "grams")
    merge(opened(make_family(tmp_path)), MergeRecipe(method="regmean", grams=grams), tmp_path / "out")
    assert sorted(hashed) == sorted(Path(path).name for path in grams.values())


def test_zeros_are_counted_and_not_collected() -> None:
    entries = np.zeros((1, 100_000), np.float32)
    entries[0, :10] = np.arange(1, 11)

    def blocks() -> list[tuple[None, np.ndarray]]:
        return [(None, entries.copy())]

    (found,) = kth_largest(blocks, entries[:, ::10].copy(), entries.size, 60_000)
    assert (found.value, found.allowed, found.equal) == (0.0, 60_000 - 10, entries.size - 10)
    part = scan(blocks(), {0: (np.uint32(0), np.uint32(0x7FFFFFFF))}, {0: 100})[0]
    assert part.inside is not None
    assert part.inside.size == 10
    assert settle([part], 5, np.float32) is not None


def test_merges_at_the_same_time_leave_torch_its_threads() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        first, second = workers(1, None, 1), workers(2, None, 1)
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert torch.get_num_threads() == 1
        second.__exit__(None, None, None)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_through_a_link_the_folder_is_replaced_and_not_the_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    merge(opened(make_family(tmp_path)), MergeRecipe(method="linear"), tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "adapter_model.safetensors").is_file()
    assert unfinished(tmp_path) == []
