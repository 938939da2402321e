from __future__ import annotations

import stat
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from tests.support.adapters import dense_deltas

from adapterctl.errors import AdapterError
from adapterctl.lora.adapter import Adapter
from adapterctl.lora.delta import LowRankDelta
from adapterctl.lora.write import write_adapter


def deltas() -> dict[str, LowRankDelta | tuple[torch.Tensor, torch.Tensor]]:
    numbers = torch.Generator().manual_seed(3)
    return {
        "m.1.up": LowRankDelta(torch.randn(2, 5, generator=numbers), torch.randn(4, 2, generator=numbers), 1.5),
        "m.0.up": (torch.randn(3, 5, generator=numbers), torch.randn(4, 3, generator=numbers)),
    }


def test_folds_the_scale_and_pads_ranks_exactly(tmp_path: Path) -> None:
    write_adapter(tmp_path / "out", deltas(), base_model="base", revision="v2")
    adapter = Adapter.open(tmp_path / "out")
    assert (adapter.config["r"], adapter.config["lora_alpha"]) == (3, 3)
    assert (adapter.base_model, adapter.revision) == ("base", "v2")
    assert adapter.config["target_modules"] == ["m.0.up", "m.1.up"]
    found = dense_deltas(tmp_path / "out")
    one, two = deltas()["m.1.up"], deltas()["m.0.up"]
    assert isinstance(one, LowRankDelta)
    assert isinstance(two, tuple)
    torch.testing.assert_close(found["m.1.up"], 1.5 * (one.B @ one.A).double())
    torch.testing.assert_close(found["m.0.up"], (two[1] @ two[0]).double())


def test_rank_can_be_asked_for(tmp_path: Path) -> None:
    write_adapter(tmp_path / "out", deltas(), base_model="base", rank=8)
    assert Adapter.open(tmp_path / "out").shape("m.0.up") == ((8, 5), (4, 8))


def test_same_arguments_same_bytes_whatever_the_order(tmp_path: Path) -> None:
    text = {f"key{index}": str(index) for index in range(20)}
    write_adapter(tmp_path / "a", deltas(), base_model="base", metadata=text, documents={"NOTE.txt": "hello"})
    write_adapter(
        *(tmp_path / "b", dict(reversed(deltas().items()))),
        base_model="base",
        metadata=dict(reversed(text.items())),
        documents={"NOTE.txt": "hello"},
    )
    names = {path.name for path in (tmp_path / "a").iterdir()}
    assert names == {"adapter_config.json", "adapter_model.safetensors", "NOTE.txt"}
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_header_text_and_types_as_the_safetensors_library_reads_them(tmp_path: Path) -> None:
    write_adapter(tmp_path / "out", deltas(), base_model=None, dtype=torch.bfloat16, metadata={"from": "ja → zh"})
    with safe_open(tmp_path / "out" / "adapter_model.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt", "from": "ja → zh"}
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.bfloat16}  # noqa: SIM118


def test_files_can_be_read_by_others(tmp_path: Path) -> None:
    write_adapter(tmp_path / "out", deltas(), base_model="base")
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "out").iterdir()}
    assert modes == {0o644}


def test_nothing_is_written_when_a_number_is_not_finite(tmp_path: Path) -> None:
    broken = {"m": (torch.tensor([[float("nan")]]), torch.ones(1, 1))}
    with pytest.raises(AdapterError, match=r"m\.lora_A\.weight holds NaN"):
        write_adapter(tmp_path / "out", broken, base_model="base")
    assert list(tmp_path.iterdir()) == []


def test_an_overflow_of_the_stored_type_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="infinite"):
        write_adapter(
            tmp_path / "out", {"m": (torch.full((1, 1), 1e6), torch.ones(1, 1))}, base_model=None, dtype=torch.float16
        )


def test_no_modules_and_odd_types_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="without any module"):
        write_adapter(tmp_path / "out", {}, base_model="base")
    with pytest.raises(AdapterError, match="float64"):
        write_adapter(tmp_path / "out", deltas(), base_model="base", dtype=torch.float64)
