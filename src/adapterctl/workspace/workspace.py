"""The workspace as one validated object."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from adapterctl.errors import ConfigError, Problem, UsageError
from adapterctl.evaluation.suite import SuiteSettings
from adapterctl.languages import require_tag
from adapterctl.tasks import TaskSettings
from adapterctl.workspace import documents
from adapterctl.workspace.assembly import Assembly, ResolvedAdapter, assemble
from adapterctl.workspace.config import SUITE_FILE, ProjectSettings
from adapterctl.workspace.documents import Document
from adapterctl.workspace.layout import StatePaths, find_root, state_paths
from adapterctl.workspace.locking import locked
from adapterctl.workspace.validation import validate


@dataclass(frozen=True)
class Workspace:
    """Everything the files of a workspace say, checked.

    Attributes:
        root: Its folder.
        config: ``adapterctl.yaml``.
        adapters: ``adapters/<lang>.yaml`` with all that is inherited, by language in the order of the project file.
        suite: ``evaluation/suite.yaml``.
        paths: Where the state is kept.
        warnings: What is probably not meant, and changes nothing.
        suite_path: The suite's file; its globs start in its folder.
        project_document, suite_document: The files' content with the place of every value.
    """

    root: Path
    config: ProjectSettings
    adapters: dict[str, ResolvedAdapter]
    suite: SuiteSettings
    paths: StatePaths
    warnings: tuple[Problem, ...] = ()
    suite_path: Path = field(default_factory=Path)
    project_document: Document = field(default_factory=lambda: Document({}), repr=False, compare=False)
    suite_document: Document = field(default_factory=lambda: Document({}), repr=False, compare=False)

    @classmethod
    def open(cls, path: str | Path | None = None, *, data: bool = True) -> Workspace:
        """Open the workspace around ``path``.

        Args:
            path: A folder in it; ``None``: ``$ADAPTERCTL_WORKSPACE`` where set, else the current folder.
            data: Whether globs that match no file are a problem too; commands that read no rows do without.

        Raises:
            UsageError: There is no workspace.
            ConfigError: Its files are not valid; ``problems`` names every fault of every file.
        """
        return from_assembly(assemble(find_root(path)), data=data)

    @property
    def state(self) -> Path:
        """The folder of the state."""
        return self.paths.root

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages in the order of the project file."""
        return tuple(self.config.languages)

    @property
    def suite_name(self) -> str:
        """The suite file as messages name it."""
        path = self.suite_path
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)

    @cached_property
    def training_tasks(self) -> dict[str, TaskSettings]:
        """The tasks of training rows: those of the workspace's own suite, also where another one is measured."""
        own, _ = validate(SuiteSettings, self.suite_document)
        return (own or self.suite).all_tasks

    def with_suite(self, path: Path) -> Workspace:
        """Return the workspace with another suite to measure on.

        Raises:
            ConfigError: The file is missing or not valid; ``problems`` names every fault of it.
        """
        document, problems = documents.read(path, str(path))
        suite, found = (None, []) if problems else validate(SuiteSettings, document)
        problems += found
        if suite is None or problems:
            raise ConfigError(
                f"the suite {path} cannot be used",
                problems=problems,
                hint="correct these lines; all keys are listed by: adapterctl config schema",
            )
        return replace(self, suite=suite, suite_path=path.absolute())

    def require_language(self, text: str) -> str:
        """Return the tag of one of the workspace's languages.

        Raises:
            UsageError: It is no language tag, or none of the workspace's languages.
        """
        if text in self.config.languages:
            return text
        lang = require_tag(text)
        if lang not in self.config.languages:
            known = ", ".join(self.config.languages) or "none yet"
            raise UsageError(
                f"language '{lang}' is not in this workspace; its languages are {known}",
                hint=f"add it with: adapterctl add --lang {lang}",
            )
        return lang

    def training_files(self, lang: str) -> tuple[Path, ...]:
        """Return the files of a language's training rows, sorted."""
        return self.adapters[lang].data

    def split_files(self, lang: str, split: Literal["dev", "test"]) -> tuple[Path, ...]:
        """Return the files of a language's dev or test rows, sorted."""
        return self.suite.files(split, lang, self.suite_path.parent)[0]

    def lock(
        self, command: str, *, wait: bool = False, told: Callable[[str], None] | None = None
    ) -> AbstractContextManager[None]:
        """Return a context in which no other process changes the workspace.

        Args:
            command: What is to be done, for whoever finds the lock held.
            wait: Wait until nobody else does.
            told: Is told, once, whom we wait for.

        Raises:
            LockHeld: Another process does, and nobody wants to wait; the message names it.
        """
        return locked(self.paths, command, wait=wait, told=told)


def from_assembly(assembly: Assembly, *, data: bool = True) -> Workspace:
    """Return the workspace that was read.

    Raises:
        ConfigError: It is not valid.
    """
    problems = assembly.problems + (assembly.data_problems if data else [])
    config, suite = assembly.config, assembly.suite
    if problems or config is None or suite is None:
        count = f"{len(problems)} problems" if len(problems) != 1 else "a problem"
        raise ConfigError(
            f"the workspace {assembly.root} has {count}",
            problems=problems,
            hint="correct these lines; all keys are listed by: adapterctl config schema",
        )
    return Workspace(
        root=assembly.root,
        config=config,
        adapters=assembly.adapters,
        suite=suite,
        suite_path=assembly.root / SUITE_FILE,
        paths=state_paths(assembly.root),
        warnings=tuple(assembly.warnings),
        project_document=assembly.project,
        suite_document=assembly.suite_document,
    )
