"""All files of a workspace read together: every problem of every file at once."""

from __future__ import annotations

import glob
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adapterctl import languages
from adapterctl.errors import Problem
from adapterctl.evaluation.suite import Split, SuiteSettings
from adapterctl.merging import lint
from adapterctl.training.settings import LoraSettings, TrainingSettings
from adapterctl.workspace import documents
from adapterctl.workspace.config import (
    ADAPTERS_FOLDER,
    PROJECT_FILE,
    SUITE_FILE,
    AdapterSettings,
    ProjectSettings,
)
from adapterctl.workspace.documents import Document
from adapterctl.workspace.validation import problem_at, validate


@dataclass(frozen=True)
class ResolvedAdapter:
    """One language's adapter with everything it inherits.

    Attributes:
        lang: Its tag.
        file: Its file, ``adapters/<lang>.yaml``.
        patterns: The globs of its training rows, relative to the folder of its file.
        data: The files they match, sorted.
        lora: Shape of the adapter.
        training: How it is trained.
        update_training: How it is trained by ``adapterctl update``.
        document: The merged content with the place of every value.
    """

    lang: str
    file: Path
    patterns: tuple[str, ...]
    data: tuple[Path, ...]
    lora: LoraSettings
    training: TrainingSettings
    update_training: TrainingSettings
    document: Document = field(repr=False, compare=False)


@dataclass
class Assembly:
    """What reading a workspace gave: the parts that are valid, and every problem.

    Attributes:
        root: The workspace's folder.
        project: Content of ``adapterctl.yaml`` with places; ``suite_document`` likewise.
        config, suite: The validated files; None where they are not valid.
        adapters: The valid adapters by language.
        problems: What keeps the workspace from being used.
        data_problems: Globs that match no file; they matter to commands that read rows only.
        warnings: What is probably not meant.
    """

    root: Path
    project: Document
    suite_document: Document
    config: ProjectSettings | None = None
    suite: SuiteSettings | None = None
    adapters: dict[str, ResolvedAdapter] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    data_problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)


def matching_files(folder: Path, patterns: list[str], lang: str) -> tuple[tuple[Path, ...], list[str]]:
    """Return the files that globs match, sorted and each once, and the globs that match none.

    A glob may be absolute or lead out of the folder by ``..`` where its owner wrote it so.
    """
    found: dict[Path, Path] = {}
    without: list[str] = []
    for pattern in patterns:
        filled = os.path.expanduser(pattern.replace("{lang}", lang))
        matches = [folder / match for match in glob.glob(filled, root_dir=folder, recursive=True)]
        files = [path for path in matches if path.is_file()]
        if not files:
            without.append(filled)
        for path in files:
            found.setdefault(path.resolve(), Path(os.path.normpath(path)))
    return tuple(sorted(found.values())), without


def _alternatives(under: Document, over: Document) -> Document:
    """Drop the inherited half of settings that exclude one another: who sets one of them does not want the other."""
    training = over.value.get("training")
    inherited = under.value.get("training")
    if not isinstance(training, dict) or not isinstance(inherited, dict):
        return under
    value, places = dict(inherited), dict(under.places)
    for one, other in (("warmup_steps", "warmup_ratio"), ("warmup_ratio", "warmup_steps")):
        if training.get(one) is not None and other not in training:
            value.pop(other, None)
            places.pop(("training", other), None)
    return Document({**under.value, "training": value}, places)


def overlay(under: Document, over: Document) -> Document:
    """Return the settings of ``under`` with those of ``over`` on top."""
    return _alternatives(under, over).overlaid(over)


def _once(problems: list[Problem], found: list[Problem]) -> list[Problem]:
    """Return both, without what validation says about a value that could not even be read."""
    unread = {(problem.where, problem.message.partition(": ")[0]) for problem in problems}
    return problems + [p for p in found if (p.where, p.message.partition(": ")[0]) not in unread]


def _read_languages(assembly: Assembly) -> list[str]:
    """Return the languages, also of a project file that has faults elsewhere."""
    if assembly.config is not None:
        return assembly.config.languages
    named = assembly.project.value.get("languages")
    tags = named if isinstance(named, list) else []
    return [tag for tag in dict.fromkeys(t for t in tags if isinstance(t, str)) if not languages.fault(tag)]


def _update_training(assembly: Assembly, merged: Document) -> tuple[TrainingSettings | None, list[Problem]]:
    changes = assembly.project.part("update", "training")
    over = Document({"training": changes.value}, {("training", *path): place for path, place in changes.places.items()})
    return validate(TrainingSettings, overlay(merged, over).part("training"))


def _read_adapter(assembly: Assembly, lang: str, told: set[str]) -> None:
    """Read one adapter's file; problems at places in ``told`` were reported with the project file already."""
    name = f"{ADAPTERS_FOLDER}/{lang}.yaml"
    path = assembly.root / name
    if not path.is_file():
        place = assembly.project.place(("languages",))
        assembly.problems.append(
            Problem(place.where, f"language '{lang}' has no {name}", f"make it with: adapterctl add --lang {lang}")
        )
        return
    own, problems = documents.read(path, name)
    merged = overlay(assembly.project.part("defaults"), own)
    settings, found = validate(AdapterSettings, merged)
    update_training, in_update = _update_training(assembly, merged)
    problems = _once(problems, [problem for problem in found if problem.where not in told])
    problems += [problem for problem in in_update if problem not in found and problem.where not in told]
    told.update(problem.where for problem in problems)
    assembly.problems += problems
    if settings is None or update_training is None or problems:
        return
    files, without = matching_files(assembly.root / ADAPTERS_FOLDER, settings.data, lang)
    where = merged.place(("data",)).where
    assembly.data_problems += [
        Problem(where, f"data: '{glob_}' matches no file in {ADAPTERS_FOLDER}/", f"put rows of '{lang}' there")
        for glob_ in without
    ]
    assembly.adapters[lang] = ResolvedAdapter(
        lang, path, tuple(settings.data), files, settings.lora, settings.training, update_training, merged
    )


def _read_suite(assembly: Assembly, problems: list[Problem]) -> None:
    if not (assembly.root / SUITE_FILE).is_file():
        hint = "a fresh one is made by: adapterctl init DIR"
        assembly.problems.append(Problem(SUITE_FILE, "is missing", hint))
        return
    assembly.suite, found = validate(SuiteSettings, assembly.suite_document)
    assembly.problems += _once(problems, found)
    if problems:
        assembly.suite = None


def _check_suite(assembly: Assembly, suite: SuiteSettings, langs: list[str]) -> None:
    document, folder = assembly.suite_document, (assembly.root / SUITE_FILE).parent
    splits: tuple[tuple[Split, list[str]], ...] = (("dev", suite.dev), ("test", suite.test))
    for split, patterns in splits:
        for position, pattern in enumerate(patterns):
            place, alone = document.place((split, position)), suite.model_copy(update={split: [pattern]})
            assembly.data_problems += [
                Problem(
                    place.where,
                    f"{split}: '{pattern.replace('{lang}', lang)}' matches no file in {folder.name}/",
                    f"put rows of '{lang}' there",
                )
                for lang in langs
                if not alone.files(split, lang, folder)[0]
            ]
    for name, task in suite.tasks.items():
        known: list[tuple[str, Any]] = [("prompt", task.prompt), ("labels", task.labels)]
        for key, value in known:
            if isinstance(value, dict) and (lacking := [lang for lang in langs if lang not in value]):
                place = document.place(("tasks", name, key))
                assembly.warnings.append(
                    Problem(
                        place.where,
                        f"{place.key}: has nothing for {', '.join(lacking)}",
                        "add it, or have no rows of it",
                    )
                )


def _check_languages(assembly: Assembly, config: ProjectSettings) -> None:
    project = assembly.project
    contradictory = lint.contradictions(config.merge, config.languages)
    for problem in lint.lint(config.merge, config.languages):
        keys = tuple((problem.where or "merge").split("."))
        located = problem_at(project, keys, problem.message, problem.hint)
        (assembly.problems if problem in contradictory else assembly.warnings).append(located)
    for path in sorted((assembly.root / ADAPTERS_FOLDER).glob("*.yaml")):
        if path.stem not in config.languages:
            name = f"{ADAPTERS_FOLDER}/{path.name}"
            assembly.warnings.append(
                Problem(
                    name, f"'{path.stem}' is none of the languages in {PROJECT_FILE}", "list it, or remove the file"
                )
            )
    if assembly.suite is not None:
        for task in sorted(set(config.gate.margins) - set(assembly.suite.all_tasks)):
            place = project.place(("gate", "margins", task))
            tasks = ", ".join(sorted(assembly.suite.tasks))
            assembly.problems.append(
                Problem(place.where, f"{place.key}: the suite has no such task", f"its tasks are {tasks}")
            )


def assemble(root: Path) -> Assembly:
    """Read all files of the workspace at ``root``; nothing is raised for what is wrong in them."""
    project, problems = documents.read(root / PROJECT_FILE, PROJECT_FILE)
    suite, suite_problems = documents.read(root / SUITE_FILE, SUITE_FILE)
    assembly = Assembly(root, project, suite)
    # A file that is no YAML has no keys; that they are missing would be told beside the point.
    readable = bool(project.value) or not problems
    config, found = validate(ProjectSettings, project) if readable else (None, [])
    assembly.problems += _once(problems, found)
    assembly.config = None if problems else config
    told = {problem.where for problem in found}
    langs = _read_languages(assembly)
    for lang in langs:
        _read_adapter(assembly, lang, told)
    _read_suite(assembly, suite_problems)
    if assembly.suite is not None:
        _check_suite(assembly, assembly.suite, langs)
    if assembly.config is not None:
        _check_languages(assembly, assembly.config)
    return assembly
