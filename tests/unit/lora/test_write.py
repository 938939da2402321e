from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from tests.support.adapters import dense_deltas, make_adapter

from adapterctl.errors import AdapterError, StorageError
from adapterctl.lora.adapter import Adapter
from adapterctl.lora.write import AdapterWriter, copy_adapter, tensor_bytes, write_tensors

SHAPES = {"m.1.up": (4, 5), "m.0.up": (4, 5)}


def factors() -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    numbers = torch.Generator().manual_seed(3)
    return {
        "m.1.up": (torch.randn(2, 5, generator=numbers), torch.randn(4, 2, generator=numbers)),
        "m.0.up": (torch.randn(3, 5, generator=numbers), torch.randn(4, 3, generator=numbers)),
    }


def write(
    folder: Path,
    rank: int = 3,
    order: Iterable[str] = ("m.1.up", "m.0.up"),
    shapes: Mapping[str, tuple[int, int]] = SHAPES,
    dtype: torch.dtype = torch.float32,
    metadata: Mapping[str, str] | None = None,
    **last: Any,
) -> Path:
    folder.mkdir()
    with AdapterWriter(folder, shapes, rank=rank, dtype=dtype, metadata=metadata) as writer:
        for module in order:
            writer.put(module, *factors()[module])
        writer.finish(**{"base_model": "base", **last})
    return folder


def test_pads_smaller_ranks_exactly(tmp_path: Path) -> None:
    folder = write(tmp_path / "out", revision="v2")
    adapter = Adapter.open(folder)
    assert (adapter.config["r"], adapter.config["lora_alpha"]) == (3, 3)
    assert (adapter.base_model, adapter.revision) == ("base", "v2")
    assert adapter.config["target_modules"] == ["m.0.up", "m.1.up"]
    found = dense_deltas(folder)
    for module, (a, b) in factors().items():
        torch.testing.assert_close(found[module], (b @ a).double())
    padded = load_file(folder / "adapter_model.safetensors")
    assert not padded["base_model.model.m.1.up.lora_A.weight"][2:].any()
    assert not padded["base_model.model.m.1.up.lora_B.weight"][:, 2:].any()


def test_a_rank_beyond_every_factor_and_names_of_modules(tmp_path: Path) -> None:
    adapter = Adapter.open(write(tmp_path / "out", rank=8, target_modules=["up"], task_type=None, fan_in_fan_out=True))
    assert adapter.shape("m.0.up") == ((8, 5), (4, 8))
    assert adapter.config["target_modules"] == ["up"]
    assert (adapter.config["task_type"], adapter.config["fan_in_fan_out"]) == (None, True)


def test_same_content_same_bytes_whatever_the_order(tmp_path: Path) -> None:
    text = {f"key{index}": str(index) for index in range(20)}
    documents = {"NOTE.txt": "hello"}
    one = write(tmp_path / "a", metadata=text, documents=documents)
    two = write(
        tmp_path / "b",
        order=["m.0.up", "m.1.up"],
        shapes=dict(reversed(SHAPES.items())),
        metadata=dict(reversed(text.items())),
        documents=documents,
    )
    names = {path.name for path in one.iterdir()}
    assert names == {"adapter_config.json", "adapter_model.safetensors", "NOTE.txt"}
    for name in names:
        assert (one / name).read_bytes() == (two / name).read_bytes()


def test_several_threads_write_one_file(tmp_path: Path) -> None:
    shapes = {f"m.{index}.up": (40, 30) for index in range(24)}
    numbers = torch.Generator().manual_seed(5)
    made = {module: (torch.randn(2, 30, generator=numbers), torch.randn(40, 2, generator=numbers)) for module in shapes}
    for workers in (1, 4):
        folder = tmp_path / str(workers)
        folder.mkdir()
        with AdapterWriter(folder, shapes, rank=2) as writer, ThreadPoolExecutor(workers) as pool:
            for _ in pool.map(lambda module, put=writer.put: put(module, *made[module]), shapes):
                pass
            writer.finish(base_model=None)
    written = [(tmp_path / name / "adapter_model.safetensors").read_bytes() for name in ("1", "4")]
    assert written[0] == written[1]
    for name, tensor in load_file(tmp_path / "4" / "adapter_model.safetensors").items():
        module = name.removeprefix("base_model.model.").partition(".lora_")[0]
        assert torch.equal(tensor, made[module][0 if "lora_A" in name else 1])


def test_header_text_and_types_as_the_safetensors_library_reads_them(tmp_path: Path) -> None:
    folder = write(tmp_path / "out", dtype=torch.bfloat16, metadata={"from": "ja → zh"}, base_model=None)
    with safe_open(folder / "adapter_model.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt", "from": "ja → zh"}
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.bfloat16}  # noqa: SIM118


def test_files_can_be_read_by_others(tmp_path: Path) -> None:
    modes = {stat.S_IMODE(path.stat().st_mode) for path in write(tmp_path / "out").iterdir()}
    assert modes == {0o644}


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1e6])
@pytest.mark.parametrize("factor", ["A", "B"])
def test_a_number_that_is_not_finite_as_stored(tmp_path: Path, value: float, factor: str) -> None:
    a, b = torch.ones(1, 1), torch.ones(1, 1)
    (a if factor == "A" else b)[0, 0] = value
    with (
        AdapterWriter(tmp_path, {"m": (1, 1)}, rank=1, dtype=torch.float16) as writer,
        pytest.raises(AdapterError, match=f"m: lora_{factor} would hold NaN or infinite numbers"),
    ):
        writer.put("m", a, b)


def test_a_sum_that_overflows_where_no_number_does(tmp_path: Path) -> None:
    a, b = torch.full((1, 100), 6e4), torch.ones(1, 1)
    with AdapterWriter(tmp_path, {"m": (1, 100)}, rank=1, dtype=torch.float16) as writer:
        writer.put("m", a, b)
        writer.finish(base_model=None)
    assert Adapter.open(tmp_path).delta("m").A.sum() == pytest.approx(6e6, rel=1e-3)


def test_no_modules_and_odd_types_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="without any module"):
        AdapterWriter(tmp_path, {}, rank=1)
    with pytest.raises(AdapterError, match=r"torch\.int8"):
        AdapterWriter(tmp_path, SHAPES, rank=1, dtype=torch.int8)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_too_small_is_known_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").is_dir() else 0
    with pytest.raises(StorageError, match="the disk is full"):
        AdapterWriter(tmp_path, SHAPES, rank=1)
    assert (len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").is_dir() else 0) == before


def test_bytes_in_memory_are_those_on_the_disk(tmp_path: Path) -> None:
    tensors = {"b": torch.ones(2, 3, dtype=torch.float64), "a": torch.zeros(0, 4)}
    write_tensors(tmp_path / "x.safetensors", tensors, {"who": "me"})
    assert (tmp_path / "x.safetensors").read_bytes() == tensor_bytes(tensors, {"who": "me"})
    found = load_file(tmp_path / "x.safetensors")
    assert {name: (tensor.dtype, tensor.tolist()) for name, tensor in found.items()} == {
        name: (tensor.dtype, tensor.tolist()) for name, tensor in tensors.items()
    }


def test_a_copy_has_the_same_content(tmp_path: Path) -> None:
    folder = make_adapter(tmp_path / "ja", rank=4, alpha=6)
    copy_adapter(folder, tmp_path / "copy")
    assert {path.name: path.read_bytes() for path in (tmp_path / "copy").iterdir()} == {
        path.name: path.read_bytes() for path in folder.iterdir()
    }
