"""Query, path and header parameters: how they are declared, read, and shown in OpenAPI.

An unknown parameter is refused, as an unknown member of a body is, and so is a parameter that is given twice.
`api.routes.parameters` and `log_parameters` declare the parameters. Proved by tests/api/http/test_problems.py and
tests/api/routes/test_subjects.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl

from starlette.requests import Request

from api.http.problems import ParameterFault, RequestPart, RequestRefused

PARAMETERS_MAX: Final = 100


class ParameterError(ValueError):
    """The value cannot be read. The message says what is accepted, and never repeats the input."""


class TimeParameterError(ParameterError):
    """The value is not a time with an offset."""


class Parameter(NamedTuple):
    """`read` turns the text into the value or raises `ParameterError`; `default` is the value of an absent one."""

    name: str
    read: Callable[[str], Any]
    schema: dict[str, Any]
    description: str
    example: Any = None
    default: Any = None
    required: bool = False
    repeatable: bool = False
    part: RequestPart = "query"

    def openapi(self) -> dict[str, Any]:
        schema = {"type": "array", "items": self.schema} if self.repeatable else self.schema
        parameter: dict[str, Any] = {
            "name": self.name,
            "in": self.part,
            "description": self.description,
            "schema": schema,
        }
        parameter["required"] = self.required or self.part == "path"
        if self.example is not None:
            parameter["example"] = self.example
        return parameter


def read_query(request: Request, *parameters: Parameter) -> dict[str, Any]:
    """Name → value of each of `parameters`. Raises `RequestRefused`, which names every fault."""
    if not request.scope["query_string"] and not any(parameter.required for parameter in parameters):
        return {parameter.name: parameter.default for parameter in parameters}
    values: dict[str, Any] = {}
    faults: list[ParameterFault] = []
    code = "bad_time"
    known = {parameter.name: parameter for parameter in parameters}
    for name, text in _pairs(request.scope["query_string"]):
        try:
            _read_into(values, known, name, text)
        except ParameterError as error:
            # An unknown name is the client's own text, so it is not repeated.
            faults.append(ParameterFault("query", name if name in known else "", str(error)))
            code = code if isinstance(error, TimeParameterError) else "bad_parameter"
    faulty = {fault.name for fault in faults}
    absent = [parameter for parameter in parameters if parameter.name not in values]
    for parameter in absent:
        if parameter.required and parameter.name not in faulty:
            faults.append(ParameterFault("query", parameter.name, "the parameter is required"))
            code = "bad_parameter"
    if faults:
        first = faults[0]
        raise RequestRefused(code, f"{first.name}: {first.detail}" if first.name else first.detail, faults)
    return values | {parameter.name: parameter.default for parameter in absent}


def _pairs(query_string: bytes) -> list[tuple[str, str]]:
    if not query_string:
        return []
    try:
        text = query_string.decode("ascii")
        return parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=PARAMETERS_MAX)
    except ValueError:
        detail = f"the query must be percent-encoded UTF-8 with at most {PARAMETERS_MAX} parameters"
        raise RequestRefused("bad_parameter", detail) from None


def _read_into(values: dict[str, Any], known: dict[str, Parameter], name: str, text: str) -> None:
    parameter = known.get(name)
    if parameter is None:
        raise ParameterError(f"a parameter is unknown; this call accepts {', '.join(known) or 'none'}")
    if parameter.repeatable:
        values.setdefault(name, []).append(parameter.read(text))
    elif name in values:
        raise ParameterError("the parameter is given twice")
    else:
        values[name] = parameter.read(text)


def whole_number(low: int, high: int) -> Callable[[str], int]:
    """The `read` of a parameter from `low` to `high`, both included."""

    def read(text: str) -> int:
        if re.fullmatch(r"[0-9]{1,18}", text) is None or not low <= int(text) <= high:
            raise ParameterError(f"a whole number from {low} to {high} is required")
        return int(text)

    return read
