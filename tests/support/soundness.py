"""What must hold in a registry at every moment, whatever was killed, stopped or done at once."""

from __future__ import annotations

from itertools import pairwise

from adapterctl.registry.client import Registry
from adapterctl.registry.names import CHAMPION, adapter_name, merged_name
from adapterctl.registry.verifying import verify
from adapterctl.workflows import releases
from adapterctl.workflows.releases import Release


def check_whole(registry: Registry, name: str, number: int) -> None:
    assert verify(registry.connection, [name], only={name: [number]}).faults == []


def check_sound(registry: Registry) -> Release:
    """Make sure that no alias points at anything that is not whole and verified, and return the champion."""
    project = registry.project
    for name in registry.names():
        versions = {version.version: version for version in registry.versions(name)}
        assert list(versions) == list(range(1, len(versions) + 1)), f"{name} lost a version"
        hashes = [version.content_hash for version in versions.values()]
        assert len(set(hashes)) == len(hashes), f"{name} holds the same adapter twice"
        for alias, number in registry.aliases(name).items():
            assert number in versions, f"{alias} of {name} points at version {number}"
            check_whole(registry, name, number)
            if name == merged_name(project):
                assert releases.read_release(registry, versions[number]).version == number
    champion = releases.current(registry, project, CHAMPION)
    assert champion is not None
    for lang, pinned in champion.adapters.items():
        version = registry.version(adapter_name(project, lang), pinned.version)
        assert version.content_hash == pinned.content_hash
        check_whole(registry, version.name, version.version)
    return champion


def lineage_of_releases(registry: Registry) -> list[Release]:
    """Return the releases in their order, after making sure that each took the place of the one it was compared with.

    That is what it means that updates at once end as if they had come one after the other: every release differs from
    the one before by its own languages alone, and nobody's work was lost.
    """
    name = merged_name(registry.project)
    chain = [releases.read_release(registry, version) for version in registry.versions(name)]
    for before, after in pairwise(chain):
        assert after.compared_with == before.version, f"version {after.version} was compared with {after.compared_with}"
        changed = {lang for lang in after.adapters if after.adapters[lang] != before.adapters.get(lang)}
        assert f"update {', '.join(sorted(changed))}" == after.reason
    return chain
