"""The base of every configuration object: a misspelt key is an error, and nothing changes after reading."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """A block of ``adapterctl.yaml`` or a file beside it."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False)
