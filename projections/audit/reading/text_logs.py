"""Reads JSON Lines and CSV, a block of lines at a time.

Compiled loops read lines in their ordinary form; the strict reader reads all others. So each line gives the same row as
if the strict reader had read them all. Proved by tests/audit/io/test_text_logs.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Final

from ledger.errors import BadRecord
from projections.audit.numba_support import are_ready
from projections.audit.reading import scan_lines
from projections.audit.reading.batches import LogBatch, strict_batch
from projections.audit.reading.block_rows import BlockReader, after_space, rest_of
from projections.audit.reading.blocks import BlockSource, LineBlock, count_lines
from projections.audit.reading.columns import ROWS_SEEN
from projections.audit.reading.csv_rows import DELIMITERS, is_blank, row_end
from projections.audit.reading.documents import Documents, is_document
from projections.audit.reading.shape import LogForm, LogFormat, LogShape
from projections.audit.reading.strict import CsvColumns, LogRow, RowParser

BLOCK_BYTES: Final = 1 << 23
STRICT_BYTES: Final = 1 << 23
"""The first bytes of a log, which only the strict reader reads: it is done with them before the loops are loaded."""
_WAIT_SHARE: Final = 8
"""The strict reader goes on while the loops are compiled, for up to so many times STRICT_BYTES."""
_FORMS: Final[dict[LogFormat, LogForm]] = {"jsonl": "JSON Lines", "json": "JSON", "csv": "CSV"}
_OBJECT: Final = ord("{")
_LIST: Final = ord("[")
_DOCUMENT_ROWS: Final = 8192


def read_batches(blocks: BlockSource, parser: RowParser, strict_bytes: int = STRICT_BYTES) -> Iterator[LogBatch]:
    """The rows of a log, in order.

    Raises `BadRecord` for an invalid CSV header, and whatever `blocks` raises.
    """
    reader: BlockReader | None = None
    wait_below = -_WAIT_SHARE * strict_bytes
    coming = iter(blocks)
    for whole_block in coming:
        block = whole_block
        if reader is None:
            start = _first_row(block, parser.shape)
            if start is None:
                continue
            form = _format(block, start, parser.shape)
            parser.form = _FORMS[form]
            if form == "json":
                yield from strict_batches(Documents(chain((block,), coming), parser), parser)
                return
            if form == "jsonl":
                _note_members(block, parser)
                reader = BlockReader(parser, None, blocks)
            else:
                columns, end = _header(block, start, parser)
                if columns is None:
                    blocks.put_back(bytes(block.data[: block.size]), block.lines)
                    continue
                reader = BlockReader(parser, columns, blocks)
                block = rest_of(block, end + 1)
        wait = strict_bytes <= wait_below
        strictly = strict_bytes > 0 or not are_ready(scan_lines.scan, scan_lines.gather, wait=wait)
        strict_bytes -= block.size
        batch = reader.read(block, strictly=strictly)
        if batch is not None:
            yield batch


def _format(block: LineBlock, start: int, shape: LogShape) -> LogFormat:
    """The format of the log whose first line that is not blank begins at `start`."""
    if shape.log_format is not None and (shape.log_format == "csv" or shape.rows is None):
        return shape.log_format
    first = block.data[after_space(block, start)]
    if first == _LIST or (first == _OBJECT and shape.rows is not None):
        return "json"
    if first != _OBJECT:
        return "csv"
    end = block.data.find(b"\n", start, block.size)
    line, following = bytes(block.data[start:end]), bytes(block.data[end + 1 : min(block.size, end + 4096)])
    return "json" if end >= 0 and is_document(line, following) else "jsonl"


def has_row_lines(head: bytes, parser: RowParser) -> bool:
    """Whether a log that begins with `head` is JSON Lines, or CSV with commas: it may be cut at line ends, unless a
    quote is open there. Raises `BadRecord` for an invalid CSV header."""
    size = head.rfind(b"\n") + 1
    if not size:
        return head.lstrip()[:1] == b"{" and parser.shape.rows is None
    block = LineBlock(1, count_lines(head, size), head, size, False)
    start = _first_row(block, parser.shape)
    if start is None:
        return False
    form = _format(block, start, parser.shape)
    if form != "csv":
        return form == "jsonl"
    columns, _ = _header(block, start, parser)
    return columns is not None and columns.delimiter == ","


def strict_batches(rows_read: Iterable[LogRow], parser: RowParser) -> Iterator[LogBatch]:
    """Batches of rows that the strict reader has read."""
    rows: list[LogRow] = []
    for row in rows_read:
        rows.append(row)
        if len(rows) == _DOCUMENT_ROWS:
            yield strict_batch(parser, rows)
            rows = []
    if rows:
        yield strict_batch(parser, rows)


def _note_members(block: LineBlock, parser: RowParser) -> None:
    """Notes the members of the first rows, which are read later."""
    end = 0
    for _ in range(min(block.lines, ROWS_SEEN)):
        start, end = end, block.data.index(b"\n", end) + 1
        parser.note_json(bytes(block.data[start:end]))


def _first_row(block: LineBlock, shape: LogShape) -> int | None:
    """Where the first line begins that is not blank. An empty row of cells is."""
    first, begin = after_space(block), 0
    signs = "".join(DELIMITERS) if shape.delimiter is None else shape.delimiter
    while first < block.size:
        begin, end = block.data.rfind(b"\n", 0, first) + 1, block.data.find(b"\n", first, block.size)
        line = bytes(block.data[begin : block.size if end < 0 else end])
        if shape.log_format in ("json", "jsonl") or not any(is_blank(line, sign) for sign in signs):
            return begin
        if end < 0:
            return None
        first = after_space(block, end)
    return None


def _header(block: LineBlock, start: int, parser: RowParser) -> tuple[CsvColumns | None, int]:
    """The columns of a CSV file, and the place of the newline after its header; None: it ends in a later block.

    Raises `BadRecord`.
    """
    number = block.first + count_lines(block.data, start)
    delimiters = DELIMITERS if parser.shape.delimiter is None else (parser.shape.delimiter,)
    ends = {delimiter: row_end(block.data, start, block.size, delimiter) for delimiter in delimiters}
    headers = {d: bytes(block.data[start:end]) for d, end in ends.items() if end is not None}
    is_all = block.last or not block.lines or block.size - start > parser.shape.row_bytes_max
    if not is_all and len(headers) < len(ends):
        return None, 0
    if not headers:
        raise BadRecord(
            f"{parser.source} line {number}: this is neither JSON nor the header of a CSV file: a quote is left open, "
            "or the row does not end"
        )
    delimiter = parser.delimiter_of(headers)
    end = ends[delimiter]
    assert end is not None
    return parser.parse_header(number, headers[delimiter], delimiter), end
