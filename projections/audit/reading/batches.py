"""What reading hands on: a stretch of one log, its requests in a batch, its faults beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa

from projections.audit.reading.strict import LogRow
from projections.audit.schemas import OBSERVED, REQUESTS
from projections.decisions.model import NOTHING_OBSERVED, RequestRecord

POSITION_LAST: Final = 2**63 - 1


class LogBatch(NamedTuple):
    """`lines`: of each request, int64, rising. `faults`: rows without a record, in the order of their lines."""

    source: str
    lines: Any
    requests: pa.RecordBatch
    faults: Sequence[LogRow]

    @property
    def rows(self) -> int:
        return len(self.lines) + len(self.faults)


def request_batch(records: Sequence[RequestRecord]) -> pa.RecordBatch:
    """A REQUESTS batch. A position that no ledger has is as good as the last one there could be."""
    columns: dict[str, list[Any]] = {name: [] for name in REQUESTS.names}
    for record in records:
        observed = record.handling or NOTHING_OBSERVED
        for name, column in columns.items():
            column.append(getattr(observed if name in OBSERVED else record, name))
    columns["enforced_position"] = [
        None if position is None else min(position, POSITION_LAST) for position in columns["enforced_position"]
    ]
    return pa.RecordBatch.from_pydict(columns, schema=REQUESTS)


def merge_rows(source: str, lines: Any, requests: pa.RecordBatch, strict: Sequence[LogRow]) -> LogBatch:
    """The requests that were read at once, and the rows that the strict reader read, by their lines."""
    found = [row for row in strict if row.record is not None]
    faults = [row for row in strict if row.record is None]
    if found:
        others = request_batch([row.record for row in found if row.record is not None])
        lines = np.concatenate([lines, np.array([row.line for row in found], np.int64)])
        order = np.argsort(lines, kind="stable")
        lines = lines[order]
        both = pa.Table.from_batches([requests, others]).combine_chunks()
        requests = both.to_batches()[0].take(pa.array(order)) if len(lines) else requests
    return LogBatch(source, lines, requests, faults)
