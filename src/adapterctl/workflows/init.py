"""``adapterctl init``: a new workspace, with the pocket model's rows or without any."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from adapterctl.errors import UsageError
from adapterctl.languages import require_tag
from adapterctl.pocket import rows, world
from adapterctl.workspace.config import PROJECT_PATTERN
from adapterctl.workspace.presets import block, preset_texts, rows_text, template, write_preset

SPLIT_FOLDERS = {"train": "adapters/data", "dev": "evaluation/data", "test": "evaluation/data"}
ARRIVING = {"arrived": "train", "arrived-dev": "dev", "arrived-test": "test"}
"""Rows that lie in ``incoming/`` until somebody copies them beside the others, by the split they then belong to."""


def _pocket_marks(languages: Sequence[str]) -> dict[str, str]:
    """Return what the suite's template leaves open: prompts and labels as the base model was pre-trained on them."""
    tables = world.tables()
    marks = {
        f"{task}_prompts": block({lang: tables["prompts"][task][lang] for lang in languages}, 6) for task in rows.TASKS
    }
    words = {lang: [tables["labels"][lang][label] for label in world.LABELS] for lang in languages}
    return {**marks, "labels": block(words, 6)}


def _pocket_rows(languages: Sequence[str]) -> dict[str, str]:
    """Return the row files of a pocket workspace by their path, and the suite of its general text."""
    texts = {"evaluation/general.yaml": template("pocket/general.yaml")}
    for lang in languages:
        texts[f"evaluation/general/{lang}.jsonl"] = rows_text(rows.general_rows(lang))
        for task in rows.TASKS:
            for split, folder in SPLIT_FOLDERS.items():
                texts[f"{folder}/{lang}/{task}.{split}.jsonl"] = rows_text(rows.task_rows(lang, task, split))
            for split, later in ARRIVING.items():
                text = rows_text(rows.task_rows(lang, task, split))
                texts[f"incoming/{lang}/{SPLIT_FOLDERS[later]}/{lang}/{task}.arrived.{later}.jsonl"] = text
    return texts


def _known_to_pocket(languages: Sequence[str]) -> None:
    unknown = [lang for lang in languages if lang not in world.LANGUAGES]
    if unknown:
        raise UsageError(
            f"the pocket model does not speak '{unknown[0]}'; it knows {', '.join(world.LANGUAGES)}",
            hint="leave the language out, or use --preset blank with a base model that speaks it",
        )


def workspace_texts(preset: str, project: str, languages: Sequence[str]) -> dict[str, str]:
    """Return all files of a new workspace by their path in it.

    Raises:
        UsageError: There is no such preset, or the pocket model does not speak a language.
    """
    if preset != "pocket":
        return preset_texts(preset, project=project, languages=languages, marks={})
    _known_to_pocket(languages)
    texts = preset_texts(preset, project=project, languages=languages, marks=_pocket_marks(languages))
    return {**texts, **_pocket_rows(languages)}


def init_workspace(
    directory: str | Path,
    preset: str = "pocket",
    *,
    languages: Sequence[str] | None = None,
    project: str | None = None,
) -> Path:
    """Make a new workspace; needs no network.

    Args:
        directory: Where to; made if it is not there.
        preset: ``pocket``: the shipped model with its generated rows; ``blank``: configuration only.
        languages: Tags; the pocket model's five, or none, when not given.
        project: Name of the project; the preset's, when not given.

    Returns:
        The workspace's folder.

    Raises:
        UsageError: There is no such preset or language, it is a workspace already, or a file would be overwritten.
        StorageError: The disk is full, read-only or not permitted.
    """
    target = Path(directory).expanduser().absolute()
    pocket = preset == "pocket"
    name = project or ("pocket" if pocket else "adapters")
    if not re.fullmatch(PROJECT_PATTERN, name):
        raise UsageError(
            f"'{name}' cannot name a project", hint="use lower-case letters, digits and dashes, no dash at either end"
        )
    if languages is None:
        languages = world.LANGUAGES if pocket else ()
    tags = list(dict.fromkeys(require_tag(lang) for lang in languages))
    write_preset(target, workspace_texts(preset, name, tags))
    return target
