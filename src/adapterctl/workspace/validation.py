"""A document against its model: every fault with its line, in words that need no knowledge of pydantic."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from adapterctl.errors import Problem
from adapterctl.settings import Settings
from adapterctl.workspace.documents import Document, KeyPath

S = TypeVar("S", bound=Settings)

_FILL_OR_REMOVE = "give it a value, or remove the key; what belongs to a block is indented below it"

_MOST_KEYS_LISTED = 20


def _variants(annotation: Any) -> Iterator[Any]:
    """Yield what a value may be: the members of a union, without their annotations."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _variants(get_args(annotation)[0])
    elif origin in (Union, types.UnionType):
        for member in get_args(annotation):
            yield from _variants(member)
    else:
        yield annotation


def fields_of(model: type[BaseModel]) -> dict[str, Any]:
    """Return annotations by the key that people write."""
    return {info.alias or name: info.annotation for name, info in model.model_fields.items()}


def model_at(annotation: Any, path: KeyPath) -> type[BaseModel] | None:
    """Return the model of the block at ``path`` below a value of type ``annotation``, None where there is none."""
    for variant in _variants(annotation):
        origin = get_origin(variant)
        if isinstance(variant, type) and issubclass(variant, BaseModel):
            if not path:
                return variant
            inner = fields_of(variant).get(str(path[0]))
        elif origin in (dict, list) and path:
            inner = get_args(variant)[-1]
        else:
            continue
        found = model_at(inner, path[1:]) if inner is not None else None
        if found is not None:
            return found
    return None


def _elsewhere(model: type[BaseModel], key: str, above: str = "") -> str | None:
    """Return the dotted block in which ``key`` would be valid."""
    for name, annotation in fields_of(model).items():
        if above and name == key:
            return above
        for variant in _variants(annotation):
            if isinstance(variant, type) and issubclass(variant, BaseModel):
                found = _elsewhere(variant, key, f"{above}.{name}" if above else name)
                if found is not None:
                    return found
    return None


def nearest_key(model: type[BaseModel], path: KeyPath, key: str) -> str:
    """Return a hint for an unknown key: the nearest valid one, the block it belongs to, or all there are."""
    block = model_at(model, path)
    keys = list(fields_of(block)) if block is not None else []
    written = key.lower().replace("-", "_")
    initials = [name for name in keys if "".join(word[0] for word in name.split("_")) == written]
    near = get_close_matches(written, keys, n=1) or initials
    if near:
        return f"did you mean '{near[0]}'?"
    other = _elsewhere(model, key)
    if other is not None:
        return f"it belongs under '{other}'"
    return f"the keys are {', '.join(keys)}" if 0 < len(keys) <= _MOST_KEYS_LISTED else ""


def _resolve(loc: tuple[Any, ...], value: Any) -> KeyPath:
    """Return the part of an error's location that exists in the data.

    Between the keys pydantic names the branch of a union it tried; such a name is no key of the data.
    """
    path: list[str | int] = []
    for key in loc:
        if (isinstance(value, dict) and key in value) or (
            isinstance(value, list) and isinstance(key, int) and key < len(value)
        ):
            value = value[key]
            path.append(key)
    return tuple(path)


def _shown(value: Any) -> str:
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a block of keys"
    if isinstance(value, list):
        return "a list"
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _choices(error: Mapping[str, Any]) -> list[str]:
    expected = error["ctx"]["expected"]
    return [part.strip().strip("'") for part in expected.replace(" or ", ", ").split(",")]


_BOUNDS = {
    "greater_than": ("gt", "above"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "below"),
    "less_than_equal": ("le", "at most"),
}
_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "finite": "a finite number",
    "string": "text",
    "bool": "true or false",
    "list": "a list",
    "tuple": "a list",
    "set": "a list",
    "dict": "a block of keys",
    "mapping": "a block of keys",
    "model": "a block of keys",
    "none": "empty",
    "path": "a path",
}


def _wanted(error: Mapping[str, Any]) -> str:
    """Return what an error says should stand there, to follow ``must be``; empty where it says something else."""
    kind, context = error["type"], error.get("ctx", {})
    if kind == "literal_error":
        choices = _choices(error)
        return f"one of {', '.join(choices)}" if len(choices) > 1 else choices[0]
    if kind in _BOUNDS:
        name, words = _BOUNDS[kind]
        return f"{words} {context[name]:g}"
    if kind == "string_pattern_mismatch":
        return f"of the form {context['pattern'].removeprefix('^').removesuffix('$')}"
    if kind in ("too_short", "string_too_short"):
        return f"at least {context['min_length']} long"
    if kind in ("too_long", "string_too_long"):
        return f"at most {context['max_length']} long"
    return _KINDS.get(kind.partition("_")[0], "")


def _own_words(error: Mapping[str, Any]) -> str:
    """Return the message of a validator of ours, or what pydantic says where neither we nor ``_wanted`` know."""
    inner = error.get("ctx", {}).get("error")
    return str(inner) if inner is not None else str(error["msg"])


def _message(errors: list[Mapping[str, Any]]) -> tuple[str, str]:
    """Return message and hint for the errors of one value; several are the branches of a union."""
    value = errors[0]["input"]
    wanted = list(dict.fromkeys(text for text in map(_wanted, errors) if text))
    spoken = list(dict.fromkeys(_own_words(error) for error in errors if not _wanted(error)))
    if spoken:
        return "; ".join(spoken), ""
    choices = [choice for error in errors if error["type"] == "literal_error" for choice in _choices(error)]
    near = get_close_matches(value.lower(), choices, n=1) if isinstance(value, str) else []
    hint = f"did you mean '{near[0]}'?" if near else _FILL_OR_REMOVE if value is None else ""
    return f"must be {' or '.join(wanted)}, not {_shown(value)}", hint


def problem_at(document: Document, path: KeyPath, message: str, hint: str = "") -> Problem:
    """Return a problem of the value at ``path``, or, where nobody wrote it, at the block it belongs to."""
    place = document.place(path)
    known = document.written(path) is not None
    key = place.key if known else ".".join(part for part in (place.key, str(path[-1]) if path else "") if part)
    return Problem(place.where, f"{key}: {message}" if key else message, hint)


def _problems(model: type[BaseModel], document: Document, error: ValidationError) -> list[Problem]:
    problems: list[Problem] = []
    grouped: dict[KeyPath, list[Mapping[str, Any]]] = {}
    for found in error.errors(include_url=False):
        path = _resolve(found["loc"], document.value)
        if found["type"] == "extra_forbidden":
            hint = nearest_key(model, path[:-1], str(path[-1]))
            problems.append(problem_at(document, path, "unknown key", hint))
        elif found["type"] == "missing":
            problems.append(problem_at(document, (*path, found["loc"][-1]), "is missing"))
        else:
            grouped.setdefault(path, []).append(found)
    for path, errors in grouped.items():
        # A branch of a union that fails deeper down is the branch that was meant: its own error says more.
        if any(len(other) > len(path) and other[: len(path)] == path for other in grouped):
            continue
        message, hint = _message(errors)
        problems.append(problem_at(document, path, message, hint))
    return problems


def _booleans(value: Any, taken: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    """Yield where true or false was taken for a number: pydantic counts them as 1 and 0."""
    if isinstance(value, bool) and not isinstance(taken, bool) and isinstance(taken, (int, float)):
        yield path
    elif isinstance(value, dict) and isinstance(taken, dict):
        for key, inner in value.items():
            yield from _booleans(inner, taken.get(key), (*path, key))
    elif isinstance(value, list) and isinstance(taken, (list, tuple)):
        for position, (inner, other) in enumerate(zip(value, taken, strict=False)):
            yield from _booleans(inner, other, (*path, position))


def validate(model: type[S], document: Document) -> tuple[S | None, list[Problem]]:
    """Return the document as a validated object, or None and everything that is wrong with it."""
    try:
        settings = model.model_validate(document.value)
    except ValidationError as error:
        return None, _problems(model, document, error)
    problems = [
        problem_at(document, path, "must be a number, not true or false")
        for path in _booleans(document.value, settings.model_dump(by_alias=True))
    ]
    return (None if problems else settings), problems
