"""The fields of a request record in a log: the column that holds each, and how to read its text.

A field that a line lacks stays absent, and a value is never bent to fit its field. Proved by
tests/test_audit_records.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Final, Literal, NamedTuple

from ledger.errors import BadRecord
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
_FLAGS: Final = {"true": True, "1": True, "false": False, "0": False}
_LOOSE_TIME: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(\.\d{1,9})?(?:([Zz])|([+-]\d\d)(?::?(\d\d))?)?", re.ASCII
)


class UnreadableValue(ValueError):
    """A value that cannot be read. The message never repeats the value, which may be somebody's data."""


class ColumnMapping(NamedTuple):
    """The columns of a log, and the values that hold where a line has none.

    columns: field → column; "" if no column holds the field. A column that bears a field's name is that field unless
    `columns` maps the field elsewhere. Further columns are ignored.
    constants: field → text of the value for lines without one.
    timezone: the time zone of times without an offset; None rejects such times.
    path_values: field → text from the file's folders (`org_id=acme/`). A path value takes precedence over a constant,
    and a file that has one may lack the column.
    """

    columns: Mapping[str, str] = {}
    constants: Mapping[str, str] = {}
    timezone: tzinfo | None = None
    path_values: Mapping[str, str] = {}

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
                values[field] = cell_value(field, text, self.timezone)
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


def cell_value(field: str, text: str, timezone: tzinfo | None) -> Any:
    """The field's value in a CSV cell; None if the cell is empty. Raises `UnreadableValue`."""
    if text == "":
        return None
    match FIELDS[field]:
        case "flag":
            flag = _FLAGS.get(text.lower())
            if flag is None:
                raise UnreadableValue("true, false, 1 or 0 is required")
            return flag
        case "position":
            if not (text.isascii() and text.isdigit() and len(text) <= 18):
                raise UnreadableValue("a ledger position is a whole number, 0 or more")
            return int(text)
        case "time":
            return time_text(text, timezone)
    return text


def json_value(field: str, value: Any, timezone: tzinfo | None, *, mapped: bool) -> Any:
    """The field's value in a JSON member. A mapped column may hold an id as a number."""
    if FIELDS[field] == "time":
        return time_text(value, timezone) if isinstance(value, str) else value
    if mapped and FIELDS[field] == "text" and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value


def time_text(text: str, timezone: tzinfo | None) -> str:
    """Turns the usual spellings of a time into RFC 3339: a space for the T, a short offset, or no offset.

    Raises `UnreadableValue` for a local time that the zone's clocks showed twice or skipped: it names no single
    instant.
    """
    match = _LOOSE_TIME.fullmatch(text)
    if match is None:
        return text
    day, clock, fraction, zulu, hours, minutes = match.groups()
    local = f"{day}T{clock}{fraction or ''}"
    if zulu is not None:
        return f"{local}Z"
    if hours is not None:
        return f"{local}{hours}:{minutes or '00'}"
    if timezone is None:
        raise UnreadableValue("the time has no offset, and no time zone was given for the log")
    if timezone is UTC:
        return f"{local}Z"
    return local + _offset(f"{day}T{clock}", timezone)


def _offset(clock_time: str, timezone: tzinfo) -> str:
    try:
        local = datetime.fromisoformat(clock_time).replace(tzinfo=timezone)
        offset = local.utcoffset()
    except (ValueError, OverflowError):
        raise UnreadableValue("no such time exists") from None
    if offset is None or offset != local.replace(fold=1).utcoffset():
        raise UnreadableValue(
            "the time zone's clocks showed this time twice, or not at all; log times with their offset"
        )
    if offset % timedelta(minutes=1):
        # Local mean time, before time zones: RFC 3339 has no seconds in an offset.
        raise UnreadableValue("the zone's offset then was not a whole number of minutes; log times with their offset")
    sign = "-" if offset < timedelta(0) else "+"
    minutes = abs(offset) // timedelta(minutes=1)
    return f"{sign}{minutes // 60:02}:{minutes % 60:02}"


assert {f for f in FIELDS if "." not in f} == set(RequestRecord._fields) - {"handling"}
assert {f"handling.{f}" for f in Observed._fields} == {f for f in FIELDS if "." in f}
