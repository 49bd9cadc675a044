"""Instants: RFC 3339 text on the wire, integers of microseconds since 1970-01-01T00:00:00Z inside.

An offset is required, up to nine fractional digits are read and truncated to microseconds, and answers end in `Z`.
Numbers, times without an offset and words are refused. Leap seconds (`:60`) are refused, because the microsecond count
has no instant for them. Proved by tests/test_times.py.
"""

from __future__ import annotations

import re
from datetime import date, datetime
from functools import lru_cache
from typing import Final

from ledger.errors import BadTime

SECOND: Final = 1_000_000
DAY: Final = 86_400 * SECOND
_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - compared with texts whose Z was cut off
_EPOCH_ORDINAL: Final = date(1970, 1, 1).toordinal()

BEGINNING: Final = (1 - _EPOCH_ORDINAL) * DAY
"""0001-01-01T00:00:00Z, the first instant that has a text. The genesis catalog is effective from here on."""

END: Final = (date(9999, 12, 31).toordinal() + 1 - _EPOCH_ORDINAL) * DAY
"""The first instant after 9999-12-31. It has no text: use it as an exclusive bound only."""

_RFC3339: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?:[Zz]|([+-])(\d\d):(\d\d))", re.ASCII
)
_HINT: Final = "write it as RFC 3339 with an offset, for example 2026-01-31T09:30:00Z"


def parse_time(text: object) -> int:
    """Microseconds since 1970 of an RFC 3339 text with an offset. Raises `BadTime`."""
    if not isinstance(text, str):
        raise BadTime(f"a time must be a text, not {_json_type(text)}; {_HINT}")
    return _read_cached(text)


def parse_time_uncached(text: str) -> int:
    """`parse_time` for texts that rarely repeat: reads the usual form at a quarter of the cost, and caches only its
    minute."""
    if len(text) == 27:
        minute = _minutes.get(text[:17])
        if minute is not None and text[19] == "." and text[26] == "Z":
            digits = text[17:19] + text[20:26]
            # isdecimal accepts the digits of every script.
            if digits.isdecimal() and digits.isascii() and (micros := int(digits)) < 60 * SECOND:
                return minute + micros
    instant = _plain(text)
    if instant is None:
        return _read(text)
    if len(text) == 27:
        if len(_minutes) >= _CACHED_MINUTES_MAX:
            _minutes.clear()
        _minutes[text[:17]] = instant - instant % (60 * SECOND)
    return instant


_CACHED_MINUTES_MAX: Final = 4096
_minutes: Final[dict[str, int]] = {}
"""The first 17 characters of a text, up to its seconds → the instant at which that minute begins."""


def _plain(text: str) -> int | None:
    """The instant of a text in the usual form, ending in Z, with six fractional digits or none. None: use `_read`."""
    if len(text) == 27 and text[19] == ".":
        until = 26
    elif len(text) == 20:
        until = 19
    else:
        return None
    # fromisoformat accepts more than RFC 3339: other separators, excluded here, and midnight as 24:00, excluded below.
    if not (text[4] == "-" == text[7] and text[10] == "T" and text[13] == ":" == text[16] and text[until] == "Z"):
        return None
    try:
        since = datetime.fromisoformat(text[:until]) - _EPOCH
    except (ValueError, TypeError):
        # TypeError: fromisoformat reads an offset within the fraction, as in .0-0000.
        return None
    if text[11:13] == "24":
        return None
    return (since.days * 86_400 + since.seconds) * SECOND + since.microseconds


def _read(text: str) -> int:
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise BadTime(f"not a time with an offset; {_HINT}")
    day, hour, minute, second, fraction, sign, offset_hour, offset_minute = match.groups()
    midnight = _midnight(day)
    hours, minutes, seconds = int(hour), int(minute), int(second)
    if hours > 23 or minutes > 59 or seconds > 59:
        raise BadTime(f"there is no such time of day (24:00:00 and leap seconds are refused); {_HINT}")
    instant = midnight + (hours * 3600 + minutes * 60 + seconds) * SECOND
    if fraction is not None:
        instant += int(fraction.ljust(6, "0")[:6])
    if sign is not None:
        if int(offset_hour) > 23 or int(offset_minute) > 59:
            raise BadTime(f"there is no such offset; {_HINT}")
        offset = (int(offset_hour) * 3600 + int(offset_minute) * 60) * SECOND
        instant += -offset if sign == "+" else offset
    if not BEGINNING <= instant < END:
        raise BadTime("the time lies outside the years 0001 to 9999 in UTC")
    return instant


_read_cached: Final = lru_cache(4096)(_read)
"""Neighbouring events share their times, and a replay parses millions of them."""


@lru_cache(4096)
def _midnight(day: str) -> int:
    try:
        return (date(int(day[:4]), int(day[5:7]), int(day[8:])).toordinal() - _EPOCH_ORDINAL) * DAY
    except ValueError:
        raise BadTime(f"there is no such day; {_HINT}") from None


def format_time(instant: int) -> str:
    """RFC 3339 text in UTC with six fractional digits, for instants in [BEGINNING, END)."""
    minutes, micros = divmod(instant, 60 * SECOND)
    days, minute = divmod(minutes, 1440)
    # Slicing takes half the time of formatting with a width; every check over HTTP writes an instant or two.
    digits = str(100 * SECOND + micros)
    return f"{_day(days)}{_MINUTES[minute]}{digits[1:3]}.{digits[3:]}Z"


@lru_cache(4096)
def _day(since_1970: int) -> str:
    return date.fromordinal(since_1970 + _EPOCH_ORDINAL).isoformat()


_MINUTES: Final = tuple(f"T{minute // 60:02}:{minute % 60:02}:" for minute in range(1440))


def _json_type(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a bool"
    if isinstance(value, int | float):
        return "a number"
    return "an array" if isinstance(value, list) else "an object"
