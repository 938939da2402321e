"""``init``, ``config`` and ``pocket``, run as a person runs them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from tests.support.cli import invoke


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("workspaces") / "demo"
    result = invoke("init", folder)
    assert (result.exit_code, result.err) == (0, "")
    assert "adapterctl setup" in result.out
    return folder


def test_init_makes_a_workspace(workspace: Path) -> None:
    assert (workspace / "adapterctl.yaml").is_file()
    assert sorted(path.stem for path in (workspace / "adapters").glob("*.yaml")) == ["de", "en", "fr", "ja", "zh"]


def test_init_with_json(tmp_path: Path) -> None:
    result = invoke("init", tmp_path / "x", "--lang", "ja", "--lang", "de", "--project", "bots", "--json")
    assert result.json == {
        "workspace": str(tmp_path / "x"),
        "project": "bots",
        "preset": "pocket",
        "languages": ["ja", "de"],
    }


def test_init_blank_points_to_adding_languages(tmp_path: Path) -> None:
    result = invoke("init", tmp_path / "x", "--preset", "blank")
    assert result.exit_code == 0
    assert "adapterctl add --lang" in result.out


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--preset", "poket"], "choose one of: pocket, blank"),
        (["--lang", "jp"], "'ja'"),
        (["--lang", "it"], "--preset blank"),
        (["--project", "My Bots"], "lower-case"),
    ],
)
def test_init_names_the_mend_and_writes_nothing(tmp_path: Path, args: list[str], said: str) -> None:
    result = invoke("init", tmp_path / "x", *args)
    assert (result.exit_code, result.out) == (2, "")
    assert said in result.err
    assert not (tmp_path / "x").exists()


def test_init_leaves_a_workspace_alone(workspace: Path) -> None:
    before = (workspace / "adapterctl.yaml").read_bytes()
    assert invoke("init", workspace, "--lang", "ja").exit_code == 2
    assert (workspace / "adapterctl.yaml").read_bytes() == before


def test_config_show_has_values_and_origins(workspace: Path) -> None:
    result = invoke("-C", workspace, "config", "show", "merge", "--json")
    settings = {setting["key"]: setting for setting in result.json["settings"]}
    lines = (workspace / "adapterctl.yaml").read_text(encoding="utf-8").splitlines()
    file, line = settings["merge.method"]["origin"].split(":")
    assert file == "adapterctl.yaml"
    assert lines[int(line) - 1].split() == ["method:", settings["merge.method"]["value"]]
    assert settings["merge.seed"]["origin"] == "default"
    assert all(key.startswith("merge.") for key in settings)
    assert "merge.method" in invoke("-C", workspace, "config", "show").out


def test_config_show_of_an_inner_folder_and_from_the_environment(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = invoke("-C", workspace / "adapters", "config", "show", "project", "--json").json
    assert shown["workspace"] == str(workspace)
    monkeypatch.setenv("ADAPTERCTL_WORKSPACE", str(workspace))
    assert invoke("config", "show", "project", "--json").json == shown


def test_config_show_of_nothing(workspace: Path) -> None:
    result = invoke("-C", workspace, "config", "show", "merg")
    assert result.exit_code == 2
    assert "there is no setting 'merg'" in result.err


def test_a_command_outside_a_workspace(tmp_path: Path) -> None:
    result = invoke("-C", tmp_path, "config", "show")
    assert result.exit_code == 2
    assert "adapterctl init DIR" in result.err


def test_an_invalid_workspace_tells_every_fault(workspace: Path, tmp_path: Path) -> None:
    text = (workspace / "adapterctl.yaml").read_text(encoding="utf-8")
    text = re.sub(r"\bmethod:", "metod:", re.sub(r"\bmargin: .*", "margin: much", text))
    (tmp_path / "adapterctl.yaml").write_text(text, encoding="utf-8")
    result = invoke("-C", tmp_path, "config", "show")
    assert result.exit_code == 2
    assert "did you mean 'method'?" in result.err
    assert "gate.margin" in result.err
    assert len(result.err.splitlines()) <= 24


def test_config_schema(workspace: Path) -> None:
    schemas = invoke("config", "schema").json
    assert set(schemas) == {"adapterctl.yaml", "adapters/<lang>.yaml", "evaluation/suite.yaml"}
    assert invoke("config", "schema", "adapterctl.yaml", "--json").json == schemas["adapterctl.yaml"]
    wrong = invoke("config", "schema", "suite")
    assert wrong.exit_code == 2
    assert "evaluation/suite.yaml" in wrong.err


def test_pocket_rows(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "rows.jsonl"
    args = ["pocket", "rows", "--lang", "ja", "--split", "arrived", "--count", "4", "--out", out]
    result = invoke(*args, "--json")
    assert result.json["rows"] == {"sentiment": 4, "reasoning": 4, "summarization": 4}
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert len({row["id"] for row in rows}) == 12
    assert {row["lang"] for row in rows} == {"ja"}
    before = out.read_bytes()
    assert invoke(*args).exit_code == 0
    assert invoke(*args, "--seed", "1").exit_code == 2
    assert out.read_bytes() == before


@pytest.mark.parametrize("wrong", [("--lang", "it"), ("--task", "poetry"), ("--split", "tests")])
def test_pocket_rows_that_do_not_exist(tmp_path: Path, wrong: tuple[str, str]) -> None:
    result = invoke("pocket", "rows", "--lang", "ja", *wrong, "--out", tmp_path / "x.jsonl")
    assert result.exit_code == 2
    assert wrong[1] in result.err
    assert list(tmp_path.iterdir()) == []


def test_pocket_build(tmp_path: Path) -> None:
    out = tmp_path / "model"
    result = invoke("--quiet", "pocket", "build", "--steps", "1", "--out", out, "--json")
    assert (result.exit_code, result.err) == (0, "")
    assert result.json["steps"] == 1
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {path.name for path in out.iterdir()}
    again = invoke("pocket", "build", "--steps", "1", "--out", out)
    assert again.exit_code == 2
    assert "name a new folder" in again.err
