"""The times of a log in other forms than RFC 3339: numbers since 1970 in a unit, and texts in a local notation.

A caller names the unit or the form, because a guess would judge requests by the settings of another day. A local time
that the zone's clocks showed twice, or skipped, names no single instant: its row is a reject. All times are cut off
after microseconds. Proved by tests/audit/io/test_log_times.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import ROUND_FLOOR, Context, Decimal
from math import isfinite
from typing import Any, Final, Literal, get_args

from ledger.errors import BadRecord
from ledger.times import BEGINNING, END, format_time

TimeUnit = Literal["s", "ms", "us", "ns"]
TIME_UNITS: Final[tuple[TimeUnit, ...]] = get_args(TimeUnit)
PER_SECOND: Final[Mapping[str, int]] = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}

_LOOSE_TIME: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(\.\d{1,9})?(?:([Zz])|([+-]\d\d)(?::?(\d\d))?)?", re.ASCII
)
_NUMBER: Final = re.compile(r"[+-]?\d{1,25}(\.\d{1,25})?([eE][+-]?\d{1,2})?", re.ASCII)
_EXACT: Final = Context(prec=200)
_SECOND: Final = 1_000_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_DIRECTIVES: Final = frozenset("YymdjbBaAHIpMSfz%")
"""Those of strptime that mean the same on every machine: `%Z` passes over the zone that it reads, and `%c`, `%x` and
`%X` depend on the language."""
_PROBE: Final = datetime(2021, 11, 23, 13, 45, 56, 123_456, UTC)


class UnreadableValue(ValueError):
    """A value that cannot be read. The message never repeats the value, which may be somebody's data."""


def check_format(time_format: str) -> None:
    """Raises `BadRecord` for a form that does not tell the day and the hour of a time."""
    directives = re.findall(r"%(.?)", time_format, re.DOTALL)
    unknown = sorted({directive for directive in directives if directive not in _DIRECTIVES})
    if unknown:
        known = " ".join(f"%{one}" for one in "YymdjbBaAHIpMSfz")
        raise BadRecord(f"the form of times has %{unknown[0]}, which is not among {known}")
    try:
        read = datetime.strptime(_PROBE.strftime(time_format), time_format)  # noqa: DTZ007 - the form may have no zone
    except (ValueError, re.error):
        read = None
    if read is None or (read.date(), read.hour) != (_PROBE.date(), _PROBE.hour):
        raise BadRecord("the form of times does not tell the day and the hour, as %d.%m.%Y %H:%M does")


def number_time(number: object, unit: TimeUnit) -> int | None:
    """µs since 1970 of a number, or of a text that is a number; None for anything else. Raises `UnreadableValue`."""
    if isinstance(number, bool):
        return None
    if isinstance(number, int):
        micros = number * (_SECOND // PER_SECOND[unit]) if unit != "ns" else number // 1_000
    elif isinstance(number, float):
        if not isfinite(number):
            raise UnreadableValue("the time is no number")
        # The shortest text of a float is what the log says; its exact value is a little more or less.
        micros = _cut(repr(number), unit)
    elif isinstance(number, str) and _NUMBER.fullmatch(number):
        micros = _cut(number, unit)
    else:
        return None
    if not BEGINNING <= micros < END:
        raise UnreadableValue(f"as a number in {unit}, the time lies outside the years 0001 to 9999")
    return micros


def _cut(number: str, unit: TimeUnit) -> int:
    micros = _EXACT.divide(_EXACT.multiply(Decimal(number), Decimal(_SECOND)), Decimal(PER_SECOND[unit]))
    return int(micros.to_integral_value(ROUND_FLOOR, _EXACT))


def is_number(value: object) -> bool:
    """Whether the value is a number, or a text that is one."""
    if isinstance(value, str):
        return _NUMBER.fullmatch(value) is not None
    return isinstance(value, int | float) and not isinstance(value, bool)


def formatted_time(text: Any, time_format: str, timezone: tzinfo | None) -> str:
    """RFC 3339 of a text in that form. Raises `UnreadableValue`."""
    if not isinstance(text, str):
        raise UnreadableValue("the time is no text, and the form of times was given")
    try:
        moment = datetime.strptime(text, time_format)  # noqa: DTZ007 - the zone of the log is applied below
    except (ValueError, OverflowError):
        raise UnreadableValue("the time does not have the form that was given for the log") from None
    local = moment.replace(tzinfo=None).isoformat()
    offset = moment.utcoffset()
    if offset is None:
        return time_text(local, timezone)
    micros = (datetime.fromisoformat(f"{local}+00:00") - _EPOCH - offset) // timedelta(microseconds=1)
    if not BEGINNING <= micros < END:
        raise UnreadableValue("the time lies outside the years 0001 to 9999 in UTC")
    return format_time(micros)


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
