"""Which language an adapter is of: what was written before its folder, what it records, or its folder's name."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from adapterctl.errors import AdapterError, Problem
from adapterctl.languages import canonical, fault
from adapterctl.lora.adapter import Adapter
from adapterctl.lora.compatibility import Missing, check, raise_problems
from adapterctl.lora.untrusted import shown

LANG_KEY = "adapterctl.lang"
"""In the header of the tensor file: the language, as training writes it."""


def split_argument(argument: str) -> tuple[str | None, Path]:
    """Return the language and the folder of ``ja=DIR``, and None and the folder of ``DIR``.

    An argument that is a folder is one, whatever its name holds.
    """
    lang, equals, folder = argument.partition("=")
    if not equals or os.sep in lang or Path(argument).is_dir():
        return None, Path(argument)
    return lang, Path(folder)


def recorded_language(adapter: Adapter) -> str | None:
    """Return the language that the header of the tensor file names, in canonical form; None where it names none."""
    try:
        metadata = adapter.metadata
        told = metadata.get(LANG_KEY) or json.loads(metadata.get("adapterctl", "{}"))["lang"]
    except (AdapterError, ValueError, TypeError, KeyError, RecursionError):
        return None  # A file that cannot be read is told by those who need its tensors.
    return canonical(told) if isinstance(told, str) else None


def language_of(adapter: Adapter) -> str | None:
    """Return the language an adapter records, else its folder's name where that is a language tag, else None."""
    return recorded_language(adapter) or canonical(adapter.folder.resolve().name)


def name_adapters(arguments: Sequence[str]) -> tuple[tuple[Adapter, ...], list[Problem]]:
    """Open the adapters of a command line, each ``DIR`` or ``ja=DIR``, and give each its language.

    Returns:
        The adapters that could be opened, in the order of the arguments, and everything that is wrong with the
        arguments; an adapter that nobody can name has no language.
    """
    adapters: list[Adapter] = []
    problems: list[Problem] = []
    for argument in arguments:
        given, folder = split_argument(argument)
        lang = canonical(given) if given is not None else None
        if given is not None and lang is None:
            problems.append(Problem(argument, shown(fault(given))))
        try:
            adapter = Adapter.open(folder, lang)
        except AdapterError as error:
            problems.append(Problem(argument, error.message, error.hint))
            continue
        if given is None and (lang := language_of(adapter)) is None:
            message = f"it does not say its language, and {shown(folder.resolve().name)!r} is no language tag"
            problems.append(Problem(argument, message, f"write ja={argument} if it is Japanese"))
        adapters.append(replace(adapter, lang=lang))
    return tuple(adapters), problems + _repeated(adapters)


def _repeated(adapters: Sequence[Adapter]) -> list[Problem]:
    folders: dict[str, list[str]] = {}
    for adapter in adapters:
        if adapter.lang is not None:
            folders.setdefault(adapter.lang, []).append(str(adapter.folder))
    return [
        Problem(lang, f"{len(found)} adapters are of this language: {', '.join(found)}", "give one of each language")
        for lang, found in folders.items()
        if len(found) > 1
    ]


def open_named(
    arguments: Sequence[str],
    *,
    base_model: str | None = None,
    missing: Missing = "refuse",
    numbers: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Adapter, ...]:
    """Open the adapters of a command line and check that they fit together.

    Args:
        arguments: Each ``DIR`` or ``ja=DIR``.
        base_model: The base model all of them must have been trained on; None: they must agree with one another.
        missing: As in a merge recipe: whether a module that only some adapters have is a problem.
        numbers: Whether NaN and infinities are looked for, which reads all tensors.
        progress: Told how many adapters of how many have been read.

    Raises:
        AdapterError: With every problem of every argument.
    """
    adapters, problems = name_adapters(arguments)
    problems += check(adapters, base_model=base_model, missing=missing, numbers=numbers, progress=progress)
    raise_problems(problems)
    return adapters
