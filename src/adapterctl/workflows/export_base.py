"""The base model that a release is served on: found, and compared with the one it was made on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from adapterctl import base_model
from adapterctl.base_layout import Layout, layout_of
from adapterctl.base_model import BaseModel, BaseModelSettings
from adapterctl.errors import BaseModelError, UsageError
from adapterctl.workflows.releases import Release
from adapterctl.workflows.session import Session


@dataclass(frozen=True)
class ServingBase:
    """The base model of a release.

    Attributes:
        name: Its name.
        location: Its folder, or its name on the hub.
        layout: Its modules; None where it cannot be looked at.
        missing: Why it cannot be looked at; empty where it can.
    """

    name: str
    location: str
    layout: Layout | None
    missing: str = ""

    @property
    def folder(self) -> Path:
        """The folder with its weights.

        Raises:
            UsageError: It is not in a folder.
        """
        if not Path(self.location).is_dir():
            raise UsageError(
                f"the weights of the base model '{self.name}' are needed, and it is no folder here",
                hint="download it (hf download) and name its folder: --base DIR",
            )
        return Path(self.location)


def find_base(session: Session, release: Release, given: Path | None, *, required: bool) -> ServingBase:
    """Return the base model that a release was made on.

    Args:
        session: The command at work.
        release: The release.
        given: Its folder; None takes the workspace's base model.
        required: Whether it has to be looked at; else a base model out of reach is told and passed over.

    Raises:
        UsageError: The folder, or what the workspace names now, is another base model.
        BaseModelError: It is required and cannot be found or read.
    """
    try:
        base = session.base if given is None else base_model.find(_settings(session, given), session.workspace.root)
        if base.identity != release.base_identity and not (
            given is not None and _same_documents(session, release, base)
        ):
            raise UsageError(
                f"the release was made on another base model ({release.base}) than "
                + (f"the one in {given}" if given is not None else f"adapterctl.yaml names now ({base.name})"),
                hint="name the folder of the base model that it was made on: --base DIR",
            )
        return ServingBase(release.base, base.location, layout_of(base))
    except BaseModelError as error:
        if required or given is not None:
            raise
        return ServingBase(release.base, release.base, None, error.message)


def _settings(session: Session, given: Path) -> BaseModelSettings:
    folder = str(given.expanduser().resolve())
    return session.workspace.config.base_model.model_copy(update={"path": folder, "revision": None})


def _same_documents(session: Session, release: Release, base: BaseModel) -> bool:
    """Tell whether a folder is a copy of what the workspace names on the hub.

    A name on the hub is known by name, revision and documents, a folder by its files: the two are never one number.
    """
    named = session.base
    if named.identity != release.base_identity or Path(named.location).is_dir():
        return False
    documents = base_model.document_hashes(named)
    return bool(documents) and documents == base_model.document_hashes(base)
