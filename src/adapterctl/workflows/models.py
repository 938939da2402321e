"""Models by name: ``base``, ``ja@champion``, ``merged/7``, or a PEFT folder."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from adapterctl.errors import RegistryError, UsageError
from adapterctl.registry.names import ALIASES, CHAMPION, adapter_name, combined_name, merged_name
from adapterctl.workflows.folders import checked_folder
from adapterctl.workflows.scoring import BASE, Subject
from adapterctl.workflows.session import Session
from adapterctl.workflows.trained import COMBINED

if TYPE_CHECKING:
    from adapterctl.registry.versions import Version

MERGED = "merged"

FORMS = (
    "base, champion, candidate, previous, a language (ja), ja@champion, ja/3, merged@candidate, merged/7, combined, "
    "combined/1, or the folder of an adapter"
)
"""What a model may be called."""

REGISTERED_FORMS = "champion, candidate, previous, merged@champion, merged/7, ja@champion, ja/3, combined/1"
"""What a version in the registry may be called."""

_SEE = "see what there is: adapterctl status; the first champion is made by: adapterctl setup"
_NAME = re.compile(r"(?P<name>[^@/]+)(?:@(?P<alias>[^@/]+)|/(?P<version>[1-9][0-9]{0,8}))?")


def subject_named(session: Session, text: str) -> Subject:
    """Return the model that a person means, fetched from the registry where it is not here.

    Args:
        session: The command at work.
        text: ``base``; ``champion``, ``candidate`` or ``previous``; ``merged`` or ``combined`` or a language, each
            with ``@alias`` or ``/version``; or a folder, which ``./`` tells from a name. A bare language is the adapter
            that the champion pins, bare ``merged`` the champion, bare ``combined`` the newest.

    Raises:
        UsageError: There is no such model.
        AdapterError: The folder is no adapter that can be used.
        RegistryError: The registry does not hold what it should.
    """
    if text == "base":
        return BASE
    parts = _NAME.fullmatch(f"{MERGED}@{text}" if text in ALIASES else text)
    known = (MERGED, COMBINED, *session.workspace.languages)
    if parts is None or parts["name"] not in known or text.startswith((".", "~")):
        if text.startswith((".", "/", "~")) or Path(text).is_dir():
            return _in_folder(text)
        raise UsageError(f"there is no model '{text}'", hint=f"name one of: {FORMS}")
    version = _version(session, parts["name"], parts["alias"], parts["version"])
    return Subject(text, _require_hash(version), fetch=partial(_folder_of, session, version))


def version_named(session: Session, text: str) -> Version:
    """Return the registered version that a person means; see ``subject_named``.

    Raises:
        UsageError: There is none of that name, or the name means something that is not registered.
    """
    parts = _NAME.fullmatch(f"{MERGED}@{text}" if text in ALIASES else text)
    if parts is None or parts["name"] not in (MERGED, COMBINED, *session.workspace.languages):
        raise UsageError(f"there is no registered adapter '{text}'", hint=f"name one of: {REGISTERED_FORMS}")
    return _version(session, parts["name"], parts["alias"], parts["version"])


def _in_folder(text: str) -> Subject:
    from adapterctl.lora.adapter import Adapter

    try:
        folder = Path(text).expanduser()
        there = folder.is_dir()
    except (OSError, RuntimeError, ValueError):
        # A home folder that does not exist, a name too long.
        there = False
    if not there:
        raise UsageError(f"there is no folder '{text}'", hint=f"name one of: {FORMS}")
    adapter = Adapter.open(folder)
    return Subject(text, adapter.content_hash, adapter.folder)


def _version(session: Session, name: str, alias: str | None, number: str | None) -> Version:
    registry, project = session.registry, session.project
    special = {MERGED: merged_name, COMBINED: combined_name}
    model = special[name](project) if name in special else adapter_name(project, name)
    if number is not None:
        return registry.version(model, int(number))
    if name == COMBINED and alias is None:
        versions = registry.versions(model)
        if not versions:
            raise UsageError("there is no combined adapter yet", hint="train it with: adapterctl baseline")
        return versions[-1]
    wanted, aliases = alias or CHAMPION, registry.aliases(model)
    if wanted in aliases:
        return registry.version(model, aliases[wanted])
    there = ", ".join(aliases) or "none"
    if name == MERGED:
        raise UsageError(f"project '{project}' has no {wanted}", hint=_SEE)
    make = "adapterctl setup" if alias is None and not registry.aliases(merged_name(project)) else ""
    make = make or (f"adapterctl update --lang {name}" if alias is None else "")
    hint = f"run: {make}" if make else f"its aliases are: {there}; versions are named {name}/N"
    missing = f"no adapter of '{name}' is part of the champion" if alias is None else f"{name} has no alias '{wanted}'"
    raise UsageError(missing, hint=hint)


def _places(session: Session, version: Version) -> Iterator[Path]:
    """Give the folders in which a version may lie already."""
    paths, tags = session.workspace.paths, version.tags
    # Tags are what others may have written: only what looks like a key of ours becomes a part of a path.
    for tag, place in (("adapterctl.training_key", paths.adapter), ("adapterctl.merge_key", paths.merged)):
        if re.fullmatch(r"[0-9a-f]{64}", tags.get(tag, "")):
            yield place(tags[tag])


def _require_hash(version: Version) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", version.content_hash):
        raise RegistryError(
            f"{version} has no content hash: it was not registered by adapterctl",
            hint="download it with MLflow, and name its folder",
        )
    return version.content_hash


def _folder_of(session: Session, version: Version) -> Path:
    hint = "check the artifact store of the registry, or choose another version: adapterctl history"
    return checked_folder(session, version.content_hash, _places(session, version), lambda: version, hint)
