"""Rows in JSON that is no JSON Lines: a list of objects, objects over many lines, and a list within an envelope.

The rows are cut from the bytes as they come, so that a document may be larger than memory, and the strict reader reads
each. A row's number is its place among the rows, because a whole list may stand in one line. Proved by
tests/audit/io/test_documents.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from ledger.errors import BadRecord
from projections.audit.reading.blocks import LineBlock
from projections.audit.reading.columns import ROWS_SEEN
from projections.audit.reading.json_values import read_json
from projections.audit.reading.log_times import UnreadableValue
from projections.audit.reading.strict import LogRow, RowParser

_SPACE: Final = re.compile(rb"[ \t\r\n]*+")
_UP_TO_BRACKET: Final = re.compile(rb'(?:[^"\[\]{}]++|"(?:[^"\\\n]++|\\.)*+")*+')
_TEXT: Final = re.compile(rb'"(?:[^"\\\n]++|\\.)*+"')
_IN_TEXT: Final = re.compile(rb'(?:[^"\\\n]++|\\.)*+')
_SCALAR: Final = re.compile(rb'[^\s,\[\]{}":]++|[\]}:,]++|"')
_TOKEN: Final = re.compile(rb'"(?:[^"\\\n]++|\\.)*+"|[\[\]{}"]')


def is_document(line: bytes, following: bytes) -> bool:
    """Whether a log that begins with `line`, which begins with `{`, goes on with the same object: it does if the object
    is open at the line's end, and `following` can be a part of it."""
    opened = bytearray()
    for token in _TOKEN.findall(line):
        if token in (b"{", b"["):
            opened += token
        elif token in (b"}", b"]"):
            del opened[-1:]
        elif token == b'"':
            # A text never goes on in the next line: the line itself is broken.
            return False
    following = following.lstrip()[:1]
    return bool(opened) and (opened[-1:] == b"[" or following in (b'"', b"}", b""))


class _Value(NamedTuple):
    """`text` None: it is larger than a row may be. `line`: where it begins. `ended`: whether the log holds its end."""

    text: bytes | None
    line: int
    ended: bool


class _Cursor:
    """A place in the bytes of blocks."""

    def __init__(self, blocks: Iterator[LineBlock], row_bytes_max: int) -> None:
        self._blocks = blocks
        self._row_bytes_max = row_bytes_max
        self._data = b""
        self._at = 0
        self._line = 1
        self._begins_line = False
        """Whether `next` has met a newline right before the place."""
        self._line_at = 0
        """The place in `_data` whose line `_line` is: each newline is counted once, however many rows a block has."""

    @property
    def line(self) -> int:
        self._line += self._data.count(b"\n", self._line_at, self._at)
        self._line_at = self._at
        return self._line

    def _more(self) -> bool:
        """Drops all before the place, and reads at least as much as is kept."""
        # Counts the lines of what is dropped.
        _ = self.line
        kept = self._data[self._at :]
        parts = [kept]
        size = 0
        while size <= len(kept) and (block := next(self._blocks, None)) is not None:
            parts.append(bytes(block.data[: block.size]))
            size += block.size
        self._data, self._at, self._line_at = b"".join(parts), 0, 0
        return size > 0

    def next(self) -> bytes:
        """The next byte that is no white space; empty at the end."""
        while True:
            match = _SPACE.match(self._data, self._at)
            if match is not None and match.end() > self._at:
                self._at = match.end()
                self._begins_line = self._data[self._at - 1 : self._at] == b"\n"
            if self._at < len(self._data) or not self._more():
                return self._data[self._at : self._at + 1]

    def step(self) -> None:
        self._at += 1
        self._begins_line = False

    def skip_to_object(self) -> None:
        """Skips to the next line that begins with an object, which may be here, or to the end."""
        if self.next() == b"{" and self._begins_line:
            return
        while (place := self._data.find(b"\n{", self._at)) < 0:
            # The newline may be the last byte so far.
            self._at = max(self._at, len(self._data) - 1)
            if not self._more():
                self._at = len(self._data)
                return
        self._at = place + 1

    def value(self) -> _Value:
        """Cuts the value that begins here, whatever it is: at least one byte."""
        first, line = self.next(), self.line
        self._begins_line = False
        if first in (b"{", b"["):
            return self._nested(line)
        while True:
            match = _TEXT.match(self._data, self._at) if first == b'"' else None
            waits = first == b'"' and match is None and self._data.find(b"\n", self._at) < 0
            match = match or _SCALAR.match(self._data, self._at)
            end = len(self._data) if match is None else match.end()
            waits = waits or end == len(self._data)
            if not waits or len(self._data) - self._at > self._row_bytes_max or not self._more():
                break
        text, self._at = self._data[self._at : end], end
        return _Value(text if len(text) <= self._row_bytes_max else None, line, True)

    def _nested(self, line: int) -> _Value:
        depth, at, too_large = 0, self._at, False
        while True:
            match = _UP_TO_BRACKET.match(self._data, at)
            at = at if match is None else match.end()
            byte = self._data[at : at + 1]
            if byte == b'"' and self._data.find(b"\n", at) >= 0:
                # The text does not end in its line, so the value is no JSON; it goes on all the same.
                at += 1
            elif byte and byte != b'"':
                depth += 1 if byte in (b"{", b"[") else -1
                at += 1
                if depth == 0:
                    too_large = too_large or at - self._at > self._row_bytes_max
                    text, self._at = None if too_large else self._data[self._at : at], at
                    return _Value(text, line, True)
            else:
                too_large = too_large or len(self._data) - self._at > self._row_bytes_max
                if too_large:
                    self._at = at + len(byte)
                    at = 0
                    if byte and self._skip_text():
                        at = self._at
                        continue
                    ended = self._more()
                else:
                    at -= self._at
                    ended = self._more()
                if not ended:
                    text, self._at = None if too_large else self._data[self._at :], len(self._data)
                    return _Value(text, line, False)

    def _skip_text(self) -> bool:
        """Skips the rest of a text that is too large to keep. Whether it ends."""
        while True:
            match = _IN_TEXT.match(self._data, self._at)
            self._at = self._at if match is None else match.end()
            byte = self._data[self._at : self._at + 1]
            if byte in (b'"', b"\n"):
                self._at += byte == b'"'
                return True
            if not self._more():
                return False


class Documents:
    """The rows of a log of documents. `rows`: the path to the list in each document, or None."""

    def __init__(self, blocks: Iterator[LineBlock], parser: RowParser) -> None:
        self._cursor = _Cursor(blocks, parser.shape.row_bytes_max)
        self._parser = parser
        self._path = None if parser.shape.rows is None else tuple(parser.shape.rows.split("."))
        self._number = 0
        self._end_is_said = False
        """Whether the last fault is about the end of the log."""
        self._meets_path = False
        """Whether an object has had a member of the path's first name."""
        self._is_lost = False
        """Whether the object that was read last is no JSON, so that the next line may begin another."""

    def __iter__(self) -> Iterator[LogRow]:
        cursor = self._cursor
        while first := cursor.next():
            if self._path is not None:
                self._is_lost = False
                yield from self._envelope(self._path)
            elif first == b"[":
                yield from self._items()
            else:
                yield self._row(cursor.value())
        if self._number and self._path is not None and not self._meets_path:
            raise BadRecord(
                f"{self._parser.source}: no object of the log has the list of rows {'.'.join(self._path)}, which "
                "--rows names; name another path, or leave --rows out if each line is a row"
            )

    def _row(self, value: _Value) -> LogRow:
        self._number += 1
        if not value.ended:
            self._end_is_said = True
            return self._fault(f"the row, which begins in line {value.line}, does not end: the log was cut off")
        if value.text is None:
            return self._parser.too_large(self._number)
        if self._number <= ROWS_SEEN:
            self._parser.note_json(value.text)
        row = self._parser.parse_json(self._number, value.text, value.line)
        if row.fault is None:
            return row
        return row._replace(fault=f"{row.fault}; the row begins in line {value.line}")

    def _fault(self, fault: str) -> LogRow:
        return LogRow(self._parser.source, self._number, None, fault)

    def _broken(self, fault: str, line: int | None = None) -> LogRow:
        """`line`: where the fault is, unless it is here."""
        self._number += 1
        line = self._cursor.line if line is None else line
        self._end_is_said = not self._cursor.next()
        return self._fault(f"{fault}, in line {line}")

    def _items(self) -> Iterator[LogRow]:
        cursor = self._cursor
        cursor.step()
        if cursor.next() == b"]":
            cursor.step()
            return
        while True:
            if cursor.next() in (b"", b"]"):
                yield self._broken("the list of rows has a comma at its end, or does not end")
                cursor.step()
                return
            yield self._row(cursor.value())
            after = cursor.next()
            if after == b"]":
                cursor.step()
                return
            if after == b",":
                cursor.step()
            else:
                yield self._broken(
                    "the list of rows does not end" if not after else "a comma between two rows is missing"
                )
                if not after:
                    return

    def _envelope(self, path: tuple[str, ...]) -> Iterator[LogRow]:
        """The rows of the list at the path in the object that begins here. If it is no JSON, one fault stands for it up
        to the next line that begins with an object."""
        cursor = self._cursor
        if cursor.next() != b"{":
            line = cursor.value().line
            yield self._broken("an object with the list of rows is required", line)
            return
        begins, is_there = cursor.line, False
        cursor.step()
        while (byte := cursor.next()) not in (b"}", b""):
            if byte == b",":
                cursor.step()
                continue
            name = self._name() if byte == b'"' else None
            if name is None or cursor.next() != b":":
                self._is_lost = True
                cursor.skip_to_object()
                yield self._broken("the object with the list of rows is no JSON", begins)
                return
            cursor.step()
            whole = ".".join(path)
            self._meets_path = self._meets_path or name in (whole, path[0])
            if name == whole and cursor.next() == b"[" and not is_there:
                is_there = True
                yield from self._items()
            elif name == path[0] and len(path) > 1 and cursor.next() == b"{" and not is_there:
                is_there = True
                yield from self._envelope(path[1:])
                if self._is_lost:
                    return
            elif name in (whole, path[0]):
                cursor.value()
                yield self._broken(f"{name} is there twice, or is no list of rows and no way to it")
                is_there = True
            else:
                cursor.value()
        if not byte:
            if not self._end_is_said:
                yield self._broken("the object with the list of rows does not end: the log was cut off")
            return
        cursor.step()
        if not is_there:
            yield self._broken(f"the object has no list of rows {'.'.join(path)}")

    def _name(self) -> str | None:
        text = self._cursor.value().text
        try:
            name = None if text is None else read_json(text, frozenset())
        except UnreadableValue:
            return None
        return name if isinstance(name, str) else None
