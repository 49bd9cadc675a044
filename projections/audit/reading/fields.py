"""The fields of a request record in a log: the column that holds each, and how to read its text.

A field that a line lacks stays absent, and a value is never bent to fit its field. Proved by
tests/test_audit_records.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import tzinfo
from typing import Any, Final, Literal, NamedTuple

from ledger.errors import BadRecord
from ledger.times import format_time
from projections.audit.reading.log_times import (
    TimeUnit,
    UnreadableValue,
    formatted_time,
    is_number,
    number_time,
    time_text,
)
from projections.decisions.model import Observed, RequestRecord, read_record

FieldType = Literal["text", "time", "position", "flag"]

FIELDS: Final[Mapping[str, FieldType]] = {
    "request_id": "text",
    "at": "time",
    "key_id": "text",
    "account_id": "text",
    "org_id": "text",
    "project_id": "text",
    "model_id": "text",
    "enforced_position": "position",
    "handling.stored": "flag",
    "handling.cached": "flag",
    "handling.trained": "flag",
    "handling.forwarded_to": "text",
    "handling.region": "text",
    "handling.network": "text",
    "handling.precision": "text",
    "handling.distilled": "flag",
    "handling.system_prompt_forced": "flag",
    "handling.censored": "flag",
    "handling.revision": "text",
}
"""Every field of a request record (see `api/README.md`), with a dot for the members of `handling`."""

WHO: Final = ("key_id", "account_id", "org_id", "project_id")
"""The fields that name the sender of a request."""
MEMBERS: Final = frozenset(field for field in FIELDS if "." not in field) | {"handling"}
PLAIN_FLAGS: Final[Mapping[str, bool | None]] = {"true": True, "1": True, "false": False, "0": False}
"""The flags in a cell of CSV, in small letters."""
_NO_FLAG: Final = object()
_NO_ALIASES: Final[Mapping[str, str]] = {}


class ColumnMapping(NamedTuple):
    """The columns of a log, and the values that hold where a line has none.

    columns: field → column; "" if no column holds the field. A column that bears a field's name is that field unless
    `columns` maps the field elsewhere. Further columns are ignored.
    constants: field → text of the value for lines without one.
    timezone: the time zone of times without an offset; None rejects such times.
    time_unit: of times that are numbers; None rejects such times. time_format: the form of all times, in the directives
    of strptime.
    flags: text in small letters → the flag that it means, or None if it says nothing; besides true, false, 1 and 0.
    aliases: field → name in the log → id.
    happened: rows without observed handling are requests that happened, and no questions.
    path_values: field → text from the file's folders (`org_id=acme/`). A path value takes precedence over a constant,
    and a file that has one may lack the column.
    """

    columns: Mapping[str, str] = {}
    constants: Mapping[str, str] = {}
    timezone: tzinfo | None = None
    path_values: Mapping[str, str] = {}
    time_unit: TimeUnit | None = None
    time_format: str | None = None
    flags: Mapping[str, bool | None] = {}
    aliases: Mapping[str, Mapping[str, str]] = {}
    happened: bool = False

    def column(self, field: str) -> str:
        return self.columns.get(field, field)

    def checked_constants(self) -> dict[str, Any]:
        """Field → value of constants and path values. Raises `BadRecord` for an unknown field or an invalid value."""
        for field in (*self.columns, *self.constants):
            if field not in FIELDS:
                raise BadRecord(f"a request record has no such field; its fields are {', '.join(FIELDS)}")
        values: dict[str, Any] = {}
        for field, text in {**self.constants, **self.path_values}.items():
            try:
                values[field] = cell_value(field, text, self)
            except UnreadableValue as error:
                raise BadRecord(f"the constant for {field}: {error}") from None
            if values[field] is None:
                raise BadRecord(f"the constant for {field} is empty")
        # An invalid constant would reject every line: fail once, before the first line.
        read_record(raw_record({"account_id": "any"} | values), 0)
        return values


NO_MAPPING: Final = ColumnMapping()


def raw_record(values: Mapping[str, Any]) -> dict[str, Any]:
    """Nests field → value as the JSON object of a request record."""
    raw: dict[str, Any] = {}
    for field, value in values.items():
        member, dot, inner = field.partition(".")
        if dot:
            raw.setdefault(member, {})[inner] = value
        else:
            raw[field] = value
    return raw


def cell_value(field: str, text: str, mapping: ColumnMapping) -> Any:
    """The field's value in a CSV cell; None if the cell says nothing of it. Raises `UnreadableValue`."""
    if text == "":
        return None
    match FIELDS[field]:
        case "flag":
            flag = PLAIN_FLAGS.get(text.lower(), mapping.flags.get(text.lower(), _NO_FLAG))
            if flag is _NO_FLAG:
                raise UnreadableValue("true, false, 1 or 0 is required, or a text that --true or --false names")
            return flag
        case "position":
            if not (text.isascii() and text.isdigit() and len(text) <= 18):
                raise UnreadableValue("a ledger position is a whole number, 0 or more")
            return int(text)
        case "time":
            return time_value(text, mapping)
    return mapping.aliases.get(field, _NO_ALIASES).get(text, text)


def json_value(field: str, value: Any, mapping: ColumnMapping, *, mapped: bool) -> Any:
    """The field's value in a JSON member; None if it says nothing of the field. A mapped column may hold an id as a
    number. Raises `UnreadableValue`."""
    match FIELDS[field]:
        case "time":
            return time_value(value, mapping)
        case "flag":
            if mapping.flags and isinstance(value, str | int) and not isinstance(value, bool):
                return mapping.flags.get(str(value).lower(), value)
            return value
        case "position":
            return value
    if mapped and isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    aliases = mapping.aliases.get(field)
    return aliases.get(value, value) if aliases is not None and isinstance(value, str) else value


def time_value(value: Any, mapping: ColumnMapping) -> Any:
    """A time as RFC 3339, or the value itself if it is no time that the mapping allows. Raises `UnreadableValue`."""
    if mapping.time_format is not None:
        return formatted_time(value, mapping.time_format, mapping.timezone)
    if mapping.time_unit is not None:
        micros = number_time(value, mapping.time_unit)
        if micros is not None:
            return format_time(micros)
    if (isinstance(value, int | float) and not isinstance(value, bool)) or (
        isinstance(value, str) and is_number(value)
    ):
        raise UnreadableValue(
            "/at: must be a text, not a number, unless a time unit (--time-unit) says whether it counts s, ms, us or ns"
        )
    if not isinstance(value, str):
        return value
    return time_text(value, mapping.timezone)


assert {f for f in FIELDS if "." not in f} == set(RequestRecord._fields) - {"handling"}
assert {f"handling.{f}" for f in Observed._fields} == {f for f in FIELDS if "." in f}
