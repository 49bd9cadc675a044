"""Reads the bytes of leaves in one pass, compiled: see `parse_leaves`. Useless without Numba."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ledger.times import END
from projections.audit.arrays import Int64s, UInt8s
from projections.audit.index.event_columns import IS_CLEAR, IS_RETRACTION, NO_SETTING
from projections.audit.index.schema import (
    BIT_FALSE,
    BIT_OTHER,
    BIT_TRUE,
    OWNER_CODE,
    SETTINGS,
)
from projections.audit.numba_support import compiled, constants_key, part

NUMBERS: Final = 7
"""The first columns of `fields`: position, recorded_at, start, until, setting, value, retracts, as in `EventColumns`. A
value other than a bool is BIT_OTHER."""
STARTS: Final = NUMBERS
"""Then where the texts of the subject and the value begin. The value is JSON, with its quotes."""
ENDS: Final = NUMBERS + 2
SCANNED: Final = NUMBERS + 4


_LATER: Final = -(2**62)
"""Not an instant in the form that the codec writes."""
_DAY: Final = 86_400_000_000


def _bytes(text: str) -> UInt8s:
    return np.frombuffer(text.encode(), np.uint8)


_HEAD = _bytes('{"specversion":"1.0","id":"')
_CHANGED = _bytes('setting.changed.v1","subject":"')
_CLEARED = _bytes('setting.cleared.v1","subject":"')
_RETRACTED = _bytes('change.retracted.v1","subject":"')
_TIME = _bytes('","time":"')
_SEQUENCE = _bytes('","sequence":"')
_DATA = _bytes('","datacontenttype":"application/json","data":{"position":')
_VERSION = _bytes(',"version":')
_SETTING = _bytes(',"setting":"')
_RETRACTS = _bytes(',"retracts":"')
_SETTING_BEHIND = _bytes('","setting":"')
_VALUE = _bytes('","value":')
_FROM = _bytes(',"effective_from":"')
_FROM_OF_CLEAR = _bytes('","effective_from":"')
_UNTIL = _bytes('","effective_until":')
_NULL = _bytes("null")
_ACTOR = _bytes(',"actor":"')
_ACTOR_OF_RETRACTION = _bytes('","actor":"')
_PERSONAL = _bytes('","personal":{"commitment":"')
_TAIL = _bytes('"}}}')
_TAIL_OF_TEXT = _bytes('"}}')
_TRUE = _bytes("true")
_FALSE = _bytes("false")
_ID: Final = 36
_COMMITMENT: Final = 64
_QUOTE, _BACKSLASH, _BRACKET, _BRACKET_END, _COMMA, _HYPHEN, _ZERO = b'"\\[],-0'
_SETTINGS = _bytes("".join(SETTINGS))
_SETTING_STARTS = np.cumsum(np.array([0, *map(len, SETTINGS)]))


@part
def _past(buffer: UInt8s, at: int, end: int, literal: UInt8s) -> int:
    """The place after `literal`, which stands at `at`; -1 if another text stands there, or if `at` is -1."""
    if at < 0 or at + len(literal) > end:
        return -1
    for place in range(len(literal)):
        if buffer[at + place] != literal[place]:
            return -1
    return at + len(literal)


@part
def _number(buffer: UInt8s, at: int, digits: int) -> int:
    """The number in so many digits at `at`; -1 if one of them is no digit."""
    number = 0
    for place in range(at, at + digits):
        digit = int(buffer[place]) - 48
        if digit < 0 or digit > 9:
            return -1
        number = number * 10 + digit
    return number


@part
def _instant(buffer: UInt8s, at: int, end: int) -> int:
    """The instant (µs) in a text as `format_time` writes it, or _LATER. Days as in H. Hinnant, "chrono-compatible
    low-level date algorithms", days_from_civil."""
    if at < 0 or at + 27 > end:
        return _LATER
    year, month, day = _number(buffer, at, 4), _number(buffer, at + 5, 2), _number(buffer, at + 8, 2)
    hour, minute = _number(buffer, at + 11, 2), _number(buffer, at + 14, 2)
    second, micros = _number(buffer, at + 17, 2), _number(buffer, at + 20, 6)
    if min(year, month, day, hour, minute, second, micros) < 0:
        return _LATER
    if buffer[at + 4] != 45 or buffer[at + 7] != 45 or buffer[at + 10] != 84 or buffer[at + 13] != 58:
        return _LATER
    if buffer[at + 16] != 58 or buffer[at + 19] != 46 or buffer[at + 26] != 90:
        return _LATER
    if year == 0 or month == 0 or month > 12 or day == 0 or hour > 23 or minute > 59 or second > 59:
        return _LATER
    if day > 28:
        longest = 31
        if month == 4 or month == 6 or month == 9 or month == 11:
            longest = 30
        elif month == 2:
            longest = 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
        if day > longest:
            return _LATER
    if month <= 2:
        year -= 1
        month += 9
    else:
        month -= 3
    era = year // 400
    of_era = year - era * 400
    of_year = (153 * month + 2) // 5 + day - 1
    days = era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719_468
    return days * _DAY + ((hour * 60 + minute) * 60 + second) * 1_000_000 + micros


@part
def _whole_end(buffer: UInt8s, at: int, end: int) -> int:
    """The place after the whole number at `at`; -1 if there is none, or if it has a leading zero."""
    if at < 0:
        return -1
    start = at
    while at < end and 48 <= buffer[at] <= 57:
        at += 1
    if at == start or (buffer[start] == _ZERO and at > start + 1):
        return -1
    return at


@part
def _text_end(buffer: UInt8s, at: int, end: int) -> int:
    """The place of the quote that ends the text at `at`; -1 if there is none, or if the text has a byte that is not
    printable ASCII, or an escape."""
    if at < 0:
        return -1
    while at < end:
        byte = buffer[at]
        if byte == _QUOTE:
            return at
        if byte == _BACKSLASH or byte < 32 or byte > 126:
            return -1
        at += 1
    return -1


@part
def _value_end(buffer: UInt8s, at: int, end: int) -> int:
    """The place after the value at `at`, a text, an array of texts, or a bool; -1 for any other value."""
    if at < 0 or at >= end:
        return -1
    if buffer[at] == _QUOTE:
        closing = _text_end(buffer, at + 1, end)
        return closing + 1 if closing >= 0 else -1
    if buffer[at] != _BRACKET:
        return max(_past(buffer, at, end, _TRUE), _past(buffer, at, end, _FALSE))
    at += 1
    if at < end and buffer[at] == _BRACKET_END:
        return at + 1
    while at < end and buffer[at] == _QUOTE:
        at = _text_end(buffer, at + 1, end) + 1
        if at == 0 or at >= end:
            return -1
        if buffer[at] == _BRACKET_END:
            return at + 1
        if buffer[at] != _COMMA:
            return -1
        at += 1
    return -1


@part
def _setting(buffer: UInt8s, at: int, end: int) -> int:
    for code in range(len(_SETTING_STARTS) - 1):
        start = _SETTING_STARTS[code]
        length = _SETTING_STARTS[code + 1] - start
        if length == end - at:
            same = True
            for place in range(length):
                if buffer[at + place] != _SETTINGS[start + place]:
                    same = False
                    break
            if same:
                return code
    return NO_SETTING


@part
def _digit(byte: int) -> int:
    """The value of a hexadecimal digit, or -1."""
    if 48 <= byte <= 57:
        return byte - 48
    return byte - 87 if 97 <= byte <= 102 else -1


@part
def _id_position(buffer: UInt8s, at: int, end: int) -> int:
    """The position in the first 12 digits of the event id at `at`; -1 if there is no id."""
    if at < 0 or at + _ID > end:
        return -1
    position = 0
    for place in range(_ID):
        byte = int(buffer[at + place])
        if place == 8 or place == 13 or place == 18 or place == 23:
            if byte != _HYPHEN:
                return -1
            continue
        digit = _digit(byte)
        # The version of the id, and its variant (RFC 9562): `codec.position_of` asks for them, too.
        if digit < 0 or (place == 14 and digit != 8) or (place == 19 and not 8 <= digit <= 11):
            return -1
        if place < 13:
            position = position * 16 + digit
    return position


@part
def _ends(buffer: UInt8s, at: int, end: int) -> bool:
    """Whether the leaf ends after the actor's text, which begins at `at`, and an optional commitment."""
    text_end = _text_end(buffer, at, end)
    if _past(buffer, text_end, end, _TAIL_OF_TEXT) == end:
        return True
    at = _past(buffer, text_end, end, _PERSONAL)
    if at < 0 or at + _COMMITMENT > end:
        return False
    for place in range(at, at + _COMMITMENT):
        if _digit(int(buffer[place])) < 0:
            return False
    return _past(buffer, at + _COMMITMENT, end, _TAIL) == end


@part
def _leaf(buffer: UInt8s, start: int, end: int, source: UInt8s, fields: Int64s, row: int) -> bool:
    """Whether the leaf has the ordinary form. If so, row `row` of `fields` is filled in."""
    at = _past(buffer, start, end, _HEAD)
    of_id = _id_position(buffer, at, end)
    at = _past(buffer, at + _ID if of_id >= 0 else -1, end, source)
    changed, cleared = _past(buffer, at, end, _CHANGED), _past(buffer, at, end, _CLEARED)
    retracted = _past(buffer, at, end, _RETRACTED)
    subject = max(changed, cleared, retracted)
    subject_end = _text_end(buffer, subject, end)
    at = _past(buffer, subject_end, end, _TIME)
    recorded_at = _instant(buffer, at, end)
    if recorded_at == _LATER:
        return False
    at = _past(buffer, at + 27, end, _SEQUENCE)
    if at < 0 or at + 20 > end or _number(buffer, at, 10) != 0:
        return False
    position = _number(buffer, at + 10, 10)
    at = _past(buffer, at + 20, end, _DATA)
    if at < 0 or position <= 0:
        return False
    digits = _whole_end(buffer, at, end)
    if digits < 0 or digits - at > 10 or _number(buffer, at, digits - at) != position or of_id != position:
        return False
    at = _whole_end(buffer, _past(buffer, digits, end, _VERSION), end)
    if at < 0:
        return False
    retracts = 0
    if retracted >= 0:
        at = _past(buffer, at, end, _RETRACTS)
        retracts = _id_position(buffer, at, end)
        at = _past(buffer, at + _ID if retracts >= 0 else -1, end, _SETTING_BEHIND)
    else:
        at = _past(buffer, at, end, _SETTING)
    setting_end = _text_end(buffer, at, end)
    if setting_end < 0 or retracts < 0:
        return False
    setting = _setting(buffer, at, setting_end)
    value, value_start, value_end = IS_RETRACTION, 0, 0
    effective_from, until = recorded_at, END
    if retracted >= 0:
        at = _past(buffer, setting_end, end, _ACTOR_OF_RETRACTION)
    else:
        if cleared >= 0:
            value = IS_CLEAR
            at = _past(buffer, setting_end, end, _FROM_OF_CLEAR)
        else:
            value_start = _past(buffer, setting_end, end, _VALUE)
            value_end = _value_end(buffer, value_start, end)
            value = BIT_OTHER
            if value_end == _past(buffer, value_start, end, _TRUE):
                value = BIT_TRUE
            elif value_end == _past(buffer, value_start, end, _FALSE):
                value = BIT_FALSE
            at = _past(buffer, value_end, end, _FROM)
            if OWNER_CODE <= setting < NO_SETTING and at >= 0 and buffer[value_start] != _QUOTE:
                return False
        effective_from = _instant(buffer, at, end)
        at = _past(buffer, at + 27 if at >= 0 else -1, end, _UNTIL)
        if effective_from == _LATER or at < 0 or at >= end:
            return False
        if buffer[at] == _QUOTE:
            until = _instant(buffer, at + 1, end)
            if until == _LATER or at + 28 >= end or buffer[at + 28] != _QUOTE:
                return False
            at += 29
        else:
            at = _past(buffer, at, end, _NULL)
        at = _past(buffer, at, end, _ACTOR)
    fields[row, 0], fields[row, 1], fields[row, 2], fields[row, 3] = position, recorded_at, effective_from, until
    fields[row, 4], fields[row, 5], fields[row, 6] = setting, value, retracts
    fields[row, 7], fields[row, 8], fields[row, 9], fields[row, 10] = subject, value_start, subject_end, value_end
    return _ends(buffer, at, end)


CONSTANTS: Final = constants_key(globals())


@compiled
def scan(
    buffer: UInt8s,
    starts: Int64s,
    ends: Int64s,
    source: UInt8s,
    fields: Int64s,
    ordinary: NDArray[Any],
    constants: int = CONSTANTS,
) -> None:
    """Leaf i is buffer[starts[i] : ends[i]]. Sets ordinary[i] if it has the ordinary form, and then fills in
    fields[i]."""
    for row in range(len(starts)):
        ordinary[row] = _leaf(buffer, starts[row], ends[row], source, fields, row)
