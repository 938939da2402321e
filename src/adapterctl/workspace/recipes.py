"""A merge recipe from a file of its own, or from the options of a command, with the place of every value."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from adapterctl.errors import Problem, UsageError
from adapterctl.merging import lint
from adapterctl.merging.recipe import MergeRecipe
from adapterctl.workspace import documents
from adapterctl.workspace.config import PROJECT_FILE, ProjectSettings
from adapterctl.workspace.documents import Document, KeyPath, Place
from adapterctl.workspace.layout import find_root
from adapterctl.workspace.validation import fields_of, nearest_key, problem_at, validate

BLOCK = "merge"
"""The block of a file that holds the recipe, where the keys do not stand on their own."""

_WHOLE = ("layers", "modules")
"""Keys whose value is written at once, so that one value replaces another instead of joining it."""


@dataclass(frozen=True)
class CheckedRecipe:
    """A recipe and what is to be said about it.

    Attributes:
        recipe: The recipe; None where it is not valid.
        errors: What keeps it from being carried out.
        warnings: What was set but changes nothing, or is probably not meant.
    """

    recipe: MergeRecipe | None
    errors: tuple[Problem, ...]
    warnings: tuple[Problem, ...]


def read_recipe(path: Path) -> tuple[Document, list[Problem]]:
    """Read a recipe's file: its keys alone, or in the block ``merge`` of a file such as ``adapterctl.yaml``.

    Files that it names are meant relative to its own folder.
    """
    name = str(path)
    document, problems = documents.read(path, name)
    if BLOCK in document.value:
        problems += _beside_the_block(document)
        block = document.value[BLOCK]
        if not isinstance(block, dict):
            problems.append(problem_at(document, (BLOCK,), "must be a block of keys", "indent the keys below it"))
        document = document.part(BLOCK)
    return relative_to(path.parent, document), problems


def _beside_the_block(document: Document) -> list[Problem]:
    """Return problems of keys beside ``merge`` that belong into no file of ours."""
    known = fields_of(ProjectSettings)
    return [
        problem_at(document, (key,), "unknown key", nearest_key(ProjectSettings, (), key))
        for key in document.value
        if key not in known
    ]


def relative_to(folder: Path, document: Document) -> Document:
    """Return a recipe whose files, named relative to ``folder``, can be opened."""
    grams = document.value.get("grams")
    if not isinstance(grams, dict):
        return document
    files = {lang: str(folder / file) if isinstance(file, str) else file for lang, file in grams.items()}
    return replace(document, value={**document.value, "grams": files})


def document_of(values: Mapping[str, Any]) -> Document:
    """Return plain values as a document; problems are told at their keys."""
    plain: dict[str, Any] = _plain(values)
    return Document(plain, {path: place for path, place in _places(plain).items() if path})


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value


def _places(value: Any, path: KeyPath = ()) -> dict[KeyPath, Place]:
    found = {path: Place("", documents.dotted(path))}
    if isinstance(value, dict):
        for key, inner in value.items():
            found |= _places(inner, (*path, key))
    return found


def over(under: Document, other: Document) -> Document:
    """Return a recipe with another's keys over it; weights and Gram files are replaced language by language."""
    dropped = {key for key in _WHOLE if key in other.value}
    value = {key: inner for key, inner in under.value.items() if key not in dropped}
    places = {path: place for path, place in under.places.items() if not path or path[0] not in dropped}
    return Document(value, places).overlaid(other)


def check_recipe(document: Document, languages: Collection[str] = ()) -> CheckedRecipe:
    """Validate a recipe and look for contradictions and idle settings.

    Args:
        document: What was written.
        languages: Those that are merged; empty where they are not known.
    """
    recipe, problems = validate(MergeRecipe, document)
    if recipe is None:
        return CheckedRecipe(None, (*problems, *_unknown_languages(document, languages)), ())
    errors = placed(lint.contradictions(recipe, languages), document) + _missing_files(recipe, document)
    return CheckedRecipe(recipe, tuple(errors), tuple(placed(lint.only_warnings(recipe, languages), document)))


def _missing_files(recipe: MergeRecipe, document: Document) -> list[Problem]:
    """Return the files that the recipe's method would read and that are not there."""
    return [
        problem_at(document, ("grams", lang), f"there is no file {file}", "name a safetensors file")
        for lang, file in sorted(recipe.grams.items())
        if "grams" in recipe.row.options and not Path(file).is_file()
    ]


def _unknown_languages(document: Document, languages: Collection[str]) -> list[Problem]:
    """Return the weights of no language in a recipe that cannot be asked itself."""
    weights = document.value.get("weights")
    return [
        problem_at(document, ("weights", lang), f"{lang!r} is none of the languages {', '.join(sorted(languages))}")
        for lang in (weights if isinstance(weights, dict) and languages else ())
        if lang not in languages
    ]


def placed(problems: Collection[Problem], document: Document) -> list[Problem]:
    """Return what was found in a recipe at the lines where its keys stand."""
    located = []
    for problem in problems:
        _, _, key = problem.where.partition(".")
        path: KeyPath = (key,) if key else ()
        located.append(problem_at(document, path, problem.message, problem.hint))
    return located


def languages_named(document: Document) -> list[str]:
    """Return the languages that a recipe names anywhere, sorted."""
    named: set[str] = set()
    for key in ("weights", "grams", "protect"):
        value = document.value.get(key)
        named |= {lang for lang in value if isinstance(lang, str)} if isinstance(value, (dict, list)) else set()
    for key in _WHOLE:
        entries = document.value.get(key)
        for entry in entries.values() if isinstance(entries, dict) else ():
            named |= set(entry) if isinstance(entry, dict) else set()
    return sorted(named)


def languages_around(path: Path) -> list[str]:
    """Return the languages of the workspace a file lies in; none where there is no workspace."""
    try:
        root = find_root(path.absolute().parent)
    except UsageError:
        return []
    project, _ = documents.read(root / PROJECT_FILE, PROJECT_FILE)
    listed = project.value.get("languages")
    return [lang for lang in listed if isinstance(lang, str)] if isinstance(listed, list) else []
