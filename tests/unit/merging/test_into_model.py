"""Merging into a base model: W + ΔW in the files of the base, everything else as it was."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tests.support.adapters import SHAPES, change_config, dense_deltas, make_adapter, make_family
from tests.support.base_models import header, merged, others, raw, read_model, weights, write_base
from tests.support.merging import expected_of, factors_of, keys_of, opened, stable, write_grams

from adapterctl.errors import AdapterError, BaseModelError, MergeError
from adapterctl.merging.into_model import merge_into_model
from adapterctl.merging.recipe import MergeRecipe

HALF_A_UNIT = {torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8, torch.float32: 2.0**-24, torch.float64: 2.0**-53}
"""How far rounding once may lead, relative to the number."""

LARGE = {"model.layers.0.mlp.up_proj": (300, 700), "model.layers.0.self_attn.k_proj": (900, 300)}
"""Modules of several tiles, the last of which is smaller."""


def assert_added(
    base: Path, out: Path, deltas: dict[str, torch.Tensor], scale: float = 1.0, tolerance: float = 1e-6
) -> None:
    """Every weight is W + scale · ΔW rounded once, in the same place; every other byte is as it was."""
    assert sorted(path.name for path in base.glob("model*")) == sorted(path.name for path in out.glob("model*"))
    for path in base.glob("*.safetensors"):
        assert header(path) == header(out / path.name)
    before, after = read_model(base), read_model(out)
    assert list(before) == list(after)
    for name, tensor in before.items():
        delta = deltas.get(name.removesuffix(".weight"))
        if delta is None:
            assert raw(after[name]) == raw(tensor), name
            continue
        exact = tensor.double() + scale * delta
        assert after[name].dtype == tensor.dtype
        beyond_rounding = (after[name].double() - exact).abs() - 1.001 * HALF_A_UNIT[tensor.dtype] * exact.abs()
        sums = scale * float(delta.abs().max()) + (0 if tensor.dtype == torch.float64 else float(tensor.abs().max()))
        assert float(beyond_rounding.max()) <= tolerance * sums, name


@pytest.fixture
def family(tmp_path: Path) -> Callable[[int], dict[str, Path]]:
    return lambda seed: {
        lang: make_adapter(tmp_path / f"in{seed}" / lang, seed=50 * seed + n, alpha=3 + n)
        for n, lang in enumerate(("de", "ja", "zh"))
    }


METHODS: list[dict[str, Any]] = [
    keys_of("linear"),
    keys_of("ties"),
    keys_of("ties", semantics="mergekit"),
    keys_of("ties", precision="float64"),
    keys_of("ties-slack"),
    keys_of("magnitude-prune", weights={"ja": -0.7, "de": 0.0}),
    keys_of("breadcrumbs"),
    keys_of("sce"),
    keys_of("knots-ties"),
    keys_of("core-ties"),
    keys_of("core-tsv"),
    keys_of("core-iso-c"),
    keys_of("svc"),
    keys_of("pico"),
    keys_of("regmean"),
]


@pytest.mark.parametrize("keys", METHODS, ids=lambda keys: "-".join([keys["method"], *map(str, list(keys)[1:])]))
def test_every_space_gives_the_weights_of_the_reference(
    keys: dict[str, Any], family: Callable[[int], dict[str, Path]], tmp_path: Path
) -> None:
    keys = {**keys, **({"grams": write_grams(tmp_path / "grams")} if keys["method"] == "regmean" else {})}
    folders = stable(family, keys)
    base = write_base(tmp_path / "base", weights() | others(), shards=2)
    report = merged(folders, base, tmp_path / "out", scale=0.75, **keys)
    assert_added(base, tmp_path / "out", expected_of(factors_of(folders), keys), 0.75, tolerance=2e-5)
    assert report.energy_kept == pytest.approx(1)
    assert report.vllm_rank is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("method", ["linear", "ties"])
def test_every_type_is_rounded_once(
    dtype: torch.dtype, shards: int, method: str, family: Callable[[int], dict[str, Path]], tmp_path: Path
) -> None:
    keys = keys_of(method, precision="float64" if dtype == torch.float64 else "float32")
    folders = stable(family, keys)
    base = write_base(tmp_path / "base", others() | weights(dtype=dtype), shards=shards)
    merged(folders, base, tmp_path / "out", **keys)
    tolerance = 1e-13 if dtype == torch.float64 else 1e-6
    assert_added(base, tmp_path / "out", expected_of(factors_of(folders), keys), tolerance=tolerance)


@pytest.mark.parametrize("method", ["linear", "ties"])
def test_a_float64_base_keeps_its_digits_in_a_float32_merge(
    method: str, family: Callable[[int], dict[str, Path]], tmp_path: Path
) -> None:
    folders = stable(family, keys_of(method))
    base = write_base(tmp_path / "base", weights(dtype=torch.float64))
    merged(folders, base, tmp_path / "out", scale=1e-6, **keys_of(method))
    assert_added(base, tmp_path / "out", expected_of(factors_of(folders), keys_of(method)), 1e-6, tolerance=1e-5)


@pytest.mark.parametrize("method", ["linear", "ties", "knots-ties"])
def test_transposed_weights(method: str, tmp_path: Path) -> None:
    keys = keys_of(method)

    def make(seed: int) -> dict[str, Path]:
        return {
            lang: make_adapter(tmp_path / f"in{seed}" / lang, seed=50 * seed + n, alpha=3 + n, fan_in_fan_out=True)
            for n, lang in enumerate(("de", "ja"))
        }

    folders = stable(make, keys)
    base = write_base(tmp_path / "base", {name: tensor.T.contiguous() for name, tensor in weights().items()} | others())
    merged(folders, base, tmp_path / "out", **keys)
    deltas = {module: delta.T for module, delta in expected_of(factors_of(folders), keys).items()}
    assert_added(base, tmp_path / "out", deltas, tolerance=2e-5)


@pytest.mark.parametrize("method", ["linear", "ties", "dare-ties", "core-tsv"])
@pytest.mark.parametrize("turned", [False, True])
def test_threads_and_order_change_no_byte(method: str, turned: bool, tmp_path: Path) -> None:
    folders = make_family(tmp_path / "in", shapes=LARGE, rank=4, fan_in_fan_out=turned)
    made = weights(LARGE, torch.bfloat16)
    if turned:
        made = {name: tensor.T.contiguous() for name, tensor in made.items()}
    base = write_base(tmp_path / "base", made | others(), shards=2)
    one = merged(folders, base, tmp_path / "one", threads=1, **keys_of(method))
    two = merged(dict(reversed(folders.items())), base, tmp_path / "two", threads=2, **keys_of(method))
    assert one.key == two.key
    assert sorted(path.name for path in one.folder.iterdir()) == sorted(path.name for path in two.folder.iterdir())
    for path in one.folder.iterdir():
        if path.name != "merge_report.json":
            assert path.read_bytes() == (two.folder / path.name).read_bytes(), path.name
    documents = [json.loads((report.folder / "merge_report.json").read_text()) for report in (one, two)]
    assert [document.pop("measured")["threads"] for document in documents] == [1, 2]
    assert documents[0] == documents[1]


@pytest.mark.parametrize("method", ["linear", "ties"])
def test_tiles_cover_every_row(method: str, tmp_path: Path) -> None:
    folders = {"de": make_adapter(tmp_path / "de", shapes=LARGE, rank=4)}
    base = write_base(tmp_path / "base", weights(LARGE) | others())
    merged(folders, base, tmp_path / "out", method=method, weights={"de": 1.0}, density=1.0)
    assert_added(base, tmp_path / "out", dense_deltas(folders["de"]), tolerance=1e-5)


def test_a_module_that_is_merged_twice_is_added_once(tmp_path: Path) -> None:
    # All votes are balanced: plus is tried, and minus is what holds.
    folders = {"de": make_adapter(tmp_path / "de"), "ja": make_adapter(tmp_path / "ja")}
    tensors = read_model(folders["ja"])
    turned = {name: -tensor if "lora_B" in name else tensor for name, tensor in tensors.items()}
    save_file(turned, folders["ja"] / "adapter_model.safetensors")
    base = write_base(tmp_path / "base", weights())
    merged(folders, base, tmp_path / "out", method="ties", density=1.0)
    deltas = {module: -delta.abs() for module, delta in dense_deltas(folders["de"]).items()}
    assert_added(base, tmp_path / "out", deltas, tolerance=1e-5)


@pytest.mark.parametrize("method", ["linear", "ties"])
def test_layers_that_nothing_is_added_to_keep_every_bit(method: str, tmp_path: Path) -> None:
    made = weights(dtype=torch.bfloat16)
    made["model.layers.0.mlp.down_proj.weight"][0, 0] = -0.0
    base = write_base(tmp_path / "base", made)
    merged(make_family(tmp_path / "in"), base, tmp_path / "out", method=method, density=0.5, layers={"0": 0.0})
    after = read_model(tmp_path / "out")
    for name, tensor in made.items():
        assert (raw(after[name]) == raw(tensor)) == ("layers.0." in name), name


class TestNames:
    def base_of(self, folder: Path, rename: Callable[[str], str], **more: torch.Tensor) -> Path:
        return write_base(folder, {rename(name): tensor for name, tensor in weights().items()} | others() | more)

    @pytest.mark.parametrize(
        "rename",
        [lambda name: name.removeprefix("model."), lambda name: f"backbone.{name}"],
        ids=["without model.", "below another"],
    )
    def test_other_prefixes_are_found(self, rename: Callable[[str], str], tmp_path: Path) -> None:
        folders, base = make_family(tmp_path / "in"), self.base_of(tmp_path / "base", rename)
        merged(folders, base, tmp_path / "out", **keys_of("linear"))
        deltas = expected_of(factors_of(folders), keys_of("linear"))
        assert_added(base, tmp_path / "out", {rename(module): delta for module, delta in deltas.items()})

    def refusal(self, tmp_path: Path, base: Path, **options: Any) -> str:
        with pytest.raises(MergeError) as caught:
            merged(make_family(tmp_path / "in", **options), base, tmp_path / "out", **keys_of("linear"))
        assert not (tmp_path / "out").exists()
        return str(caught.value)

    def test_everything_that_does_not_fit_is_told_at_once(self, tmp_path: Path) -> None:
        made = weights() | others()
        del made["model.layers.0.self_attn.q_proj.weight"]
        made["model.layers.0.self_attn.k_proj.weight"] = torch.zeros(12, 6)
        made["model.layers.1.mlp.down_proj.weight"] = torch.zeros(12, 20, dtype=torch.int8)
        made["model.layers.1.self_attn.q_proj.weight"] = torch.zeros(12)
        told = self.refusal(tmp_path, write_base(tmp_path / "base", made))
        assert "4 problems" in told
        assert "no tensor model.layers.0.self_attn.q_proj.weight" in told
        assert "12 × 6, ΔW is 6 × 12" in told
        assert "fan_in_fan_out" in told
        assert "stored in int8" in told
        assert "bfloat16" in told
        assert "is 12, ΔW is 12 × 12" in told

    def test_several_that_could_be_meant(self, tmp_path: Path) -> None:
        made = {f"{side}.{name}": tensor for side in ("left", "right") for name, tensor in weights().items()}
        told = self.refusal(tmp_path, write_base(tmp_path / "base", made))
        assert "several tensors" in told
        assert "left.model.layers.0" in told
        assert "right.model.layers.0" in told

    def test_two_modules_of_one_tensor(self, tmp_path: Path) -> None:
        shapes = {"model.layers.0.mlp": (4, 5), "layers.0.mlp": (4, 5)}
        base = write_base(tmp_path / "base", {"layers.0.mlp.weight": torch.zeros(4, 5)})
        assert "several modules would change it" in self.refusal(tmp_path, base, shapes=shapes)

    def test_quantised_models(self, tmp_path: Path) -> None:
        made = {name.replace(".weight", ".qweight"): tensor.to(torch.int32) for name, tensor in weights().items()}
        told = self.refusal(tmp_path, write_base(tmp_path / "base", made, quantization_config={"bits": 4}))
        assert "6 problems" in told
        assert "quantised" in told

    @pytest.mark.parametrize("stored", [True, False])
    def test_an_output_layer_that_is_the_embedding(self, stored: bool, tmp_path: Path) -> None:
        shapes = {"lm_head": (7, 12)}
        made = weights() | (weights(shapes) if stored else {})
        base = write_base(tmp_path / "base", made, tie_word_embeddings=True)
        told = self.refusal(tmp_path, base, shapes=shapes)
        assert ("is tied to its embedding" if stored else "cannot change alone") in told

    def test_an_adapter_of_another_base(self, tmp_path: Path) -> None:
        base = write_base(tmp_path / "base", weights())
        known = sha256((base / "config.json").read_bytes()).hexdigest()
        fits = make_family(tmp_path / "fits", metadata={"adapterctl.base_config": known})
        merged(fits, base, tmp_path / "merged", **keys_of("linear"))
        told = self.refusal(tmp_path, base, metadata={"adapterctl.base_config": "0" * 64})
        assert "another config.json" in told
        assert "3 problems" in told


class TestRefusals:
    @pytest.fixture
    def base(self, tmp_path: Path) -> Path:
        return write_base(tmp_path / "base", weights() | others(), shards=2)

    @pytest.mark.parametrize("place", [".", "out", ".."])
    def test_out_may_not_be_in_the_way(self, place: str, base: Path, tmp_path: Path) -> None:
        folders = make_family(tmp_path.parent / f"{tmp_path.name}-in")
        with pytest.raises(MergeError, match="replace the base model"):
            merged(folders, base, base / place, method="linear")
        assert len(list(base.iterdir())) == 4

    def test_out_may_not_be_in_an_adapter(self, base: Path, tmp_path: Path) -> None:
        folders = make_family(tmp_path / "in")
        with pytest.raises(MergeError, match="inputs"):
            merged(folders, base, folders["de"] / "out", method="linear")

    def test_a_rank(self, base: Path, tmp_path: Path) -> None:
        with pytest.raises(MergeError, match="leave rank out"):
            merged(make_family(tmp_path / "in"), base, tmp_path / "out", method="linear", rank=4)
        merged(make_family(tmp_path / "in"), base, tmp_path / "out", method="linear", rank="full")

    def test_nan_in_an_adapter_names_its_tensor(self, base: Path, tmp_path: Path) -> None:
        folders = make_family(tmp_path / "in")
        tensors = read_model(folders["ja"])
        next(tensor for name, tensor in tensors.items() if "lora_B" in name)[0] = float("nan")
        save_file(tensors, folders["ja"] / "adapter_model.safetensors")
        with pytest.raises(AdapterError, match=r"lora_B.*NaN"):
            merged(folders, base, tmp_path / "out", method="linear")
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("threads", [1, 2])
    @pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
    def test_nan_in_a_weight_that_changes(self, value: str, threads: int, tmp_path: Path) -> None:
        made = weights(dtype=torch.bfloat16)
        made["model.layers.1.mlp.down_proj.weight"][3, 5] = float(value)
        base = write_base(tmp_path / "base", made)
        with pytest.raises(BaseModelError, match=r"layers\.1\.mlp\.down_proj\.weight holds 1 NaN"):
            merged(make_family(tmp_path / "in"), base, tmp_path / "out", threads=threads, method="linear")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "in"]

    def test_numbers_that_the_type_does_not_hold(self, tmp_path: Path) -> None:
        base = write_base(tmp_path / "base", weights(dtype=torch.float16))
        with pytest.raises(MergeError, match="smaller λ"):
            merged(make_family(tmp_path / "in"), base, tmp_path / "out", scale=1e6, method="linear")
        assert not (tmp_path / "out").exists()


class TestReport:
    def test_it_names_the_base_and_says_what_was_done(self, tmp_path: Path) -> None:
        folders = make_family(tmp_path / "in")
        bases = [write_base(tmp_path / f"base{seed}", weights(seed=seed)) for seed in (1, 2)]
        keys = keys_of("ties")
        reports = [merged(folders, base, tmp_path / f"out{n}", **keys) for n, base in enumerate([bases[0], *bases])]
        assert reports[0].key == reports[1].key != reports[2].key
        deltas = expected_of(factors_of(folders), keys)
        norm = sum(float(delta.norm()) ** 2 for delta in deltas.values()) ** 0.5
        assert reports[0].merged_norm == pytest.approx(norm, rel=1e-4)
        assert [module.module for module in reports[0].modules] == sorted(SHAPES)
        assert all(module.rank_out == min(SHAPES[module.module]) for module in reports[0].modules)
        assert reports[0].rank == 12
        document = json.loads((tmp_path / "out0" / "merge_report.json").read_text())
        assert document["key"] == reports[0].key
        assert str(tmp_path) not in json.dumps(document)

    def test_steps_are_told(self, tmp_path: Path) -> None:
        base = write_base(tmp_path / "base", weights() | others(), shards=2)
        told: list[tuple[int, int]] = []
        merge_into_model(
            opened(make_family(tmp_path / "in")),
            MergeRecipe(method="ties", density=0.5),
            base,
            tmp_path / "out",
            progress=lambda done, total: told.append((done, total)),
        )
        assert [done for done, _ in told] == list(range(1, len(told) + 1))
        assert told[-1][0] == told[-1][1] > 3 * len(SHAPES)


def test_adapters_that_disagree_on_transposing(tmp_path: Path) -> None:
    folders = make_family(tmp_path / "in")
    change_config(folders["ja"], fan_in_fan_out=True)
    with pytest.raises(AdapterError, match="fan_in_fan_out"):
        merged(folders, write_base(tmp_path / "base", weights()), tmp_path / "out", method="linear")
