"""Compares two verdict files, to show that a peer of `bench audit` decides as we do."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

_LISTS: Final = ("reasons", "deciding_positions")
_COLUMNS: Final = (
    *("at", "verdict", "governed_by", "may_store", "may_cache", "may_train", "may_leave_platform"),
    *_LISTS,
)
_ID_PREFIX: Final = len("req-")


def count_differences(ours: Path, theirs: Path) -> int:
    """The number of rows that differ. Both files are about one generated log; the rows of `theirs` may be in any order.

    Skips the reasons of a row that has a lag: only our audit reports that.
    """
    known, other = _rows_by_number(ours, ("lag_position",)), _rows_by_number(theirs, ())
    if known.num_rows != other.num_rows or not known.column("request_id").equals(other.column("request_id")):
        return int(max(known.num_rows, other.num_rows))
    differs = np.zeros(known.num_rows, np.bool_)
    for name in _COLUMNS:
        one, two = (table.column(name) for table in (known, other))
        if name in _LISTS:
            # pc.not_equal takes no lists; texts and numbers without commas join to one text.
            unlike = np.asarray(pc.not_equal(_joined(one), _joined(two)))
            if name == "reasons":
                unlike = unlike & np.asarray(known.column("lag_position").is_null())
        else:
            two = two.cast(one.type)
            unlike = np.asarray(pc.not_equal(one, two).fill_null(False)) | np.asarray(
                pc.not_equal(one.is_null(), two.is_null())
            )
        differs |= unlike
    return int(np.count_nonzero(differs))


def _joined(column: Any) -> Any:
    values = column.combine_chunks()
    texts = values.flatten().cast(pa.string())
    ends = np.concatenate([[0], np.cumsum(pc.list_value_length(values).to_numpy())]).astype(np.int32)
    return pc.binary_join(pa.ListArray.from_arrays(pa.array(ends), texts), ",")


def _rows_by_number(path: Path, more: tuple[str, ...]) -> Any:
    table = pq.read_table(path, columns=["request_id", *_COLUMNS, *more])
    ids = table.column("request_id").cast(pa.string())
    table = table.set_column(table.column_names.index("request_id"), "request_id", ids)
    numbers = pc.cast(pc.utf8_slice_codeunits(ids, _ID_PREFIX), pa.int64()).to_numpy()
    if (np.diff(numbers) == 1).all():
        return table.combine_chunks()
    return table.take(pa.array(np.argsort(numbers, kind="stable"))).combine_chunks()
