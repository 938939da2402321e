"""``adapterctl merge`` in a workspace: the champion's versions, with the workspace's recipe or another."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.adapters import dense_deltas, relative_error
from tests.support.program import Programs
from tests.support.small_workspace import LANGUAGES, tree

from adapterctl import Workspace
from adapterctl.errors import UsageError

Copy = Callable[[Path], Path]

FIXED = ("--method", "linear", "--lambda", "0.5", "--weight", "ja=0.25")


def sum_of_pins(root: Path, report: dict[str, dict[str, str]]) -> dict[str, object]:
    """Return what FIXED makes of the adapters that a merge was made from."""
    from adapterctl.lora.adapter import Adapter

    trained = {Adapter.open(path).content_hash: path for path in (root / ".adapterctl" / "adapters").iterdir()}
    parts = {lang: dense_deltas(trained[content]) for lang, content in report["inputs"].items()}
    assert sorted(parts) == sorted(LANGUAGES)
    weights = {lang: 0.25 if lang == "ja" else 1 / 3 for lang in parts}
    return {
        module: 0.5 * sum(weights[lang] * parts[lang][module] for lang in parts)
        for module in next(iter(parts.values()))
    }


def test_options_are_laid_over_the_recipe_of_the_workspace(served: Path, copy: Copy, program: Programs) -> None:
    root = copy(served)
    done = program(root, "merge", "--out", "mine", *FIXED, "--json")
    assert done.exit_code == 0, done.err
    assert (done.json["method"], done.json["scale"], done.json["folder"]) == ("linear", 0.5, "mine")
    assert done.json["tried"] == []
    expected = sum_of_pins(root, done.json)
    found = dense_deltas(root / "mine")
    assert all(relative_error(found[module], expected[module]) < 1e-5 for module in expected)
    # Nothing of it is registered, and the same merge again is taken as it was.
    assert Workspace.open(root).status().champion.version == 1
    again = program(root, "merge", "--out", "mine", *FIXED)
    assert again.exit_code == 0, again.err
    assert "taken as it was" in again.out


def test_a_recipe_file_takes_the_place_of_the_workspace_recipe(served: Path, copy: Copy, program: Programs) -> None:
    root = copy(served)
    (root / "recipe.yaml").write_text("method: ties\ndensity: 0.3\nlambda: 0.7\nseed: 1\n", encoding="utf-8")
    done = program(root, "merge", "--out", "mine", "--recipe", "recipe.yaml", "--density", "0.5")
    assert done.exit_code == 0, done.err
    recipe = json.loads((root / "mine" / "merge_report.json").read_text(encoding="utf-8"))["recipe"]
    assert (recipe["method"], recipe["density"], recipe["lambda"]) == ("ties", 0.5, 0.7)
    assert "Warning: recipe.yaml:4: seed: it changes nothing" in done.err


def test_what_is_wrong_is_told_before_anything_is_done(served: Path, copy: Copy, program: Programs) -> None:
    root = copy(served)
    before = tree(root)
    done = program(root, "merge", "--out", "adapters", "--method", "tis", "--weight", "fr=2", "--cache", "kept")
    assert done.exit_code == 2
    for text in (
        "did you mean 'ties'?",
        "'fr' is none of the languages de, en, ja",
        "adapters exists already",
        "--cache",
    ):
        assert text in done.err
    assert tree(root) == before


def test_from_python(served: Path, copy: Copy) -> None:
    root = copy(served)
    workspace = Workspace.open(root)
    made = workspace.merge(root / "mine", method="linear", lambda_=0.5, weights={"ja": 0.25})
    expected = sum_of_pins(root, {"inputs": dict(made.report.inputs)})
    found = dense_deltas(root / "mine")
    assert all(relative_error(found[module], expected[module]) < 1e-5 for module in expected)
    with pytest.raises(UsageError) as caught:
        workspace.merge(densty=0.5)
    assert "densty: unknown key (did you mean 'density'?)" in str(caught.value)
