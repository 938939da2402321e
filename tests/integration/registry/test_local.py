"""An sqlite store read without MLflow gives what MLflow's own client gives."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from mlflow.store.db.utils import _get_latest_schema_revision

from adapterctl.errors import RegistryError, StorageError
from adapterctl.fingerprint import fingerprint
from adapterctl.registry import local
from adapterctl.registry.client import Registry
from adapterctl.registry.connection import Connection, connect
from adapterctl.registry.local import LocalConnection, connect_local
from adapterctl.registry.settings import RegistrySettings, ResolvedRegistry

PROJECT = "shop"
MAKE = Callable[..., Path]
MISSING = "RESOURCE_DOES_NOT_EXIST"


def resolved_in(root: Path) -> ResolvedRegistry:
    return RegistrySettings(uri="").resolve(root)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory, make_adapter: MAKE) -> Path:
    """A store with all that there may be: aliases, deleted versions, runs and models, odd numbers and texts."""
    root = tmp_path_factory.mktemp("a store with ü")
    registry = Registry.connect(resolved_in(root), PROJECT)
    client, folder = registry.connection.client, make_adapter(1)
    versions = []
    for number in range(5):
        with registry.run(f"train:{number}", f"train ja {number}") as run:
            run.log_input_dataset("ja rows", fingerprint(number), path="adapters", rows=40 + number, context="training")
            run.log_params({"lora.r": 8, "note": "日本 'quoted' \"twice\""})
            run.log_metrics({"loss": float("nan"), "huge": float("inf"), "small": 0.1 + number})
            run.log_json("release.json", {"number": number})
            versions.append(
                registry.publish(
                    f"{PROJECT}-ja",
                    folder,
                    content_hash=fingerprint(["ja", number]),
                    run=run,
                    model_type="lora-adapter",
                    tags={"lang": "ja", "odd": "a' OR '1'='1", "empty": ""},
                    description="# ja\n" + "x" * 100,
                    inputs=versions[-1:],
                )
            )
    with registry.run("merge:1", "merge") as run:
        registry.publish(
            f"{PROJECT}-merged",
            folder,
            content_hash=fingerprint("merged"),
            run=run,
            model_type="merged-adapter",
            inputs=versions,
        )
    registry.set_alias(f"{PROJECT}-ja", "champion", 2)
    registry.set_alias(f"{PROJECT}-ja", "previous", 5)
    client.delete_model_version(f"{PROJECT}-ja", "3")
    client.delete_run(versions[3].run_id)
    client.delete_logged_model(versions[4].model_id)
    # Somebody else's, of another experiment and with nothing of ours.
    client.create_registered_model("strange")
    other = client.create_experiment("elsewhere")
    stranger = client.create_run(other, tags={"adapterctl.books": "1"})
    client.create_model_version("strange", source="/nowhere", run_id=stranger.info.run_id)
    return root


@pytest.fixture(scope="session")
def slow(made: Path) -> Connection:
    """The store through MLflow's client."""
    return connect(resolved_in(made), PROJECT)


@pytest.fixture(scope="session")
def quick(made: Path) -> Connection:
    """The store read without it."""
    found = connect_local(resolved_in(made), PROJECT)
    assert isinstance(found, LocalConnection)
    return found


def version_of(found: Any) -> dict[str, Any]:
    names = ("name", "description", "source", "run_id", "status", "creation_timestamp", "last_updated_timestamp")
    # MLflow's own type for the number differs between its stores.
    return {name: getattr(found, name) for name in names} | {"version": int(found.version), "tags": dict(found.tags)}


def run_of(found: Any) -> dict[str, Any]:
    names = (
        "run_id",
        "run_name",
        "status",
        "start_time",
        "end_time",
        "lifecycle_stage",
        "artifact_uri",
        "experiment_id",
    )
    return {
        **{name: getattr(found.info, name) for name in names},
        "tags": dict(found.data.tags),
        "params": dict(found.data.params),
        # NaN is not equal to itself.
        "metrics": {name: repr(value) for name, value in found.data.metrics.items()},
        "made": [(one.model_id, one.step) for one in found.outputs.model_outputs],
        "rows": [
            (one.dataset.name, one.dataset.digest, one.dataset.profile, {tag.key: tag.value for tag in one.tags})
            for one in found.inputs.dataset_inputs
        ],
    }


def test_the_schema_is_the_one_of_the_installed_mlflow() -> None:
    """With another MLflow, look at its migrations, then add its revision to the known ones."""
    assert [_get_latest_schema_revision()] in local._SCHEMAS


def test_the_experiment_is_the_same(slow: Connection, quick: Connection) -> None:
    assert quick.experiment_id == slow.experiment_id


@pytest.mark.parametrize("name", [f"{PROJECT}-ja", f"{PROJECT}-merged", "strange"])
def test_registered_models_are_the_same(slow: Connection, quick: Connection, name: str) -> None:
    one, other = (connection.client.get_registered_model(name) for connection in (slow, quick))
    for attribute in ("name", "description", "tags"):
        assert getattr(other, attribute) == getattr(one, attribute)
    assert {alias: int(number) for alias, number in other.aliases.items()} == dict(one.aliases)


FILTERS = [
    f"name = '{PROJECT}-ja'",
    f"name = '{PROJECT}-ja' and tags.`adapterctl.content_hash` = '{fingerprint(['ja', 1])}'",
    f"tags.`adapterctl.project` = '{PROJECT}'",
    f"tags.`adapterctl.project` = '{PROJECT}' AND tags.`lang` = 'ja'",
    f"name = '{PROJECT}-ja' and tags.`lang` = 'de'",
    "name = 'nobody'",
    f"name LIKE '{PROJECT}-%'",
]


@pytest.mark.parametrize("order", [None, ["version_number ASC"], ["name ASC"]])
@pytest.mark.parametrize("wanted", FILTERS)
def test_versions_are_found_alike(slow: Connection, quick: Connection, wanted: str, order: list[str] | None) -> None:
    one, other = (
        connection.client.search_model_versions(wanted, max_results=100, order_by=order) for connection in (slow, quick)
    )
    assert list(map(version_of, other)) == list(map(version_of, one))
    assert not other.token


def test_versions_are_found_page_by_page(slow: Connection, quick: Connection) -> None:
    found, token = [], None
    while True:
        page = quick.client.search_model_versions(f"name = '{PROJECT}-ja'", max_results=3, page_token=token)
        found += page
        token = page.token
        if not token:
            break
    whole = slow.client.search_model_versions(f"name = '{PROJECT}-ja'")
    assert list(map(version_of, found)) == list(map(version_of, whole))
    assert len(found) == 4


def test_a_version_is_the_same(slow: Connection, quick: Connection) -> None:
    one, other = (connection.client.get_model_version(f"{PROJECT}-ja", "2") for connection in (slow, quick))
    assert version_of(other) == version_of(one)


def test_runs_are_the_same_deleted_ones_too(slow: Connection, quick: Connection) -> None:
    for version in slow.client.search_model_versions(f"name LIKE '{PROJECT}-%'"):
        one, other = (connection.client.get_run(version.run_id) for connection in (slow, quick))
        assert run_of(other) == run_of(one)
        # MLflow's search does not tell them.
        models = [sorted(model.model_id for model in run.inputs.model_inputs) for run in (one, other)]
        assert models[0] == models[1]


@pytest.mark.parametrize(
    "wanted",
    ["tags.`adapterctl.key` = 'train:1'", "tags.`adapterctl.books` = '1'", "attributes.status = 'FINISHED'"],
)
def test_runs_are_found_alike(slow: Connection, quick: Connection, wanted: str) -> None:
    one, other = (
        connection.client.search_runs(
            [connection.experiment_id], wanted, max_results=50, order_by=["attributes.start_time ASC"]
        )
        for connection in (slow, quick)
    )
    assert list(map(run_of, other)) == list(map(run_of, one))


def test_logged_models_are_the_same(slow: Connection, quick: Connection) -> None:
    for version in slow.client.search_model_versions(f"name = '{PROJECT}-ja'"):
        model_id = version.tags["adapterctl.model_id"]
        if version.version == 5:
            continue
        one, other = (connection.client.get_logged_model(model_id) for connection in (slow, quick))
        assert str(other.status) == str(one.status) == "READY"
        for name in ("model_id", "name", "artifact_location", "creation_timestamp", "model_type", "source_run_id"):
            assert getattr(other, name) == getattr(one, name)
        assert other.tags == dict(one.tags)


@pytest.mark.parametrize("registry_of", ["slow", "quick"])
def test_the_registry_says_the_same_either_way(registry_of: str, request: pytest.FixtureRequest) -> None:
    registry = Registry(request.getfixturevalue(registry_of))
    name = f"{PROJECT}-ja"
    assert [version.version for version in registry.versions(name)] == [1, 2, 4, 5]
    assert [str(one) for one in registry.all_versions()] == [
        "shop-ja v1", "shop-ja v2", "shop-ja v4", "shop-ja v5", "shop-merged v1",
    ]  # fmt: skip
    assert registry.aliases(name) == {"champion": 2, "previous": 5}
    assert registry.aliases("nobody") == {}
    assert registry.names() == [name, f"{PROJECT}-merged"]
    known = registry.version_by_hash(name, fingerprint(["ja", 3]))
    assert known is not None
    assert known.version == 4
    assert registry.read_json(known.run_id, "release.json") == {"number": 3}
    assert registry.read_json(known, "adapterctl/lineage.json")["inputs"][0]["version"] == 3
    assert [registry.what_is_left(one)[1] for one in registry.versions(name)] == [(), (), ("run",), ("files",)]
    with pytest.raises(RegistryError, match="No such artifact"):
        registry.read_json(known.run_id, "nothing.json")


@pytest.mark.parametrize("registry_of", ["slow", "quick"])
def test_what_is_not_there_is_told_alike(registry_of: str, request: pytest.FixtureRequest) -> None:
    from adapterctl.registry.faults import error_code

    client = request.getfixturevalue(registry_of).client
    calls: list[tuple[Any, tuple[str, ...]]] = [
        (client.get_registered_model, ("nobody",)),
        (client.get_model_version, (f"{PROJECT}-ja", "3")),
        (client.get_model_version, (f"{PROJECT}-ja", "99")),
        (client.get_run, ("0" * 32,)),
        (client.get_logged_model, ("m-" + "0" * 32,)),
    ]
    for call, arguments in calls:
        with pytest.raises(RegistryError) as caught:
            call(*arguments)
        assert error_code(caught.value) == MISSING


def test_what_is_not_known_here_is_asked_of_mlflow(quick: Connection) -> None:
    found = quick.client.search_logged_models([quick.experiment_id], max_results=100)
    assert {model.name for model in found} == {f"{PROJECT}-ja", f"{PROJECT}-merged"}


@pytest.mark.parametrize("name", ["../elsewhere.json", "/etc/passwd", "a/../../../secret", "link.json", "away/x.json"])
def test_no_name_leads_out_of_a_place_of_files(tmp_path: Path, quick: Connection, name: str) -> None:
    place = tmp_path / "place" / "files"
    place.mkdir(parents=True)
    for secret in (tmp_path / "secret", tmp_path / "place" / "elsewhere.json", tmp_path / "x.json"):
        secret.write_text("{}", encoding="utf-8")
    (place / "link.json").symlink_to(tmp_path / "secret")
    (place / "away").symlink_to(tmp_path)
    with pytest.raises(RegistryError, match="No such artifact"):
        quick.repository(place.as_uri()).get_local_path(name)


def copied(made: Path, tmp_path: Path) -> ResolvedRegistry:
    return resolved_in(Path(shutil.copytree(made, tmp_path / "copy")))


def change(resolved: ResolvedRegistry, statement: str) -> None:
    assert resolved.database_file is not None
    with closing(sqlite3.connect(resolved.database_file)) as store, store:
        store.execute(statement)


def test_a_store_that_was_moved_is_followed(made: Path, tmp_path: Path) -> None:
    resolved = copied(made, tmp_path)
    registry = Registry.for_reading(resolved, PROJECT)
    assert isinstance(registry.connection, LocalConnection)
    run_id = registry.version(f"{PROJECT}-ja", 1).run_id
    assert registry.artifacts_of(run_id).startswith(str(tmp_path / "copy"))
    assert registry.read_json(run_id, "release.json") == {"number": 0}


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE alembic_version SET version_num = 'feedfeedfeed'",
        "DROP TABLE alembic_version",
        "DELETE FROM alembic_version",
        f"UPDATE experiments SET lifecycle_stage = 'deleted' WHERE name = '{PROJECT}'",
        f"UPDATE experiments SET name = 'other' WHERE name = '{PROJECT}'",
    ],
)
def test_tables_of_another_kind_are_left_to_mlflow(made: Path, tmp_path: Path, statement: str) -> None:
    resolved = copied(made, tmp_path)
    change(resolved, statement)
    assert connect_local(resolved, PROJECT) is None


def test_stores_of_other_kinds_are_left_to_mlflow(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert connect_local(ResolvedRegistry("http://127.0.0.1:9", None, "a test"), PROJECT) is None
    assert connect_local(resolved_in(tmp_path / "nothing yet"), PROJECT) is None
    assert not (tmp_path / "nothing yet").exists()
    monkeypatch.setenv("MLFLOW_ENABLE_WORKSPACES", "true")
    assert connect_local(resolved_in(made), PROJECT) is None


def test_a_damaged_store_is_a_registry_error(tmp_path: Path) -> None:
    resolved = resolved_in(tmp_path)
    assert resolved.database_file is not None
    resolved.database_file.parent.mkdir()
    resolved.database_file.write_bytes(b"SQLite format 3\x00" + b"garbage" * 2000)
    with pytest.raises((RegistryError, StorageError), match="damaged"):
        connect_local(resolved, PROJECT)


def test_nothing_is_written_and_mlflow_is_not_imported(made: Path, tmp_path: Path) -> None:
    resolved = copied(made, tmp_path)
    assert resolved.database_file is not None
    connect_local(resolved, PROJECT)
    before = resolved.database_file.read_bytes()
    code = f"""
import sys
from pathlib import Path
from adapterctl.registry.client import Registry
from adapterctl.registry.settings import RegistrySettings
registry = Registry.for_reading(RegistrySettings(uri="").resolve(Path({str(tmp_path / "copy")!r})), "{PROJECT}")
found = registry.all_versions()
registry.aliases(found[0].name), registry.read_json(found[0], "adapterctl/lineage.json")
registry.what_is_left(found[0]), registry.read_books(), registry.artifacts_of(found[0].run_id)
print(sorted({{name.partition(".")[0] for name in sys.modules}} & {{"mlflow", "sqlalchemy", "pandas", "numpy"}}))
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert resolved.database_file.read_bytes() == before
