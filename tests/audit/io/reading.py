"""Logs read by the fast readers and by the strict reader, as plain lists that compare."""

import gzip
import hashlib
import io
from typing import Any

from projections.audit.reading.batches import LogBatch
from projections.audit.reading.blocks import HashingStream, LineBlocks
from projections.audit.reading.fields import ColumnMapping
from projections.audit.reading.strict import LINE_BYTES_MAX, LineQueue, LogRow, RawLine, RowParser, is_blank, is_json
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
    body: bytes, mapping: ColumnMapping, block_bytes: int = 1 << 23, strict_bytes: int = 0
) -> tuple[ReadRows, list[str]]:
    """(rows, mapped fields that no line had). A large `strict_bytes` leaves all lines to the strict reader."""
    parser = RowParser("a.log", mapping)
    blocks = LineBlocks(HashingStream(io.BytesIO(body), hashlib.sha256()), "a.log", block_bytes)
    return rows_of(list(read_batches(blocks, parser, None, strict_bytes))), parser.absent_fields


def read_strictly(body: bytes, mapping: ColumnMapping) -> tuple[ReadRows, list[str]]:
    """The slow, obvious reading, without blocks: every line of the whole log goes to the strict reader."""
    parser = RowParser("a.log", mapping)
    return [_row(row) for row in strict_rows(body, parser)], parser.absent_fields


def strict_rows(body: bytes, parser: RowParser) -> list[LogRow]:
    plain = gzip.decompress(body) if body.startswith(b"\x1f\x8b") else body
    texts = (text.rstrip(b"\r") for text in plain.removeprefix(b"\xef\xbb\xbf").split(b"\n"))
    numbered = (RawLine(n, text if len(text) <= LINE_BYTES_MAX else None) for n, text in enumerate(texts, 1))
    lines = LineQueue(line for line in numbered if not is_blank(line))
    first = next(lines, None)
    if first is None:
        return []
    if is_json(first):
        return [parser.parse_json(first), *map(parser.parse_json, lines)]
    columns = parser.parse_header(first)
    return [parser.parse_csv(line, columns, lines) for line in lines]


def _row(row: LogRow) -> tuple[int, Any, str | None]:
    record = row.record
    if record is not None and record.enforced_position is not None:
        # A position that no ledger reaches becomes the last possible one.
        record = record._replace(enforced_position=min(record.enforced_position, 2**63 - 1))
    return row.line, record, row.fault
