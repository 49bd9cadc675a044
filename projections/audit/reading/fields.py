"""Which column of a log is which field of a request record, and how its text is read.

A log that says nothing about a field leaves it absent; what it says is never bent to fit. Proved by
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
}
"""Every field of a request record (WIRE.md section 2), the members of `handling` with a dot."""

MEMBERS: Final = frozenset(field for field in FIELDS if "." not in field) | {"handling"}
_FLAGS: Final = {"true": True, "1": True, "false": False, "0": False}
_LOOSE_TIME: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(\.\d{1,9})?(?:([Zz])|([+-]\d\d)(?::?(\d\d))?)?", re.ASCII
)


class UnreadableValue(ValueError):
    """A cell that cannot be read. The message never holds what it says."""


class ColumnMapping(NamedTuple):
    """How a log is laid out.

    columns: field → the column that holds it ("" : none does). A column that bears a field's own name is that field
    unless this says otherwise; any further columns are refused, but ignored where `columns` names any.
    constants: field → what holds on every line that does not say otherwise itself.
    timezone: of times without an offset; None: they are refused.
    path_values: field → what the folders of the file's path say of it (`org_id=acme/`), before the constants of the
    log. Its column, if it was named, need not be in the file.
    """

    columns: Mapping[str, str] = {}
    constants: Mapping[str, str] = {}
    timezone: tzinfo | None = None
    path_values: Mapping[str, str] = {}

    def column(self, field: str) -> str:
        return self.columns.get(field, field)

    def checked_constants(self) -> dict[str, Any]:
        """The constants as values. Raises `BadRecord` where one, or a field in `columns`, is not to be had."""
        for field in (*self.columns, *self.constants):
            if field not in FIELDS:
                raise BadRecord(f"a request record has no such field as was named; it has {', '.join(FIELDS)}")
        values: dict[str, Any] = {}
        for field, text in {**self.constants, **self.path_values}.items():
            try:
                values[field] = cell_value(field, text, self.timezone)
            except UnreadableValue as error:
                raise BadRecord(f"the constant for {field}: {error}") from None
            if values[field] is None:
                raise BadRecord(f"the constant for {field} is empty")
        # Wrong here is wrong on every line, so it is said once and before the first.
        read_record(raw_record({"account_id": "any"} | values), 0)
        return values


NO_MAPPING: Final = ColumnMapping()


def raw_record(values: Mapping[str, Any]) -> dict[str, Any]:
    """Field → value, as the JSON value of a request record."""
    raw: dict[str, Any] = {}
    for field, value in values.items():
        member, dot, inner = field.partition(".")
        if dot:
            raw.setdefault(member, {})[inner] = value
        else:
            raw[field] = value
    return raw


def cell_value(field: str, text: str, timezone: tzinfo | None) -> Any:
    """What a CSV cell says of a field; None where it is empty. Raises `UnreadableValue`."""
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
    """What a JSON member says of a field. Where the column was named for the field, a number is taken for an id."""
    if FIELDS[field] == "time":
        return time_text(value, timezone) if isinstance(value, str) else value
    if mapped and FIELDS[field] == "text" and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value


def time_text(text: str, timezone: tzinfo | None) -> str:
    """RFC 3339 for what logs write instead: a space for the T, a short offset, or none. Raises `UnreadableValue`.

    A local time that its zone's clocks showed twice, or skipped, stands for no one instant and is refused.
    """
    match = _LOOSE_TIME.fullmatch(text)
    if match is None:
        return text
    day, clock, fraction, zulu, hours, minutes = match.groups()
    written = f"{day}T{clock}{fraction or ''}"
    if zulu is not None:
        return f"{written}Z"
    if hours is not None:
        return f"{written}{hours}:{minutes or '00'}"
    if timezone is None:
        raise UnreadableValue("the time has no offset, and no time zone was given for the log")
    if timezone is UTC:
        return f"{written}Z"
    return written + _offset(f"{day}T{clock}", timezone)


def _offset(written: str, timezone: tzinfo) -> str:
    try:
        local = datetime.fromisoformat(written).replace(tzinfo=timezone)
        offset = local.utcoffset()
    except (ValueError, OverflowError):
        raise UnreadableValue("there is no such time") from None
    if offset is None or offset != local.replace(fold=1).utcoffset():
        raise UnreadableValue(
            "the time zone's clocks showed this time twice, or not at all; log times with their offset"
        )
    if offset % timedelta(minutes=1):
        # As before there were time zones. An offset on the wire has no seconds.
        raise UnreadableValue("the time zone's offset was not of whole minutes then; log times with their offset")
    sign = "-" if offset < timedelta(0) else "+"
    minutes = abs(offset) // timedelta(minutes=1)
    return f"{sign}{minutes // 60:02}:{minutes % 60:02}"


assert {f for f in FIELDS if "." not in f} == set(RequestRecord._fields) - {"handling"}
assert {f"handling.{f}" for f in Observed._fields} == {f for f in FIELDS if "." in f}
