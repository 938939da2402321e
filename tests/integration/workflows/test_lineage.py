"""Lineages of a project with releases behind it, also where others have deleted or rewritten parts of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.cli import invoke
from tests.support.past import make_past, mlflow_registry, session_of
from tests.support.program import Programs

from adapterctl.errors import RegistryError, UsageError
from adapterctl.fingerprint import fingerprint
from adapterctl.registry.client import Registry
from adapterctl.workflows.lineage import Lineage, Rows, lineage

# The set-up trains all three; the four updates train de, ja, zh, de.
PINS = {1: (1, 1, 1), 2: (2, 1, 1), 3: (2, 2, 1), 4: (2, 2, 2), 5: (3, 2, 2)}
NAMES = ("scale-de", "scale-ja", "scale-zh")
MERGED = "scale-merged"
HOSTILE = "<script>alert(1)</script>\x1b[2J\u202e$\\frac{1}$ **x**\n| a | 日本 \ud83d"


@pytest.fixture(scope="session")
def past(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five releases of three languages; do not change it."""
    return make_past(tmp_path_factory.mktemp("past") / "workspace")


@pytest.fixture
def mine(past: Path, tmp_path: Path) -> Path:
    """A copy, to do anything with it."""
    return Path(shutil.copytree(past, tmp_path / "workspace"))


def read(root: Path, name: str) -> Lineage:
    return lineage(session_of(root), name)


def taken_in(found: Lineage) -> dict[str, int]:
    return {one.name: one.version for one in found.inputs}


@pytest.mark.parametrize("version", PINS)
def test_a_merged_adapter_is_followed_to_its_adapters(past: Path, version: int) -> None:
    found = read(past, f"merged/{version}")
    assert taken_in(found) == dict(zip(NAMES, PINS[version], strict=True))
    assert found.source == "release.json"
    assert found.notes == ()
    assert {one.state for one in found.inputs} == {"there"}
    # The folder of an adapter holds its language and number.
    assert [one.content_hash for one in found.inputs] == [
        fingerprint(f"{lang}-{number}")
        for lang, number in zip(
            ("de", "ja", "zh"),
            ({1: 0, 2: 1, 3: 4}[PINS[version][0]], {1: 0, 2: 2}[PINS[version][1]], {1: 0, 2: 3}[PINS[version][2]]),
            strict=True,
        )
    ]


def test_down_to_the_rows_and_the_base_model(past: Path) -> None:
    found = read(past, "merged@champion")
    assert (found.subject.name, found.subject.version, found.subject.aliases) == (MERGED, 5, ("champion",))
    assert (found.gate, found.reason) == ("passed", "update de")
    assert found.recipe["method"] == "core-tsv"
    assert found.recipe["lambda"] == 0.3
    # Two tasks of four rows.
    assert [one.rows.rows for one in found.inputs if one.rows] == [8, 8, 8]
    assert len({one.rows.sha256 for one in found.inputs if one.rows}) == 3
    assert {one.base for one in (found.subject, *found.inputs)} == {found.subject.base}
    assert found.subject.base[0] == "pocket"


@pytest.mark.parametrize(
    ("name", "releases"),
    [("de/1", [1]), ("de/2", [4, 3, 2]), ("de@champion", [5]), ("ja/2", [5, 4, 3]), ("zh/1", [3, 2, 1])],
)
def test_an_adapter_is_followed_to_its_releases(past: Path, name: str, releases: list[int]) -> None:
    found = read(past, name)
    assert [(made.name, made.version, made.how) for made in found.used_in] == [
        (MERGED, number, "merged") for number in releases
    ]
    assert found.inputs == ()


@pytest.mark.parametrize(
    "name", ["nobody/1", "merged/99", "ja/77", "ja@nothing", "base", "", "combined", "../ja", "x" * 999]
)
def test_what_is_not_there_is_told(past: Path, name: str) -> None:
    with pytest.raises(UsageError):
        read(past, name)


def test_deleted_versions_are_gone_and_what_is_known_of_them_is_told(mine: Path) -> None:
    before = read(mine, "merged/2")
    mlflow_registry(mine).connection.client.delete_model_version("scale-ja", "1")
    found = read(mine, "merged/2")
    assert taken_in(found) == taken_in(before)
    (gone,) = (one for one in found.inputs if one.name == "scale-ja")
    assert (gone.state, gone.content_hash) == ("gone", fingerprint("ja-0"))
    assert gone.rows == next(one.rows for one in before.inputs if one.name == "scale-ja")
    said = invoke("-C", mine, "lineage", "merged/2").out
    assert f"scale-ja v1 {fingerprint('ja-0')[:12]} ← 3 rows" in said
    assert "GONE: this version was deleted" in said


def test_deleted_runs_and_files_are_told(mine: Path) -> None:
    client, registry = mlflow_registry(mine).connection.client, mlflow_registry(mine)
    client.delete_run(registry.version("scale-de", 3).run_id)
    client.delete_logged_model(registry.version("scale-zh", 2).model_id)
    found = read(mine, "merged@champion")
    assert {one.name: one.missing for one in found.inputs} == {
        "scale-de": ("run",), "scale-ja": (), "scale-zh": ("files",),
    }  # fmt: skip
    said = invoke("-C", mine, "lineage").out
    assert "its run is gone" in said
    assert "its files are gone" in said


def files_of(root: Path, name: str) -> list[Path]:
    return sorted((root / "registry/artifacts").rglob(name))


def test_another_adapter_under_the_same_number_is_told(mine: Path) -> None:
    registry = mlflow_registry(mine)
    registry.set_version_tags(registry.version("scale-ja", 2), {"adapterctl.content_hash": "f" * 64})
    (found,) = (one for one in read(mine, "merged@champion").inputs if one.name == "scale-ja")
    assert found.state == "replaced"
    assert found.content_hash == fingerprint("ja-2")
    assert "REPLACED: another adapter stands under this number" in invoke("-C", mine, "lineage").out


def without_release(root: Path) -> None:
    for path in files_of(root, "release.json"):
        path.unlink()


def without_lineage(root: Path) -> None:
    without_release(root)
    for path in files_of(root, "lineage.json"):
        path.write_text('{"inputs": [{"name": 7}]}', encoding="utf-8")


def without_tags(root: Path) -> None:
    without_lineage(root)
    client = mlflow_registry(root).connection.client
    for number in PINS:
        client.delete_model_version_tag(MERGED, str(number), "adapterctl.inputs")


def of_another(root: Path) -> None:
    """Let every release tell of the adapter of another one."""
    for path in files_of(root, "release.json"):
        told = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps(told | {"content_hash": "e" * 64}), encoding="utf-8")


@pytest.mark.parametrize(
    ("spoil", "source"),
    [(without_release, "lineage.json"), (of_another, "lineage.json"), (without_lineage, "tags"), (without_tags, "run")],
)
def test_the_next_best_record_is_read(mine: Path, spoil: Callable[[Path], None], source: str) -> None:
    spoil(mine)
    found = read(mine, "merged/4")
    assert found.source == source
    assert taken_in(found) == dict(zip(NAMES, PINS[4], strict=True))
    assert found.notes
    assert "Note: its release.json cannot be read" in invoke("-C", mine, "lineage", "merged/4").out


def test_with_no_record_at_all_nothing_is_made_up(mine: Path) -> None:
    without_tags(mine)
    registry = mlflow_registry(mine)
    for lang in NAMES:
        for version in registry.versions(lang):
            registry.connection.client.delete_model_version(lang, str(version.version))
    found = read(mine, "merged/4")
    assert found.inputs == ()
    assert "3 of the adapters in it have no version any more" in found.notes


def test_a_version_that_somebody_registered_by_hand(mine: Path) -> None:
    registry = mlflow_registry(mine)
    registry.connection.client.create_model_version("scale-ja", source="/nowhere", run_id=None)
    registry.set_alias("scale-ja", "odd", 3)
    found = read(mine, "ja@odd")
    assert (found.subject.version, found.subject.content_hash, found.used_in) == (3, "", ())
    assert "base model: not noted" in invoke("-C", mine, "lineage", "ja/3").out


def continued(root: Path, pairs: dict[int, str]) -> None:
    """Let adapters of ``de`` say that their training went on from others."""
    registry = mlflow_registry(root)
    for number, inputs in pairs.items():
        registry.set_version_tags(registry.version("scale-de", number), {"adapterctl.inputs": inputs})


def test_what_a_training_went_on_from(mine: Path) -> None:
    continued(mine, {3: "scale-de:2", 2: "scale-de:1"})
    found = read(mine, "de@champion")
    assert [(one.version, one.state) for one in found.subject.continues] == [(2, "there"), (1, "there")]
    assert all(one.rows for one in found.subject.continues)
    assert [(made.name, made.how) for made in read(mine, "de/1").used_in][-1] == ("scale-de", "continued")
    assert "; goes on from v2, v1" in invoke("-C", mine, "lineage").out
    assert "goes on from scale-de v2" in invoke("-C", mine, "lineage", "de@champion").out


@pytest.mark.parametrize("inputs", ["scale-de:3", "scale-de:2", "scale-de:99", "scale-de:0 x:y :: \n scale-de:-1"])
def test_circles_and_nonsense_end(mine: Path, inputs: str) -> None:
    continued(mine, {3: "scale-de:2", 2: inputs})
    assert [one.version for one in read(mine, "de@champion").subject.continues][:1] == [2]
    assert invoke("-C", mine, "lineage", "de@champion").exit_code == 0


@pytest.mark.parametrize("command", [("lineage",), ("history",), ("status",), ("diff", "previous", "champion")])
def test_what_others_wrote_does_nothing_to_a_terminal(mine: Path, command: tuple[str, ...]) -> None:
    registry, text = mlflow_registry(mine), HOSTILE.encode("utf-8", "replace").decode("utf-8")
    version = registry.version(MERGED, 5)
    event = {"time": text, "what": text, "by": text, "reason": text}
    registry.set_version_tags(
        version, {"adapterctl.gate": text, "adapterctl.reason": text, "adapterctl.events": json.dumps([event])}
    )
    registry.set_description(version, text)
    for path in files_of(mine, "release.json"):
        told = json.loads(path.read_text(encoding="utf-8"))
        told |= {"reason": text, "base": text, "recipe": {"method": text, text: text}}
        told["scores"]["cells"][0] |= {"task": text, "primary": text}
        path.write_text(json.dumps(told), encoding="utf-8")
    done = invoke("-C", mine, *command)
    assert done.exit_code == 0, done.err
    for bad in ("\x1b", "\u202e"):
        assert bad not in done.out + done.err
    as_json = invoke("-C", mine, *command, "--json")
    assert as_json.exit_code == 0
    assert isinstance(as_json.json, dict)
    assert "\x1b" not in as_json.out
    assert "\u202e" not in as_json.out


def deep(_: dict[str, Any]) -> str:
    return '{"a":' * 100_000 + "1" + "}" * 100_000


SPOILT: dict[str, Callable[[dict[str, Any]], str]] = {
    "deep": deep,
    "no object": lambda told: "[1, 2]",
    "cut": lambda told: json.dumps(told)[:-100],
    "numbers as texts": lambda told: json.dumps(told | {"scale": "<b>"}),
    "scores of texts": lambda told: json.dumps(told | {"scores": {"average": "0.5", "languages": {}, "cells": []}}),
    "cells of texts": lambda told: json.dumps(told | {"scores": told["scores"] | {"cells": ["x"]}}),
    "a verdict of another kind": lambda told: json.dumps(told | {"verdict": {"passed": "yes"}}),
    "a hash that is a path": lambda told: json.dumps(told | {"content_hash": "../../etc/passwd"}),
    "unknown keys": lambda told: json.dumps(told | {"__class__": "os.system"}),
    "a number without end": lambda told: json.dumps(told).replace('"scale": 0.3', f'"scale": {"9" * 5000}'),
    "no text": lambda told: "\x00\x01",
}


@pytest.mark.parametrize("kind", SPOILT)
def test_a_spoilt_release_is_refused_or_passed_over(mine: Path, kind: str) -> None:
    for path in files_of(mine, "release.json"):
        path.write_text(SPOILT[kind](json.loads(path.read_text(encoding="utf-8"))), encoding="utf-8")
    for command in (("status",), ("diff", "previous", "champion")):
        done = invoke("-C", mine, *command, "--json")
        assert (done.exit_code, done.json["error"]["type"]) == (5, "RegistryError"), done.out
        assert "release.json" in done.json["error"]["message"]
    # What the tags tell needs no file, and the next best record tells the lineage.
    assert len(invoke("-C", mine, "history", "--json").json["releases"]) == 5
    assert read(mine, "merged/4").source == "lineage.json"


def test_a_huge_release_is_refused_before_it_is_read(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in files_of(mine, "release.json"):
        os.truncate(path, 51_000_000)
    monkeypatch.setattr(json, "loads", pytest.fail)
    with pytest.raises(RegistryError, match=r"51 MB; at most 50 MB are read"):
        session_of(mine).registry.read_json(mlflow_registry(mine).version(MERGED, 5).run_id, "release.json")


@pytest.mark.parametrize("name", ["merged@champion", "ja/2", "de@champion"])
def test_the_picture(mine: Path, tmp_path: Path, name: str) -> None:
    continued(mine, {3: "scale-de:2"})
    mlflow_registry(mine).connection.client.delete_model_version("scale-ja", "1")
    pictures = []
    for file in ("one.png", "two.png"):
        done = invoke("-C", mine, "lineage", name, "--plot", tmp_path / file)
        assert done.exit_code == 0, done.err
        assert f"Picture: {tmp_path / file}" in done.out
        pictures.append((tmp_path / file).read_bytes())
    assert pictures[0].startswith(b"\x89PNG")
    assert pictures[0] == pictures[1]


def test_a_picture_of_what_others_wrote(mine: Path, tmp_path: Path) -> None:
    from adapterctl.workflows.lineage import Ancestor, Descendant
    from adapterctl.workflows.lineage_figure import draw

    strange = Ancestor(HOSTILE, 1, HOSTILE, "there", HOSTILE, (HOSTILE,) * 9, Rows(HOSTILE, 10**30), (HOSTILE, HOSTILE))
    many = Lineage(strange, HOSTILE, HOSTILE, HOSTILE, {"method": HOSTILE}, (strange,) * 12, source="tags")
    assert draw(many).startswith(b"\x89PNG")
    made = Descendant(HOSTILE, 1, "merged", HOSTILE, (HOSTILE,), HOSTILE, HOSTILE)
    assert draw(Lineage(strange, "", used_in=(made,) * 22)).startswith(b"\x89PNG")


def test_a_picture_that_cannot_be_written(past: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    done = invoke("-C", past, "lineage", "--plot", tmp_path / "file/picture.png", "--json")
    assert (done.exit_code, done.json["error"]["type"]) == (7, "StorageError")


def test_both_ways_of_reading_tell_the_same(past: Path) -> None:
    quick, slow = session_of(past), session_of(past)
    slow.quick = False
    assert type(slow.registry.connection) is not type(quick.registry.connection)
    for name in ("merged@champion", "merged/2", "ja/2", "de@champion"):
        assert lineage(quick, name).as_dict() == lineage(slow, name).as_dict()


def test_looking_things_up_loads_no_heavy_library(past: Path) -> None:
    """Their import alone takes longer than the commands may."""
    code = f"""
import sys
from adapterctl.cli.main import run
commands = (["status"], ["history"], ["lineage"], ["lineage", "ja/1"], ["diff", "previous", "champion"])
codes = [run(["-C", {str(past)!r}, *words]) for words in commands]
heavy = {{"mlflow", "sqlalchemy", "torch", "transformers", "pandas", "matplotlib", "scipy"}}
print(codes, sorted({{name.partition(".")[0] for name in sys.modules}} & heavy), file=sys.stderr)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == "[0, 0, 0, 0, 0] []\n"


def test_an_update_that_was_really_made(updated: Path, program: Programs) -> None:
    found = program(updated, "lineage", "--json").json
    assert {one["name"]: one["version"] for one in found["inputs"]} == {
        "pocket-de": 1, "pocket-en": 1, "pocket-ja": 2,
    }  # fmt: skip
    (japanese,) = (one for one in found["inputs"] if one["name"] == "pocket-ja")
    # The 22 rows of the workspace and the 22 that came; the training goes on from version 1.
    assert japanese["rows"]["rows"] == 44
    assert [one["version"] for one in japanese["continues"]] == [1]
    assert found["notes"] == []
    first = program(updated, "lineage", "ja/1", "--json").json
    assert {(made["name"], made["version"], made["how"]) for made in first["used_in"]} == {
        ("pocket-merged", 1, "merged"), ("pocket-ja", 2, "continued"),
    }  # fmt: skip


def test_the_record_beside_the_files_is_whole(updated: Path) -> None:
    registry = session_of(updated).registry
    assert isinstance(registry, Registry)
    merged, japanese = registry.version("pocket-merged", 2), registry.version("pocket-ja", 2)
    told = registry.read_json(merged, "adapterctl/lineage.json")
    assert {one["name"]: (one["version"], one["content_hash"]) for one in told["inputs"]}["pocket-ja"] == (
        2, japanese.content_hash,
    )  # fmt: skip
    assert told["base"] == {"name": "pocket", "identity": japanese.tags["adapterctl.base_identity"]}
    assert told["recipe"]["method"] == "core-tsv"
    rows = {one["name"]: (one["rows"], one["sha256"]) for one in told["datasets"]}
    assert rows["ja rows"] == (44, japanese.tags["adapterctl.data_sha256"])
    own = registry.read_json(japanese, "adapterctl/lineage.json")
    assert [(one["name"], one["version"]) for one in own["inputs"]] == [("pocket-ja", 1)]
    assert own["datasets"][0]["rows"] == 44
    run, _ = registry.what_is_left(japanese)
    assert registry.version("pocket-ja", 1).model_id in {model.model_id for model in run.inputs.model_inputs}
