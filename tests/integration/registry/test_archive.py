"""``registry export`` and ``import``: a workspace moves between servers, and nothing is lost on the way."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.cli import Result, invoke
from tests.support.program import Programs
from tests.support.registries import client_of, picture, stored_folder, train
from tests.support.small_workspace import change
from tests.support.store import registry_of
from tests.unit.registry.test_archive import write

from adapterctl.registry import collecting, verifying
from adapterctl.registry.client import Registry
from adapterctl.registry.settings import ResolvedRegistry

TENSORS = "adapter_model.safetensors"


def bring(root: Path, file: Path) -> Result:
    return invoke("-C", root, "registry", "import", file, "--json")


@pytest.fixture(scope="module")
def exported(filled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("exported") / "pocket.tar"
    told = invoke("-C", filled, "registry", "export", file, "--json")
    assert told.exit_code == 0, told.err
    assert (told.json["versions"], told.json["champion"], told.json["left_out"]) == (7, 3, [])
    return file


@pytest.fixture(scope="module")
def template(filled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same workspace with a store of its own that nobody has used."""
    root = Path(shutil.copytree(filled, tmp_path_factory.mktemp("empty") / "workspace"))
    shutil.rmtree(root / "registry")
    shutil.rmtree(root / ".adapterctl", ignore_errors=True)
    registry_of(root)
    return root


@pytest.fixture
def empty(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "empty"))


def test_to_a_server_and_back(
    filled: Path, exported: Path, empty: Path, tmp_path: Path, server_store: ResolvedRegistry, root: Path
) -> None:
    before = picture(registry_of(filled), tmp_path / "p")
    change(root, "adapterctl.yaml", '  uri: ""', f'  uri: "{server_store.uri}"')
    told = bring(root, exported)
    assert told.exit_code == 0, told.err
    assert (told.json["versions"], told.json["champion"], told.json["complete"]) == (7, 3, False)
    served = Registry.connect(server_store, "pocket")
    assert picture(served, tmp_path / "p") == before
    assert invoke("-C", root, "registry", "verify").exit_code == 0
    history = invoke("-C", root, "history", "--json").json["releases"]
    assert [past["version"] for past in history] == [3, 2, 1]
    again = bring(root, exported)
    assert (again.exit_code, again.json["complete"], again.json["runs"]) == (0, True, 0)
    assert picture(served, tmp_path / "p") == before

    back = tmp_path / "back.tar"
    assert invoke("-C", root, "registry", "export", back).exit_code == 0
    told = bring(empty, back)
    assert told.exit_code == 0, told.err
    assert picture(registry_of(empty), tmp_path / "p") == before
    rolled = invoke("-C", empty, "rollback", "--json")
    assert rolled.exit_code == 0, rolled.err
    assert registry_of(empty).aliases("pocket-merged") == {"champion": 2, "previous": 3}

    # What holds for an sqlite store holds behind a server.
    check_upkeep(served)


def check_upkeep(served: Registry) -> None:
    plan = collecting.plan(served.connection, served.names(), 1, pins=lambda _: [], wanted=lambda _: "")
    assert [(item.name, item.version) for item in plan.doomed] == [("pocket-merged", 1), ("pocket-ja", 1)]
    places = [client_of(served).get_logged_model(item.model_id).artifact_location for item in plan.doomed]
    collecting.carry_out(served.connection, plan, lambda _: "")
    assert [version.version for version in served.versions("pocket-ja")] == [2, 3]
    assert [served.connection.repository(place).list_artifacts() for place in places] == [[], []]
    assert verifying.verify(served.connection, served.names()).faults == []
    version = served.version("pocket-de", 1)
    location = client_of(served).get_logged_model(version.model_id).artifact_location
    served.connection.repository(location).delete_artifacts(TENSORS)
    (fault,) = verifying.verify(served.connection, served.names()).faults
    assert (fault.where, fault.kind) == ("pocket-de v1", "missing")


def test_to_postgresql(
    exported: Path, filled: Path, tmp_path: Path, postgres_store: ResolvedRegistry, root: Path
) -> None:
    change(root, "adapterctl.yaml", '  uri: ""', f'  uri: "{postgres_store.uri}"')
    told = bring(root, exported)
    assert told.exit_code == 0, told.err
    found = Registry.connect(
        ResolvedRegistry(postgres_store.uri, (root / "registry/artifacts").as_uri(), "x"), "pocket"
    )
    assert picture(found, tmp_path / "p") == picture(registry_of(filled), tmp_path / "p")


def test_equal_registries_give_equal_bytes(filled: Path, exported: Path, tmp_path: Path) -> None:
    assert invoke("-C", filled, "registry", "export", tmp_path / "b.tar").exit_code == 0
    assert (tmp_path / "b.tar").read_bytes() == exported.read_bytes()
    told = invoke("-C", filled, "registry", "export", tmp_path / "b.tar")
    assert told.exit_code == 2
    assert "is there already" in told.err


def test_into_the_registry_it_came_from(root: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.tar"
    assert invoke("-C", root, "registry", "export", file).exit_code == 0
    before = picture(registry_of(root), tmp_path / "p")
    assert bring(root, file).json["complete"] is True
    assert picture(registry_of(root), tmp_path / "p") == before


def test_numbers_stay_where_versions_were_deleted(root: Path, empty: Path, tmp_path: Path) -> None:
    plan = invoke("-C", root, "registry", "gc", "--keep", "1", "--json").json["plan"]
    assert invoke("-C", root, "registry", "gc", "--keep", "1", "--apply", plan).exit_code == 0
    assert invoke("-C", root, "registry", "export", tmp_path / "a.tar").exit_code == 0
    assert bring(empty, tmp_path / "a.tar").exit_code == 0
    assert picture(registry_of(empty), tmp_path / "p") == picture(registry_of(root), tmp_path / "p")
    assert [version.version for version in registry_of(empty).versions("pocket-ja")] == [2, 3]
    assert invoke("-C", empty, "registry", "verify").exit_code == 0


def test_a_new_archive_brings_what_is_new(root: Path, empty: Path, exported: Path, tmp_path: Path) -> None:
    assert bring(empty, exported).exit_code == 0
    with registry_of(root).run("update:new", "new") as run:
        train(registry_of(root), "ja", 77, tmp_path / "new", run)
    assert invoke("-C", root, "registry", "export", tmp_path / "later.tar").exit_code == 0
    told = bring(empty, tmp_path / "later.tar")
    assert (told.exit_code, told.json["versions"], told.json["runs"]) == (0, 1, 2), told.err
    assert picture(registry_of(empty), tmp_path / "p") == picture(registry_of(root), tmp_path / "p")


MLFLOW = "mlflow:MlflowClient."
POINTS: dict[str, dict[str, Any]] = {
    "first run made": {"at": f"{MLFLOW}create_run", "when": "after"},
    "third model made": {"at": f"{MLFLOW}create_logged_model", "when": "after", "call": 3},
    "files half written": {
        "at": "mlflow.store.artifact.local_artifact_repo:LocalArtifactRepository.log_artifact",
        "when": "after",
        "call": 9,
    },
    "before ready": {"at": f"{MLFLOW}finalize_logged_model", "when": "before", "call": 4},
    "ready, not noted": {"at": f"{MLFLOW}finalize_logged_model", "when": "after", "call": 7},
    "a run not ended": {"at": f"{MLFLOW}set_terminated", "when": "before", "call": 2},
    "outputs noted": {"at": f"{MLFLOW}log_outputs", "when": "after", "call": 3},
    "version begun": {"at": f"{MLFLOW}create_model_version", "when": "after", "call": 5},
    "before the champion": {"at": f"{MLFLOW}set_registered_model_alias", "when": "before", "call": 3},
}


@pytest.mark.parametrize("point", POINTS)
def test_an_import_goes_on_after_a_kill(
    filled: Path, exported: Path, empty: Path, program: Programs, tmp_path: Path, point: str
) -> None:
    killed = program(empty, "registry", "import", str(exported), trap={**POINTS[point], "do": "kill"})
    assert killed.exit_code == -9
    registry = registry_of(empty)
    for name, aliases in ((name, registry.aliases(name)) for name in registry.names()):
        assert set(aliases.values()) <= {version.version for version in registry.versions(name)}
    told = bring(empty, exported)
    assert told.exit_code == 0, told.err
    assert picture(registry, tmp_path / "p") == picture(registry_of(filled), tmp_path / "p")
    assert registry.leftovers() == []
    assert bring(empty, exported).json["complete"] is True


def test_an_import_goes_on_after_a_kill_and_a_sweep(
    filled: Path, exported: Path, empty: Path, program: Programs, tmp_path: Path
) -> None:
    program(empty, "registry", "import", str(exported), trap={**POINTS["before ready"], "do": "kill"})
    findings = invoke("-C", empty, "doctor", "--json").json["findings"]
    assert any("an import into this registry was interrupted" in found["message"] for found in findings)
    assert invoke("-C", empty, "doctor", "--fix").exit_code == 2
    assert registry_of(empty).leftovers() == []
    assert bring(empty, exported).exit_code == 0
    assert picture(registry_of(empty), tmp_path / "p") == picture(registry_of(filled), tmp_path / "p")


def untouched(root: Path) -> bool:
    registry = registry_of(root)
    runs = client_of(registry).search_runs([registry.experiment_id])
    return not registry.names() and not [
        run for run in runs if not run.data.tags["adapterctl.key"].startswith("books:")
    ]


def test_other_content_under_the_same_names(exported: Path, empty: Path, tmp_path: Path) -> None:
    train(registry_of(empty), "ja", 50, tmp_path / "adapters")
    told = bring(empty, exported)
    assert told.exit_code == 2
    problems = [problem["message"] for problem in told.json["error"]["problems"]]
    assert problems == ["is another adapter here"]
    assert [version.version for version in registry_of(empty).versions("pocket-ja")] == [1]
    assert registry_of(empty).names() == ["pocket-ja"]


def test_work_that_went_on(exported: Path, root: Path) -> None:
    registry = registry_of(root)
    registry.set_alias("pocket-merged", "champion", 1)
    told = bring(root, exported)
    assert told.exit_code == 2
    assert "champion is version 1 here" in told.json["error"]["problems"][0]["message"]
    client_of(registry).delete_registered_model_alias("pocket-merged", "champion")
    client_of(registry).delete_model_version("pocket-de", "1")
    told = bring(root, exported)
    assert told.exit_code == 5
    assert (
        "had a version 2" in told.json["error"]["message"] or "cannot have its number" in told.json["error"]["message"]
    )


def test_another_project(exported: Path, empty: Path) -> None:
    change(empty, "adapterctl.yaml", "project: pocket\n", "project: rocket\n")
    told = bring(empty, exported)
    assert told.exit_code == 2
    assert "'pocket'" in told.json["error"]["message"]
    assert "'rocket'" in told.json["error"]["message"]


def members_of(file: Path) -> dict[str, bytes]:
    with tarfile.open(file) as tar:
        found = {member.name: tar.extractfile(member) for member in tar}
        return {name: data.read() for name, data in found.items() if data is not None and name != "manifest.json"}


def edit(members: dict[str, bytes], name: str, change: Callable[[Any], None]) -> None:
    value = json.loads(members[name])
    change(value)
    members[name] = json.dumps(value).encode()


VERSION = "versions/pocket-ja/000000002.json"


def flip(members: dict[str, bytes]) -> None:
    model = json.loads(members[VERSION])["model_id"]
    name = f"models/{model}/{TENSORS}"
    members[name] = members[name][:-1] + bytes([members[name][-1] ^ 1])


def swap(members: dict[str, bytes]) -> None:
    """Let version 2 have the files of version 1, and a list that says so: only the adapter's own hash tells."""
    one, two = (json.loads(members[f"versions/pocket-ja/00000000{n}.json"]) for n in (1, 2))
    for name in [name for name in members if name.startswith(f"models/{one['model_id']}/")]:
        members[name.replace(one["model_id"], two["model_id"])] = members[name]
    tag = {"adapterctl.manifest_sha256": one["tags"]["adapterctl.manifest_sha256"]}
    edit(members, VERSION, lambda value: value["tags"].update(tag))
    edit(members, f"models/{two['model_id']}.json", lambda value: value["tags"].update(tag))


def edited(name: str, change: Callable[[Any], Any]) -> Callable[[dict[str, bytes]], None]:
    return lambda members: edit(members, name, change)


FORGED: dict[str, Callable[[dict[str, bytes]], Any]] = {
    "a bit of a tensor": flip,
    "another adapter's files": swap,
    "no files": edited(VERSION, lambda value: value.update(model_id="m-" + "0" * 32)),
    "another hash": edited(VERSION, lambda value: value.update(content_hash="0" * 64)),
    "another project's model": edited(VERSION, lambda value: value.update(name="other-ja")),
    "an alias to nothing": edited(
        "registry.json", lambda value: value["models"]["pocket-merged"]["aliases"].update(champion=99)
    ),
    "a key more": edited("registry.json", lambda value: value.update(evil=1)),
    "a number as text": edited(VERSION, lambda value: value.update(version="two")),
    "a version of 0": edited(VERSION, lambda value: value.update(version=0)),
    "no registry": lambda members: members.pop("registry.json"),
    "not JSON": lambda members: members.update({"registry.json": b"["}),
    "nested": lambda members: members.update({"registry.json": b"[" * 200_000}),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_archive_is_refused_before_anything_is_written(
    exported: Path, template: Path, tmp_path: Path, name: str
) -> None:
    members = members_of(exported)
    FORGED[name](members)
    told = bring(template, write(tmp_path / "forged.tar", sorted(members.items())))
    assert told.exit_code == 6, told.out
    assert "nothing was written" in told.json["error"]["message"]
    assert untouched(template)


def test_a_damaged_registry_is_not_exported_as_if_it_were_whole(root: Path, tmp_path: Path) -> None:
    registry = registry_of(root)
    client_of(registry).delete_logged_model(registry.version("pocket-ja", 2).model_id)
    told = invoke("-C", root, "registry", "export", tmp_path / "a.tar")
    assert told.exit_code == 5
    assert "registry verify" in told.err
    assert not (tmp_path / "a.tar").exists()


def test_a_full_disk_leaves_no_archive(root: Path, tmp_path: Path) -> None:
    from tests.support.disk import small_disk

    with small_disk(tmp_path / "small", "32k") as disk:
        told = invoke("-C", root, "registry", "export", disk / "a.tar")
        assert told.exit_code == 7, told.err
        assert list(disk.iterdir()) == []


def test_what_was_damaged_on_the_way_is_not_imported(exported: Path, template: Path, tmp_path: Path) -> None:
    content = bytearray(exported.read_bytes())
    content[len(content) // 2] ^= 255
    (tmp_path / "a.tar").write_bytes(content)
    assert bring(template, tmp_path / "a.tar").exit_code == 6
    assert untouched(template)


def test_files_that_were_changed_in_the_store_are_no_backup(root: Path, tmp_path: Path) -> None:
    registry = registry_of(root)
    folder = stored_folder(registry, registry.version("pocket-ja", 2))
    (folder / TENSORS).write_bytes((folder / TENSORS).read_bytes()[:-1] + b"x")
    told = invoke("-C", root, "registry", "export", tmp_path / "a.tar")
    assert told.exit_code == 5
    assert "pocket-ja v2" in told.err
    assert not (tmp_path / "a.tar").exists()


@pytest.mark.parametrize("text", ["<script>", "", "9999-12-31T23:59:59-23:00", "0001-01-01T00:00:00+23:00", "1e400"])
def test_a_time_that_is_none_counts_as_none(root: Path, text: str) -> None:
    registry = registry_of(root)
    registered = registry.version("pocket-ja", 1).created
    registry.set_version_tags(registry.version("pocket-ja", 1), {"adapterctl.created": text})
    assert registry.version("pocket-ja", 1).created == registered
