"""Logs read every way there is, as plain lists that compare."""

import hashlib
import io
from typing import Any

from projections.audit.reading.batches import LogBatch
from projections.audit.reading.blocks import HashingStream, LineBlocks
from projections.audit.reading.fields import ColumnMapping
from projections.audit.reading.strict import LogRow, RowParser, read_log
from projections.audit.reading.text_logs import read_batches
from projections.audit.reference import records

NOON = "2026-03-01T12:00:00Z"
Read = list[tuple[int, Any, str | None]]
"""(line, record, fault)"""


def in_parts(parts: list[LogBatch]) -> Read:
    found: Read = []
    for part in parts:
        of_part: Read = [(line, record, None) for line, record in zip(part.lines, records(part.requests), strict=True)]
        of_part += [(row.line, None, row.fault) for row in part.faults]
        found += sorted(of_part, key=lambda row: row[0])
    return found


def at_once(
    body: bytes, mapping: ColumnMapping, block_bytes: int = 1 << 23, strict_bytes: int = 0
) -> tuple[Read, list[str]]:
    """(rows, named fields that no line had)."""
    rows = RowParser("a.log", mapping)
    blocks = LineBlocks(HashingStream(io.BytesIO(body), hashlib.sha256()), "a.log", block_bytes)
    return in_parts(list(read_batches(blocks, rows, None, strict_bytes))), rows.unseen


def by_row(body: bytes, mapping: ColumnMapping) -> tuple[Read, list[str]]:
    log = read_log(io.BytesIO(body), "a.log", mapping=mapping)
    return [_row(row) for row in log], log.unseen


def _row(row: LogRow) -> tuple[int, Any, str | None]:
    record = row.record
    if record is not None and record.enforced_position is not None:
        # A position that no ledger has is as good as the last one there could be.
        record = record._replace(enforced_position=min(record.enforced_position, 2**63 - 1))
    return row.line, record, row.fault
