"""Where a row of CSV ends, and its cells: RFC 4180, as Python's own `csv` reads it.

A quote opens a quoted cell only at the cell's beginning. A row ends at the first newline that no quoted cell holds, so
a text in a cell never becomes a row of its own. Proved by tests/audit/io/test_csv_rows.py.
"""

from __future__ import annotations

import csv
import re
from functools import lru_cache
from typing import Final, Literal, NamedTuple

from projections.audit.reading.log_times import UnreadableValue

DELIMITERS: Final = (",", ";", "\t", "|")
# A row's own limit is in bytes; `csv` would have one of 131,072 characters a cell.
csv.field_size_limit(2**31 - 1)

NEWLINE: Final = 10
_QUOTE: Final = 34
Bytes = bytes | bytearray
_State = Literal["start", "plain", "quoted"]


class _Patterns(NamedTuple):
    row: re.Pattern[bytes]
    """Whole cells from the beginning of a row on, with the delimiters between them."""
    plain: re.Pattern[bytes]
    blank: re.Pattern[bytes]
    """White space and delimiters, or empty cells, with quotes and without."""


_QUOTED: Final = re.compile(rb'[^"]*+(?:""[^"]*+)*+')


@lru_cache(maxsize=8)
def _patterns(delimiter: str) -> _Patterns:
    sign = re.escape(delimiter.encode())
    cell = rb'(?:"[^"]*+(?:""[^"]*+)*+"[^%b\n]*+|(?!")[^%b\n]*+)' % (sign, sign)
    return _Patterns(
        re.compile(cell + rb"(?:" + sign + cell + rb")*+"),
        re.compile(rb"[^%b\n]*+" % sign),
        re.compile(rb'[ \t\r\n\x0b\x0c%b]*+\Z|(?:"")?+(?:%b(?:"")?+)*+\r*+' % (sign, sign)),
    )


def is_blank(row: bytes, delimiter: str) -> bool:
    """Whether no cell of the row holds anything. A spreadsheet that is saved as CSV ends in such rows."""
    return _patterns(delimiter).blank.fullmatch(row) is not None


def row_end(data: Bytes, start: int, size: int, delimiter: str) -> int | None:
    """The place of the newline that ends the row at `start`; None if a quote is open at `size`."""
    match = _patterns(delimiter).row.match(data, start, size)
    return match.end() if match is not None and match.end() < size and data[match.end()] == NEWLINE else None


class RowSkipper:
    """Skips the rest of a row that is too large to keep, block by block."""

    def __init__(self, delimiter: str) -> None:
        self._plain = _patterns(delimiter).plain
        self._state: _State = "start"
        self._held = b""

    def skip(self, data: Bytes, size: int) -> int | None:
        """The number of bytes up to the row's end, with its newline; None: all of them belong to the row."""
        held = len(self._held)
        # A quote that ends a block may be the first of two, which stand for one.
        text: Bytes = self._held + bytes(data[:size]) if held else data
        end = size + held
        self._held = b""
        at = 0
        while at < end:
            if self._state == "start" and text[at] == _QUOTE:
                self._state, at = "quoted", at + 1
            elif self._state == "quoted":
                at = self._after(_QUOTED, text, at, end)
                if at == end - 1:
                    self._held = b'"'
                    return None
                if at < end:
                    self._state, at = "plain", at + 1
            else:
                at = self._after(self._plain, text, at, end)
                if at < end and text[at] == NEWLINE:
                    return at + 1 - held
                self._state, at = "start" if at < end else "plain", at + 1
        return None

    @staticmethod
    def _after(pattern: re.Pattern[bytes], text: Bytes, at: int, end: int) -> int:
        match = pattern.match(text, at, end)
        return at if match is None else match.end()


def cells_of(row: bytes, delimiter: str) -> list[str]:
    """The cells of one row. Bytes that are not UTF-8 become halves of surrogate pairs, which no field can hold."""
    text = row.decode("utf-8", "surrogateescape")
    try:
        rows = list(csv.reader([text], delimiter=delimiter, strict=True))
    except csv.Error as error:
        if "new-line" in str(error):
            raise UnreadableValue("a carriage return stands in a cell without quotes, or ends no line") from None
        raise UnreadableValue("the row is not CSV: a quote stands where it may not") from None
    if len(rows) != 1:
        raise UnreadableValue("the row is not CSV: it has no cells")
    return rows[0]
