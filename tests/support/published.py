"""Workspaces with releases that nobody trained: random adapters of a tiny Llama, published as an update would."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapterctl.lora.adapter import Adapter
from adapterctl.registry.client import Registry
from adapterctl.registry.versions import Version
from adapterctl.workflows.init import init_workspace
from adapterctl.workflows.releases import RELEASE_RUN_TAG, Release, publish_release
from tests.support.adapters import make_adapter
from tests.support.small_workspace import change
from tests.support.store import registry_of
from tests.support.tiny_llama import save_tiny_llama, tiny_base

NAME = "pocket-merged"

SHAPES: dict[str, tuple[int, int]] = {
    f"model.layers.{layer}.{module}": shape
    for layer in (0, 1)
    for module, shape in {
        "self_attn.q_proj": (32, 32),
        "self_attn.k_proj": (16, 32),
        "self_attn.v_proj": (16, 32),
        "self_attn.o_proj": (32, 32),
        "mlp.gate_proj": (64, 32),
        "mlp.up_proj": (64, 32),
        "mlp.down_proj": (32, 64),
    }.items()
}
"""Every linear layer of ``save_tiny_llama``; heads of 8, two of them share one of keys."""


def make_workspace(root: Path) -> Path:
    """Make a workspace whose base model is a tiny Llama in ``base``."""
    init_workspace(root, "pocket", languages=["de", "en", "ja"])
    change(root, "adapterctl.yaml", "path: pocket", "path: base")
    save_tiny_llama(root / "base")
    return root


@dataclass(frozen=True)
class Published:
    """A release in the registry, and the folder that it was made from."""

    version: Version
    folder: Path


def publish(
    root: Path, folder: Path, *aliases: str, verdict: dict[str, Any] | None = None, **options: Any
) -> Published:
    """Publish a random adapter as the next release, and let aliases point at it.

    Args:
        root: The workspace.
        folder: Where the adapter is written first.
        aliases: Such as ``champion``.
        verdict: The gate's.
        options: Of ``make_adapter``.
    """
    made: Mapping[str, Any] = {"rank": 4, "alpha": 6.0, "shapes": SHAPES, "base_model": "base", **options}
    make_adapter(folder, **made)
    (folder / "README.md").write_text("# merged\n", encoding="utf-8")
    registry = registry_of(root)
    content_hash = Adapter.open(folder).content_hash
    number = len(registry.versions(NAME)) + 1
    with registry.run(f"release:{content_hash}", f"release {number}") as run:
        version = registry.publish(
            NAME,
            folder,
            content_hash=content_hash,
            run=run,
            model_type="merged-adapter",
            tags={RELEASE_RUN_TAG: run.run_id},
        )
        publish_release(run, _release(root, version, verdict), {})
    for alias in aliases:
        registry.set_alias(NAME, alias, version)
    return Published(version, folder)


def point(root: Path, alias: str, number: int) -> None:
    """Let an alias point at a version."""
    registry: Registry = registry_of(root)
    registry.set_alias(NAME, alias, number)


def _release(root: Path, version: Version, verdict: dict[str, Any] | None) -> Release:
    return Release(
        version=version.version,
        created="2026-11-27T00:00:00+00:00",
        reason="update ja",
        base="base",
        base_identity=tiny_base(root / "base").identity,
        recipe={"method": "linear"},
        scale=1.0,
        adapters={},
        content_hash=version.content_hash,
        merge_key="0" * 64,
        scores={"languages": {}},
        verdict=verdict,
    )
