import json
from pathlib import Path

import pytest

from adapterctl.workspace.resolved import json_schema, resolved_values
from adapterctl.workspace.workspace import Workspace


def test_adapters_inherit_what_they_do_not_say(root):
    (root / "adapters/ja.yaml").write_text("lora: {r: 4}\ntraining: {epochs: 9, warmup_steps: 5}\n")
    workspace = Workspace.open(root)
    ja, en = workspace.adapters["ja"], workspace.adapters["en"]
    assert (en.lora.r, en.lora.alpha, en.training.epochs, en.training.warmup_steps) == (8, 16, 4, None)
    assert (ja.lora.r, ja.lora.alpha, ja.training.epochs, ja.training.warmup_steps) == (4, 16, 9, 5)
    assert ja.training.learning_rate == en.training.learning_rate == 0.002
    assert (ja.update_training.epochs, ja.update_training.learning_rate) == (2, 0.0005)
    assert ja.update_training.warmup_steps == 5


def test_warm_up_given_one_way_replaces_the_other_way_inherited(root, edit):
    edit("adapterctl.yaml", "    epochs: 4", "    epochs: 4\n    warmup_ratio: 0.2")
    (root / "adapters/ja.yaml").write_text("training: {warmup_steps: 5}\n")
    workspace = Workspace.open(root)
    assert workspace.adapters["ja"].training.warmup_of(100) == 5
    assert workspace.adapters["en"].training.warmup_of(100) == 20


def test_updates_may_train_differently(root, edit):
    edit("adapterctl.yaml", "    epochs: 2", "    epochs: 1")
    (root / "adapters/ja.yaml").write_text("training: {seed: 3}\n")
    workspace = Workspace.open(root)
    ja = workspace.adapters["ja"]
    assert workspace.config.update.start == "continue"
    assert (ja.training.epochs, ja.update_training.epochs, ja.update_training.seed) == (4, 1, 3)


def test_files_are_sorted_and_each_is_there_once(root):
    (root / "adapters/ja.yaml").write_text(
        "data: [data/ja/s*.jsonl, 'data/{lang}/*.train.jsonl', ../adapters/data/ja/*.train.jsonl]\n"
    )
    files = Workspace.open(root).training_files("ja")
    assert files == tuple(sorted((root / "adapters/data/ja").glob("*.train.jsonl")))
    assert len(files) == 3


def test_a_glob_may_be_absolute(root, tmp_path):
    elsewhere = tmp_path / "elsewhere" / "rows.jsonl"
    elsewhere.parent.mkdir()
    elsewhere.write_text("")
    (root / "adapters/ja.yaml").write_text(f"data: ['{tmp_path}/**/rows.jsonl']\n")
    assert Workspace.open(root).training_files("ja") == (elsewhere,)


def test_splits_are_those_of_the_suite(root):
    workspace = Workspace.open(root / "adapters" / "data")
    assert workspace.root == root
    assert {path.name for path in workspace.split_files("ja", "dev")} == {
        "sentiment.dev.jsonl", "reasoning.dev.jsonl", "summarization.dev.jsonl",
    }  # fmt: skip
    assert all(path.parent == root / "evaluation/data/ja" for path in workspace.split_files("ja", "test"))


def test_the_state_directory_is_redirected_by_the_variable(root, tmp_path, monkeypatch):
    assert Workspace.open(root).state == root / ".adapterctl"
    monkeypatch.setenv("ADAPTERCTL_STATE_DIR", str(tmp_path / "state"))
    assert Workspace.open(root).paths.ledger == tmp_path / "state" / "ledger.jsonl"


def test_resolved_values_name_their_origin(root):
    (root / "adapters/ja.yaml").write_text("# mine\nlora: {r: 4}\n")
    values = {value.key: value for value in resolved_values(Workspace.open(root))}
    lines = (root / "adapterctl.yaml").read_text().splitlines()

    def line(text):
        return f"adapterctl.yaml:{next(n for n, found in enumerate(lines, start=1) if text in found)}"

    expected = {
        "merge.method": ("core-tsv", line("method: core-tsv")),
        "merge.lambda": ("auto", line("lambda: auto")),
        "merge.density": (0.6, "default"),
        "languages": (["en", "ja"], line("languages: [")),
        "defaults.lora.r": (8, line("    r: 8")),
        "adapters.ja.lora.r": (4, "adapters/ja.yaml:2"),
        "adapters.ja.lora.alpha": (16.0, line("alpha: 16")),
        "adapters.en.lora.r": (8, line("    r: 8")),
        "adapters.en.training.seed": (0, "default"),
        "prices.device_hour.default": (2.5, "default"),
    }
    assert {key: (values[key].value, values[key].origin) for key in expected} == expected
    assert values["suite.tasks.summarization.max_new_tokens"].value == 24


def _keys(schema, definitions):
    schema = definitions.get(schema.get("$ref", "").removeprefix("#/$defs/"), schema)
    return schema


def test_the_schema_knows_every_key_of_the_shipped_files(root):
    from ruamel.yaml import YAML

    def check(value, schema, definitions):
        schema = _keys(schema, definitions)
        if not isinstance(value, dict) or "properties" not in schema:
            return 0
        assert schema["additionalProperties"] is False
        assert set(value) <= set(schema["properties"])
        return 1 + sum(check(inner, schema["properties"][key], definitions) for key, inner in value.items())

    schemas = json_schema()
    assert json.loads(json.dumps(schemas)) == schemas
    for file, blocks in (("adapterctl.yaml", 9), ("evaluation/suite.yaml", 1)):
        value = YAML(typ="safe", pure=True).load((root / file).read_text(encoding="utf-8"))
        assert check(value, schemas[file], schemas[file]["$defs"]) >= blocks
    update = schemas["adapterctl.yaml"]["$defs"]["UpdateSettings"]["properties"]["training"]
    assert "epochs" in update["properties"]
    assert "default" not in update["properties"]["epochs"]


def test_every_key_of_the_schema_says_what_it_means():
    lacking = []
    for file, schema in json_schema().items():
        for name, block in {"": schema, **schema.get("$defs", {})}.items():
            for key, spec in block.get("properties", {}).items():
                if "description" not in spec and "description" not in _keys(spec, schema.get("$defs", {})):
                    lacking.append(f"{file} {name}.{key}")
    documented_in_their_class = ("BaseModelSettings.", "TaskSettings.")
    assert [entry for entry in lacking if not entry.split()[1].startswith(documented_in_their_class)] == []


@pytest.mark.parametrize(
    "module", ["workspace.workspace", "workspace.data", "workspace.editing", "accounting.comparison"]
)
def test_importing_starts_no_heavy_library(module):
    import os
    import subprocess
    import sys

    import adapterctl

    heavy = "{'torch', 'transformers', 'mlflow', 'sklearn', 'matplotlib', 'scipy', 'langcodes'}"
    code = f"import sys; import adapterctl.{module}; print(*({heavy} & set(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": str(Path(adapterctl.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr, done.returncode) == ("", "", 0)
