"""Looking after the registry: whether everything in it is whole, and what nobody needs any more."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from adapterctl.errors import AdapterctlError, RegistryError, UsageError
from adapterctl.registry.names import TAG_INPUTS, adapter_name, merged_name
from adapterctl.workflows import review_tags
from adapterctl.workflows.journal import read_pending
from adapterctl.workflows.releases import RELEASE_RUN_TAG, read_release
from adapterctl.workflows.session import Session

if TYPE_CHECKING:
    from adapterctl.registry.client import Registry
    from adapterctl.registry.retention import Plan, Ref
    from adapterctl.registry.verifying import Fault, Verification
    from adapterctl.registry.versions import Version

_NAMED = re.compile(r"(?P<name>[^@/]+)(?:@(?P<alias>[^@/]+)|/(?P<version>[1-9][0-9]{0,8}))?")


def connected(session: Session) -> Registry:
    """Return the registry with all that MLflow can do: a command that only reads has less of it."""
    from adapterctl.registry.client import Registry

    workspace = session.workspace
    return Registry.connect(workspace.config.registry.resolve(workspace.root), session.project)


@contextmanager
def alone(session: Session, command: str) -> Iterator[Registry]:
    """Give the registry while nobody else changes the workspace or moves the project's aliases, on any machine.

    Nothing is booked: what is looked at or moved must not change while that is done.

    Raises:
        LockHeld: Somebody else does.
    """
    with session.workspace.lock(command):
        registry = connected(session)
        with registry.exclusive(command):
            yield registry


@dataclass(frozen=True)
class Verified:
    """What came of reading everything again.

    Attributes:
        found: The versions and files that were read, and what is wrong with them.
    """

    found: Verification

    def as_dict(self) -> dict[str, Any]:
        """Return the result as plain values."""
        return {
            "whole": not self.found.faults,
            "versions": self.found.versions,
            "files": self.found.files,
            "bytes": self.found.bytes,
            "faults": [asdict(fault) for fault in self.found.faults],
            "foreign": self.found.foreign,
        }


def verify(session: Session, models: Iterable[str] = ()) -> Verified:
    """Read and hash every file of every version again, and see whether every release is explained.

    Args:
        session: The command at work.
        models: ``merged``, ``combined``, a language or the name of a registered model, each with ``/version`` or
            ``@alias`` where only that version is meant; all versions of all models when there are none.

    Raises:
        UsageError: There is no such model.
        RegistryError: The registry or its store cannot be reached.
    """
    from adapterctl.registry import verifying

    registry = connected(session)
    only = _chosen(registry, session.project, models)
    names = registry.names() if only is None else sorted(only)
    versions = None if only is None else {name: numbers for name, numbers in only.items() if numbers is not None}
    with session.reporter.stage("verify the registry") as stage:
        if versions is not None:
            everything = {name: [v.version for v in registry.versions(name)] for name in names if name not in versions}
            versions = versions | everything
        found = verifying.verify(registry.connection, names, only=versions, progress=stage.advance)
        found.faults += unexplained(registry, session.project, versions)
        stage.advance(1, 1, f"{found.versions} versions, {len(found.faults)} faults")
    return Verified(found)


def _chosen(registry: Registry, project: str, models: Iterable[str]) -> dict[str, list[int] | None] | None:
    """Return the versions that a person names, by registered model; None for all of one, or of all."""
    chosen: dict[str, list[int] | None] = {}
    known = registry.names()
    for text in models:
        parts = _NAMED.fullmatch(text)
        name = parts["name"] if parts else text
        full = name if name in known else f"{project}-{name}"
        if parts is None or full not in known:
            there = ", ".join(known) or "none"
            raise UsageError(f"the registry has no model '{text}'", hint=f"its models are: {there}")
        if parts["version"]:
            number = registry.version(full, int(parts["version"])).version
        elif parts["alias"]:
            pointing = registry.aliases(full)
            if parts["alias"] not in pointing:
                there = ", ".join(pointing) or "none"
                raise UsageError(f"{full} has no alias '{parts['alias']}'", hint=f"its aliases are: {there}")
            number = pointing[parts["alias"]]
        else:
            chosen[full] = None
            continue
        before = chosen.get(full, [])
        chosen[full] = None if before is None else [*before, number]
    return chosen or None


def unexplained(registry: Registry, project: str, only: Mapping[str, Iterable[int]] | None = None) -> list[Fault]:
    """Return the releases whose ``release.json`` cannot be read, or whose adapters are not there any more.

    A merged version that no alias points to and that has no release yet was left by a command that was interrupted:
    the same command finishes it.
    """
    from adapterctl.registry.verifying import Fault

    name = merged_name(project)
    wanted = None if only is None else set(only.get(name, ()))
    pointing = registry.aliases(name)
    faults = []
    for version in registry.versions(name):
        aliases = [alias for alias, number in pointing.items() if number == version.version]
        if (wanted is not None and version.version not in wanted) or not (aliases or RELEASE_RUN_TAG in version.tags):
            continue
        told = f"; {', '.join(aliases)} points to it" if aliases else ""
        try:
            release = read_release(registry, version)
        except RegistryError as error:
            raise_if_away(error)
            hint = "promote another version: adapterctl promote --version N"
            faults.append(Fault(name, version.version, "release", f"it has no readable release.json{told}", hint))
            continue
        if release.content_hash != version.content_hash:
            faults.append(Fault(name, version.version, "release", f"its release.json is about another adapter{told}"))
        for lang, pinned in sorted(release.adapters.items()):
            found = registry.version_by_hash(adapter_name(project, lang), pinned.content_hash)
            if found is None:
                message = f"its adapter {lang} v{pinned.version} is not there any more{told}"
                faults.append(Fault(name, version.version, "pin", message))
    return faults


def raise_if_away(error: AdapterctlError) -> None:
    """Raise an error again that means that nobody answered: then nothing is known about what was asked."""
    from adapterctl.registry.faults import is_away

    inner = error.__cause__
    if is_away(error) or (isinstance(inner, AdapterctlError) and is_away(inner)):
        raise error


def plan_removal(session: Session, keep: int) -> Plan:
    """Return which versions would go; nothing is changed.

    Raises:
        RegistryError: The registry cannot be reached, or what a release is made of cannot be known.
    """
    return _plan(session, connected(session), keep)


def _plan(session: Session, registry: Registry, keep: int) -> Plan:
    from adapterctl.registry import collecting

    with session.reporter.stage("see what is needed") as stage:
        return collecting.plan(
            registry.connection,
            registry.names(),
            keep,
            pins=lambda version: _pins(session, registry, version),
            wanted=_wanted(session),
            progress=stage.advance,
        )


def remove(session: Session, keep: int, plan: str) -> Plan:
    """Delete exactly what a plan says that was shown before.

    Args:
        session: The command at work.
        keep: As in the plan.
        plan: The plan's id.

    Raises:
        UsageError: What would go now is something else.
        LockHeld: Somebody else works on the project, or has just given a version an alias.
    """
    from adapterctl.registry import collecting

    with alone(session, "registry gc") as registry:
        made = _plan(session, registry, keep)
        if made.id != plan:
            raise UsageError(
                f"the plan {plan} is not what would be deleted now: that is {made.id}; nothing was deleted",
                hint=f"see it: adapterctl registry gc --keep {keep} --plan",
            )
        with session.reporter.stage(f"remove {len(made.doomed)} versions and models") as stage:
            collecting.carry_out(registry.connection, made, _wanted(session), stage.advance)
            stage.advance(1, 1, f"{made.bytes / 1e6:.1f} MB freed")
    return made


def _wanted(session: Session) -> Any:
    pending, name = read_pending(session.workspace), merged_name(session.project)

    def wanted(version: Version) -> str:
        if pending is not None and (version.name, version.version) == (name, pending.champion):
            return f"the interrupted {pending.command} compares with it"
        approved = review_tags.decision(version.tags) == review_tags.APPROVED
        # Who was promoted keeps the tag for good; what counts then is whether an alias points to it.
        return "approved, and not promoted yet" if approved and not review_tags.was_promoted(version.tags) else ""

    return wanted


def _pins(session: Session, registry: Registry, version: Version) -> list[Ref]:
    """Return the adapters that a release pins, besides what the version's own tag says.

    Raises:
        RegistryError: Neither says anything: then nobody knows which adapters have to stay.
    """
    if version.name != merged_name(session.project) or RELEASE_RUN_TAG not in version.tags:
        return []
    try:
        release = read_release(registry, version)
    except RegistryError as error:
        raise_if_away(error)
        if TAG_INPUTS in version.tags:
            return []
        raise
    return [(adapter_name(session.project, lang), pinned.version) for lang, pinned in release.adapters.items()]
