"""``serving.json``: what an exported folder holds, and how each server is told to serve it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adapterctl.serving.checks import kinds_of, rank_of, rank_problems, refusals
from adapterctl.serving.targets import SERVERS

if TYPE_CHECKING:
    from adapterctl.lora.adapter import Adapter

FORMAT = 1


def head_of(
    kind: str,
    *,
    model: str,
    project: str,
    version: int,
    content_hash: str,
    base: str,
    base_identity: str,
    fitted_rank: int | None,
) -> dict[str, Any]:
    """Return what tells one export from every other.

    Args:
        kind: The form of the files.
        model: What a server is to call it.
        project: The project's name.
        version: Number of the merged adapter in the registry.
        content_hash: Of the release.
        base: Name of the base model that it was made on.
        base_identity: Hash of that model's files.
        fitted_rank: The rank that it was truncated to; None where it is the release itself.
    """
    return {
        "format": FORMAT,
        "kind": kind,
        "model": model,
        "project": project,
        "version": version,
        "content_hash": content_hash,
        "base": {"name": base, "identity": base_identity},
        "fitted_rank": fitted_rank,
    }


def servers_of(adapter: Adapter, name: str) -> dict[str, Any]:
    """Return for every server whether it accepts an adapter, with the command line or the reasons.

    Args:
        adapter: The adapter.
        name: What messages call it.
    """
    rank, kinds = rank_of(adapter), kinds_of(adapter)
    told = {}
    for target in SERVERS:
        problems = [*refusals(target, adapter, name), *rank_problems(target, rank, None, name)]
        told[target.name] = {
            "accepts": not problems,
            "max_lora_rank": None if problems else target.least_rank(rank),
            "arguments": [] if problems else target.arguments(rank, kinds),
            "problems": [problem.message for problem in problems],
        }
    return told
