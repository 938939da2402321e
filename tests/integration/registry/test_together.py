"""Several processes at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from adapterctl.registry.client import Registry
from adapterctl.registry.settings import RegistrySettings, ResolvedRegistry

Robot = Callable[..., list[int]]


@pytest.fixture
def registry(store: ResolvedRegistry, project: str, make_adapter: Callable[..., Path]) -> Registry:
    registry = Registry.connect(store, project)
    with registry.run("train", "train") as run:
        for seed in (31, 32):
            registry.publish(
                f"{project}-ja", make_adapter(seed), content_hash=f"abc{seed}", run=run, model_type="lora-adapter"
            )
    return registry


def test_an_alias_is_set_first_by_four_at_once(registry: Registry, robot: Robot) -> None:
    name = f"{registry.project}-ja"
    order = {"do": "alias", "store": dataclasses.asdict(registry.resolved), "project": registry.project, "name": name}
    agreed = [{**order, "alias": "champion", "version": 1}] * 4
    split = [{**order, "alias": "candidate", "version": version} for version in (1, 2, 1, 2)]
    codes = robot([*agreed, *split], together=True)
    assert codes[:4] == [0, 0, 0, 0]
    # With two opinions one wins; who lost is told so (4) or was there first (0).
    assert set(codes[4:]) <= {0, 4}
    assert 0 in codes[4:]
    assert registry.aliases(name)["champion"] == 1
    assert registry.aliases(name)["candidate"] in (1, 2)


def test_a_new_store_is_opened_by_four_at_once(tmp_path: Path, robot: Robot) -> None:
    resolved = RegistrySettings(uri="").resolve(tmp_path)
    order = {"do": "connect", "store": dataclasses.asdict(resolved), "project": "pocket"}
    assert robot([order] * 4, together=True) == [0, 0, 0, 0]
    assert Registry.connect(resolved, "pocket").names() == []
    assert sorted(path.name for path in (tmp_path / "registry").iterdir()) == ["mlflow.db", "mlflow.db.lock"]
