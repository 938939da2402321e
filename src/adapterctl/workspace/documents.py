"""YAML files as values that know the line each of them stands on.

Read with ruamel.yaml's composer (YAML 1.2: ``no`` is Norwegian, not false), which builds nodes and runs nothing; values
are made from the nodes here, so duplicate keys, tags, cycles and alias bombs are seen before they do anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from adapterctl.errors import Problem

KeyPath = tuple[str | int, ...]

LARGEST_FILE = 2**18
MOST_VALUES = 50_000
"""More than any configuration needs; a few nested aliases reach it, which is what makes them a bomb."""

_TAG = "tag:yaml.org,2002:"


@dataclass(frozen=True)
class Place:
    """Where a value was written.

    Attributes:
        where: ``file:line``.
        key: The dotted key in that file.
    """

    where: str
    key: str


@dataclass(frozen=True)
class Document:
    """A file's content and the place of everything in it.

    Attributes:
        value: The mapping it holds.
        places: By the path of keys and positions that leads to a value; ``()`` is the file itself.
    """

    value: dict[str, Any]
    places: Mapping[KeyPath, Place] = field(default_factory=dict)

    def place(self, path: KeyPath) -> Place:
        """Return where a value stands; for one that was not written, where the block around it does."""
        for end in range(len(path), -1, -1):
            found = self.places.get(path[:end])
            if found is not None:
                return found
        return Place("", "")

    def written(self, path: KeyPath) -> Place | None:
        """Return where a value stands, None where nobody wrote it."""
        return self.places.get(path)

    def part(self, *keys: str) -> Document:
        """Return one block as a document of its own; an empty one where there is none."""
        value: Any = self.value
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        depth = len(keys)
        places = {path[depth:]: place for path, place in self.places.items() if path[:depth] == keys}
        places.setdefault((), self.place(keys))
        return Document(value if isinstance(value, dict) else {}, places)

    def overlaid(self, other: Document) -> Document:
        """Return this document with the other's values over it, block by block; lists are replaced, not joined."""
        places = {path: place for path, place in self.places.items() if not _replaced(path, other.value)}
        return Document(_merged(self.value, other.value), {**places, **other.places})


def _merged(under: Any, over: Any) -> Any:
    if not isinstance(under, dict) or not isinstance(over, dict):
        return over
    return {**under, **{key: _merged(under.get(key), value) for key, value in over.items()}}


def _replaced(path: KeyPath, over: Any) -> bool:
    """Tell whether ``over`` puts something else than a block at ``path`` or above it."""
    for key in path:
        if not isinstance(over, dict):
            return True
        if key not in over:
            return False
        over = over[key]
    return bool(path) and not isinstance(over, dict)


def dotted(path: KeyPath) -> str:
    """Return a path as people write it: ``tasks.sentiment.labels[2]``."""
    text = ""
    for key in path:
        text += f"[{key}]" if isinstance(key, int) else f".{key}" if text else key
    return text


class _Unreadable(Exception):
    """A file too big to be meant."""


class _Builder:
    """Makes values from nodes and notes where they stand."""

    def __init__(self, name: str, yaml: YAML) -> None:
        self.name = name
        self.scalars = yaml.constructor
        self.places: dict[KeyPath, Place] = {}
        self.problems: list[Problem] = []
        self.count = 0
        self.open: set[int] = set()

    def where(self, node: Node) -> str:
        return f"{self.name}:{node.start_mark.line + 1}"

    def refuse(self, node: Node, path: KeyPath, message: str, hint: str = "") -> None:
        key = f"{dotted(path)}: " if path else ""
        self.problems.append(Problem(self.where(node), key + message, hint))

    def build(self, node: Node, path: KeyPath) -> Any:
        self.count += 1
        if self.count > MOST_VALUES:
            raise _Unreadable(f"holds more than {MOST_VALUES} values, aliases counted each time they are used")
        self.places.setdefault(path, Place(self.where(node), dotted(path)))
        if isinstance(node, ScalarNode):
            return self.scalar(node, path)
        if id(node) in self.open:
            self.refuse(node, path, "an alias stands inside its own anchor", "remove the alias")
            return None
        self.open.add(id(node))
        assert isinstance(node, (MappingNode, SequenceNode))
        value = self.mapping(node, path) if isinstance(node, MappingNode) else self.sequence(node, path)
        self.open.remove(id(node))
        return value

    def tag(self, node: Node, path: KeyPath) -> str:
        tag = str(node.tag)
        if not tag.startswith(_TAG) or ":" in tag.removeprefix(_TAG):
            self.refuse(node, path, f"the tag {tag.replace(_TAG, '!!')} is not allowed", "remove the tag")
        return tag.removeprefix(_TAG)

    def scalar(self, node: ScalarNode, path: KeyPath) -> Any:
        tag = self.tag(node, path)
        try:
            if tag == "null":
                return None
            if tag == "bool":
                return self.scalars.construct_yaml_bool(node)
            if tag == "int":
                return self.scalars.construct_yaml_int(node)
            if tag == "float":
                return self.scalars.construct_yaml_float(node)
        except (ValueError, KeyError, IndexError):
            self.refuse(node, path, f"{node.value[:40]!r} is not a number")
            return None
        return str(node.value)

    def sequence(self, node: SequenceNode, path: KeyPath) -> list[Any]:
        self.tag(node, path)
        return [self.build(item, (*path, position)) for position, item in enumerate(node.value)]

    def mapping(self, node: MappingNode, path: KeyPath) -> dict[str, Any]:
        self.tag(node, path)
        value: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, ScalarNode):
                self.refuse(key_node, path, "a key must be one word", "put braces of a text in quotes")
                continue
            key = str(key_node.value)
            here = (*path, key)
            if str(key_node.tag) == f"{_TAG}merge":
                self.refuse(key_node, path, "merge keys (<<) are not read", "write the keys out, or use 'defaults'")
                continue
            if key in lines:
                self.refuse(key_node, here, f"stands twice, also in line {lines[key]}", "remove one of the two")
                continue
            lines[key] = key_node.start_mark.line + 1
            self.places[here] = Place(self.where(key_node), dotted(here))
            value[key] = self.build(value_node, here)
        return value


_SYNTAX = (
    ("\\t", "a tab cannot indent a line", "indent with spaces"),
    (
        "mapping values are not allowed",
        "a second ': ' in one value, or a line indented too far",
        "put the text in quotes",
    ),
    ("quoted scalar", "a quote is opened and never closed", "close the quote"),
    ("expected ',' or", "a bracket is opened and never closed", "close the bracket"),
    ("undefined alias", "an alias (*name) has no anchor (&name) before it", "write the value out"),
    ("another document", "a second document begins ('---')", "keep one document a file"),
    ("could not find expected ':'", "a key without ':'", "write key: value"),
    ("expected <block end>", "a line is indented differently from its neighbours", "align it with the lines above"),
)


def _syntax_problem(name: str, error: MarkedYAMLError) -> Problem:
    said = ", ".join(str(part) for part in (error.problem, error.context) if part)
    unclosed = "expected ',' or" in said or "end of stream" in said or "could not find expected ':'" in said
    mark = (error.context_mark if unclosed else None) or error.problem_mark or error.context_mark
    where = f"{name}:{mark.line + 1}" if mark is not None else name
    for fragment, message, hint in _SYNTAX:
        if fragment in said:
            return Problem(where, f"is not YAML: {message}", hint)
    return Problem(where, f"is not YAML: {said}")


def _decode(path: Path, name: str) -> tuple[str, list[Problem]]:
    try:
        with path.open("rb") as handle:
            content = handle.read(LARGEST_FILE + 1)
    except OSError as error:
        return "", [Problem(name, f"cannot be read: {error.strerror}")]
    if len(content) > LARGEST_FILE:
        return "", [Problem(name, f"is larger than {LARGEST_FILE // 2**10} KiB, which no configuration is")]
    try:
        return content.decode("utf-8-sig"), []
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return "", [Problem(f"{name}:{line}", "is not UTF-8", "save the file as UTF-8")]


def parse(text: str, name: str) -> tuple[Document, list[Problem]]:
    """Return the content of a YAML text, and everything that is wrong with the text as YAML.

    Args:
        text: The file's text; an empty one is an empty mapping.
        name: How the file is called in messages.
    """
    empty = Document({}, {(): Place(f"{name}:1", "")})
    yaml = YAML(typ="safe", pure=True)
    try:
        node = yaml.compose(text)
        if node is None or (isinstance(node, ScalarNode) and not node.value):
            return empty, []
        builder = _Builder(name, yaml)
        builder.places[()] = Place(f"{name}:1", "")
        value = builder.build(node, ())
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        return empty, [Problem(f"{name}:{line}", "holds a control character", "remove it")]
    except MarkedYAMLError as error:
        return empty, [_syntax_problem(name, error)]
    except YAMLError as error:
        return empty, [Problem(name, f"is not YAML: {error}")]
    except RecursionError:
        return empty, [Problem(name, "is nested too deeply")]
    except _Unreadable as error:
        return empty, [Problem(name, str(error), "write the values out, without aliases")]
    if not isinstance(value, dict):
        return empty, [*builder.problems, Problem(f"{name}:1", "must be keys with values", "write key: value")]
    return Document(value, builder.places), builder.problems


def read(path: Path, name: str) -> tuple[Document, list[Problem]]:
    """Read a YAML file; see ``parse``."""
    text, problems = _decode(path, name)
    if problems:
        return Document({}, {(): Place(name, "")}), problems
    return parse(text, name)
