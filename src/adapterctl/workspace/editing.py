"""Changes to the files of a workspace that leave comments and everything else as their owner wrote them."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.util import load_yaml_guess_indent

from adapterctl.errors import ConfigError, Problem, UsageError
from adapterctl.files import disk_errors, write_text
from adapterctl.languages import display_name, require_tag
from adapterctl.workspace import documents
from adapterctl.workspace.config import ADAPTERS_FOLDER, PROJECT_FILE, ProjectSettings
from adapterctl.workspace.presets import template
from adapterctl.workspace.validation import validate


def _edited(text: str, change: Callable[[Any], None]) -> str:
    """Return a YAML text after a change to its content, with its comments, quotes and indentation."""
    _, indent, offset = load_yaml_guess_indent(text)
    yaml = YAML(typ="rt", pure=True)
    yaml.preserve_quotes = True
    yaml.width = 2**16
    if indent is not None:
        yaml.indent(mapping=2, sequence=indent, offset=offset or 0)
    content = yaml.load(text)
    change(content)
    out = StringIO()
    yaml.dump(content, out)
    return out.getvalue()


def _read_project(root: Path) -> tuple[str, ProjectSettings]:
    path = root / PROJECT_FILE
    document, problems = documents.read(path, PROJECT_FILE)
    settings, found = validate(ProjectSettings, document)
    if settings is None or problems:
        raise ConfigError(f"{path} cannot be edited as long as it has faults", problems=[*problems, *found])
    return path.read_text(encoding="utf-8-sig"), settings


def _checked(text: str, languages: list[str]) -> str:
    """Return the new project file, after making sure that it says what it should."""
    document, problems = documents.parse(text, PROJECT_FILE)
    settings, found = validate(ProjectSettings, document)
    problems += found
    if settings is None or problems or settings.languages != languages:
        raise ConfigError(
            f"{PROJECT_FILE} is written in a way that cannot be edited automatically; nothing was changed",
            problems=problems or [Problem(document.place(("languages",)).where, "languages: cannot be changed here")],
            hint=f"write by hand: languages: [{', '.join(languages)}]",
        )
    return text


def add_language(root: Path, lang: str) -> Path:
    """Add a language: its tag in ``adapterctl.yaml`` and a new ``adapters/<lang>.yaml``; both or neither.

    Args:
        root: The workspace's folder.
        lang: The tag; other spellings of it are taken too.

    Returns:
        The adapter's file; one that was there already is kept as it is.

    Raises:
        UsageError: It is no language tag, or in the workspace already.
        ConfigError: ``adapterctl.yaml`` has faults, or cannot be edited automatically.
        StorageError: The disk is full, read-only or not permitted.
    """
    tag = require_tag(lang)
    text, settings = _read_project(root)
    file = root / ADAPTERS_FOLDER / f"{tag}.yaml"
    if tag in settings.languages:
        if file.is_file():
            raise UsageError(f"language '{tag}' is in this workspace already", hint=f"see {ADAPTERS_FOLDER}/{tag}.yaml")
        edited = text
    else:
        edited = _checked(_edited(text, lambda c: c["languages"].append(tag)), [*settings.languages, tag])
    made = not file.exists()
    if made:
        write_text(file, template("blank/adapter.yaml").replace("@lang@", tag).replace("@name@", display_name(tag)))
    try:
        # The project file comes last: a language it names has its file, whenever this is interrupted.
        write_text(root / PROJECT_FILE, edited)
    except BaseException:
        if made:
            file.unlink(missing_ok=True)
        raise
    return file


def _drop(content: Any, tag: str) -> None:
    content["languages"].remove(tag)
    weights = (content.get("merge") or {}).get("weights") or {}
    weights.pop(tag, None)


def remove_language(root: Path, lang: str) -> None:
    """Remove a language: its tag and its merge weight in ``adapterctl.yaml``, and ``adapters/<lang>.yaml``.

    Its rows stay where they are.

    Raises:
        UsageError: It is not in the workspace.
        ConfigError: ``adapterctl.yaml`` has faults, or cannot be edited automatically.
        StorageError: The disk is full, read-only or not permitted.
    """
    text, settings = _read_project(root)
    tag = lang if lang in settings.languages else require_tag(lang)
    if tag not in settings.languages:
        known = ", ".join(settings.languages) or "none"
        raise UsageError(f"language '{tag}' is not in this workspace", hint=f"its languages are {known}")
    left = [other for other in settings.languages if other != tag]
    write_text(root / PROJECT_FILE, _checked(_edited(text, lambda content: _drop(content, tag)), left))
    file = root / ADAPTERS_FOLDER / f"{tag}.yaml"
    with disk_errors(file):
        file.unlink(missing_ok=True)
