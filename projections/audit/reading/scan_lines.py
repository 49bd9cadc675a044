"""Lines of JSON and CSV that are written the ordinary way, read from their bytes by compiled loops.

Everything here may say no, and never a wrong yes: what it does not take is read again by
`projections.audit.reading.strict`,
which has the last word. In one file, because Numba looks at no other when it asks whether what it keeps is stale; and
in plain loops, because that is what it compiles. Data ends in a newline, and has some bytes more behind it.
Proved by tests/audit/io/test_text_logs.py.
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
AT_KIND: Final = 14
STATE: Final = 15
"""Rows of `marks`, int8, a column for each line, behind a flag for each field: 1, 0, or -1 where nothing is said."""
KIND: Final = 0
NUMBERS: Final = 1
IS_ID: Final = 2
IS_NETWORK: Final = 3
"""Columns of `spec`, int64, a row for each field: its kind (0 text, 1 time, 2 position, 3 flag), whether a number will
do, whether it is an id, is public or private."""
WHO_FIRST: Final = 2
WHO_LAST: Final = 5
"""The fields of those who may have asked."""
LOCAL_TIMES: Final = 0
AT_NEEDED: Final = 1
WHO_NEEDED: Final = 2
LINE_MAX: Final = 3
IS_ASCII: Final = 4
"""Places of `rules`, int64. IS_ASCII: of the data, which is then not looked at line by line."""
PARENT: Final = 0
FIRST: Final = 1
LENGTH: Final = 2
CHILD: Final = 3
NODE: Final = 4
"""Columns of `edges`, int64: see `projections.audit.reading.json_paths.PathTree`. Field n of line r is at
spans[2n, r] and has spans[2n + 1, r] bytes."""

_MINUTE: Final = 60_000_000
_HOUR: Final = 60 * _MINUTE
_DAY: Final = 24 * _HOUR
_BEGINNING: Final = BEGINNING
_END: Final = END


IN_AN_ID: Final[Any] = np.array([is_an_id(chr(byte)) for byte in range(256)])
"""Whether a byte may stand in an id (WIRE.md section 1)."""
_EACH: Final = np.uint64(0x0101010101010101)
_SPACES: Final = np.uint64(0x2020202020202020)
_QUOTES: Final = np.uint64(0x2222222222222222)
_BACKSLASHES: Final = np.uint64(0x5C5C5C5C5C5C5C5C)
_HIGH_BITS: Final = np.uint64(0x8080808080808080)
"""The same in each byte of a word: a one, a space, a quote, a backslash, the highest bit."""
_PLACES: Final = np.uint64(0x0001020304050607)
BEHIND_TEXTS: Final = 16
"""Bytes of room behind what is gathered."""


@part
def is_id(data: Any, start: int, length: int) -> bool:
    if length < 1 or length > 256:
        return False
    for at in range(start, start + length):
        if not IN_AN_ID[data[at]]:
            return False
    return True


@part
def characters(data: Any, start: int, length: int) -> int:
    """Of valid UTF-8."""
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
    """The number that so many digits stand for, or NOT_READ."""
    number = 0
    for at in range(start, start + count):
        digit = int(data[at]) - 48
        if digit < 0 or digit > 9:
            return NOT_READ
        number = number * 10 + digit
    return number


@part
def instant(data: Any, start: int, length: int, values: Any, row: int) -> int:
    """Whether it is a time: 0 no; 1 with an offset; 2 without one. `values[AT, row]`: µs, for 2 as if in UTC."""
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
    # Days since 1970 of the proleptic Gregorian calendar, years beginning in March.
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


# Trees of what is wanted of a JSON object: see `projections.audit.reading.json_paths`.
INNER: Final = -1
STRICT: Final = -2
_IGNORED: Final = -1
_ARRAY: Final = -2
_NAMES_MAX: Final = 256
_NODES: Final = 0
_BASES: Final = 1
_STARTS: Final = 2
_LENGTHS: Final = 3
_DEPTH_MAX: Final = 16


@part
def _space(data: Any, at: int) -> int:
    # Mostly there is none, and one look tells.
    while data[at] <= 32:
        if data[at] != 32 and data[at] != 9 and data[at] != 13:
            break
        at += 1
    return at


@part
def _strange(words: Any, at: int) -> int:
    """Where, from `at` on, the first byte is that does not stand for itself in a JSON text: a control character, a
    quote or a backslash. Eight at a time: subtracting borrows from a byte's highest bit just where it is too small."""
    while True:
        word = words[at]
        quote, backslash = word ^ _QUOTES, word ^ _BACKSLASHES
        small = (word - _SPACES) & ~word | (quote - _EACH) & ~quote | (backslash - _EACH) & ~backslash
        small &= _HIGH_BITS
        if small != 0:
            # The lowest bit's byte: shifted by so many bytes, its number comes to stand on top.
            lowest = (small & (np.uint64(0) - small)) >> np.uint64(7)
            return at + int((lowest * _PLACES) >> np.uint64(56))
        at += 8


@part
def _closing(data: Any, words: Any, at: int, plain: bool) -> int:
    """Where the text that begins at `at`, behind its quote, ends. `plain`: no escape is taken."""
    while True:
        at = _strange(words, at)
        byte = data[at]
        if byte == 34:
            return at
        if byte < 32 or plain:
            return NOT_READ
        escaped = data[at + 1]
        # A \u may hide half of a character.
        if escaped not in (34, 92, 47, 98, 102, 110, 114, 116):
            return NOT_READ
        at += 2


@part
def _number(data: Any, at: int) -> int:
    """The end of a JSON number without an exponent."""
    begun = at
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
    if data[at] == 69 or data[at] == 101 or at - begun > 300:
        return NOT_READ
    return at


@part
def _literal(data: Any, at: int) -> int:
    """The end of true, false or null."""
    if data[at] == 116 and data[at + 1] == 114 and data[at + 2] == 117 and data[at + 3] == 101:
        return at + 4
    if data[at] == 110 and data[at + 1] == 117 and data[at + 2] == 108 and data[at + 3] == 108:
        return at + 4
    if data[at] == 102 and data[at + 1] == 97 and data[at + 2] == 108 and data[at + 3] == 115 and data[at + 4] == 101:
        return at + 5
    return NOT_READ


@part
def _edge(edges: Any, names: Any, data: Any, words: Any, node: int, start: int, guess: int) -> int:
    """The edge from `node` whose name begins at `start`, and ends with a quote, or -1. Members mostly come in the same
    order: `guess` first. No name is empty, or needs an escape."""
    count = len(edges)
    for step in range(count):
        edge = guess + step
        if edge >= count:
            edge -= count
        first, length = edges[edge, FIRST], edges[edge, LENGTH]
        if edges[edge, PARENT] != node:
            continue
        # The last word with what is behind the name masked off.
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
    field: int, spec: Any, local: Any, data: Any, words: Any, at: int, row: int, spans: Any, values: Any, marks: Any
) -> int:
    """The end of a field's value, which is taken."""
    byte = data[at]
    kind = spec[field, KIND]
    if byte == 110:
        return _literal(data, at)
    if kind == 0 or kind == 1:
        if byte == 34:
            start = at + 1
            if kind == 0 and spec[field, IS_ID]:
                end = start
                while IN_AN_ID[data[end]]:
                    end += 1
                if data[end] != 34 or not 1 <= end - start <= 256:
                    return NOT_READ
                spans[2 * field, row], spans[2 * field + 1, row] = start, end - start
                return end + 1
            end = _closing(data, words, start, True)
            if end == NOT_READ or end == start:
                return NOT_READ
        elif kind == 0 and spec[field, NUMBERS] and 48 <= byte <= 57:
            start = at
            end = _number(data, at)
            if end == NOT_READ:
                return NOT_READ
            for place in range(start, end):
                if data[place] == 46:
                    return NOT_READ
            return end if _text_field(field, spec, data, start, end - start, row, spans) else NOT_READ
        else:
            return NOT_READ
        if kind == 1:
            return end + 1 if _time_field(local, data, start, end - start, row, values, marks) else NOT_READ
        return end + 1 if _text_field(field, spec, data, start, end - start, row, spans) else NOT_READ
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
    marks[field, row] = 1 if byte == 116 else 0
    return _literal(data, at)


@part
def _text_field(field: int, spec: Any, data: Any, start: int, length: int, row: int, spans: Any) -> bool:
    if spec[field, IS_ID]:
        if not is_id(data, start, length):
            return False
    elif length > 256 and characters(data, start, length) > 256:
        return False
    elif spec[field, IS_NETWORK]:
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
def _time_field(local: Any, data: Any, start: int, length: int, row: int, values: Any, marks: Any) -> bool:
    kind = instant(data, start, length, values, row)
    marks[AT_KIND, row] = kind
    return kind == 1 or (kind == 2 and local)


@part
def _json_line(
    edges: Any,
    names: Any,
    lenient: Any,
    spec: Any,
    local: Any,
    data: Any,
    words: Any,
    at: int,
    row: int,
    spans: Any,
    values: Any,
    marks: Any,
    scratch: Any,
) -> int:
    """Where the line ends that begins at `at`, if it is an object written the ordinary way."""
    at = _space(data, at)
    if data[at] != 123:
        return NOT_READ
    at = _space(data, at + 1)
    depth, top, guess = 0, 0, 0
    seen = np.uint64(0)
    scratch[_NODES, 0], scratch[_BASES, 0] = 0, 0
    if data[at] == 125:
        return NOT_READ
    while True:
        node = scratch[_NODES, depth]
        child = -1
        kind = INNER
        if node != _ARRAY:
            if data[at] != 34:
                return NOT_READ
            start = at + 1
            edge = _edge(edges, names, data, words, node, start, guess) if node >= 0 else -1
            end = start + edges[edge, LENGTH] if edge >= 0 else _closing(data, words, start, True)
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
                    if seen & bit or kind == STRICT:
                        return NOT_READ
                    seen |= bit
                elif not lenient[node]:
                    return NOT_READ
            if child < 0:
                if top == _NAMES_MAX:
                    return NOT_READ
                for before in range(scratch[_BASES, depth], top):
                    if scratch[_LENGTHS, before] == end - start:
                        same = True
                        for place in range(end - start):
                            if data[scratch[_STARTS, before] + place] != data[start + place]:
                                same = False
                                break
                        if same:
                            return NOT_READ
                scratch[_STARTS, top] = start
                scratch[_LENGTHS, top] = end - start
                top += 1
        byte = data[at]
        if child >= 0 and kind >= 0:
            at = _json_field(kind, spec, local, data, words, at, row, spans, values, marks)
            if at == NOT_READ:
                return NOT_READ
        elif byte == 123:
            if depth + 1 == _DEPTH_MAX:
                return NOT_READ
            depth += 1
            scratch[_NODES, depth] = child if child >= 0 else _IGNORED
            scratch[_BASES, depth] = top
            at = _space(data, at + 1)
            if data[at] != 125:
                continue
            at += 1
            depth -= 1
        elif child >= 0:
            # Where an object should be: null is as good as nothing, anything else is for the strict reader.
            if byte != 110:
                return NOT_READ
            at = _literal(data, at)
            if at == NOT_READ:
                return NOT_READ
        elif byte == 91:
            if depth + 1 == _DEPTH_MAX:
                return NOT_READ
            depth += 1
            scratch[_NODES, depth] = _ARRAY
            scratch[_BASES, depth] = top
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
            at = _number(data, at) if byte == 45 or 48 <= byte <= 57 else _literal(data, at)
            if at == NOT_READ:
                return NOT_READ
        while True:
            at = _space(data, at)
            if data[at] == 44:
                at = _space(data, at + 1)
                break
            if data[at] != (93 if scratch[_NODES, depth] == _ARRAY else 125):
                return NOT_READ
            at += 1
            top = scratch[_BASES, depth]
            depth -= 1
            if depth < 0:
                at = _space(data, at)
                return at if data[at] == 10 else NOT_READ


@part
def _csv_field(
    field: int, spec: Any, local: Any, data: Any, start: int, length: int, row: int, spans: Any, values: Any, marks: Any
) -> bool:
    if length == 0:
        return True
    kind = spec[field, KIND]
    if kind == 0:
        return _text_field(field, spec, data, start, length, row, spans)
    if kind == 1:
        return _time_field(local, data, start, length, row, values, marks)
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
    marks[field, row] = flag
    return flag >= 0


@part
def _csv_line(
    fields: Any, spec: Any, local: Any, data: Any, at: int, row: int, spans: Any, values: Any, marks: Any
) -> int:
    """Where the line ends that begins at `at`, if each of its cells is plain or simply quoted. `fields`: column →
    field, or -1."""
    column = 0
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
            while data[at] != 44:
                byte = data[at]
                if byte < 32 or byte == 34:
                    break
                at += 1
            end = at
        if end - start > 100_000 or column == len(fields):
            return NOT_READ
        field = fields[column]
        if field >= 0 and not _csv_field(field, spec, local, data, start, end - start, row, spans, values, marks):
            return NOT_READ
        column += 1
        if data[at] == 44:
            at += 1
            continue
        while data[at] == 13:
            at += 1
        return at if data[at] == 10 and column == len(fields) else NOT_READ


BLANK: Final = 0
READ: Final = 1
LEFT: Final = 2
"""Of a line: there is nothing on it; it was read; it is left to the strict reader."""
CONSTANTS: Final = constants_key(globals())


@compiled
def scan(
    edges: Any,
    names: Any,
    lenient: Any,
    fields: Any,
    spec: Any,
    rules: Any,
    data: Any,
    words: Any,
    size: int,
    line_ends: Any,
    spans: Any,
    values: Any,
    marks: Any,
    scratch: Any,
    constants: Any = CONSTANTS,
) -> int:
    """The lines of data[:size]; how many there are. `words`: see `in_words`; `fields`: of CSV, empty for JSON."""
    at, row = 0, 0
    local = rules[LOCAL_TIMES] != 0
    while at < size:
        begun = at
        while data[at] == 32 or data[at] == 9 or data[at] == 13 or data[at] == 11 or data[at] == 12:
            at += 1
        state = LEFT
        end = NOT_READ
        if data[at] == 10:
            state = BLANK
            end = at
        else:
            at = begun
            if len(fields):
                end = _csv_line(fields, spec, local, data, at, row, spans, values, marks)
            else:
                end = _json_line(
                    edges, names, lenient, spec, local, data, words, at, row, spans, values, marks, scratch
                )
            if end == NOT_READ:
                end = at
                while data[end] != 10:
                    end += 1
            elif end - begun <= rules[LINE_MAX] and _is_whole(rules, data, begun, end, row, spans, marks):
                state = READ
        marks[STATE, row] = state
        line_ends[row] = end
        row += 1
        at = end + 1
    return row


@part
def _is_whole(rules: Any, data: Any, begun: int, end: int, row: int, spans: Any, marks: Any) -> bool:
    if rules[AT_NEEDED] and marks[AT_KIND, row] == 0:
        return False
    if rules[WHO_NEEDED]:
        named = 0
        for field in range(WHO_FIRST, WHO_LAST + 1):
            named |= spans[2 * field + 1, row]
        if named == 0:
            return False
    return rules[IS_ASCII] != 0 or is_utf8(data, begun, end)


@compiled
def times(data: Any, offsets: Any, valid: Any, values: Any, kinds: Any, constants: Any = CONSTANTS) -> None:
    """`instant` of each text data[offsets[i] : offsets[i + 1]] that is there: values[AT, i] and kinds[i]."""
    for row in range(len(valid)):
        kinds[row] = 0
        if valid[row]:
            start: Any = np.int64(offsets[row])
            length: Any = np.int64(offsets[row + 1]) - start
            kinds[row] = instant(data, start, length, values, row)


@compiled
def gather(words: Any, starts: Any, lengths: Any, rows: Any, offsets: Any, there: Any, into: Any) -> int:
    """The texts of a field in these rows, one after the other: their offsets, the bits of those that are there (which
    were 0), and how many are not. `words`, `into`: eight bytes from each byte on; what is written over is written right
    by the next text, and behind the last one there is room."""
    end: Any = 0
    none = 0
    for place in range(len(rows)):
        start, length = np.int64(starts[rows[place]]), np.int64(lengths[rows[place]])
        offsets[place] = end
        if length > 0:
            there[place >> 3] |= 1 << (place & 7)
        else:
            none += 1
        # Most are no longer than this, and nobody can foretell which are.
        into[end] = words[start]
        into[end + 8] = words[start + 8]
        for step in range(16, length, 8):
            into[end + step] = words[start + step]
        end += length
    offsets[len(rows)] = end
    return none
