from __future__ import annotations

import math
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tests.support.adapters import SHAPES, dense_deltas, make_adapter, make_family, read_factors

from adapterctl.lora.adapter import Adapter
from adapterctl.merging.interference import Interference, inspect
from adapterctl.merging.interference_figure import interference_figure, interference_summary

WIDE = {"model.layers.0.self_attn.q_proj": (96, 80), "model.layers.1.mlp.down_proj": (64, 120), "lm_head": (70, 96)}


def looked_at(folders: dict[str, Path], **options: Any) -> Interference:
    return inspect([Adapter.open(folder, lang) for lang, folder in folders.items()], **options)


def put(folder: Path, source: Path, scale: float = 1.0, *, turn: bool = False, **changes: Any) -> Path:
    """Write another adapter with the tensors of ``source``, B times ``scale``; ``turn`` mixes the rank's directions."""
    make_adapter(folder, **changes)
    tensors = load_file(source / "adapter_model.safetensors")
    for name in list(tensors):
        if name.endswith("lora_B.weight"):
            other = name.replace("lora_B", "lora_A")
            mixed = torch.eye(tensors[name].shape[1]) + (torch.ones(tensors[name].shape[1], 1) if turn else 0)
            tensors[name] = (scale * tensors[name] @ mixed).contiguous()
            tensors[other] = torch.linalg.solve(mixed, tensors[other]).contiguous()
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def basis(matrix: torch.Tensor) -> np.ndarray:
    """An orthonormal basis of the columns, by numpy's own decomposition."""
    left, values, _ = np.linalg.svd(matrix.numpy(), full_matrices=False)
    return np.asarray(left[:, values > 1e-5 * values[0]])


class TestAgainstDenseMatrices:
    @pytest.mark.parametrize(
        ("kind", "options"),
        [
            ("plain", {"rank": 2}),
            ("wide", {"rank": 5, "shapes": WIDE}),
            ("rslora", {"rank": 3, "use_rslora": True}),
            ("bf16", {"rank": 4, "dtype": torch.bfloat16}),
        ],
    )
    def test_every_number(self, tmp_path: Path, kind: str, options: dict[str, Any]) -> None:
        folders = make_family(tmp_path, **options)
        found = looked_at(folders)
        factors = {lang: read_factors(folder) for lang, folder in folders.items()}
        deltas = {
            lang: {module: scale * (b @ a).numpy() for module, (b, a, scale) in held.items()}
            for lang, held in factors.items()
        }
        parts: dict[str, list[str]] = {"all": list(deltas["de"])}
        for module in deltas["de"]:
            parts.setdefault(module.split(".")[2] if "layers" in module else "outside the layers", []).append(module)
        seen = {part.name: part for part in (found.whole, *found.layers)}
        assert set(seen) == set(parts)
        assert (found.languages, found.modules) == (("de", "ja", "zh"), len(deltas["de"]))
        for name, modules in parts.items():
            part = seen[name]
            flat = {lang: np.concatenate([held[module].ravel() for module in modules]) for lang, held in deltas.items()}
            whole = {lang: sum(np.sum(delta**2) for delta in held.values()) for lang, held in deltas.items()}
            for lang, values in flat.items():
                assert part.norms[lang] == pytest.approx(np.linalg.norm(values), rel=1e-10)
                assert part.energy[lang] == pytest.approx(np.sum(values**2) / whole[lang], rel=1e-10)
            for one, other in combinations(folders, 2):
                pair = part.pair(other, one)
                x, y = flat[one], flat[other]
                assert pair.cosine == pytest.approx(x @ y / np.linalg.norm(x) / np.linalg.norm(y), abs=1e-10)
                for side, overlap, chance in ((1, pair.overlap_a, pair.chance_a), (0, pair.overlap_b, pair.chance_b)):
                    common = most = expected = 0.0
                    for module in modules:
                        p, q = (
                            basis(factors[lang][module][side].T if side else factors[lang][module][side])
                            for lang in (one, other)
                        )
                        common += np.sum((p.T @ q) ** 2)
                        most += min(p.shape[1], q.shape[1])
                        expected += p.shape[1] * q.shape[1] / p.shape[0]
                    assert overlap == pytest.approx(common / most, rel=1e-7)
                    assert chance == pytest.approx(expected / most, rel=1e-12)
                opposed = np.mean(x * y < 0)
                assert pair.sign_conflict is not None
                assert pair.sign_conflict_error is not None
                if kind == "wide":
                    assert abs(pair.sign_conflict - opposed) < 4.5 * pair.sign_conflict_error
                    assert 0 < pair.sign_conflict_error < 0.01
                else:
                    assert pair.sign_conflict == pytest.approx(opposed, abs=1e-12)
                    assert pair.sign_conflict_error == 0

    def test_the_sample_is_unbiased_and_its_error_honest(self, tmp_path: Path) -> None:
        shapes = {f"model.layers.{layer}.mlp.up_proj": (40, 60) for layer in range(120)}
        folders = make_family(tmp_path, ["de", "ja"], shapes=shapes, rank=2)
        found = looked_at(folders, sampled=100)
        assert (found.entries, found.sampled) == (120 * 2400, 120 * 100)
        dense = {lang: dense_deltas(folder) for lang, folder in folders.items()}
        off = []
        for layer in found.layers:
            pair = layer.pairs[0]
            module = f"model.layers.{layer.name}.mlp.up_proj"
            exact = float(((dense["de"][module] * dense["ja"][module]) < 0).double().mean())
            assert pair.sign_conflict is not None
            assert pair.sign_conflict_error is not None
            off.append((pair.sign_conflict - exact) / pair.sign_conflict_error)
        # A standard normal's 120 values: mean 0 ± 0.09, mean square 1 ± 0.13.
        assert abs(np.mean(off)) < 0.37
        assert 0.5 < np.mean(np.square(off)) < 1.6


class TestLaws:
    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(scale=st.floats(1e-3, 1e3), sign=st.sampled_from([-1, 1]), rank=st.integers(1, 5), turn=st.booleans())
    def test_a_scaled_copy(
        self, tmp_path_factory: pytest.TempPathFactory, scale: float, sign: int, rank: int, turn: bool
    ) -> None:
        folder = tmp_path_factory.mktemp("x")
        one = make_adapter(folder / "de", rank=rank, alpha=rank + 1)
        other = put(folder / "ja", one, sign * scale, turn=turn, rank=rank, alpha=2 * rank + 1)
        found = looked_at({"de": one, "ja": other})
        for part in (found.whole, *found.layers):
            pair = part.pairs[0]
            assert pair.cosine == pytest.approx(sign, abs=1e-5)
            assert pair.overlap_a == pytest.approx(1, abs=1e-5)
            assert pair.overlap_b == pytest.approx(1, abs=1e-5)
            if not turn:
                assert pair.sign_conflict == (sign < 0)

    @pytest.mark.parametrize("rank", [1, 3])
    def test_orthogonal_subspaces(self, tmp_path: Path, rank: int) -> None:
        folders = make_family(tmp_path, ["de", "ja"], rank=rank, alpha=5)
        for place, folder in enumerate(folders.values()):
            path = folder / "adapter_model.safetensors"
            tensors = load_file(path)
            for name, tensor in tensors.items():
                half = tensor.shape[1 if "lora_A" in name else 0] // 2
                kept = slice(half, None) if place else slice(None, half)
                mask = torch.zeros_like(tensor)
                mask[(slice(None), kept) if "lora_A" in name else kept] = 1
                tensors[name] = tensor * mask
            save_file(tensors, path)
        found = looked_at(folders)
        pair = found.whole.pairs[0]
        assert pair.cosine == pytest.approx(0, abs=1e-12)
        assert pair.overlap_a == pytest.approx(0, abs=1e-12)
        assert pair.overlap_b == pytest.approx(0, abs=1e-12)
        assert pair.sign_conflict == 0

    @settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(seeds=st.lists(st.integers(0, 99), min_size=2, max_size=4, unique=True), data=st.data())
    def test_order_does_not_matter_nor_do_the_others(
        self, tmp_path_factory: pytest.TempPathFactory, seeds: list[int], data: st.DataObject
    ) -> None:
        folder = tmp_path_factory.mktemp("x")
        languages = ["de", "en", "ja", "zh"]
        folders = {
            lang: make_adapter(folder / lang, seed=seed, rank=1 + seed % 4, alpha=6)
            for lang, seed in zip(languages, seeds, strict=False)
        }
        found = looked_at(folders, sampled=50)
        order = data.draw(st.permutations(list(folders)))
        assert looked_at({lang: folders[lang] for lang in order}, sampled=50) == found
        two = looked_at({lang: folders[lang] for lang in order[:2]}, sampled=50).whole.pairs[0]
        among = found.whole.pair(*order[:2])
        assert two.sign_conflict == among.sign_conflict
        assert two.cosine == pytest.approx(among.cosine, abs=1e-12)
        for pair in found.whole.pairs:
            assert -1 <= (pair.cosine or 0) <= 1
            assert 0 <= (pair.overlap_a or 0) <= 1 + 1e-9
            assert 0 <= (pair.sign_conflict or 0) <= 1

    def test_a_smaller_space_within_a_larger_one(self, tmp_path: Path) -> None:
        large = make_adapter(tmp_path / "de", rank=4, alpha=6)
        small = make_adapter(tmp_path / "ja", rank=2, alpha=3)
        tensors = load_file(large / "adapter_model.safetensors")
        cut = {name: (t[:2] if "lora_A" in name else t[:, :2]).contiguous() for name, t in tensors.items()}
        save_file(cut, small / "adapter_model.safetensors")
        pair = looked_at({"de": large, "ja": small}).whole.pairs[0]
        assert pair.overlap_a == pytest.approx(1, abs=1e-6)
        assert pair.overlap_b == pytest.approx(1, abs=1e-6)


class TestOddFamilies:
    def test_a_module_that_only_some_have_is_zero_elsewhere(self, tmp_path: Path) -> None:
        part = {name: shape for name, shape in SHAPES.items() if "layers.0" in name}
        folders = {
            "de": make_adapter(tmp_path / "de", seed=1, alpha=3),
            "ja": make_adapter(tmp_path / "ja", seed=2, alpha=5, shapes=part),
        }
        found = looked_at(folders)
        dense = {lang: dense_deltas(folder) for lang, folder in folders.items()}
        inner = sum(float(torch.sum(dense["de"][module] * dense["ja"][module])) for module in part)
        assert found.whole.pairs[0].cosine == pytest.approx(
            inner / found.whole.norms["de"] / found.whole.norms["ja"], rel=1e-10
        )
        zero, one = found.layers
        assert (zero.name, one.name) == ("0", "1")
        assert one.norms["ja"] == one.energy["ja"] == 0
        assert one.pairs[0].cosine is one.pairs[0].overlap_a is one.pairs[0].sign_conflict is None
        assert zero.energy["ja"] == 1

    def test_an_adapter_before_its_first_step(self, tmp_path: Path) -> None:
        folders = make_family(tmp_path, ["de", "ja"], rank=3)
        path = folders["ja"] / "adapter_model.safetensors"
        save_file({n: t * ("lora_A" in n) for n, t in load_file(path).items()}, path)
        pair = looked_at(folders).whole.pairs[0]
        assert pair.cosine is pair.overlap_b is pair.sign_conflict is None
        assert pair.overlap_a is not None

    def test_one_alone(self, tmp_path: Path) -> None:
        found = looked_at({"ja": make_adapter(tmp_path / "ja")})
        assert found.whole.pairs == ()
        assert math.isclose(sum(layer.energy["ja"] for layer in found.layers), 1)

    def test_a_pair_that_is_none(self, tmp_path: Path) -> None:
        with pytest.raises(KeyError):
            looked_at(make_family(tmp_path)).whole.pair("de", "ko")

    def test_progress_counts_modules(self, tmp_path: Path) -> None:
        told: list[tuple[int, int]] = []
        looked_at(make_family(tmp_path), progress=lambda done, total: told.append((done, total)))
        assert told == [(done, len(SHAPES)) for done in range(1, len(SHAPES) + 1)]


class TestFigure:
    @pytest.mark.parametrize(
        "languages", [["ja"], ["de", "ja"], ["de", "en", "es", "fr", "it", "ja", "ko", "nl", "zh"]]
    )
    def test_a_picture_whose_bytes_depend_on_the_numbers_alone(self, tmp_path: Path, languages: list[str]) -> None:
        found = looked_at(make_family(tmp_path, languages, rank=3))
        picture = interference_figure(found)
        assert picture.startswith(b"\x89PNG\r\n\x1a\n")
        assert picture == interference_figure(found)

    def test_where_there_is_nothing_to_compare(self, tmp_path: Path) -> None:
        folders = make_family(tmp_path, ["de", "ja"])
        for folder in folders.values():
            path = folder / "adapter_model.safetensors"
            save_file({name: torch.zeros_like(tensor) for name, tensor in load_file(path).items()}, path)
        assert interference_figure(looked_at(folders)).startswith(b"\x89PNG")


SEVEN = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
DEEP = {f"model.layers.{layer}.x.{name}": (6, 8) for layer in range(14) for name in SEVEN}


class TestWithLittleTime:
    def test_modules_of_all_layers_and_of_every_kind_are_looked_at(self, tmp_path: Path) -> None:
        folders = make_family(tmp_path, ["de", "ja"], shapes=DEEP)
        # A pair takes 1e6 multiplications for each of the four (i, j); 14 of 98 modules have room.
        found = looked_at(folders, most_work=14.5 * 4e6)
        assert found.modules == 14
        assert [layer.name for layer in found.layers] == [str(layer) for layer in range(14)]
        whole = looked_at(folders)
        assert whole.modules == 98
        assert looked_at(folders, most_work=1e12) == whole

    def test_no_fewer_than_four(self, tmp_path: Path) -> None:
        folders = make_family(tmp_path, ["de", "ja"], shapes=DEEP)
        assert looked_at(folders, most_work=1.0).modules == 4
        few = {name: SHAPES[name] for name in list(SHAPES)[:3]}
        assert looked_at(make_family(tmp_path / "few", ["de", "ja"], shapes=few), most_work=1.0).modules == 3

    @pytest.mark.parametrize("count", [8, 14, 16, 32, 50, 97])
    def test_they_are_not_all_of_one_kind(self, count: int) -> None:
        from adapterctl.merging.interference import _spread

        chosen = _spread(sorted(DEEP), count)
        assert len(set(chosen)) == count
        kinds = {name.rsplit(".", 1)[-1] for name in chosen}
        assert len(kinds) == 7 if count >= 32 else len(kinds) >= 4

    def test_a_small_picture(self, tmp_path: Path) -> None:
        found = looked_at(make_family(tmp_path, ["de", "ja", "zh"]))
        picture = interference_summary(found)
        assert picture.startswith(b"\x89PNG")
        assert picture == interference_summary(found)
        assert picture != interference_summary(found, title="Another")
        many = looked_at(make_family(tmp_path / "many", [f"l{number}" for number in range(20)]), sampled=8)
        assert interference_summary(many).startswith(b"\x89PNG")
