from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.support.adapters import SHAPES, change_config, dense_deltas, make_adapter

from adapterctl.errors import AdapterError
from adapterctl.lora.adapter import Adapter

Q = "model.layers.0.self_attn.q_proj"
K = "model.layers.1.self_attn.k_proj"


def test_reads_modules_ranks_and_deltas(tmp_path: Path) -> None:
    folder = make_adapter(tmp_path / "ja", rank=4, alpha=6, revision="v1")
    adapter = Adapter.open(folder, "ja")
    assert adapter.modules == tuple(sorted(SHAPES))
    assert (adapter.lang, adapter.base_model, adapter.revision) == ("ja", "tiny-base", "v1")
    assert adapter.rank(Q) == 4
    assert adapter.shape(K) == ((4, 12), (6, 4))
    expected = dense_deltas(folder, 6 / 4)
    for module in adapter.modules:
        torch.testing.assert_close(adapter.delta(module, torch.float64).dense(), expected[module])
    assert adapter.delta(Q).A.dtype == torch.float32


def test_scale_of_rslora_and_patterns(tmp_path: Path) -> None:
    folder = make_adapter(
        *(tmp_path / "ja",),
        rank=4,
        alpha=6,
        ranks={K: 3},
        use_rslora=True,
        rank_pattern={"layers.1.self_attn.k_proj": 3},
        alpha_pattern={"k_proj": 2},
    )
    adapter = Adapter.open(folder)
    assert adapter.delta(Q).scale == pytest.approx(3.0)
    assert adapter.delta(K).scale == pytest.approx(2 / 3**0.5)
    assert adapter.delta(K).rank == adapter.rank(K) == 3


def test_a_module_it_does_not_have(tmp_path: Path) -> None:
    adapter = Adapter.open(make_adapter(tmp_path / "ja"))
    with pytest.raises(AdapterError, match=r"x\.y has no lora_A and no lora_B"):
        adapter.delta("x.y")


def test_delta_of_a_config_that_is_not_plain_lora(tmp_path: Path) -> None:
    adapter = Adapter.open(make_adapter(tmp_path / "ja", use_dora=True))
    with pytest.raises(AdapterError, match="use_dora"):
        adapter.delta(Q)


class TestContentHash:
    def test_ignores_place_language_header_text_and_order(self, tmp_path: Path) -> None:
        one = make_adapter(tmp_path / "a", seed=5)
        two = make_adapter(tmp_path / "b", seed=5, metadata={"format": "pt", "made": "elsewhere"}, base_model="/moved")
        config = json.loads((two / "adapter_config.json").read_text())
        reordered = {key: config[key] for key in reversed(config)}
        reordered["target_modules"] = list(reversed(config["target_modules"]))
        (two / "adapter_config.json").write_text(json.dumps(reordered))
        assert Adapter.open(one, "ja").content_hash == Adapter.open(two).content_hash

    def test_sees_one_changed_number(self, tmp_path: Path) -> None:
        one, two = make_adapter(tmp_path / "a"), make_adapter(tmp_path / "b")
        tensors = load_file(two / "adapter_model.safetensors")
        name = sorted(tensors)[0]
        tensors[name][0, 0] = torch.nextafter(tensors[name][0, 0], torch.tensor(9.0))
        save_file(tensors, two / "adapter_model.safetensors")
        assert Adapter.open(one).content_hash != Adapter.open(two).content_hash

    def test_sees_type_and_shape_where_the_bytes_are_the_same(self, tmp_path: Path) -> None:
        hashes = set()
        for index, view in enumerate((torch.float16, torch.bfloat16, None)):
            folder = make_adapter(tmp_path / str(index), dtype=torch.float16)
            tensors = load_file(folder / "adapter_model.safetensors")
            name = f"base_model.model.{Q}.lora_A.weight"
            tensors[name] = tensors[name].view(view) if view else tensors[name].reshape(4, 6)
            save_file(tensors, folder / "adapter_model.safetensors")
            hashes.add(Adapter.open(folder).content_hash)
        assert len(hashes) == 3

    def test_sees_scale_type_and_shape(self, tmp_path: Path) -> None:
        folders = [
            make_adapter(tmp_path / "a"),
            make_adapter(tmp_path / "b", alpha=4),
            make_adapter(tmp_path / "c", dtype=torch.bfloat16),
            make_adapter(tmp_path / "d", use_rslora=True),
            make_adapter(tmp_path / "e", rank=1),
        ]
        assert len({Adapter.open(folder).content_hash for folder in folders}) == len(folders)


class TestHostileFolders:
    def test_no_folder(self, tmp_path: Path) -> None:
        with pytest.raises(AdapterError, match="no folder"):
            Adapter.open(tmp_path / "nowhere")

    def test_no_config(self, tmp_path: Path) -> None:
        with pytest.raises(AdapterError, match=r"no adapter_config\.json"):
            Adapter.open(tmp_path)

    @pytest.mark.parametrize(
        "text",
        [b"", b"{", b"\xff\xfe\x00", b'{"r": NaN}', b'["r"]', b"[" * 100_000, b'{"a": "\\ud800"}', b'{"r": 1e999}'],
        ids=["empty", "cut", "not-utf8", "nan", "list", "deep", "surrogate", "infinite"],
    )
    def test_config_that_is_not_a_json_object(self, tmp_path: Path, text: bytes) -> None:
        folder = make_adapter(tmp_path / "ja")
        (folder / "adapter_config.json").write_bytes(text)
        with pytest.raises(AdapterError, match=r"adapter_config\.json is not"):
            Adapter.open(folder)

    def test_config_that_is_a_folder(self, tmp_path: Path) -> None:
        (tmp_path / "adapter_config.json").mkdir()
        with pytest.raises(AdapterError, match="cannot read"):
            Adapter.open(tmp_path)

    def test_no_tensors(self, tmp_path: Path) -> None:
        folder = make_adapter(tmp_path / "ja")
        (folder / "adapter_model.safetensors").unlink()
        with pytest.raises(AdapterError, match=r"(?m)has no adapter_model\.safetensors$"):
            _ = Adapter.open(folder).modules

    def test_pickle_only_is_never_loaded(self, tmp_path: Path) -> None:
        folder = make_adapter(tmp_path / "ja")
        (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
        with pytest.raises(AdapterError, match="a pickle, which is never loaded"):
            _ = Adapter.open(folder).modules

    def test_pickle_in_disguise(self, tmp_path: Path) -> None:
        folder = make_adapter(tmp_path / "ja")
        torch.save({"a": torch.zeros(2)}, folder / "adapter_model.safetensors")
        with pytest.raises(AdapterError, match="a pickle with another name"):
            _ = Adapter.open(folder).modules

    def test_length_of_header_that_looks_like_a_pickle(self, tmp_path: Path) -> None:
        folder = make_adapter(tmp_path / "ja")
        path = folder / "adapter_model.safetensors"
        tensors = load_file(path)
        for padding in range(0, 256, 8):
            save_file(tensors, path, metadata={"note": "x" * padding})
            if path.read_bytes()[0] == 0x80:
                break
        assert path.read_bytes()[0] == 0x80
        assert len(Adapter.open(folder).tensor_names) == 2 * len(SHAPES)

    @pytest.mark.parametrize("size", [0, 4, 7, 100, -1])
    def test_truncated(self, tmp_path: Path, size: int) -> None:
        folder = make_adapter(tmp_path / "ja")
        path = folder / "adapter_model.safetensors"
        path.write_bytes(path.read_bytes()[:size])
        with pytest.raises(AdapterError, match="not a complete safetensors file"):
            _ = Adapter.open(folder).modules

    @pytest.mark.parametrize(
        "header",
        [
            b'{"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8000]}}',
            b'{"x": {"dtype": "F32", "shape": [4], "data_offsets": [0, 8]}}',
            b'{"x": {"dtype": "F32", "shape": [4611686018427387904, 8], "data_offsets": [0, 8]}}',
            b'{"x": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}}',
            b'{"x": {"dtype": "F99", "shape": [2], "data_offsets": [0, 8]}}',
            b'{"x": 3}',
            b"[]",
            b"\xff\xff",
        ],
    )
    def test_lying_headers(self, tmp_path: Path, header: bytes) -> None:
        folder = make_adapter(tmp_path / "ja")
        (folder / "adapter_model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
        with pytest.raises(AdapterError, match="not a complete safetensors file"):
            _ = Adapter.open(folder).modules

    def test_header_longer_than_the_file(self, tmp_path: Path) -> None:
        folder = make_adapter(tmp_path / "ja")
        (folder / "adapter_model.safetensors").write_bytes((2**62).to_bytes(8, "little") + b"{}")
        with pytest.raises(AdapterError, match="not a complete safetensors file"):
            _ = Adapter.open(folder).modules

    def test_tensors_that_are_a_folder(self, tmp_path: Path) -> None:
        folder = make_adapter(tmp_path / "ja")
        (folder / "adapter_model.safetensors").unlink()
        (folder / "adapter_model.safetensors").mkdir()
        with pytest.raises(AdapterError, match=r"adapter_model\.safetensors"):
            _ = Adapter.open(folder).modules


def test_wrong_shape_in_delta(tmp_path: Path) -> None:
    folder = make_adapter(tmp_path / "ja")
    tensors = load_file(folder / "adapter_model.safetensors")
    tensors[f"base_model.model.{Q}.lora_A.weight"] = torch.zeros(3, 12)
    save_file(tensors, folder / "adapter_model.safetensors")
    with pytest.raises(AdapterError, match="not factors"):
        Adapter.open(folder).delta(Q)


def test_opening_reads_no_tensors(tmp_path: Path) -> None:
    folder = make_adapter(tmp_path / "ja")
    (folder / "adapter_model.safetensors").write_bytes(b"")
    change_config(folder, r=3)
    assert Adapter.open(folder).rank(Q) == 3
