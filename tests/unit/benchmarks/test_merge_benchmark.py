from __future__ import annotations

import math

import pytest
import torch
from benchmarks.merge import clock, growth, run, table, works
from benchmarks.merge.adapters import LANGUAGES, LLAMA_8B, SMALL, AdapterSet, ModelSet
from benchmarks.merge.bench import Bench
from safetensors.torch import load_file

from adapterctl.lora.adapter import Adapter


def test_shapes_are_llamas():
    shapes = {kind: LLAMA_8B.of(kind) for kind in AdapterSet(LLAMA_8B).kinds}
    assert shapes == {
        "q_proj": (4096, 4096),
        "k_proj": (1024, 4096),
        "v_proj": (1024, 4096),
        "o_proj": (4096, 4096),
        "gate_proj": (14336, 4096),
        "up_proj": (14336, 4096),
        "down_proj": (4096, 14336),
    }
    assert len(AdapterSet(LLAMA_8B).modules) == 224


def test_numbers_depend_on_language_and_module_alone(tmp_path):
    small = AdapterSet(SMALL, layers=1, rank=3, dtype="float32").make(tmp_path, ("ja",))
    large = AdapterSet(SMALL, layers=2, rank=3, dtype="float32").make(tmp_path, ("de", "ja"))
    module = "model.layers.0.mlp.down_proj"
    one, other = Adapter.open(small["ja"]).delta(module), Adapter.open(large["ja"]).delta(module)
    assert one.scale == 2.0
    assert torch.equal(one.A, other.A)
    assert torch.equal(one.B, other.B)
    assert not torch.equal(one.A, Adapter.open(large["de"]).delta(module).A)


def test_adapters_are_made_once(tmp_path):
    adapters = AdapterSet(SMALL, layers=1, rank=3)
    first = adapters.make(tmp_path, ("de",))["de"] / "adapter_model.safetensors"
    made = first.stat().st_mtime_ns
    assert adapters.make(tmp_path, ("de", "en"))["de"] == first.parent
    assert first.stat().st_mtime_ns == made


def test_a_languages_model_is_the_base_plus_its_adapter(tmp_path):
    adapters = AdapterSet(SMALL, layers=1, rank=3)
    base, models = ModelSet(adapters).make(tmp_path, ("de",))
    name = "model.layers.0.self_attn.v_proj.weight"
    start, changed = (load_file(folder / "model.safetensors")[name].float() for folder in (base, models["de"]))
    delta = Adapter.open(adapters.make(tmp_path, ("de",))["de"]).delta("model.layers.0.self_attn.v_proj").dense()
    torch.testing.assert_close(changed, start + delta, rtol=2**-8, atol=1e-4)


def test_exponent_of_a_power_law_that_sets_in_late():
    points = {2: 1.0, 3: 1.0, 5: 1.0, 8: 3 * 8**1.5, 12: 3 * 12**1.5, 20: 3 * 20**1.5}
    assert math.isclose(growth.exponent(points), 1.5)


def test_the_table_has_dashes_for_what_was_not_measured():
    results = {
        "knots-ties": {
            "processor": "P",
            "machine": "M",
            "date": "D",
            "commit": "C",
            "k_proj": {
                "peer": {"wall_median": 5.4},
                "in_memory": {"wall_median": 0.0062},
                "ratio_in_memory": {"wall": 871.0, "cpu": 868.4, "lower": 868.4},
            },
        }
    }
    lines = table.markdown(results).splitlines()
    assert "| knots-ties, 224 modules | — | — | — | — | ≤ 2.5 s |" in lines
    assert "| knots-ties, k_proj, in memory | KnOTS reference | 6.2 ms | 5.4 s | 870× | ≥ 800× |" in lines
    assert lines[-1] == "Measured on: P, M; D, commit C."


def test_only_what_lies_between_the_marks_is_rewritten():
    page = f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n"
    assert table.embed(page, "new") == f"before\n{table.BEGIN}\nnew\n{table.END}\nafter\n"
    with pytest.raises(ValueError, match="merge table"):
        table.embed("no marks", "new")


def test_a_process_of_its_own_measures_one_merge(tmp_path):
    small = Bench(tmp_path, tmp_path, quick=True)
    folders = small.folders(small.set_of(layers=1), LANGUAGES[:2])
    found = clock.measured(
        tmp_path, "ours.to_disk", folders=folders, recipe=works.recipe("linear"), out=tmp_path / "out", repeats=2
    )
    assert found["runs"] == 2
    assert 0 < found["wall_min"] <= found["wall_median"]
    assert found["peak_over_imports"] > 0
    assert Adapter.open(tmp_path / "out").rank("model.layers.0.mlp.up_proj") == 8


def test_every_part_runs_without_peers(tmp_path, monkeypatch):
    monkeypatch.setattr(works, "installed", lambda package: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    run.main(["all", "--quick", "--work", str(tmp_path / "work"), "--results", str(tmp_path)])
    found = table.read_results(tmp_path)
    assert set(found) == set(table.NAMES) - {"device"}
    assert all(result["quick"] for result in found.values())
    assert all(one["equals_full_merge"] for one in found["again"]["methods"].values())
    growth.draw(found["growth"], tmp_path / "growth.png")
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")
