"""Reads JSON Lines and CSV, a block of lines at a time.

Compiled loops read lines in their ordinary form; the strict reader reads all others. So each line gives the same row as
if the strict reader had read them all. Proved by tests/audit/io/test_text_logs.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa

from projections.audit.arrays import in_words
from projections.audit.numba_support import AVAILABLE
from projections.audit.reading import scan_lines
from projections.audit.reading.batches import LogBatch, merge_rows
from projections.audit.reading.blocks import BLOCK_PADDING, BlockSource, LineBlock
from projections.audit.reading.columns import ROWS_SEEN
from projections.audit.reading.fields import FIELDS, WHO, raw_record
from projections.audit.reading.json_paths import NAMES, field_specs, path_tree
from projections.audit.reading.strict import (
    LINE_BYTES_MAX,
    CsvColumns,
    LineQueue,
    LogFormat,
    LogRow,
    RawLine,
    RowParser,
    is_blank,
    is_json,
)
from projections.audit.reading.times import to_utc
from projections.audit.schemas import INSTANT, REQUESTS
from projections.decisions.model import RequestRecord, read_record

BLOCK_BYTES: Final = 1 << 23
STRICT_BYTES: Final = 1 << 23
"""The first bytes of a log, which only the strict reader reads: it is done with them before the loops are compiled."""
_ROW_BYTES_MAX: Final = 4 * LINE_BYTES_MAX
"""More than the longest row of CSV: `projections.audit.reading.strict` limits its lines."""
_SPARE_SHARE: Final = 8
"""Buffers have room for a block with one line in eight more than the largest block so far."""
_NO_FIELDS: Final = np.array([], np.int64)


class ScanBuffers(NamedTuple):
    """The arrays that `scan_lines` fills: a column for each line. Spans are places in the block's bytes."""

    line_ends: Any
    spans: Any
    values: Any
    flags: Any

    @classmethod
    def allocate(cls, lines: int) -> ScanBuffers:
        spans, flags = np.empty((2 * len(NAMES), lines), np.int32), np.empty((scan_lines.STATE + 1, lines), np.int8)
        return cls(np.empty(lines, np.int64), spans, np.empty((2, lines), np.int64), flags)

    def cleared(self, lines: int) -> ScanBuffers:
        """The buffers for a block of so many lines. `values` is new memory, because it becomes Arrow columns
        uncopied."""
        buffers = ScanBuffers(
            self.line_ends[:lines], self.spans[:, :lines], np.full((2, lines), -1, np.int64), self.flags[:, :lines]
        )
        buffers.spans[:] = 0
        buffers.flags[:] = -1
        buffers.flags[scan_lines.AT_KIND] = 0
        return buffers


def read_batches(
    blocks: BlockSource, parser: RowParser, log_format: LogFormat | None, strict_bytes: int = STRICT_BYTES
) -> Iterator[LogBatch]:
    """The rows of a log, in order. `log_format` None: a log whose first line begins with `{` is JSON Lines.

    Raises `BadRecord` for an invalid CSV header, and whatever `blocks` raises.
    """
    reader: _BlockReader | None = None
    for whole_block in blocks:
        block = whole_block
        if reader is None:
            first = _first_line(block)
            if first is None:
                continue
            as_json = log_format == "jsonl" or (log_format is None and is_json(first))
            columns = None if as_json else parser.parse_header(first)
            if as_json:
                _note_members(whole_block, parser)
            reader = _BlockReader(parser, columns, blocks)
            if columns is not None:
                block = _without_lines(whole_block, first.number - whole_block.first + 1)
        if not block.size:
            continue
        strictly = strict_bytes > 0 or not AVAILABLE
        strict_bytes -= block.size
        yield reader.read_strictly(block) if strictly else reader.read(block)


def _note_members(block: LineBlock, parser: RowParser) -> None:
    """Notes the members of the first rows. The rows themselves are read later: what is no JSON is passed over here."""
    end = 0
    for _ in range(min(block.lines, ROWS_SEEN)):
        start, end = end, block.data.index(b"\n", end) + 1
        with suppress(ValueError, RecursionError):
            parser.survey.note_row(json.loads(bytes(block.data[start:end])))


def _without_lines(block: LineBlock, lines: int) -> LineBlock:
    """The block without its first lines."""
    offset = 0
    for _ in range(lines):
        offset = block.data.index(b"\n", offset) + 1
    return LineBlock(block.first + lines, block.lines - lines, block.data[offset:], block.size - offset, block.last)


def _first_line(block: LineBlock) -> RawLine | None:
    """The first line that is not blank."""
    start, number = 0, block.first
    while start < block.size:
        end = block.data.index(b"\n", start)
        line = _raw_line(block, start, end, number)
        if not is_blank(line):
            return line
        start, number = end + 1, number + 1
    return None


def _raw_lines(block: LineBlock, ends: Any, place: int) -> Iterator[RawLine]:
    """The lines from the one at `place` on. `ends`: the places of the newlines."""
    for at in range(place, len(ends)):
        yield _raw_line(block, int(ends[at - 1]) + 1, int(ends[at]), block.first + at)


def _raw_line(block: LineBlock, start: int, end: int, number: int) -> RawLine:
    text = bytes(block.data[start:end]).rstrip(b"\r\n")
    return RawLine(number, text if len(text) <= LINE_BYTES_MAX else None)


class _FurtherLines:
    """The lines after a row's first one, without blank lines: counts those that the row takes, and notes whether the
    block ends before the row does."""

    def __init__(self, lines: Iterator[RawLine]) -> None:
        self._lines = lines
        self.numbers: list[int] = []
        self.exhausted = False

    def __iter__(self) -> Iterator[RawLine]:
        for line in self._lines:
            if not is_blank(line):
                self.numbers.append(line.number)
                yield line
        self.exhausted = True


class _BlockReader:
    def __init__(self, parser: RowParser, columns: CsvColumns | None, blocks: BlockSource) -> None:
        self._parser = parser
        self._columns = columns
        self._blocks = blocks
        self._tree = path_tree(parser if columns is None else RowParser("", parser.mapping._replace(columns={})))
        self._fields = _NO_FIELDS
        if columns is not None:
            self._fields = np.full(columns.width, -1, np.int64)
            for field, place in columns.places:
                if self._fields[place] >= 0:
                    # One column holds two fields: leave the log to the strict reader.
                    self._tree = None
                self._fields[place] = NAMES.index(field)
        self._specs = field_specs(parser)
        self._rules = np.zeros(5, np.int64)
        self._rules[scan_lines.LOCAL_TIMES] = parser.mapping.timezone is not None
        self._rules[scan_lines.AT_NEEDED] = "at" not in parser.constants
        self._rules[scan_lines.WHO_NEEDED] = not any(who in parser.constants for who in WHO)
        self._rules[scan_lines.LINE_MAX] = LINE_BYTES_MAX
        self._constants = constant_columns(parser)
        self._buffers = ScanBuffers.allocate(0)

    def read_strictly(self, block: LineBlock) -> LogBatch:
        """Reads every line with the strict reader."""
        # A list: its elements are many times as fast to read one by one as those of an array.
        ends = np.flatnonzero(np.frombuffer(block.data, np.uint8, block.size) == 10).tolist()
        states = np.full(len(ends), scan_lines.LEFT, np.uint8)
        strict_rows, _, _ = self._read_left(block, ends, states)
        none = pa.RecordBatch.from_pylist([], schema=REQUESTS)
        return merge_rows(self._parser.source, np.array([], np.int64), none, strict_rows)

    def read(self, block: LineBlock) -> LogBatch:
        """Reads the ordinary lines with compiled loops, the others with the strict reader."""
        tree = self._tree
        if tree is None:
            return self.read_strictly(block)
        padded = len(block.data) >= block.size + BLOCK_PADDING
        data, words = in_words(np.frombuffer(block.data if padded else block.data + bytes(BLOCK_PADDING), np.uint8))
        if len(self._buffers.line_ends) <= block.lines:
            # Always wider than the block: Numba has another type for a view of the whole array, and would compile anew.
            self._buffers = ScanBuffers.allocate(block.lines + block.lines // _SPARE_SHARE + 1)
        buffers = self._buffers.cleared(block.lines)
        self._rules[scan_lines.IS_ASCII] = _is_ascii(data[: block.size])
        stacks = np.zeros((4, 256), np.int64)
        scan_lines.scan(*tree, self._fields, self._specs, self._rules, data, words, block.size, *buffers, stacks)
        states = buffers.flags[scan_lines.STATE]
        self._convert_local_times(buffers, states)
        strict_rows, continued, done = self._read_left(block, buffers.line_ends, states)
        states[continued] = scan_lines.BLANK
        rows = np.flatnonzero(states[:done] == scan_lines.READ)
        requests = self._request_batch(words, buffers, rows)
        return merge_rows(self._parser.source, rows + block.first, requests, strict_rows)

    def _convert_local_times(self, buffers: ScanBuffers, states: Any) -> None:
        """Converts times without an offset to UTC; leaves uncertain ones to the strict reader."""
        local = np.flatnonzero((buffers.flags[scan_lines.AT_KIND] == 2) & (states == scan_lines.READ))
        zone = self._parser.mapping.timezone
        if zone is None or not len(local):
            return
        instants, certain = to_utc(buffers.values[scan_lines.AT, local], zone)
        buffers.values[scan_lines.AT, local] = instants
        states[local[~certain]] = scan_lines.LEFT

    def _read_left(self, block: LineBlock, ends: Any, states: Any) -> tuple[list[LogRow], list[int], int]:
        """Reads the lines whose state is LEFT: (rows, places of further lines that these rows took, lines done)."""
        strict_rows: list[LogRow] = []
        continued: list[int] = []
        done = -1
        for place in np.flatnonzero(states == scan_lines.LEFT).tolist():
            if place <= done:
                # The row before took this line.
                continue
            start = int(ends[place - 1]) + 1 if place else 0
            line = _raw_line(block, start, int(ends[place]), block.first + place)
            if is_blank(line):
                continue
            if self._columns is None:
                strict_rows.append(self._parser.parse_json(line))
                continue
            further = _FurtherLines(_raw_lines(block, ends, place + 1))
            lines = LineQueue(further)
            row = self._parser.parse_csv(line, self._columns, lines)
            if further.exhausted and not block.last and block.size - start < _ROW_BYTES_MAX:
                # The row may end in the next block: read it there.
                self._blocks.put_back(bytes(block.data[start : block.size]), len(ends) - place)
                return strict_rows, continued, place
            strict_rows.append(row)
            row_lines = further.numbers[: len(further.numbers) - lines.back_count]
            if row_lines:
                done = row_lines[-1] - block.first
                continued += range(place + 1, done + 1)
        return strict_rows, continued, len(ends)

    def _request_batch(self, words: Any, buffers: ScanBuffers, rows: Any) -> pa.RecordBatch:
        columns = []
        # A slice copies nothing, which is possible if no line is left out.
        selection = slice(None) if len(rows) == len(buffers.line_ends) else rows
        for number, (field, kind) in enumerate(FIELDS.items()):
            if kind == "text":
                column = _text_column(words, buffers.spans[2 * number], buffers.spans[2 * number + 1], rows)
            elif kind == "time":
                absent = buffers.flags[scan_lines.AT_KIND, selection] == 0
                instants = buffers.values[scan_lines.AT, selection]
                column = pa.array(instants, INSTANT, mask=absent if absent.any() else None)
            elif kind == "position":
                positions = buffers.values[scan_lines.POSITION, selection]
                column = pa.array(positions, pa.int64(), mask=positions < 0)
            else:
                flags = buffers.flags[number, selection]
                absent = flags < 0
                # Most logs have no column for most flags.
                column = pa.nulls(len(flags), pa.bool_()) if absent.all() else pa.array(flags == 1, mask=absent)
            if field in self._parser.mapped_columns and column.null_count < len(column):
                self._parser.present_fields.add(field)
            constant = self._constants.get(REQUESTS.names[number])
            if constant is not None and column.null_count:
                column = column.fill_null(constant)
            columns.append(column)
        return pa.RecordBatch.from_arrays(columns, schema=REQUESTS)


def _is_ascii(data: Any) -> bool:
    words = len(data) // 8 * 8
    high_bits = np.bitwise_or.reduce(data[:words].view(np.uint64)) & np.uint64(0x8080808080808080)
    return not high_bits and not (data[words:] >= 0x80).any()


def constant_columns(parser: RowParser) -> dict[str, Any]:
    """Column of REQUESTS → the value for rows without one."""
    if not parser.constants:
        return {}
    # Parsed as a line would be; the account only makes the record valid.
    record = read_record(raw_record({"account_id": "any"} | parser.constants), 0)
    names = {REQUESTS.names[NAMES.index(field)] for field in parser.constants}
    return {
        name: pa.scalar(value, REQUESTS.field(name).type) for name, value in _members(record).items() if name in names
    }


def _members(record: RequestRecord) -> dict[str, Any]:
    members = {name: value for name, value in record._asdict().items() if name != "handling" and value is not None}
    if record.handling is not None:
        members |= {name: value for name, value in record.handling._asdict().items() if value is not None}
    return members


def _text_column(words: Any, starts: Any, lengths: Any, rows: Any) -> pa.Array:
    """The texts at these spans of the rows. `words`: see `scan_lines.gather`."""
    size = int(lengths.sum())
    if not size:
        return pa.nulls(len(rows), pa.string())
    offsets = np.empty(len(rows) + 1, np.int32)
    validity = np.zeros((len(rows) + 7) // 8, np.uint8)
    texts = np.empty(size + scan_lines.TEXT_PADDING, np.uint8)
    text_words = np.ndarray((len(texts) - 7,), "<u8", texts, strides=(1,))
    nulls = scan_lines.gather(words, starts, lengths, rows, offsets, validity, text_words)
    bits = pa.py_buffer(validity) if nulls else None
    data = pa.py_buffer(texts[: offsets[-1]])
    return pa.StringArray.from_buffers(len(rows), pa.py_buffer(offsets), data, bits, nulls)
