"""What ``adapterctl.yaml`` and ``adapters/<lang>.yaml`` may say, composed of the rooms' own settings."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator

from adapterctl import languages
from adapterctl.accounting.prices import PriceSheet
from adapterctl.base_model import BaseModelSettings
from adapterctl.evaluation.policy import GateSettings
from adapterctl.merging.recipe import MergeRecipe
from adapterctl.registry.settings import RegistrySettings
from adapterctl.settings import Settings
from adapterctl.training.settings import LoraSettings, TrainingSettings

PROJECT_FILE = "adapterctl.yaml"
ADAPTERS_FOLDER = "adapters"
SUITE_FILE = "evaluation/suite.yaml"

PROJECT_PATTERN = r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$"


def _tag(value: str) -> str:
    fault = languages.fault(value)
    if fault:
        raise ValueError(fault)
    return value


Language = Annotated[str, AfterValidator(_tag)]


def _data_pattern(value: str) -> str:
    if not value.strip():
        raise ValueError("is empty; write a glob such as data/{lang}/*.train.jsonl")
    return value


DataPattern = Annotated[str, AfterValidator(_data_pattern)]


class AdapterSettings(Settings):
    """One language's adapter: ``adapters/<lang>.yaml``; what it leaves out comes from ``defaults``."""

    data: list[DataPattern] = Field(
        default_factory=lambda: ["data/{lang}/*.train.jsonl"],
        min_length=1,
        description="Globs of the training rows, relative to the folder `adapters`; `{lang}` stands for the tag.",
    )
    lora: LoraSettings = Field(default_factory=LoraSettings, description="Shape of the adapter.")
    training: TrainingSettings = Field(default_factory=TrainingSettings, description="How it is trained.")


class UpdateSettings(Settings):
    """What ``adapterctl update`` does differently from the first training."""

    start: Literal["fresh", "continue"] = Field(
        "fresh", description="Train the adapter anew on all its rows, or go on from the champion's."
    )
    training: dict[str, Any] = Field(
        default_factory=dict, description="Training settings that hold in updates only, such as fewer epochs."
    )
    scale: Literal["search", "keep"] = Field(
        "search",
        description="Where merge.lambda is auto: search λ again on the dev rows, or keep the champion's as long as "
        "recipe and languages are the same.",
    )


class ProjectSettings(Settings):
    """The whole project: ``adapterctl.yaml``."""

    version: Literal[1] = Field(1, description="Version of this file's format.")
    project: str = Field(
        description="Name of the project, part of the names in the registry: lower-case letters, digits and dashes.",
        json_schema_extra={"pattern": PROJECT_PATTERN},
    )
    base_model: BaseModelSettings = Field(
        default_factory=BaseModelSettings, description="The frozen model that is served."
    )
    languages: list[Language] = Field(description="BCP-47 tags of the languages, one adapter each.")
    defaults: AdapterSettings = Field(
        default_factory=AdapterSettings, description="What all adapters share; adapters/<lang>.yaml may differ."
    )
    update: UpdateSettings = Field(default_factory=UpdateSettings, description="What updates do differently.")
    merge: MergeRecipe = Field(default_factory=MergeRecipe, description="How all adapters become one.")
    gate: GateSettings = Field(
        default_factory=GateSettings, description="How much a candidate may lose against the champion."
    )
    promotion: Literal["auto", "review"] = Field(
        "auto",
        description="Whether a candidate that passes the gate becomes champion at once, or waits for a review.",
    )
    registry: RegistrySettings = Field(
        default_factory=RegistrySettings, description="Which MLflow keeps runs, adapters and versions."
    )
    prices: PriceSheet = Field(default_factory=PriceSheet, description="What machines cost.")

    @field_validator("project")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        if not re.fullmatch(PROJECT_PATTERN, value):
            raise ValueError(
                f"'{value}' may hold lower-case letters, digits and dashes only, 63 at most, no dash at either end"
            )
        return value

    @field_validator("languages")
    @classmethod
    def _each_once(cls, value: list[str]) -> list[str]:
        twice = sorted({lang for lang in value if value.count(lang) > 1})
        if twice:
            raise ValueError(f"'{twice[0]}' stands twice")
        return value
