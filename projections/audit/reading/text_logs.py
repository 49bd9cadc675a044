"""JSON Lines and CSV to request records, a block of lines at a time.

What is written the ordinary way is read by compiled loops, every other line by the strict reader: so each line comes
out as if the strict reader had read them all. Proved by tests/audit/io/test_text_logs.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa

from projections.audit.arrays import in_words
from projections.audit.numba_support import AVAILABLE
from projections.audit.reading import scan_lines as scanning
from projections.audit.reading.batches import LogBatch, merge_rows
from projections.audit.reading.blocks import BEHIND, BlockSource, LineBlock
from projections.audit.reading.fields import FIELDS, raw_record
from projections.audit.reading.json_paths import NAMES, WHO, field_specs, path_tree
from projections.audit.reading.lines import LINE_BYTES_MAX, RawLine
from projections.audit.reading.strict import CsvColumns, LineQueue, LogFormat, LogRow, RowParser, is_blank, is_json
from projections.audit.reading.times import to_utc
from projections.audit.schemas import INSTANT, REQUESTS
from projections.decisions.model import RequestRecord, read_record

BLOCK_BYTES: Final = 1 << 23
STRICT_BYTES: Final = 1 << 23
"""So much of a log is read by the strict reader alone: less than this is done sooner than loops are compiled."""
_RUN_ON_MAX: Final = 4 * LINE_BYTES_MAX
"""More than the longest row of CSV, whose lines are counted by `projections.audit.reading.strict`."""
_MORE: Final = 8
"""Room for a block that has one line in so many more than the longest one had."""
_NO_COLUMNS: Final = np.array([], np.int64)


class ScanBuffers(NamedTuple):
    """Where `scanning` writes what it finds, a column for each line. Spans are of the block's bytes."""

    line_ends: Any
    spans: Any
    values: Any
    marks: Any

    @classmethod
    def room(cls, lines: int) -> ScanBuffers:
        spans, marks = np.empty((2 * len(NAMES), lines), np.int32), np.empty((16, lines), np.int8)
        return cls(np.empty(lines, np.int64), spans, np.empty((2, lines), np.int64), marks)

    def blank(self, lines: int) -> ScanBuffers:
        """The same memory for so many lines, of which nothing is known yet. But `values` become columns as they are, so
        they are new ones."""
        taken = ScanBuffers(
            self.line_ends[:lines], self.spans[:, :lines], np.full((2, lines), -1, np.int64), self.marks[:, :lines]
        )
        taken.spans[:] = 0
        taken.marks[:] = -1
        taken.marks[scanning.AT_KIND] = 0
        return taken


def read_batches(
    blocks: BlockSource, rows: RowParser, log_format: LogFormat | None, strict_bytes: int = STRICT_BYTES
) -> Iterator[LogBatch]:
    """The rows of a log, in order. `strict_bytes`: see STRICT_BYTES. Raises `BadRecord` for a header that cannot be
    right, and what `LineBlocks` raises."""
    reader: _Reader | None = None
    for found in blocks:
        block = found
        if reader is None:
            first = _first_line(block)
            if first is None:
                continue
            as_json = log_format == "jsonl" or (log_format is None and is_json(first))
            columns = None if as_json else rows.header(first)
            reader = _Reader(rows, columns, blocks)
            if columns is not None:
                block = _behind(found, first.number - found.first + 1)
        if not block.size:
            continue
        by_hand = strict_bytes > 0 or not AVAILABLE
        strict_bytes -= block.size
        yield reader.strictly(block) if by_hand else reader.at_once(block)


def _behind(block: LineBlock, lines: int) -> LineBlock:
    """The block without its first lines."""
    offset = 0
    for _ in range(lines):
        offset = block.data.index(b"\n", offset) + 1
    return LineBlock(block.first + lines, block.lines - lines, block.data[offset:], block.size - offset, block.last)


def _first_line(block: LineBlock) -> RawLine | None:
    return next((line for line in _raw_lines(block) if not is_blank(line)), None)


def _raw_lines(block: LineBlock) -> Iterator[RawLine]:
    start, number = 0, block.first
    while start < block.size:
        end = block.data.index(b"\n", start)
        yield _raw_line(block, start, end, number)
        start, number = end + 1, number + 1


def _raw_line(block: LineBlock, start: int, end: int, number: int) -> RawLine:
    text = bytes(block.data[start:end]).rstrip(b"\r\n")
    return RawLine(number, text if len(text) <= LINE_BYTES_MAX else None)


class _Watched:
    """Lines that are not blank, counted as they are taken, and whether more were wanted than there are."""

    def __init__(self, lines: Iterator[RawLine]) -> None:
        self._lines = lines
        self.taken: list[int] = []
        self.wanting = False

    def __iter__(self) -> Iterator[RawLine]:
        for line in self._lines:
            if not is_blank(line):
                self.taken.append(line.number)
                yield line
        self.wanting = True


class _Reader:
    def __init__(self, rows: RowParser, columns: CsvColumns | None, blocks: BlockSource) -> None:
        self._rows = rows
        self._columns = columns
        self._blocks = blocks
        self._tree = path_tree(rows) if columns is None else path_tree(RowParser("", rows.mapping._replace(columns={})))
        self._fields = _NO_COLUMNS
        if columns is not None:
            self._fields = np.full(columns.width, -1, np.int64)
            for field, place in columns.places:
                if self._fields[place] >= 0:
                    # One column for two fields: left to the strict reader.
                    self._tree = None
                self._fields[place] = NAMES.index(field)
        self._spec = field_specs(rows)
        self._rules = np.zeros(5, np.int64)
        self._rules[scanning.LOCAL_TIMES] = rows.mapping.timezone is not None
        self._rules[scanning.AT_NEEDED] = "at" not in rows.constants
        self._rules[scanning.WHO_NEEDED] = not any(who in rows.constants for who in WHO)
        self._rules[scanning.LINE_MAX] = LINE_BYTES_MAX
        self._constants = constant_columns(rows)
        self._room = ScanBuffers.room(0)

    def strictly(self, block: LineBlock) -> LogBatch:
        """The block's rows, each read by itself."""
        ends = np.flatnonzero(np.frombuffer(block.data, np.uint8, block.size) == 10)
        states = np.full(len(ends), scanning.LEFT, np.uint8)
        strict, _, _ = self._left(block, ends, states)
        none = pa.RecordBatch.from_pylist([], schema=REQUESTS)
        return merge_rows(self._rows.source, np.array([], np.int64), none, strict)

    def at_once(self, block: LineBlock) -> LogBatch:
        """The block's rows, the ordinary ones all at once."""
        tree = self._tree
        if tree is None:
            return self.strictly(block)
        enough = len(block.data) >= block.size + BEHIND
        data, words = in_words(np.frombuffer(block.data if enough else block.data + bytes(BEHIND), np.uint8))
        if len(self._room.line_ends) <= block.lines:
            # Always wider than the block: a view of all of it would be of another type for Numba.
            self._room = ScanBuffers.room(block.lines + block.lines // _MORE + 1)
        taken = self._room.blank(block.lines)
        self._rules[scanning.IS_ASCII] = _is_ascii(data[: block.size])
        scanning.scan(
            *tree, self._fields, self._spec, self._rules, data, words, block.size, *taken, np.zeros((4, 256), np.int64)
        )
        states = taken.marks[scanning.STATE]
        self._set_clocks(taken, states)
        strict, consumed, kept = self._left(block, taken.line_ends, states)
        states[consumed] = scanning.BLANK
        rows = np.flatnonzero(states[:kept] == scanning.READ)
        return merge_rows(self._rows.source, rows + block.first, self._batch(words, taken, rows), strict)

    def _set_clocks(self, taken: ScanBuffers, states: Any) -> None:
        """Gives times without an offset theirs; leaves those that have none, or two, to the strict reader."""
        local = np.flatnonzero((taken.marks[scanning.AT_KIND] == 2) & (states == scanning.READ))
        zone = self._rows.mapping.timezone
        if zone is None or not len(local):
            return
        instants, said = to_utc(taken.values[scanning.AT, local], zone)
        taken.values[scanning.AT, local] = instants
        states[local[~said]] = scanning.LEFT

    def _left(self, block: LineBlock, ends: Any, states: Any) -> tuple[list[LogRow], list[int], int]:
        """(rows that the strict reader read, lines that they ran on to, how many lines are done with)."""
        strict: list[LogRow] = []
        consumed: list[int] = []
        done = -1
        for place in np.flatnonzero(states == scanning.LEFT).tolist():
            if place <= done:
                # The row before ran on over it.
                continue
            start = int(ends[place - 1]) + 1 if place else 0
            line = _raw_line(block, start, int(ends[place]), block.first + place)
            if self._columns is None:
                if not is_blank(line):
                    strict.append(self._rows.of_json(line))
                continue
            if is_blank(line):
                continue
            watched = _Watched(_raw_lines_from(block, ends, place + 1))
            lines = LineQueue(watched)
            row = self._rows.of_csv(line, self._columns, lines)
            if watched.wanting and not block.last and block.size - start < _RUN_ON_MAX:
                # It may end in the next block, so it is read there.
                self._blocks.put_back(bytes(block.data[start : block.size]), len(ends) - place)
                return strict, consumed, place
            strict.append(row)
            run_on = watched.taken[: len(watched.taken) - lines.waiting]
            if run_on:
                done = run_on[-1] - block.first
                consumed += range(place + 1, done + 1)
        return strict, consumed, len(ends)

    def _batch(self, words: Any, taken: ScanBuffers, rows: Any) -> pa.RecordBatch:
        columns = []
        # As they are, where nothing is left out.
        of_rows = slice(None) if len(rows) == len(taken.line_ends) else rows
        for number, (field, kind) in enumerate(FIELDS.items()):
            if kind == "text":
                column = _texts(words, taken.spans[2 * number], taken.spans[2 * number + 1], rows)
            elif kind == "time":
                unsaid = taken.marks[scanning.AT_KIND, of_rows] == 0
                column = pa.array(taken.values[scanning.AT, of_rows], INSTANT, mask=unsaid if unsaid.any() else None)
            elif kind == "position":
                found = taken.values[scanning.POSITION, of_rows]
                column = pa.array(found, pa.int64(), mask=found < 0)
            else:
                flags = taken.marks[number, of_rows]
                column = pa.array(flags == 1, pa.bool_(), mask=flags < 0)
            if field in self._rows.named and column.null_count < len(column):
                self._rows.seen.add(field)
            constant = self._constants.get(REQUESTS.names[number])
            if constant is not None and column.null_count:
                column = column.fill_null(constant)
            columns.append(column)
        return pa.RecordBatch.from_arrays(columns, schema=REQUESTS)


def _is_ascii(data: Any) -> bool:
    words = len(data) // 8 * 8
    every = np.bitwise_or.reduce(data[:words].view(np.uint64)) & np.uint64(0x8080808080808080)
    return not every and not (data[words:] >= 0x80).any()


def _raw_lines_from(block: LineBlock, ends: Any, place: int) -> Iterator[RawLine]:
    for at in range(place, len(ends)):
        yield _raw_line(block, int(ends[at - 1]) + 1, int(ends[at]), block.first + at)


def constant_columns(rows: RowParser) -> dict[str, Any]:
    """Column → the value that holds where a line says nothing."""
    if not rows.constants:
        return {}
    # Read as every line is; who is asked for it for the reader's sake only.
    record = read_record(raw_record({"account_id": "any"} | rows.constants), 0)
    said = {REQUESTS.names[NAMES.index(field)] for field in rows.constants}
    return {
        name: pa.scalar(value, REQUESTS.field(name).type) for name, value in _members(record).items() if name in said
    }


def _members(record: RequestRecord) -> dict[str, Any]:
    members = {name: value for name, value in record._asdict().items() if name != "handling" and value is not None}
    if record.handling is not None:
        members |= {name: value for name, value in record.handling._asdict().items() if value is not None}
    return members


def _texts(words: Any, starts: Any, lengths: Any, rows: Any) -> pa.Array:
    """`words`: see `scanning.gather`."""
    size = int(lengths.sum())
    if not size:
        return pa.nulls(len(rows), pa.string())
    offsets = np.empty(len(rows) + 1, np.int32)
    there = np.zeros((len(rows) + 7) // 8, np.uint8)
    into = np.empty(size + scanning.BEHIND_TEXTS, np.uint8)
    room = np.ndarray((len(into) - 7,), "<u8", into, strides=(1,))
    none = scanning.gather(words, starts, lengths, rows, offsets, there, room)
    bits = pa.py_buffer(there) if none else None
    return pa.StringArray.from_buffers(len(rows), pa.py_buffer(offsets), pa.py_buffer(into[: offsets[-1]]), bits, none)
