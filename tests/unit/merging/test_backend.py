"""Choosing a device, and what holds while it works."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tests.support.adapters import make_family
from tests.support.merging import opened

from adapterctl.errors import MergeError
from adapterctl.merging import engine, kernels, kernels_torch
from adapterctl.merging.backend import CPU, Backend, backend_of
from adapterctl.merging.engine import merge
from adapterctl.merging.into_model import merge_into_model
from adapterctl.merging.recipe import MergeRecipe

TORCH = Backend(torch.device("cpu"), compiled=False)
DTYPES = [np.float32, np.float64]


class TestChoosingADevice:
    """What a person may ask for, and what they are told."""

    def test_the_cpu(self) -> None:
        assert backend_of("cpu") is CPU
        assert CPU.kernels is kernels
        assert not CPU.mark

    @pytest.mark.parametrize("name", ["gpu", "CUDA", "cuda:", "cuda:x", "cuda:-1", "cpu:0", "mps", "meta", ""])
    def test_names_that_are_none(self, name: str) -> None:
        with pytest.raises(MergeError, match=f"no device {name!r}") as error:
            backend_of(name)
        assert "--device cpu" in error.value.hint

    @pytest.mark.parametrize(("built", "reason", "mend"), [
        (None, "was built without CUDA", "install a CUDA build of torch"),
        ("12.8", "finds no GPU", "nvidia-smi"),
    ])  # fmt: skip
    def test_without_a_gpu(self, monkeypatch: pytest.MonkeyPatch, built: str | None, reason: str, mend: str) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setattr(torch.version, "cuda", built)
        monkeypatch.setattr(torch.version, "hip", None)
        with pytest.raises(MergeError, match=f"cannot merge on cuda: .*{reason}") as error:
            backend_of("cuda")
        assert "--device cpu" in error.value.hint
        assert mend in error.value.hint

    def test_with_two_gpus(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {device.index}")
        assert backend_of("cuda") == Backend(torch.device("cuda:1"), compiled=False)
        assert backend_of("cuda:0").mark == "torch GPU 0"
        with pytest.raises(MergeError, match="finds 2 GPU"):
            backend_of("cuda:2")

    @pytest.mark.parametrize(
        "merged",
        [
            lambda adapters, out: merge(adapters, MergeRecipe(), out, device="cuda"),
            lambda adapters, out: merge_into_model(adapters, MergeRecipe(), out / "base", out, device="cuda"),
        ],
    )
    def test_nothing_is_read_for_a_device_that_is_none(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, merged: Callable[[Any, Path], object]
    ) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        adapters = opened(make_family(tmp_path))
        for adapter in adapters:
            (adapter.folder / "adapter_model.safetensors").unlink()
        with pytest.raises(MergeError, match="cannot merge on cuda"):
            merged(adapters, tmp_path / "out")
        assert not (tmp_path / "out").exists()


class TestAtWork:
    """What holds while a device computes."""

    @pytest.mark.parametrize("before", ["none", "tf32", "ieee"])
    def test_products_have_all_digits_and_the_setting_comes_back(
        self, monkeypatch: pytest.MonkeyPatch, before: str
    ) -> None:
        products = SimpleNamespace(fp32_precision=before)
        monkeypatch.setattr(torch.backends.cuda, "matmul", products)
        with TORCH.at_work():
            assert products.fp32_precision == "ieee"
        assert products.fp32_precision == before
        with pytest.raises(ZeroDivisionError), TORCH.at_work():
            raise ZeroDivisionError
        assert products.fp32_precision == before

    def test_torch_knows_the_setting(self) -> None:
        before = torch.backends.cuda.matmul.fp32_precision
        with TORCH.at_work():
            assert not torch.backends.cuda.matmul.allow_tf32
        assert torch.backends.cuda.matmul.fp32_precision == before

    @pytest.mark.parametrize("threads", [1, 2])
    @pytest.mark.parametrize(
        "error",
        [
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has ..."),
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
        ],
    )
    def test_too_little_memory(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, threads: int
    ) -> None:
        def full(*_: Any) -> None:
            raise error

        monkeypatch.setattr(engine, "backend_of", lambda device: TORCH)
        monkeypatch.setattr(kernels_torch, "elect", full)
        with pytest.raises(MergeError, match="too little free memory for this merge: CUDA") as caught:
            merge(
                opened(make_family(tmp_path)),
                MergeRecipe(method="ties", density=0.5),
                tmp_path / "out",
                threads=threads,
            )
        assert "GPU 0" not in caught.value.message
        assert "--threads" in caught.value.hint
        assert "--device cpu" in caught.value.hint
        assert not (tmp_path / "out").exists()

    def test_other_errors_are_not_about_memory(self) -> None:
        with pytest.raises(RuntimeError, match="illegal"), TORCH.at_work():
            raise RuntimeError("an illegal instruction")
