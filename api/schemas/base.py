"""The base of all wire models."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class WireModel(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def time_field(description: str, **more: Any) -> Any:
    return Field(description=description, json_schema_extra={"format": "date-time"}, **more)
