"""Compiled loops that read lines of JSON and CSV in their ordinary form, straight from the bytes.

The loops may refuse a good line, and never accept a bad one: `projections.audit.reading.strict` reads every refused
line again and has the last word. The file is longer than others because Numba checks only a function's own file for
changes: with helpers in a second file, cached machine code would stay in use after they change. The loops are plain
because that is what Numba compiles. Data ends in a newline and has some bytes of padding. Proved by
tests/audit/io/test_text_logs.py.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from ledger.subjects import is_id as is_an_id
from ledger.times import BEGINNING, END
from projections.audit.numba_support import compiled, constants_key, part

NOT_READ: Final = -1

POSITION: Final = 0
AT: Final = 1
"""Rows of `values`, int64, a column for each line."""
AT_KIND: Final = 19
STATE: Final = 20
"""Rows of `flags`, int8, a column for each line. They follow a row for each field: 1, 0, -1 if absent, or NULL."""
KIND: Final = 0
NUMBERS: Final = 1
IS_ID: Final = 2
IS_NETWORK: Final = 3
"""Columns of `specs`, int64, a row for each field: its kind (0 text, 1 time, 2 position, 3 flag), whether a number is
allowed, whether it is an id, and whether it is public or private."""
WHO_FIRST: Final = 2
WHO_LAST: Final = 5
"""The fields that name the sender of a request."""
LOCAL_TIMES: Final = 0
AT_NEEDED: Final = 1
WHO_NEEDED: Final = 2
LINE_MAX: Final = 3
IS_ASCII: Final = 4
DELIMITER: Final = 5
RULES: Final = 6
"""Places in `rules`, int64, and their number. IS_ASCII: the whole block is ASCII, so no line needs a check of its
UTF-8. DELIMITER: the byte between two cells of CSV. LOCAL_TIMES: 1 if times without an offset are read, and 2 more for
each step to the unit of times that are numbers (2 s, 4 ms, 6 us, 8 ns)."""
NULL: Final = -2
"""In `flags`: the field's member is there, and null."""
PARENT: Final = 0
FIRST: Final = 1
LENGTH: Final = 2
CHILD: Final = 3
NODE: Final = 4
"""Columns of `edges`, int64: see `projections.audit.reading.json_paths.PathTree`. Field n of line r begins at
spans[2n, r] and has spans[2n + 1, r] bytes."""

STRICT_MEMBERS: Final = 0
ANY_MEMBERS: Final = 1
STRICT_HANDLING: Final = 2
"""In `lenient`, by node: unknown members are for the strict reader; are ignored; or are ignored unless their names
begin with `handling.`."""
_HANDLING: Final = np.uint64(int.from_bytes(b"handling", "little"))
_MINUTE: Final = 60_000_000
_HOUR: Final = 60 * _MINUTE
_DAY: Final = 24 * _HOUR
_BEGINNING: Final = BEGINNING
_END: Final = END


IN_AN_ID: Final[Any] = np.array([is_an_id(chr(byte)) for byte in range(256)])
"""Whether a byte may stand in an id (`ledger.subjects.is_id`)."""
_COLON: Final = ord(":")
_KEY, _ORG, _MODEL, _ACCOUNT, _PROJECT = b"komap"
"""The first bytes of the kinds that ids have."""
_EACH: Final = np.uint64(0x0101010101010101)
_SPACES: Final = np.uint64(0x2020202020202020)
_QUOTES: Final = np.uint64(0x2222222222222222)
_BACKSLASHES: Final = np.uint64(0x5C5C5C5C5C5C5C5C)
_HIGH_BITS: Final = np.uint64(0x8080808080808080)
"""One value in each byte of a word: a one, a space, a quote, a backslash, the highest bit."""
_PLACES: Final = np.uint64(0x0001020304050607)
TEXT_PADDING: Final = 16
"""Bytes of padding after gathered texts."""


@part
def may_hold_kind(data: Any, start: int, length: int) -> bool:
    """Whether an id may hold its kind, such as org:acme: it is then for the strict reader."""
    first = data[start]
    if length > 3 and data[start + 3] == _COLON and (first == _KEY or first == _ORG):
        return True
    if length > 5 and data[start + 5] == _COLON and first == _MODEL:
        return True
    return bool(length > 7 and data[start + 7] == _COLON and (first == _ACCOUNT or first == _PROJECT))


@part
def is_id(data: Any, start: int, length: int) -> bool:
    if length < 1 or length > 256:
        return False
    for at in range(start, start + length):
        if not IN_AN_ID[data[at]]:
            return False
    return not may_hold_kind(data, start, length)


@part
def characters(data: Any, start: int, length: int) -> int:
    """The number of characters of valid UTF-8."""
    count = 0
    for at in range(start, start + length):
        if data[at] & 0xC0 != 0x80:
            count += 1
    return count


@part
def is_utf8(data: Any, start: int, end: int) -> bool:
    at = start
    while at < end:
        byte = data[at]
        if byte < 0x80:
            at += 1
            continue
        if 0xC2 <= byte <= 0xDF:
            more, low, high = 1, 0x80, 0xBF
        elif 0xE0 <= byte <= 0xEF:
            more = 2
            low = 0xA0 if byte == 0xE0 else 0x80
            high = 0x9F if byte == 0xED else 0xBF
        elif 0xF0 <= byte <= 0xF4:
            more = 3
            low = 0x90 if byte == 0xF0 else 0x80
            high = 0x8F if byte == 0xF4 else 0xBF
        else:
            return False
        if at + more >= end or data[at + 1] < low or data[at + 1] > high:
            return False
        for further in range(at + 2, at + more + 1):
            if data[further] & 0xC0 != 0x80:
                return False
        at += more + 1
    return True


@part
def digits(data: Any, start: int, count: int) -> int:
    """The number that `count` digits write, or NOT_READ."""
    number = 0
    for at in range(start, start + count):
        digit = int(data[at]) - 48
        if digit < 0 or digit > 9:
            return NOT_READ
        number = number * 10 + digit
    return number


@part
def instant(data: Any, start: int, length: int, values: Any, row: int) -> int:
    """0: no time; 1: a time with an offset; 2: a time without one. Sets `values[AT, row]`: µs, for 2 as if in UTC."""
    if length < 19 or length > 36:
        return 0
    year, month, day = digits(data, start, 4), digits(data, start + 5, 2), digits(data, start + 8, 2)
    hour, minute, second = digits(data, start + 11, 2), digits(data, start + 14, 2), digits(data, start + 17, 2)
    # - - T : :
    if data[start + 4] != 45 or data[start + 7] != 45 or data[start + 13] != 58 or data[start + 16] != 58:
        return 0
    between = data[start + 10]
    if between != 84 and between != 116 and between != 32:
        return 0
    if year < 1 or month < 1 or month > 12 or day < 1 or not 0 <= hour < 24 or not 0 <= minute < 60:
        return 0
    leap = (year % 4 == 0 and year % 100 != 0) or year % 400 == 0
    longest = 30 if month in (4, 6, 9, 11) else 31
    if month == 2:
        longest = 29 if leap else 28
    if day > longest or not 0 <= second < 60:
        return 0
    at, end = start + 19, start + length
    micros = 0
    if at < end and data[at] == 46:
        first = at + 1
        at = first
        while at < end and 48 <= data[at] <= 57:
            if at - first < 6:
                micros = micros * 10 + (int(data[at]) - 48)
            at += 1
        count = at - first
        if count < 1 or count > 9:
            return 0
        for _ in range(count, 6):
            micros *= 10
    # Days since 1970 in the proleptic Gregorian calendar, with years that begin in March.
    shifted = year - 1 if month <= 2 else year
    of_year = (153 * (month - 3 if month > 2 else month + 9) + 2) // 5 + day - 1
    days = shifted * 365 + shifted // 4 - shifted // 100 + shifted // 400 + of_year - 719_468
    local = days * _DAY + hour * _HOUR + minute * _MINUTE + second * 1_000_000 + micros
    kind = 1
    if at == end:
        kind = 2
    elif data[at] == 90 or data[at] == 122:
        if at + 1 != end:
            return 0
    else:
        sign = data[at]
        hours, minutes, left = digits(data, at + 1, 2), 0, end - at
        if left == 5:
            minutes = digits(data, at + 3, 2)
        elif left == 6 and data[at + 3] == 58:
            minutes = digits(data, at + 4, 2)
        elif left != 3:
            return 0
        if (sign != 43 and sign != 45) or not 0 <= hours < 24 or not 0 <= minutes < 60:
            return 0
        offset = hours * _HOUR + minutes * _MINUTE
        local = local - offset if sign == 43 else local + offset
    if kind == 1 and not _BEGINNING <= local < _END:
        return 0
    values[AT, row] = local
    return kind


# Nodes of the tree of JSON members: see `projections.audit.reading.json_paths`.
INNER: Final = -1
STRICT: Final = -2
_IGNORED: Final = -1
_ARRAY: Final = -2
DEPTH_MAX: Final = 250


@part
def _space(data: Any, at: int) -> int:
    # Mostly there is none, and one comparison is enough.
    while data[at] <= 32:
        if data[at] != 32 and data[at] != 9 and data[at] != 13:
            break
        at += 1
    return at


@part
def _strange(words: Any, at: int) -> int:
    """The place, from `at` on, of the first byte that JSON text cannot hold as it is: a control character, a quote or a
    backslash. Compares eight bytes at a time: a subtraction borrows from a byte's highest bit if the byte is
    smaller."""
    while True:
        word = words[at]
        quote, backslash = word ^ _QUOTES, word ^ _BACKSLASHES
        small = (word - _SPACES) & ~word | (quote - _EACH) & ~quote | (backslash - _EACH) & ~backslash
        small &= _HIGH_BITS
        if small != 0:
            # The byte of the lowest bit: the multiplication moves that byte's number to the top.
            lowest = (small & (np.uint64(0) - small)) >> np.uint64(7)
            return at + int((lowest * _PLACES) >> np.uint64(56))
        at += 8


@part
def _closing(data: Any, words: Any, at: int, plain: bool) -> int:
    """The place of the quote that ends the text whose first character is at `at`. `plain`: refuses escapes."""
    while True:
        at = _strange(words, at)
        byte = data[at]
        if byte == 34:
            return at
        if byte < 32 or plain:
            return NOT_READ
        escaped = data[at + 1]
        if escaped == 117:
            for place in range(at + 2, at + 6):
                digit = data[place]
                if not (48 <= digit <= 57 or 65 <= digit <= 70 or 97 <= digit <= 102):
                    return NOT_READ
            at += 6
            continue
        if escaped not in (34, 92, 47, 98, 102, 110, 114, 116):
            return NOT_READ
        at += 2


@part
def _any_number(data: Any, at: int) -> int:
    """The place after any JSON number."""
    if data[at] == 45:
        at += 1
    if data[at] == 48:
        at += 1
    elif 49 <= data[at] <= 57:
        while 48 <= data[at] <= 57:
            at += 1
    else:
        return NOT_READ
    if data[at] == 46:
        at += 1
        first = at
        while 48 <= data[at] <= 57:
            at += 1
        if at == first:
            return NOT_READ
    if data[at] == 69 or data[at] == 101:
        at += 1
        if data[at] == 43 or data[at] == 45:
            at += 1
        first = at
        while 48 <= data[at] <= 57:
            at += 1
        if at == first:
            return NOT_READ
    return at


@part
def _number(data: Any, at: int) -> int:
    """The place after a JSON number without an exponent."""
    begin = at
    if data[at] == 45:
        at += 1
    if data[at] == 48:
        at += 1
    elif 49 <= data[at] <= 57:
        while 48 <= data[at] <= 57:
            at += 1
    else:
        return NOT_READ
    if data[at] == 46:
        at += 1
        first = at
        while 48 <= data[at] <= 57:
            at += 1
        if at == first:
            return NOT_READ
    if data[at] == 69 or data[at] == 101 or at - begin > 300:
        return NOT_READ
    return at


@part
def _literal(data: Any, at: int) -> int:
    """The place after true, false or null."""
    if data[at] == 116 and data[at + 1] == 114 and data[at + 2] == 117 and data[at + 3] == 101:
        return at + 4
    if data[at] == 110 and data[at + 1] == 117 and data[at + 2] == 108 and data[at + 3] == 108:
        return at + 4
    if data[at] == 102 and data[at + 1] == 97 and data[at + 2] == 108 and data[at + 3] == 115 and data[at + 4] == 101:
        return at + 5
    return NOT_READ


@part
def _edge(edges: Any, names: Any, data: Any, words: Any, node: int, start: int, guess: int) -> int:
    """The edge from `node` whose name begins at `start` and ends with a quote, or -1. Tries `guess` first, because most
    lines have their members in the same order. No name is empty or needs an escape."""
    count = len(edges)
    for step in range(count):
        edge = guess + step
        if edge >= count:
            edge -= count
        first, length = edges[edge, FIRST], edges[edge, LENGTH]
        if edges[edge, PARENT] != node:
            continue
        # In the last word, a mask hides the bytes after the name.
        at, differing = 0, np.uint64(0)
        while differing == 0 and at + 8 <= length:
            differing = names[first + at] ^ words[start + at]
            at += 8
        if differing == 0:
            mask = (np.uint64(1) << np.uint64(8 * (length - at))) - np.uint64(1)
            differing = (names[first + at] ^ words[start + at]) & mask
        if differing == 0 and data[start + length] == 34:
            return edge
    return -1


@part
def _json_field(
    field: int, specs: Any, local: Any, data: Any, words: Any, at: int, row: int, spans: Any, values: Any, flags: Any
) -> int:
    """Stores a field's value; returns the place after it."""
    byte = data[at]
    kind = specs[field, KIND]
    if byte == 110:
        flags[field, row] = NULL
        return _literal(data, at)
    if kind == 0 or kind == 1:
        if byte == 34:
            start = at + 1
            if kind == 0 and specs[field, IS_ID]:
                end = start
                while IN_AN_ID[data[end]]:
                    end += 1
                if data[end] != 34 or not 1 <= end - start <= 256 or may_hold_kind(data, start, end - start):
                    return NOT_READ
                spans[2 * field, row], spans[2 * field + 1, row] = start, end - start
                return end + 1
            end = _closing(data, words, start, True)
            if end == NOT_READ or end == start:
                return NOT_READ
        elif kind == 0 and specs[field, NUMBERS] and 48 <= byte <= 57:
            start = at
            end = _number(data, at)
            if end == NOT_READ:
                return NOT_READ
            for place in range(start, end):
                if data[place] == 46:
                    return NOT_READ
            return end if _text_field(field, specs, data, start, end - start, row, spans) else NOT_READ
        elif kind == 1 and local > 1 and 48 <= byte <= 57:
            end = _number(data, at)
            if end == NOT_READ:
                return NOT_READ
            return end if _time_field(local, data, at, end - at, row, values, flags) else NOT_READ
        else:
            return NOT_READ
        if kind == 1:
            return end + 1 if _time_field(local, data, start, end - start, row, values, flags) else NOT_READ
        return end + 1 if _text_field(field, specs, data, start, end - start, row, spans) else NOT_READ
    if kind == 2:
        if byte < 48 or byte > 57:
            return NOT_READ
        end = _number(data, at)
        position = NOT_READ
        if end != NOT_READ and end - at <= 18:
            position = digits(data, at, end - at)
        if position == NOT_READ:
            return NOT_READ
        values[POSITION, row] = position
        return end
    if byte != 116 and byte != 102:
        return NOT_READ
    flags[field, row] = 1 if byte == 116 else 0
    return _literal(data, at)


@part
def _text_field(field: int, specs: Any, data: Any, start: int, length: int, row: int, spans: Any) -> bool:
    if specs[field, IS_ID]:
        if not is_id(data, start, length):
            return False
    elif length > 256 and characters(data, start, length) > 256:
        return False
    elif specs[field, IS_NETWORK]:
        # public or private
        if length == 6:
            if data[start] != 112 or data[start + 1] != 117 or data[start + 2] != 98 or data[start + 3] != 108:
                return False
            if data[start + 4] != 105 or data[start + 5] != 99:
                return False
        elif length == 7:
            if data[start] != 112 or data[start + 1] != 114 or data[start + 2] != 105 or data[start + 3] != 118:
                return False
            if data[start + 4] != 97 or data[start + 5] != 116 or data[start + 6] != 101:
                return False
        else:
            return False
    spans[2 * field, row] = start
    spans[2 * field + 1, row] = length
    return True


@part
def _number_time(unit: int, data: Any, start: int, length: int, values: Any, row: int) -> int:
    """As `instant`, for a number since 1970. `unit`: 1 s, 2 ms, 3 us, 4 ns. Only seconds may have a fraction, of up to
    six digits: every float of this size is then the number that its text says."""
    whole = 0
    while whole < length and data[start + whole] != 46:
        whole += 1
    fraction = length - whole - 1
    if whole < 1 or whole > 18 or (fraction >= 0 and (unit != 1 or whole > 10 or not 1 <= fraction <= 6)):
        return 0
    number = digits(data, start, whole)
    if number == NOT_READ:
        return 0
    micros = number
    if unit == 1:
        if whole > 12:
            return 0
        micros = number * 1_000_000
    elif unit == 2:
        if whole > 15:
            return 0
        micros = number * 1_000
    elif unit == 4:
        micros = number // 1_000
    if fraction > 0:
        part_of_second = digits(data, start + whole + 1, fraction)
        if part_of_second == NOT_READ:
            return 0
        for _ in range(fraction, 6):
            part_of_second *= 10
        micros += part_of_second
    if micros >= _END:
        return 0
    values[AT, row] = micros
    return 1


@part
def _time_field(local: Any, data: Any, start: int, length: int, row: int, values: Any, flags: Any) -> bool:
    """`local`: see LOCAL_TIMES."""
    kind = instant(data, start, length, values, row)
    if kind == 0 and local > 1:
        kind = _number_time(local >> 1, data, start, length, values, row)
    flags[AT_KIND, row] = kind
    return bool(kind == 1 or (kind == 2 and local & 1 != 0))


@part
def _json_line(
    edges: Any,
    names: Any,
    lenient: Any,
    specs: Any,
    local: Any,
    data: Any,
    words: Any,
    at: int,
    row: int,
    spans: Any,
    values: Any,
    flags: Any,
    stacks: Any,
) -> int:
    """The end of the line that begins at `at`, if it is an object in the ordinary form. `stacks`: scratch space."""
    at = _space(data, at)
    if data[at] != 123:
        return NOT_READ
    at = _space(data, at + 1)
    depth, guess = 0, 0
    members = np.uint64(0)
    stacks[0, 0] = 0
    if data[at] == 125:
        return NOT_READ
    while True:
        node = stacks[0, depth]
        child = -1
        kind = INNER
        if node != _ARRAY:
            if data[at] != 34:
                return NOT_READ
            start = at + 1
            edge = _edge(edges, names, data, words, node, start, guess) if node >= 0 else -1
            end = start + edges[edge, LENGTH] if edge >= 0 else _closing(data, words, start, node >= 0)
            if end == NOT_READ:
                return NOT_READ
            at = _space(data, end + 1)
            if data[at] != 58:
                return NOT_READ
            at = _space(data, at + 1)
            if node >= 0:
                if edge >= 0:
                    guess = edge + 1 if edge + 1 < len(edges) else 0
                    child = edges[edge, CHILD]
                    kind = edges[edge, NODE]
                    bit = np.uint64(1) << np.uint64(child)
                    if members & bit or kind == STRICT:
                        return NOT_READ
                    members |= bit
                elif lenient[node] == STRICT_MEMBERS or (
                    lenient[node] == STRICT_HANDLING and words[start] == _HANDLING and data[start + 8] == 46
                ):
                    return NOT_READ
        byte = data[at]
        if child >= 0 and kind >= 0:
            at = _json_field(kind, specs, local, data, words, at, row, spans, values, flags)
            if at == NOT_READ:
                return NOT_READ
        elif byte == 123:
            if depth + 1 == DEPTH_MAX:
                return NOT_READ
            depth += 1
            stacks[0, depth] = child if child >= 0 else _IGNORED
            at = _space(data, at + 1)
            if data[at] != 125:
                continue
            at += 1
            depth -= 1
        elif child >= 0:
            # An object should stand here: null counts as absent, anything else is for the strict reader.
            if byte != 110:
                return NOT_READ
            at = _literal(data, at)
            if at == NOT_READ:
                return NOT_READ
        elif byte == 91:
            if depth + 1 == DEPTH_MAX:
                return NOT_READ
            depth += 1
            stacks[0, depth] = _ARRAY
            at = _space(data, at + 1)
            if data[at] != 93:
                continue
            at += 1
            depth -= 1
        elif byte == 34:
            at = _closing(data, words, at + 1, False)
            if at == NOT_READ:
                return NOT_READ
            at += 1
        else:
            at = _any_number(data, at) if byte == 45 or 48 <= byte <= 57 else _literal(data, at)
            if at == NOT_READ:
                return NOT_READ
        while True:
            at = _space(data, at)
            if data[at] == 44:
                at = _space(data, at + 1)
                break
            if data[at] != (93 if stacks[0, depth] == _ARRAY else 125):
                return NOT_READ
            at += 1
            depth -= 1
            if depth < 0:
                at = _space(data, at)
                return at if data[at] == 10 else NOT_READ


@part
def _csv_field(
    field: int,
    specs: Any,
    local: Any,
    data: Any,
    start: int,
    length: int,
    row: int,
    spans: Any,
    values: Any,
    flags: Any,
) -> bool:
    if length == 0:
        return True
    kind = specs[field, KIND]
    if kind == 0:
        return _text_field(field, specs, data, start, length, row, spans)
    if kind == 1:
        return _time_field(local, data, start, length, row, values, flags)
    if kind == 2:
        position = digits(data, start, length) if length <= 18 else NOT_READ
        values[POSITION, row] = position
        return position != NOT_READ
    # true, false, 1 or 0, in any case
    first = data[start] | 32
    flag = -1
    if length == 1 and (data[start] == 48 or data[start] == 49):
        flag = int(data[start]) - 48
    elif length == 4 and first == 116:
        if data[start + 1] | 32 == 114 and data[start + 2] | 32 == 117 and data[start + 3] | 32 == 101:
            flag = 1
    elif length == 5 and first == 102 and data[start + 1] | 32 == 97 and data[start + 2] | 32 == 108:
        if data[start + 3] | 32 == 115 and data[start + 4] | 32 == 101:
            flag = 0
    flags[field, row] = flag
    return flag >= 0


@part
def _csv_line(
    fields: Any,
    specs: Any,
    local: Any,
    delimiter: int,
    data: Any,
    at: int,
    row: int,
    spans: Any,
    values: Any,
    flags: Any,
) -> int:
    """The end of the line that begins at `at`, if all its cells are plain or simply quoted. `fields`: column → field,
    or -1."""
    column, characters_seen = 0, 0
    while True:
        if data[at] == 34:
            start = at + 1
            at = start
            while data[at] != 34:
                if data[at] < 32:
                    return NOT_READ
                at += 1
            end = at
            at += 1
        else:
            start = at
            while data[at] != delimiter:
                byte = data[at]
                if byte < 32 or byte == 34:
                    break
                at += 1
            end = at
        if column == len(fields):
            return NOT_READ
        characters_seen |= end - start
        field = fields[column]
        if field >= 0 and not _csv_field(field, specs, local, data, start, end - start, row, spans, values, flags):
            return NOT_READ
        column += 1
        if data[at] == delimiter:
            at += 1
            continue
        while data[at] == 13:
            at += 1
        # Without a character the row is blank, which the strict reader knows.
        return at if data[at] == 10 and column == len(fields) and characters_seen else NOT_READ


BLANK: Final = 0
READ: Final = 1
LEFT: Final = 2
"""States of a line: it is blank; it is read; it is left to the strict reader."""
CONSTANTS: Final = constants_key(globals())


@compiled
def scan(
    edges: Any,
    names: Any,
    lenient: Any,
    fields: Any,
    specs: Any,
    rules: Any,
    data: Any,
    words: Any,
    size: int,
    line_ends: Any,
    spans: Any,
    values: Any,
    flags: Any,
    stacks: Any,
    constants: Any = CONSTANTS,
) -> int:
    """Scans the lines of data[:size]; returns their number. `words`: see `in_words`. `fields`: empty for JSON."""
    # Not the literal 0, for which Numba would compile all callees once more.
    at: Any = np.int64(0)
    row: Any = np.int64(0)
    local, delimiter = rules[LOCAL_TIMES], rules[DELIMITER]
    # A row of CSV of which all cells are empty is blank.
    blank = delimiter if len(fields) else 32
    while at < size:
        begin = at
        while data[at] == 32 or (9 <= data[at] <= 13 and data[at] != 10) or data[at] == blank:
            at += 1
        state = LEFT
        end = NOT_READ
        if data[at] == 10:
            state = BLANK
            end = at
        else:
            at = begin
            if len(fields):
                end = _csv_line(fields, specs, local, delimiter, data, at, row, spans, values, flags)
            else:
                end = _json_line(
                    edges, names, lenient, specs, local, data, words, at, row, spans, values, flags, stacks
                )
            if end == NOT_READ:
                end = at
                while data[end] != 10:
                    end += 1
            elif end - begin <= rules[LINE_MAX] and _is_whole(rules, data, begin, end, row, spans, flags):
                state = READ
        flags[STATE, row] = state
        line_ends[row] = end
        row += 1
        at = end + 1
    lines: int = row
    return lines


@part
def _is_whole(rules: Any, data: Any, begin: int, end: int, row: int, spans: Any, flags: Any) -> bool:
    if rules[AT_NEEDED] and flags[AT_KIND, row] == 0:
        return False
    if rules[WHO_NEEDED]:
        named = 0
        for field in range(WHO_FIRST, WHO_LAST + 1):
            named |= spans[2 * field + 1, row]
        if named == 0:
            return False
    return rules[IS_ASCII] != 0 or is_utf8(data, begin, end)


@compiled
def times(data: Any, offsets: Any, valid: Any, values: Any, kinds: Any, constants: Any = CONSTANTS) -> None:
    """Sets values[AT, i] and kinds[i] to the `instant` of each valid text data[offsets[i] : offsets[i + 1]]."""
    for row in range(len(valid)):
        kinds[row] = 0
        if valid[row]:
            start: Any = np.int64(offsets[row])
            length: Any = np.int64(offsets[row + 1]) - start
            kinds[row] = instant(data, start, length, values, row)


@compiled
def gather(words: Any, starts: Any, lengths: Any, rows: Any, offsets: Any, validity: Any, into: Any) -> int:
    """Copies the texts of a field in these rows, one after the other, and sets their offsets and the validity bits of
    those that are present (which must be 0). Returns the number of absent ones.

    `words`, `into`: a word of eight bytes from each byte on. A copy may write past its text: the next text overwrites
    that, and `into` has padding after the last one.
    """
    end: Any = 0
    nulls = 0
    for place in range(len(rows)):
        start, length = np.int64(starts[rows[place]]), np.int64(lengths[rows[place]])
        offsets[place] = end
        if length > 0:
            validity[place >> 3] |= 1 << (place & 7)
        else:
            nulls += 1
        # Most texts are no longer than 16 bytes, and a branch on the length would be mispredicted.
        into[end] = words[start]
        into[end + 8] = words[start + 8]
        for step in range(16, length, 8):
            into[end + step] = words[start + step]
        end += length
    offsets[len(rows)] = end
    return nulls
