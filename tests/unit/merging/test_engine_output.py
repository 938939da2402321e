"""What a merge writes, reports, refuses, and does the same every time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.support.adapters import SHAPES, change_config, dense_deltas, make_adapter, make_family
from tests.support.merging import keys_of, opened, write_grams

from adapterctl.errors import AdapterError, MergeError
from adapterctl.lora.adapter import Adapter
from adapterctl.merging.engine import merge, merge_key
from adapterctl.merging.methods import METHODS
from adapterctl.merging.recipe import MergeRecipe
from adapterctl.merging.report import MergeReport, read_report


class TestFolderAndReport:
    def report(self, tmp_path: Path, **keys: Any) -> MergeReport:
        recipe = MergeRecipe.model_validate({"method": "core-tsv", **keys})
        return merge(opened(make_family(tmp_path, revision="v1")), recipe, tmp_path / "out", provenance={"by": "test"})

    def test_the_folder_is_a_plain_adapter_of_the_same_base(self, tmp_path: Path) -> None:
        report = self.report(tmp_path)
        merged = Adapter.open(tmp_path / "out")
        assert {path.name for path in (tmp_path / "out").iterdir()} == {
            *("adapter_config.json", "adapter_model.safetensors", "merge_report.json", "README.md")
        }
        assert (merged.base_model, merged.revision) == ("tiny-base", "v1")
        assert merged.config["r"] == merged.config["lora_alpha"] == report.rank == 6
        assert merged.config["target_modules"] == ["down_proj", "k_proj", "q_proj"]

    def test_full_paths_where_short_names_would_say_too_much(self, tmp_path: Path) -> None:
        adapters = opened(make_family(tmp_path, layers_to_transform=[0, 1]))
        merge(adapters, MergeRecipe(), tmp_path / "out")
        assert Adapter.open(tmp_path / "out").config["target_modules"] == sorted(SHAPES)

    def test_report_in_the_folder_is_the_report_returned(self, tmp_path: Path) -> None:
        report = self.report(tmp_path, **{"lambda": 0.5})
        written = json.loads((tmp_path / "out" / "merge_report.json").read_text(encoding="utf-8"))
        assert written["recipe"] == report.recipe
        assert written["recipe"]["lambda"] == report.scale == 0.5
        assert written["inputs"] == {lang: Adapter.open(tmp_path / lang).content_hash for lang in ("de", "ja", "zh")}
        assert written["provenance"] == {"by": "test"}
        assert [entry["module"] for entry in written["modules"]] == sorted(SHAPES)
        assert written["modules"][0]["rank_in"] == {"de": 2, "ja": 2, "zh": 2}
        assert written["measured"]["seconds"] == report.seconds > 0
        assert written["measured"]["peak_memory_bytes"] == report.peak_memory_bytes > 1 << 20
        assert "seconds" not in written
        again = read_report(tmp_path / "out")
        assert again.modules == report.modules
        assert again.key == report.key
        assert again.recipe == report.recipe
        header = json.loads(Adapter.open(tmp_path / "out").metadata["adapterctl"])
        assert (header["key"], header["provenance"]) == (report.key, {"by": "test"})

    def test_norms_and_suggested_scale(self, tmp_path: Path) -> None:
        report = self.report(tmp_path, **{"lambda": 0.5})
        sizes = {
            lang: sum(float((tensor**2).sum()) for tensor in dense_deltas(tmp_path / lang).values()) ** 0.5
            for lang in ("de", "ja", "zh")
        }
        assert report.input_norms == pytest.approx(sizes)
        assert report.suggested_scale is not None
        again = merge(
            opened({lang: tmp_path / lang for lang in sizes}),
            MergeRecipe(),
            tmp_path / "b",
            scale=report.suggested_scale,
        )
        size = sum(float((tensor**2).sum()) for tensor in dense_deltas(tmp_path / "b").values()) ** 0.5
        assert size == pytest.approx(sum(sizes.values()) / 3, rel=1e-5)
        assert again.merged_norm == pytest.approx(size, rel=1e-5)
        assert report.merged_norm == pytest.approx(0.5 * size / report.suggested_scale, rel=1e-5)

    def test_bfloat16(self, tmp_path: Path) -> None:
        self.report(tmp_path, dtype="bfloat16")
        merged = Adapter.open(tmp_path / "out")
        assert {merged.tensor(name).dtype for name in merged.tensor_names} == {torch.bfloat16}

    @pytest.mark.parametrize("threads", [1, 3])
    @pytest.mark.parametrize("method", METHODS)
    def test_progress_reaches_its_end(self, tmp_path: Path, method: str, threads: int) -> None:
        seen: list[tuple[int, int]] = []
        recipe = MergeRecipe.model_validate(keys_of(method, 0.5, write_grams(tmp_path / "grams")))
        merge(
            *(opened(make_family(tmp_path)), recipe, tmp_path / "out"),
            progress=lambda done, total: seen.append((done, total)),
            threads=threads,
        )
        total = seen[0][1]
        assert total % len(SHAPES) == 0
        assert seen == [(done, total) for done in range(1, total + 1)]

    @pytest.mark.parametrize(("rank", "served"), [(1, 1), (2, 8), (8, 8), (12, 16), (33, 64), (257, 320), (513, None)])
    def test_the_rank_that_vllm_has_to_be_told(self, tmp_path: Path, rank: int, served: int | None) -> None:
        folders = make_family(tmp_path, ["ja"], rank=2, shapes={"model.layers.0.mlp.up_proj": (600, 600)})
        report = merge(opened(folders), MergeRecipe(method="ties", rank=rank, density=0.5), tmp_path / "out")
        assert (report.rank, report.vllm_rank) == (rank, served)

    def test_gaps_of_the_singular_values_that_matter(self, tmp_path: Path) -> None:
        folders = make_family(tmp_path)
        linear = merge(opened(folders), MergeRecipe(method="linear"), tmp_path / "out")
        assert [entry.gap for entry in linear.modules] == [None] * len(SHAPES)
        knots = merge(opened(folders), MergeRecipe(method="knots-ties"), tmp_path / "out")
        deltas = [dense_deltas(folder) for folder in folders.values()]
        for entry in knots.modules:
            stack = torch.cat([delta[entry.module] for delta in deltas], dim=1)
            sizes = torch.linalg.svdvals(stack)
            sizes = torch.cat([sizes[sizes > 1e-7 * sizes[0]], torch.zeros(1, dtype=torch.float64)])
            within = float((-sizes.diff() / sizes[0])[:-1].min())
            outside = float((-sizes.diff() / sizes[0]).min())
            assert entry.gap == pytest.approx(within, rel=1e-5) or entry.gap == pytest.approx(outside, rel=1e-5)

    def test_an_existing_folder_is_replaced_whole(self, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "old.txt").write_text("old")
        self.report(tmp_path)
        assert not (tmp_path / "out" / "old.txt").exists()


class TestKey:
    def test_covers_content_recipe_and_scale_but_not_places(self, tmp_path: Path) -> None:
        folders = make_family(tmp_path)
        adapters, recipe = opened(folders), MergeRecipe()
        key = merge_key(adapters, recipe)
        copies = opened(make_family(tmp_path / "copy"))
        assert merge_key(list(reversed(copies)), recipe) == key
        assert merge_key(adapters, recipe, 1.0) == key
        assert merge_key(adapters, MergeRecipe(lambda_=0.5)) == merge_key(adapters, recipe, 0.5)
        others = {
            merge_key(adapters, recipe, 0.5),
            merge_key(adapters, MergeRecipe(method="core-iso-c")),
            merge_key(adapters, MergeRecipe(weights={"ja": 1.1})),
            merge_key(adapters[:2], recipe),
            merge_key(opened({**folders, "ja": make_adapter(tmp_path / "new", seed=50)}), recipe),
            merge_key(opened({"de": folders["ja"], "ja": folders["de"], "zh": folders["zh"]}), recipe),
        }
        assert len(others | {key}) == 7
        assert merge(adapters, recipe, tmp_path / "out").key == key


class TestDeterminism:
    SCRIPT = (
        "import json, sys; from pathlib import Path; from adapterctl.lora.adapter import Adapter;"
        "from adapterctl.merging.engine import merge; from adapterctl.merging.recipe import MergeRecipe;"
        "root = Path(sys.argv[1]); recipes = json.loads((root / 'recipes.json').read_text());"
        "adapters = [Adapter.open(root / lang, lang) for lang in sys.argv[3].split(',')];"
        "text = {c: c for c in 'abcdefgh'};"
        "[merge(adapters, MergeRecipe.model_validate(keys), root / sys.argv[2] / keys['method'], provenance=text,"
        " threads=int(sys.argv[4])) for keys in recipes]"
    )

    def test_same_bytes_whatever_the_hash_seed_and_the_threads(self, tmp_path: Path) -> None:
        make_family(tmp_path)
        recipes = [keys_of(method, 0.5, write_grams(tmp_path / "grams")) for method in METHODS]
        (tmp_path / "recipes.json").write_text(json.dumps(recipes), encoding="utf-8")
        for name, seed, threads, order in (("one", "1", "1", "de,ja,zh"), ("two", "4711", "2", "zh,de,ja")):
            environment = {**os.environ, "PYTHONHASHSEED": seed, "OMP_NUM_THREADS": threads}
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
            command = [sys.executable, "-c", self.SCRIPT, str(tmp_path), name, order, threads]
            subprocess.run(command, check=True, env=environment)
        files = [path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file()]
        assert len(files) == 4 * len(METHODS)
        for file in files:
            one, two = ((tmp_path / name / file).read_bytes() for name in ("one", "two"))
            if file.name == "merge_report.json":
                one, two = ({**json.loads(text), "measured": None} for text in (one, two))
            assert one == two, file


class TestRefusals:
    def test_adapters_that_do_not_fit(self, tmp_path: Path) -> None:
        folders = make_family(tmp_path)
        change_config(folders["ja"], use_dora=True)
        with pytest.raises(AdapterError, match="use_dora"):
            merge(opened(folders), MergeRecipe(), tmp_path / "out")
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(("factor", "value"), [("A", float("nan")), ("B", float("-inf"))])
    @pytest.mark.parametrize("method", METHODS)
    def test_numbers_that_are_none(self, tmp_path: Path, method: str, factor: str, value: float) -> None:
        folders = make_family(tmp_path)
        name = f"base_model.model.model.layers.1.self_attn.q_proj.lora_{factor}.weight"
        path = folders["ja"] / "adapter_model.safetensors"
        tensors = load_file(path)
        tensors[name][1, 1] = value
        tensors[name][0, 0] = value
        save_file(tensors, path, metadata={"format": "pt"})
        recipe = MergeRecipe.model_validate(keys_of(method, 0.5, write_grams(tmp_path / "grams")))
        with pytest.raises(AdapterError) as caught:
            merge(opened(folders), recipe, tmp_path / "out")
        for word in ("ja", name, "2 of ", "NaN or infinite"):
            assert word in str(caught.value)
        assert not (tmp_path / "out").exists()
        assert not list(tmp_path.glob(".adapterctl-tmp-*"))

    @pytest.mark.parametrize("method", METHODS)
    def test_products_that_are_too_large_to_store(self, tmp_path: Path, method: str) -> None:
        folders = make_family(tmp_path)
        path = folders["ja"] / "adapter_model.safetensors"
        save_file({name: tensor * 1e30 for name, tensor in load_file(path).items()}, path, metadata={"format": "pt"})
        recipe = MergeRecipe.model_validate(keys_of(method, 0.5, write_grams(tmp_path / "grams")))
        try:
            merge(opened(folders), recipe, tmp_path / "out")
        except (AdapterError, MergeError):
            assert not (tmp_path / "out").exists()
        else:  # 1e60 is beyond float32 as a product, and not as two factors.
            tensors = load_file(tmp_path / "out" / "adapter_model.safetensors")
            assert all(torch.isfinite(tensor).all() for tensor in tensors.values())
            assert any(float(delta.abs().max()) > 1e55 for delta in dense_deltas(tmp_path / "out").values())

    def test_everything_wrong_with_the_arguments_at_once(self, tmp_path: Path) -> None:
        folders = make_family(tmp_path)
        adapters = [*opened(folders), Adapter.open(folders["de"], "ja"), Adapter.open(folders["zh"])]
        with pytest.raises(MergeError) as caught:
            merge(adapters, MergeRecipe(weights={"jp": 1.0}), folders["zh"])
        text = str(caught.value)
        for word in (
            "two adapters have this language",
            "its language is not known",
            "'jp'",
            "replace one of its inputs",
        ):
            assert word in text

    def test_no_adapters(self, tmp_path: Path) -> None:
        with pytest.raises(MergeError, match="no adapter"):
            merge([], MergeRecipe(), tmp_path / "out")

    def test_all_weights_zero(self, tmp_path: Path) -> None:
        folders = make_family(tmp_path)
        with pytest.raises(MergeError, match="every weight is 0"):
            merge(opened(folders), MergeRecipe(weights=dict.fromkeys(folders, 0.0)), tmp_path / "out")

    def test_a_failure_leaves_nothing(self, tmp_path: Path) -> None:
        adapters = opened(make_family(tmp_path / "in"))

        def interrupt(done: int, total: int) -> None:
            if done == total:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            merge(adapters, MergeRecipe(), tmp_path / "out", progress=interrupt)
        assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_recipe_and_methods_do_not_import_torch() -> None:
    code = (
        "import sys, adapterctl.merging.recipe, adapterctl.lora, adapterctl.lora.peft_config;"
        "sys.exit('torch' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    assert subprocess.run([sys.executable, "-c", code], check=False, env=environment).returncode == 0
