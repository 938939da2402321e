"""Every setting with the value that holds and the line it comes from; and the schema of the files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from adapterctl.evaluation.suite import SuiteSettings
from adapterctl.settings import Settings
from adapterctl.training.settings import TrainingSettings
from adapterctl.workspace.config import PROJECT_FILE, SUITE_FILE, AdapterSettings, ProjectSettings
from adapterctl.workspace.documents import Document, KeyPath, dotted
from adapterctl.workspace.workspace import Workspace

DEFAULT = "default"


@dataclass(frozen=True)
class ResolvedValue:
    """One setting: its dotted key, its value, and ``file:line`` or ``default``."""

    key: str
    value: Any
    origin: str


def _leaves(value: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, (*path, key))
    else:
        yield path, value


def _origin(document: Document, path: KeyPath) -> str:
    """Return where a leaf was written; a list or a union may have been written as a whole one level up."""
    place = document.written(path)
    return place.where if place is not None else DEFAULT


def _values(settings: Settings, document: Document, prefix: str) -> list[ResolvedValue]:
    return [
        ResolvedValue(f"{prefix}{dotted(path)}", value, _origin(document, path))
        for path, value in _leaves(settings.model_dump(mode="json", by_alias=True))
    ]


def resolved_values(workspace: Workspace) -> list[ResolvedValue]:
    """Return every setting of the workspace, file by file."""
    values = _values(workspace.config, workspace.project_document, "")
    for lang, adapter in workspace.adapters.items():
        settings = AdapterSettings(data=list(adapter.patterns), lora=adapter.lora, training=adapter.training)
        values += _values(settings, adapter.document, f"adapters.{lang}.")
    return values + _values(workspace.suite, workspace.suite_document, "suite.")


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of each file by its path, for editors that complete and check YAML."""
    project = ProjectSettings.model_json_schema(by_alias=True)
    training = {
        **TrainingSettings.model_json_schema(by_alias=True),
        "description": project["$defs"]["UpdateSettings"]["properties"]["training"]["description"],
    }
    # The block holds any of these keys; none of them has its default there.
    training["properties"] = {
        key: {name: value for name, value in spec.items() if name != "default"}
        for key, spec in training["properties"].items()
    }
    project["$defs"]["UpdateSettings"]["properties"]["training"] = training
    return {
        PROJECT_FILE: project,
        "adapters/<lang>.yaml": AdapterSettings.model_json_schema(by_alias=True),
        SUITE_FILE: SuiteSettings.model_json_schema(by_alias=True),
    }
