from __future__ import annotations

import gc
import hashlib
import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes
from safetensors.torch import load_file, save_file
from tests.support.adapters import SHAPES, change_config, make_adapter

from adapterctl.errors import AdapterError
from adapterctl.lora import tensorfile
from adapterctl.lora.adapter import Adapter
from adapterctl.lora.tensorfile import TensorFile
from adapterctl.lora.untrusted import shown

FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
Q = "model.layers.0.self_attn.q_proj"


def saved(folder: Path, **tensors: torch.Tensor) -> Path:
    path = folder / "x.safetensors"
    save_file(tensors, path, metadata={"format": "pt", "note": "あ"})
    return path


def numbers(shape: tuple[int, ...], dtype: torch.dtype, seed: int = 3) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape)).to(dtype)


class TestReading:
    @pytest.mark.parametrize("dtype", [*FLOATS, torch.int64, torch.int8, torch.bool, torch.float8_e4m3fn])
    def test_as_stored(self, tmp_path: Path, dtype: torch.dtype) -> None:
        stored = {"a": numbers((3, 5), torch.float32).to(dtype), "b": torch.ones(7, dtype=dtype)}
        file = TensorFile(saved(tmp_path, **stored))
        assert set(file.entries) == {"a", "b"}
        assert file.metadata == {"format": "pt", "note": "あ"}
        for name, tensor in stored.items():
            found = file.read(name)
            assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape)
            assert torch.equal(found.view(torch.uint8), tensor.view(torch.uint8))

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        shape=array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=9),
        stored=st.sampled_from(FLOATS),
        wanted=st.sampled_from([torch.float32, torch.float64]),
        piece=st.sampled_from([1, 16, 100, 1 << 20]),
    )
    def test_into_what_is_given(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        shape: tuple[int, ...],
        stored: torch.dtype,
        wanted: torch.dtype,
        piece: int,
    ) -> None:
        monkeypatch.setattr(tensorfile, "_PIECE", piece)
        tensor = numbers(shape, stored)
        path = saved(tmp_path, before=torch.ones(3), x=tensor, zz=torch.ones(3))
        out = torch.full(shape, torch.nan, dtype=wanted)
        TensorFile(path).read_into("x", out)
        assert torch.equal(out, load_file(path)["x"].to(wanted))

    @pytest.mark.parametrize("stored", FLOATS)
    def test_into_a_part_of_a_larger_tensor(self, tmp_path: Path, stored: torch.dtype) -> None:
        tensor = numbers((4, 6), stored)
        file = TensorFile(saved(tmp_path, x=tensor))
        out = torch.zeros(10, 9)
        file.read_into("x", out[3:7, 1:7])
        expected = torch.zeros(10, 9)
        expected[3:7, 1:7] = tensor.float()
        assert torch.equal(out, expected)
        turned = torch.zeros(6, 4, dtype=torch.float64)
        file.read_into("x", turned.T)
        assert torch.equal(turned, tensor.double().T)

    def test_numbers_only_and_of_the_right_shape(self, tmp_path: Path) -> None:
        file = TensorFile(saved(tmp_path, x=torch.ones(2, 3), i=torch.ones(2, dtype=torch.int32)))
        with pytest.raises(AdapterError, match=r"i holds torch\.int32, not floating-point numbers"):
            file.read_into("i", torch.zeros(2))
        with pytest.raises(ValueError, match=r"x has the shape \(2, 3\), not \(3, 2\)"):
            file.read_into("x", torch.zeros(3, 2))
        with pytest.raises(AdapterError, match="has no tensor y"):
            file.read("y")

    def test_many_threads_read_one_file(self, tmp_path: Path) -> None:
        stored = {str(index): numbers((40, 30), torch.bfloat16, index) for index in range(16)}
        file = TensorFile(saved(tmp_path, **stored))
        gate = threading.Barrier(4)

        def read(worker: int) -> bool:
            gate.wait()
            out = torch.empty(40, 30)
            for turn in range(200):
                name = str((turn * 7 + worker) % 16)
                file.read_into(name, out)
                if not torch.equal(out, stored[name].float()):
                    return False
            return True

        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(read, range(4)))

    def test_through_a_symbolic_link_as_in_a_hub_cache(self, tmp_path: Path) -> None:
        target = saved(tmp_path, x=torch.ones(2))
        (tmp_path / "snapshot").mkdir()
        link = tmp_path / "snapshot" / "x.safetensors"
        link.symlink_to("../x.safetensors")
        assert TensorFile(link).identity == TensorFile(target).identity

    def test_file_that_becomes_shorter(self, tmp_path: Path) -> None:
        path = saved(tmp_path, x=torch.ones(100))
        file = TensorFile(path)
        os.truncate(path, path.stat().st_size - 10)
        for read in (lambda: file.read("x"), lambda: file.read_into("x", torch.zeros(100).double())):
            with pytest.raises(AdapterError, match="has become shorter"):
                read()


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open files as Linux shows them")
def test_closes_when_the_object_goes(tmp_path: Path) -> None:
    path = saved(tmp_path, x=torch.ones(2))
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"short")
    gc.collect()
    before = _descriptors()
    file = TensorFile(path)
    file.read("x")
    assert _descriptors() == before + 1
    del file
    for _ in range(3):
        with pytest.raises(AdapterError):
            TensorFile(bad)
    gc.collect()
    assert _descriptors() == before


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory as Linux tells it")
def test_memory_does_not_grow_with_what_is_read(tmp_path: Path) -> None:
    path = saved(tmp_path, **{str(index): torch.ones(8 << 20, dtype=torch.bfloat16) for index in range(6)})
    code = f"""
import torch
from pathlib import Path
from adapterctl.lora.tensorfile import TensorFile

def used():
    fields = Path("/proc/self/status").read_text().split("VmHWM:")[1].split()
    return int(fields[0]) // 1024

out = torch.zeros(8 << 20)
file = TensorFile(Path({str(path)!r}))
file.read_into("0", out)
before = used()
for name in file.entries:
    file.read_into(name, out)
    for piece in file.pieces(name):
        pass
print(used() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 8


class TestIdentity:
    def test_stays_until_a_file_changes(self, tmp_path: Path) -> None:
        folder = make_adapter(tmp_path / "ja")
        first = Adapter.open(folder).identity
        assert first == Adapter.open(folder).identity
        assert first != Adapter.open(make_adapter(tmp_path / "zh")).identity
        change_config(folder, lora_alpha=9)
        second = Adapter.open(folder).identity
        assert (second[0], second[1] == first[1]) == (first[0], False)
        path = folder / "adapter_model.safetensors"
        copy = tmp_path / "copy"
        copy.write_bytes(path.read_bytes())
        copy.replace(path)
        assert Adapter.open(folder).identity[0] != first[0]


class TestAdapterReads:
    @pytest.mark.parametrize("dtype", FLOATS)
    def test_factors_into_buffers(self, tmp_path: Path, dtype: torch.dtype) -> None:
        folder = make_adapter(tmp_path / "ja", rank=4, alpha=6, dtype=dtype)
        stored = load_file(folder / "adapter_model.safetensors")
        adapter = Adapter.open(folder, "ja")
        for module, (out, width) in SHAPES.items():
            a, b = torch.zeros(4, width), torch.zeros(out, 4, dtype=torch.float64)
            adapter.read_into(module, "A", a)
            adapter.read_into(module, "B", b)
            assert torch.equal(a, stored[f"base_model.model.{module}.lora_A.weight"].float())
            assert torch.equal(b, stored[f"base_model.model.{module}.lora_B.weight"].double())
            assert adapter.scale(module) == 1.5

    def test_wrong_shape_and_missing_module(self, tmp_path: Path) -> None:
        adapter = Adapter.open(make_adapter(tmp_path / "ja"), "ja")
        with pytest.raises(AdapterError, match=r"ja .*has the shape \(2, 12\), not \(3, 12\)"):
            adapter.read_into(Q, "A", torch.zeros(3, 12))
        with pytest.raises(AdapterError, match="has no lora_A"):
            adapter.read_into("x.y", "B", torch.zeros(3, 12))

    def test_scale_of_what_is_not_plain_lora(self, tmp_path: Path) -> None:
        with pytest.raises(AdapterError, match="use_dora"):
            Adapter.open(make_adapter(tmp_path / "ja", use_dora=True)).scale(Q)

    def test_content_hash_is_what_its_definition_says(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tensorfile, "_PIECE", 7)
        folder = make_adapter(tmp_path / "ja", rank=3, alpha=7, dtype=torch.bfloat16)
        config = {
            "bias": "none",
            "lora_alpha": 7,
            "peft_type": "LORA",
            "r": 3,
            "target_modules": ["down_proj", "k_proj", "q_proj"],
            "task_type": "CAUSAL_LM",
        }
        digest = hashlib.sha256(json.dumps(config, sort_keys=True, separators=(",", ":")).encode())
        for name, tensor in sorted(load_file(folder / "adapter_model.safetensors").items()):
            described = [name, "torch.bfloat16", list(tensor.shape)]
            digest.update(json.dumps(described, separators=(",", ":")).encode())
            digest.update(tensor.view(torch.uint8).numpy().tobytes())
        assert Adapter.open(folder).content_hash == digest.hexdigest()


def test_text_of_a_file_in_a_message() -> None:
    assert shown("a\x1b[2Jb\nc\u202e日本") == "a\\x1b[2Jb\\nc\\u202e日本"
    assert shown("x" * 300) == "x" * 197 + "..."
