"""A LogBatch: a stretch of one log, its requests as an Arrow batch, and the rows that cannot be read beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa

from projections.audit.reading.fields import ColumnMapping
from projections.audit.reading.strict import LogRow, RowParser
from projections.audit.schemas import OBSERVED, REQUESTS, as_happened
from projections.decisions.model import NOTHING_OBSERVED, RequestRecord

POSITION_LAST: Final = 2**63 - 1


class LogBatch(NamedTuple):
    """`lines`: the line of each request, int64, ascending. `faults`: rows without a record, by line."""

    source: str
    lines: Any
    requests: pa.RecordBatch
    faults: Sequence[LogRow]

    @property
    def rows(self) -> int:
        return len(self.lines) + len(self.faults)


def request_batch(records: Sequence[RequestRecord]) -> pa.RecordBatch:
    """The records as a REQUESTS batch. Positions beyond int64, which no ledger reaches, become POSITION_LAST."""
    columns: dict[str, list[Any]] = {name: [] for name in REQUESTS.names}
    for record in records:
        observed = record.handling or NOTHING_OBSERVED
        for name, column in columns.items():
            column.append(getattr(observed if name in OBSERVED else record, name))
    columns["enforced_position"] = [
        None if position is None else min(position, POSITION_LAST) for position in columns["enforced_position"]
    ]
    return pa.RecordBatch.from_pydict(columns, schema=REQUESTS)


def as_mapped(batch: LogBatch, mapping: ColumnMapping) -> LogBatch:
    """The batch with the mark of requests that happened, if the mapping says that they did."""
    return batch._replace(requests=as_happened(batch.requests)) if mapping.happened else batch


def merge_rows(source: str, lines: Any, requests: pa.RecordBatch, strict_rows: Sequence[LogRow]) -> LogBatch:
    """Merges the requests of a fast reader with the rows of the strict reader, by line."""
    faults = [row for row in strict_rows if row.record is None]
    records = [row.record for row in strict_rows if row.record is not None]
    if records:
        read_lines = [row.line for row in strict_rows if row.record is not None]
        lines = np.concatenate([lines, np.array(read_lines, np.int64)])
        order = np.argsort(lines, kind="stable")
        lines = lines[order]
        both = pa.Table.from_batches([requests, request_batch(records)]).combine_chunks()
        requests = both.to_batches()[0].take(pa.array(order))
    return LogBatch(source, lines, requests, faults)


def strict_batch(parser: RowParser, rows: list[LogRow]) -> LogBatch:
    """A batch of rows that the strict reader has read."""
    none = pa.RecordBatch.from_pylist([], schema=REQUESTS)
    return merge_rows(parser.source, np.array([], np.int64), none, rows)
