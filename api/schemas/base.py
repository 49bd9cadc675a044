"""The base of all wire models, and their JSON Schemas as the OpenAPI document holds them under `components`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import models_json_schema

_TEMPLATE: Final = "#/components/schemas/{model}"


class WireModel(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def time_field(description: str, **more: Any) -> Any:
    return Field(description=description, json_schema_extra={"format": "date-time"}, **more)


def reason_field(description: str | None = None) -> Any:
    """Not empty, and not only of white space."""
    return Field(None, min_length=1, max_length=2000, pattern=r"\S", description=description)


def ref(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _TEMPLATE.format(model=model.__name__)}


def components(models: Iterable[type[BaseModel]]) -> dict[str, Any]:
    """Name → JSON Schema of the models, and of every model inside them."""
    distinct = dict.fromkeys(models)
    _, document = models_json_schema([(model, "validation") for model in distinct], ref_template=_TEMPLATE)
    schemas: dict[str, Any] = document["$defs"]
    return schemas


class ClockNotice(WireModel):
    """The answer rests on a clock that was ahead: changes made by then may be missing."""

    from_: str = time_field("The stretch begins here.", alias="from")
    until: str = time_field("The first instant after the stretch.")
    acknowledged_at_position: int | None = Field(
        description="Of the event by which an operator acknowledged it. Null: nobody has, and nothing is recorded."
    )
