"""The rows of a block of JSON Lines or CSV: compiled loops read the ordinary ones, the strict reader all others.

A row of CSV may go on in the next block, and a row that is too large is skipped over many. Proved by
tests/audit/io/test_text_logs.py.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa

from projections.audit.arrays import in_words
from projections.audit.reading import scan_lines
from projections.audit.reading.alias_columns import AliasColumns
from projections.audit.reading.batches import LogBatch, merge_rows, strict_batch
from projections.audit.reading.blocks import BLOCK_PADDING, BlockSource, LineBlock, count_lines
from projections.audit.reading.csv_rows import RowSkipper, is_blank, row_end
from projections.audit.reading.fields import FIELDS, WHO, raw_record
from projections.audit.reading.json_paths import NAMES, PathTree, field_specs, path_tree
from projections.audit.reading.log_times import TIME_UNITS
from projections.audit.reading.strict import CsvColumns, LogRow, RowParser
from projections.audit.reading.times import to_utc
from projections.audit.schemas import INSTANT, REQUESTS
from projections.decisions.model import RequestRecord, read_record

_SPARE_SHARE: Final = 8
"""Buffers have room for a block with one line in eight more than the largest block so far."""
_NO_FIELDS: Final = np.array([], np.int64)
_SPACE: Final = re.compile(rb"[ \t\r\n\x0b\x0c]*+")


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


def after_space(block: LineBlock, start: int = 0) -> int:
    """The place of the first byte from `start` on that is no white space."""
    match = _SPACE.match(block.data, start, block.size)
    return start if match is None else match.end()


def rest_of(block: LineBlock, start: int) -> LineBlock:
    """The block from a line's beginning on."""
    lines = count_lines(block.data, start)
    return LineBlock(block.first + lines, block.lines - lines, block.data[start:], block.size - start, block.last)


class _LineSkipper:
    """Skips the rest of a line."""

    @staticmethod
    def skip(data: bytes | bytearray, size: int) -> int | None:
        """As `RowSkipper.skip`."""
        return data.find(b"\n", 0, size) + 1 or None


class BlockReader:
    def __init__(self, parser: RowParser, columns: CsvColumns | None, blocks: BlockSource) -> None:
        self._parser = parser
        self._columns = columns
        self._blocks = blocks
        self._tree = path_tree(parser if columns is None else RowParser("", parser.mapping._replace(columns={})))
        self._fields = _NO_FIELDS
        if columns is not None:
            self._fields = np.full(columns.width, -1, np.int64)
            for field, place, inner in columns.places:
                if self._fields[place] >= 0 or inner is not None:
                    # One column holds two fields, or JSON: leave the log to the strict reader.
                    self._tree = None
                self._fields[place] = NAMES.index(field)
        if parser.mapping.time_format is not None:
            # The loops would read a time in the usual spelling, which may mean another day in this form.
            self._tree = None
        self._aliases = AliasColumns(parser.mapping.aliases)
        self._specs = field_specs(parser)
        self._rules = np.zeros(scan_lines.RULES, np.int64)
        unit = parser.mapping.time_unit
        self._rules[scan_lines.LOCAL_TIMES] = (parser.mapping.timezone is not None) + 2 * (
            0 if unit is None else TIME_UNITS.index(unit) + 1
        )
        self._rules[scan_lines.AT_NEEDED] = "at" not in parser.constants
        self._rules[scan_lines.WHO_NEEDED] = not any(who in parser.constants for who in WHO)
        self._rules[scan_lines.LINE_MAX] = parser.shape.row_bytes_max
        self._rules[scan_lines.DELIMITER] = ord("," if columns is None else columns.delimiter)
        self._constants = constant_columns(parser)
        self._buffers = ScanBuffers.allocate(0)
        self._skipper: _LineSkipper | RowSkipper | None = None
        """Set while a row goes on that is too large."""
        self._row_is_open = False
        """Whether the next block begins with a row that did not end in the one before."""

    def read(self, block: LineBlock, *, strictly: bool) -> LogBatch | None:
        """The rows of the block. `strictly`: without the compiled loops. None: it has none."""
        if self._skipper is not None:
            end = self._skipper.skip(block.data, block.size)
            if end is None:
                return None
            self._skipper, block = None, rest_of(block, end)
        if after_space(block) == block.size:
            return None
        if not block.lines:
            return self._too_large(block)
        if self._row_is_open:
            return self._read_open_row(block)
        return self._read_strictly(block) if strictly or self._tree is None else self._read_quickly(block, self._tree)

    def _too_large(self, block: LineBlock) -> LogBatch:
        """The block begins with a row that is too large, and that does not end in the block."""
        self._skipper = _LineSkipper() if self._columns is None else RowSkipper(self._columns.delimiter)
        self._skipper.skip(block.data, block.size)
        return self._strict_batch([self._parser.too_large(block.first)])

    def _read_open_row(self, block: LineBlock) -> LogBatch | None:
        """The row at the beginning of a block that holds all of the block before. It is read by itself, because it may
        have many more lines than the compiled loops have room for."""
        assert self._columns is not None
        self._row_is_open = False
        end = row_end(block.data, 0, block.size, self._columns.delimiter)
        if end is None and block.size > self._parser.shape.row_bytes_max:
            return self._too_large(block)
        if end is None and not block.last:
            self._put_back(block, 0, block.lines)
            return None
        if end is None:
            return self._strict_batch([self._left_open(block.first)])
        if end + 1 < block.size:
            lines = block.lines - count_lines(block.data, end + 1)
            self._blocks.put_back(bytes(block.data[end + 1 : block.size]), lines, wants_more=False)
        return self._strict_batch([self._row(block.first, block.data, 0, end)])

    def _put_back(self, block: LineBlock, start: int, lines: int) -> None:
        self._blocks.put_back(bytes(block.data[start : block.size]), lines)
        self._row_is_open = True

    def _strict_batch(self, rows: list[LogRow]) -> LogBatch:
        return strict_batch(self._parser, rows)

    def _read_strictly(self, block: LineBlock) -> LogBatch:
        """Reads every line with the strict reader."""
        ends = np.flatnonzero(np.frombuffer(block.data, np.uint8, block.size) == 10)
        states = np.where(np.diff(ends, prepend=-1) > 1, scan_lines.LEFT, scan_lines.BLANK)
        # A list: its elements are many times as fast to read one by one as those of an array.
        strict_rows, _ = self._read_left(block, ends.tolist(), states)
        return self._strict_batch(strict_rows)

    def _read_quickly(self, block: LineBlock, tree: PathTree) -> LogBatch:
        """Reads the ordinary lines with compiled loops, the others with the strict reader."""
        padded = len(block.data) >= block.size + BLOCK_PADDING
        data, words = in_words(np.frombuffer(block.data if padded else block.data + bytes(BLOCK_PADDING), np.uint8))
        if len(self._buffers.line_ends) <= block.lines:
            # Always wider than the block: Numba has another type for a view of the whole array, and would compile anew.
            self._buffers = ScanBuffers.allocate(block.lines + block.lines // _SPARE_SHARE + 1)
        buffers = self._buffers.cleared(block.lines)
        self._rules[scan_lines.IS_ASCII] = _is_ascii(data[: block.size])
        stacks = np.zeros((1, scan_lines.DEPTH_MAX), np.int64)
        scan_lines.scan(*tree, self._fields, self._specs, self._rules, data, words, block.size, *buffers, stacks)
        states = buffers.flags[scan_lines.STATE]
        self._convert_local_times(buffers, states)
        strict_rows, done = self._read_left(block, buffers.line_ends, states)
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

    def _read_left(self, block: LineBlock, ends: Any, states: Any) -> tuple[list[LogRow], int]:
        """Reads the lines whose state is LEFT: (rows, lines done). Further lines of these rows become BLANK."""
        strict_rows: list[LogRow] = []
        done = -1
        for place in np.flatnonzero(states == scan_lines.LEFT).tolist():
            if place <= done:
                # The row before took this line.
                continue
            start, end = int(ends[place - 1]) + 1 if place else 0, int(ends[place])
            number = block.first + place
            if self._is_blank(bytes(block.data[start:end])):
                continue
            if self._columns is None:
                is_large = end - start > self._parser.shape.row_bytes_max
                text = b"" if is_large else bytes(block.data[start:end])
                strict_rows.append(
                    self._parser.too_large(number) if is_large else self._parser.parse_json(number, text)
                )
                continue
            if block.data.find(b'"', start, end) >= 0:
                row_ends = row_end(block.data, start, block.size, self._columns.delimiter)
                if row_ends is None and not block.last:
                    # The row may end in the next block: read it there.
                    self._put_back(block, start, len(ends) - place)
                    return strict_rows, place
                if row_ends is None:
                    strict_rows.append(self._left_open(number))
                    return strict_rows, place
                end = row_ends
                done = bisect_left(ends, end, lo=place)
                states[place + 1 : done + 1] = scan_lines.BLANK
            strict_rows.append(self._row(number, block.data, start, end))
        return strict_rows, len(ends)

    def _is_blank(self, line: bytes) -> bool:
        return line.isspace() if self._columns is None else is_blank(line, self._columns.delimiter)

    def _row(self, number: int, data: bytes | bytearray, start: int, end: int) -> LogRow:
        if end - start > self._parser.shape.row_bytes_max:
            return self._parser.too_large(number)
        text = bytes(data[start:end])
        if self._columns is None:
            return self._parser.parse_json(number, text)
        return self._parser.parse_csv(number, text, self._columns)

    def _left_open(self, number: int) -> LogRow:
        return LogRow(
            self._parser.source,
            number,
            None,
            "a quote is left open: the rest of the log, from here to its end, is one row that does not end",
        )

    def _request_batch(self, words: Any, buffers: ScanBuffers, rows: Any) -> pa.RecordBatch:
        columns = []
        # A slice copies nothing, which is possible if no line is left out.
        selection = slice(None) if len(rows) == len(buffers.line_ends) else rows
        for number, (field, kind) in enumerate(FIELDS.items()):
            if kind == "text":
                column = _text_column(words, buffers.spans[2 * number], buffers.spans[2 * number + 1], rows)
                column = self._aliases.resolved(field, column)
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
            self._note_presence(field, column, buffers.flags[number, selection])
            constant = self._constants.get(REQUESTS.names[number])
            if constant is not None and column.null_count:
                column = column.fill_null(constant)
            columns.append(column)
        return pa.RecordBatch.from_arrays(columns, schema=REQUESTS)

    def _note_presence(self, field: str, column: pa.Array, flags: Any) -> None:
        parser = self._parser
        if field not in parser.mapped_columns or field in parser.present_fields:
            return
        if column.null_count < len(column) or (flags == scan_lines.NULL).any():
            parser.present_fields.add(field)


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
