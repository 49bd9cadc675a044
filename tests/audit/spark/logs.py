"""Rows of REQUESTS as logs of files."""

from typing import Any

import pyarrow as pa

from ledger.times import format_time
from projections.audit.reading.layout import make_layout
from projections.audit.schemas import OBSERVED

NO_LAYOUT = make_layout({}, {}, None, None)


def named(batch: pa.RecordBatch) -> pa.Table:
    """With the columns' names that a log has."""
    names = [f"handling.{name}" if name in OBSERVED else name for name in batch.schema.names]
    return pa.table(batch.columns, names=names)


def said(row: dict[str, Any]) -> dict[str, Any]:
    """As a line of JSON says it."""
    done = {name: value for name, value in row.items() if name in OBSERVED and value is not None}
    rest = {name: value for name, value in row.items() if name not in OBSERVED}
    return rest | {"at": format_time(row["at"])} | ({"handling": done} if done else {})
