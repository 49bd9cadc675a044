"""Rows of REQUESTS as the rows of a log."""

from typing import Any

import pyarrow as pa

from ledger.times import format_time
from projections.audit.reading.layout import Forms, make_layout
from projections.audit.reading.shape import ANY_SHAPE
from projections.audit.schemas import OBSERVED

NO_LAYOUT = make_layout({}, {}, Forms(), ANY_SHAPE)


def log_table(batch: pa.RecordBatch) -> pa.Table:
    """The batch with the column names of a log."""
    names = [f"handling.{name}" if name in OBSERVED else name for name in batch.schema.names]
    return pa.table(batch.columns, names=names)


def log_line(row: dict[str, Any]) -> dict[str, Any]:
    """The row as the value of a JSON line."""
    handling = {name: value for name, value in row.items() if name in OBSERVED and value is not None}
    rest = {name: value for name, value in row.items() if name not in OBSERVED}
    return rest | {"at": format_time(row["at"])} | ({"handling": handling} if handling else {})
