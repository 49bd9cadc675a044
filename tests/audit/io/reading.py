"""Logs read by the fast readers and by the strict reader, as plain lists that compare."""

import csv
import gzip
import hashlib
import io
from collections.abc import Iterator
from typing import Any

from projections.audit.reading.batches import LogBatch
from projections.audit.reading.blocks import HashingStream, LineBlocks
from projections.audit.reading.fields import ColumnMapping
from projections.audit.reading.shape import ANY_SHAPE, LogShape
from projections.audit.reading.strict import LogRow, RowParser
from projections.audit.reading.text_logs import read_batches
from projections.audit.reference import records

NOON = "2026-03-01T12:00:00Z"
ReadRows = list[tuple[int, Any, str | None]]
"""(line, record, fault)"""


def rows_of(batches: list[LogBatch]) -> ReadRows:
    rows: ReadRows = []
    for batch in batches:
        batch_rows: ReadRows = [
            (line, record, None) for line, record in zip(batch.lines, records(batch.requests), strict=True)
        ]
        batch_rows += [(row.line, None, row.fault) for row in batch.faults]
        rows += sorted(batch_rows, key=lambda row: row[0])
    return rows


def read_fast(
    body: bytes,
    mapping: ColumnMapping,
    block_bytes: int = 1 << 23,
    strict_bytes: int = 0,
    shape: LogShape = ANY_SHAPE,
) -> tuple[ReadRows, list[str]]:
    """(rows, mapped fields that no line had). A large `strict_bytes` leaves all lines to the strict reader."""
    parser = RowParser("a.log", mapping, shape)
    stream = HashingStream(io.BytesIO(body), hashlib.sha256())
    blocks = LineBlocks(stream, "a.log", block_bytes, shape.row_bytes_max)
    return rows_of(list(read_batches(blocks, parser, strict_bytes))), parser.absent_fields


def read_strictly(body: bytes, mapping: ColumnMapping, shape: LogShape = ANY_SHAPE) -> tuple[ReadRows, list[str]]:
    """The slow, obvious reading, without blocks: every row of the whole log goes to the strict reader."""
    parser = RowParser("a.log", mapping, shape)
    return [_row(row) for row in strict_rows(body, parser)], parser.absent_fields


def strict_rows(body: bytes, parser: RowParser) -> list[LogRow]:
    plain = gzip.decompress(body) if body.startswith(b"\x1f\x8b") else body
    plain = plain.removeprefix(b"\xef\xbb\xbf")
    most = parser.shape.row_bytes_max
    if plain.lstrip()[:1] == b"{":
        lines = [(number, line) for number, line in enumerate(plain.split(b"\n"), 1) if line.strip()]
        return [parser.too_large(n) if len(line) > most else parser.parse_json(n, line) for n, line in lines]
    texts = csv_rows(plain)
    header = next(texts, None)
    if header is None:
        return []
    columns = parser.parse_header(*header[:2])
    rows = []
    for number, text, closed in texts:
        if len(text) > most:
            rows.append(parser.too_large(number))
        elif closed:
            rows.append(parser.parse_csv(number, text, columns))
        else:
            fault = "a quote is left open: the rest of the log, from here to its end, is one row that does not end"
            rows.append(LogRow("a.log", number, None, fault))
    return rows


def csv_rows(plain: bytes, delimiter: bytes = b",") -> Iterator[tuple[int, bytes, bool]]:
    """(line, bytes, whether all its quotes close) of each row that is not blank, by looking at every byte."""
    if not plain.endswith(b"\n"):
        plain += b"\n"
    number, first, start = 1, 1, 0
    in_quotes, cell_begins, closing = False, True, False
    for at in range(len(plain)):
        byte = plain[at : at + 1]
        if byte == b"\n":
            number += 1
        if in_quotes and not closing:
            closing = byte == b'"'
            continue
        if closing:
            closing = False
            if byte == b'"':
                continue
            in_quotes, cell_begins = False, False
        if byte == b'"' and cell_begins:
            in_quotes, cell_begins = True, False
        elif byte == b"\n":
            if not is_blank(plain[start:at], delimiter):
                yield first, plain[start:at], True
            first, start, cell_begins = number, at + 1, True
        else:
            cell_begins = byte == delimiter
    if plain[start:].strip():
        yield first, plain[start:], False


def is_blank(row: bytes, delimiter: bytes) -> bool:
    if not row.strip(b" \t\r\n\x0b\x0c" + delimiter):
        return True
    try:
        (cells,) = csv.reader([row.decode("latin-1")], delimiter=delimiter.decode(), strict=True)
    except csv.Error:
        return False
    return not any(cells)


def _row(row: LogRow) -> tuple[int, Any, str | None]:
    record = row.record
    if record is not None and record.enforced_position is not None:
        # A position that no ledger reaches becomes the last possible one.
        record = record._replace(enforced_position=min(record.enforced_position, 2**63 - 1))
    return row.line, record, row.fault
