"""What the JSON members of an archive hold, checked value by value: somebody else may have written them."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import Field, ValidationError

from adapterctl.errors import Problem
from adapterctl.registry.archive import Archive, damaged
from adapterctl.settings import Settings

Status = Annotated[str, Field(pattern=r"^(FINISHED|FAILED|KILLED|RUNNING|SCHEDULED)$")]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$")]
Number = float | Annotated[str, Field(pattern=r"^(nan|inf|-inf)$")]
Tags = dict[str, str]
Record = TypeVar("Record", bound=Settings)


class ModelMetric(Settings):
    """A metric of a logged model."""

    key: str
    value: Number
    time: int
    step: int
    run_id: str


class LoggedModel(Settings):
    """A logged model: what holds the files of a version."""

    name: Name
    type: str
    status: str
    run_id: str
    tags: Tags
    params: dict[str, str]
    metrics: list[ModelMetric]


class DatasetRecord(Settings):
    """Rows that a run has read."""

    name: str
    digest: str
    source_type: str
    source: str
    schema_: str | None = Field(alias="schema")
    profile: str | None
    tags: Tags


class RunRecord(Settings):
    """A run."""

    name: str
    status: Status
    started: int
    ended: int | None
    tags: Tags
    params: dict[str, str]
    metrics: list[tuple[str, Number, int, int]]
    datasets: list[DatasetRecord]
    inputs: list[str]
    outputs: list[tuple[str, int]]


class VersionRecord(Settings):
    """A version of a registered model."""

    name: Name
    version: Annotated[int, Field(ge=1, le=10_000_000)]
    content_hash: Annotated[str, Field(pattern=r"^[A-Za-z0-9._:/@+=,-]{1,240}$")]
    run_id: str
    model_id: str
    tags: Tags
    created: str
    description: str

    def __str__(self) -> str:
        return f"{self.name} v{self.version}"


class RegisteredModel(Settings):
    """A registered model."""

    description: str
    tags: Tags
    aliases: dict[str, int]


class RegistryRecord(Settings):
    """The project as a whole."""

    project: str
    models: dict[Name, RegisteredModel]


def parsed(archive: Archive, name: str, kind: type[Record]) -> Record:
    """Return a member as a checked value.

    Raises:
        AdapterError: It holds anything else.
    """
    value: Any = archive.json(name)
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        problems = [
            Problem(f"{name}: {'.'.join(map(str, item['loc']))[:100]}", item["msg"]) for item in error.errors()[:10]
        ]
        raise damaged(f"{name} holds what no archive of ours does", tuple(problems)) from None
