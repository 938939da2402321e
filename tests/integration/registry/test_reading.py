"""What is read of versions, runs and their files, on every kind of store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from adapterctl.errors import RegistryError
from adapterctl.fingerprint import fingerprint
from adapterctl.registry import versions
from adapterctl.registry.client import Registry, Version
from adapterctl.registry.settings import ResolvedRegistry


@pytest.fixture
def registry(store: ResolvedRegistry, project: str) -> Registry:
    return Registry.for_reading(store, project)


def publish(registry: Registry, suffix: str, folder: Path, *inputs: Version) -> Version:
    name = f"{registry.project}-{suffix}"
    with registry.run(f"make:{name}", f"make {suffix}") as run:
        run.log_json("release.json", {"name": name})
        return registry.publish(
            name,
            folder,
            content_hash=fingerprint(name),
            run=run,
            model_type="lora-adapter",
            inputs=inputs,
            lineage={"base": {"name": "b", "identity": "i"}, "datasets": [], "name": "not this one"},
        )


def test_all_versions_of_a_project_and_nobody_elses(
    registry: Registry, store: ResolvedRegistry, make_adapter: Callable[..., Path]
) -> None:
    folder = make_adapter(1)
    other = Registry.connect(store, f"{registry.project}x")
    publish(other, "ja", folder)
    made = [publish(registry, "de", folder), publish(registry, "ja", folder)]
    found = registry.all_versions()
    assert [(one.name, one.version, one.content_hash) for one in found] == [
        (one.name, one.version, one.content_hash) for one in made
    ]


def test_what_was_deleted(registry: Registry, make_adapter: Callable[..., Path]) -> None:
    version = publish(registry, "ja", make_adapter(2))
    run, gone = registry.what_is_left(version)
    assert (run.info.run_id, gone) == (version.run_id, ())
    client = registry.connection.client
    client.delete_run(version.run_id)
    client.delete_logged_model(version.model_id)
    run, gone = registry.what_is_left(version)
    assert (run.info.lifecycle_stage, gone) == ("deleted", ("run", "files"))


@pytest.mark.parametrize("odd", ["0" * 32, "no such thing", "../../etc", "x" * 40])
def test_what_never_was(registry: Registry, make_adapter: Callable[..., Path], odd: str) -> None:
    version = publish(registry, "ja", make_adapter(3))
    strange = Version(**{**vars(version), "run_id": odd, "model_id": f"m-{odd}"})
    assert registry.what_is_left(strange) == (None, ("run", "files"))


def test_where_an_adapter_comes_from_is_stored_beside_it(registry: Registry, make_adapter: Callable[..., Path]) -> None:
    folder = make_adapter(4)
    first = publish(registry, "ja", folder)
    second = publish(registry, "merged", folder, first)
    told = registry.read_json(second, "adapterctl/lineage.json")
    assert told["base"] == {"name": "b", "identity": "i"}
    # What the caller adds does not take the place of what the registry knows.
    assert told["name"] == second.name
    assert [(one["name"], one["version"], one["content_hash"]) for one in told["inputs"]] == [
        (first.name, 1, first.content_hash)
    ]
    run, _ = registry.what_is_left(second)
    assert [model.model_id for model in run.inputs.model_inputs] == [first.model_id]


def test_a_file_that_is_too_large_is_refused(
    registry: Registry, make_adapter: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    version = publish(registry, "ja", make_adapter(5))
    assert registry.read_json(version.run_id, "release.json") == {"name": version.name}
    monkeypatch.setattr(versions, "MOST_BYTES", 10)
    with pytest.raises(RegistryError, match="at most 0 MB are read"):
        registry.read_json(version.run_id, "release.json")
    with pytest.raises(RegistryError):
        registry.read_json(version.run_id, "folder/nothing.json")
