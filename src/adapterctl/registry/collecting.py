"""Which versions nobody needs any more, and how they go: first a plan, then exactly that plan.

A version goes in steps, each of which may be the last before a kill:

    note on its logged model that it goes ── delete the version ── mark the model FAILED ── delete files ── delete model

A logged model of ours with that note and without a version is therefore the rest of a removal, and the next plan has
it. FAILED comes before the files: publishing takes up a READY model without a version, and its files must be there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from adapterctl.errors import LockHeld, RegistryError
from adapterctl.registry import aliases, stored, versions
from adapterctl.registry.connection import Connection
from adapterctl.registry.faults import error_code
from adapterctl.registry.names import TAG_HASH, TAG_INPUTS, TAG_PROJECT
from adapterctl.registry.retention import Doomed, Kept, Plan, Ref, kept
from adapterctl.registry.sweeping import DAY, TAG_COLLECTED, living_runs, remove_model
from adapterctl.registry.verifying import GONE
from adapterctl.registry.versions import Version, pages

Progress = Callable[[float, float, str], None]
Wanted = Callable[[Version], str]

KEEP_TAGS = ("keep", "adapterctl.keep")
"""A version with one of these tags stays, unless it says ``false``."""
_ANEW = "make a new plan: adapterctl registry gc --keep N --plan"
_NO = ("", "false", "0", "no")


def parse_inputs(version: Version) -> list[Ref]:
    """Return what a version's tag says that it was made of.

    Raises:
        RegistryError: The tag holds something else: then nobody knows what has to stay.
    """
    found: list[Ref] = []
    for text in version.tags.get(TAG_INPUTS, "").split():
        name, _, number = text.rpartition(":")
        if not name or not number.isascii() or not number.isdigit():
            raise RegistryError(
                f"the tag {TAG_INPUTS} of {version} holds {text[:100]!r}: it is not known what it was made of",
                hint="mend the tag in MLflow (name:version, separated by spaces), or delete that version there",
            )
        found.append((name, int(number)))
    return found


def plan(
    connection: Connection,
    names: Sequence[str],
    keep: int,
    *,
    pins: Callable[[Version], Iterable[Ref]],
    wanted: Wanted,
    progress: Progress | None = None,
) -> Plan:
    """Return what would go; nothing is changed.

    Args:
        connection: The open registry.
        names: The registered models of the project.
        keep: How many of the newest versions of every model stay.
        pins: What a version needs besides what its tags say; may raise where that cannot be known.
        wanted: Tells why a version stays for a reason of the caller's; nothing where there is none.
        progress: Is told how far it is.

    Raises:
        RegistryError: The registry cannot be reached, or what a version is made of cannot be known.
    """
    every = {name: versions.every(connection, name) for name in names}
    by_ref = {(version.name, version.version): version for found in every.values() for version in found}
    living = living_runs(connection)
    roots: dict[Ref, str] = {}
    for name in names:
        roots |= _roots(name, every[name], aliases.every(connection, name), living, wanted)

    def links(ref: Ref) -> list[Ref]:
        version = by_ref[ref]
        return [*parse_inputs(version), *pins(version)] if TAG_HASH in version.tags else []

    numbers = {name: [version.version for version in found] for name, found in every.items()}
    staying = kept(numbers, links, roots, keep)
    going = [version for ref, version in sorted(by_ref.items()) if ref not in staying]
    # What is made of others goes before them: at any moment everything that is there has all of its parts.
    going.sort(key=lambda version: TAG_INPUTS not in version.tags)
    held = {by_ref[ref].model_id for ref in staying} - {""}
    doomed = [
        _doomed(connection, version, held, keep, done, len(going), progress) for done, version in enumerate(going)
    ]
    known = {version.model_id for version in by_ref.values()}
    doomed += _ownerless(connection, known, living)
    return Plan(keep, tuple(doomed), tuple(Kept(*ref, why) for ref, why in sorted(staying.items())))


def _roots(
    name: str, there: Iterable[Version], pointing: Mapping[str, int], living: Mapping[str, str], wanted: Wanted
) -> dict[Ref, str]:
    found: dict[Ref, str] = {}
    for version in there:
        reasons = [alias for alias, number in pointing.items() if number == version.version]
        if why := wanted(version):
            reasons.append(why)
        reasons += [f"tag {tag}" for tag in KEEP_TAGS if version.tags.get(tag, "").strip().lower() not in _NO]
        if version.run_id in living:
            reasons.append(f"used by {living[version.run_id]}")
        if TAG_HASH not in version.tags:
            reasons.append("not made by adapterctl")
        if reasons:
            found[name, version.version] = ", ".join(reasons)
    return found


def _doomed(
    connection: Connection,
    version: Version,
    held: Collection[str],
    keep: int,
    done: int,
    total: int,
    progress: Progress | None,
) -> Doomed:
    if progress is not None:
        progress(done, total, str(version))
    model_id, size = version.model_id, 0
    model = _model(connection, model_id) if model_id else None
    if model is None or model_id in held:
        model_id = ""
    else:
        size = sum(stored.files(connection.repository(model.artifact_location)).values())
    why = f"older than the newest {keep}, and nothing that stays needs it"
    return Doomed(version.name, version.version, model_id, version.created, size, why)


def _model(connection: Connection, model_id: str) -> Any:
    try:
        return connection.client.get_logged_model(model_id)
    except RegistryError as error:
        if error_code(error) in GONE:
            return None
        raise


def _ownerless(connection: Connection, known: Collection[str], living: Mapping[str, str]) -> list[Doomed]:
    """Return logged models of ours that no version holds: rests of a removal, or of a publication given up."""
    found = []
    for model in pages(connection.client.search_logged_models, [connection.experiment_id], max_results=1000):
        tags = dict(model.tags)
        if model.model_id in known or tags.get(TAG_PROJECT) != connection.project or TAG_HASH not in tags:
            continue
        age = time.time() - model.creation_timestamp / 1000
        if TAG_COLLECTED in tags:
            why = "the rest of an interrupted removal"
        elif str(model.status) != "PENDING" and age > DAY and model.source_run_id not in living:
            why = "never registered, and older than a day"
        else:
            continue
        size = sum(stored.files(connection.repository(model.artifact_location)).values())
        found.append(Doomed(model.name, None, model.model_id, versions.iso(model.creation_timestamp), size, why))
    return sorted(found, key=lambda item: (item.name, item.created, item.model_id))


def carry_out(connection: Connection, chosen: Plan, wanted: Wanted, progress: Progress | None = None) -> None:
    """Delete what the plan says, and free the room of its files.

    To be called by whoever holds the project's lock. Looks once more at every version right before it goes.

    Raises:
        LockHeld: Somebody gave a version an alias or approved it since the plan was made; what follows stays.
    """
    for done, item in enumerate(chosen.doomed):
        if progress is not None:
            progress(done, len(chosen.doomed), item.name if item.version is None else f"{item.name} v{item.version}")
        if item.version is not None:
            _require_unused(connection, item.name, item.version, wanted)
            if item.model_id:
                now = datetime.now().astimezone().isoformat(timespec="seconds")
                connection.client.set_logged_model_tags(item.model_id, {TAG_COLLECTED: now})
            connection.client.delete_model_version(item.name, str(item.version))
        if item.model_id:
            remove_model(connection, item.model_id)


def _require_unused(connection: Connection, name: str, number: int, wanted: Wanted) -> None:
    try:
        found = connection.client.get_model_version(name, str(number))
    except RegistryError as error:
        if error_code(error) in GONE:
            raise LockHeld(f"somebody else has deleted {name} v{number} meanwhile", hint=_ANEW) from error
        raise
    version = versions.from_mlflow(found)
    pointing = {alias: number for alias, at in aliases.every(connection, name).items() if at == number}
    if reasons := _roots(name, [version], pointing, {}, wanted):
        raise LockHeld(
            f"{name} v{number} is needed since the plan was made ({reasons[name, number]}); it was not deleted, and "
            "nothing after it",
            hint=_ANEW,
        )
