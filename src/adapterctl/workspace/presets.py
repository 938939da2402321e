"""New workspaces, made from the templates in this package; no network is needed."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from adapterctl.errors import UsageError
from adapterctl.files import TEMPORARY_PREFIX, disk_errors
from adapterctl.languages import display_name
from adapterctl.workspace.config import ADAPTERS_FOLDER, PROJECT_FILE, SUITE_FILE

PRESETS = ("pocket", "blank")

Row = Mapping[str, Any]


def template(name: str) -> str:
    """Return the text of a template, such as ``pocket/adapterctl.yaml``."""
    return files("adapterctl.workspace").joinpath("templates", *name.split("/")).read_text(encoding="utf-8")


def rows_text(rows: Sequence[Row]) -> str:
    """Return rows as JSONL, readable in every language."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def block(values: Mapping[str, Any], indent: int) -> str:
    """Return a mapping as indented YAML lines, one a key, its values in JSON (which YAML reads)."""
    return "\n".join(f"{' ' * indent}{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in values.items())


def filled(text: str, marks: Mapping[str, str]) -> str:
    """Return a template with every ``@mark@`` replaced."""
    for mark, value in marks.items():
        text = text.replace(f"@{mark}@", value)
    return text


def preset_texts(
    preset: str, *, project: str, languages: Sequence[str], marks: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the configuration files of a preset by their path in the workspace.

    Args:
        preset: One of ``PRESETS``.
        project: Name of the project.
        languages: Tags of the languages.
        marks: What replaces the marks of this preset's own templates.

    Raises:
        UsageError: There is no such preset.
    """
    if preset not in PRESETS:
        raise UsageError(f"there is no preset '{preset}'", hint=f"choose one of: {', '.join(PRESETS)}")
    common = {"project": project, "languages": ", ".join(languages), **(marks or {})}
    texts = {
        PROJECT_FILE: filled(template(f"{preset}/adapterctl.yaml"), common),
        SUITE_FILE: filled(template(f"{preset}/suite.yaml"), common),
        ".gitignore": template("gitignore"),
        "registry/.gitignore": template("registry.gitignore"),
    }
    for lang in languages:
        adapter = filled(template(f"{preset}/adapter.yaml"), {"lang": lang, "name": display_name(lang)})
        texts[f"{ADAPTERS_FOLDER}/{lang}.yaml"] = adapter
    return texts


def _is_no_folder(path: Path) -> bool:
    return os.path.lexists(path) and not path.is_dir()


def _in_the_way(directory: Path, texts: Mapping[str, str]) -> list[str]:
    """Return the files that exist already with another content; equal ones are left by an init that was killed."""
    folders = {folder for name in texts for folder in Path(name).parents}
    found = [str(folder) for folder in sorted(folders) if _is_no_folder(directory / folder)]
    if found:
        return found
    for name, text in texts.items():
        path = directory / name
        if os.path.lexists(path) and not (path.is_file() and path.read_bytes() == text.encode("utf-8")):
            found.append(name)
    return found


def write_preset(directory: Path, texts: Mapping[str, str]) -> None:
    """Write the files of a new workspace; ``adapterctl.yaml``, which makes it one, comes last.

    All files are written to a temporary folder first, so that a full disk leaves nothing behind. Other files in the
    directory stay untouched. Killed in between, it leaves no ``adapterctl.yaml``, and the next call finishes it.

    Args:
        directory: Where to; made if it is not there.
        texts: Contents by path in the workspace.

    Raises:
        UsageError: It is a workspace already, or a file would be overwritten.
        StorageError: The disk is full, read-only or not permitted.
    """
    if (directory / PROJECT_FILE).exists():
        raise UsageError(f"{directory} is a workspace already", hint="look at it with: adapterctl status")
    if _is_no_folder(directory):
        raise UsageError(f"{directory} is a file, not a folder", hint="choose another folder")
    with disk_errors(directory):
        blocked = _in_the_way(directory, texts)
    if blocked:
        names = ", ".join(blocked[:5]) + (f" and {len(blocked) - 5} more" if len(blocked) > 5 else "")
        raise UsageError(
            f"{directory} has files that would be overwritten: {names}",
            hint="choose an empty folder, or move them away",
        )
    with disk_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX, dir=directory))
        try:
            for name, text in texts.items():
                path = staging / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8", newline="")
            for name in sorted(texts, key=lambda name: name == PROJECT_FILE):
                target = directory / name
                target.parent.mkdir(parents=True, exist_ok=True)
                (staging / name).replace(target)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
