"""Whether two verdict files say the same, as far as both say anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

COLUMNS: Final = (
    *("at", "verdict", "governed_by", "may_store", "may_cache", "may_train", "may_leave_platform"),
    *("reasons", "deciding_positions"),
)
_ID_LEAD: Final = len("req-")


def same_verdicts(ours: Path, theirs: Path) -> int:
    """How many rows differ. Both are of one made log (`audit_log`), theirs in any order. The reasons of a row that has
    a lag are not looked at: there ours say more."""
    known, other = _by_number(ours, ("lag_position",)), _by_number(theirs, ())
    if known.num_rows != other.num_rows or not known.column("request_id").equals(other.column("request_id")):
        return int(max(known.num_rows, other.num_rows))
    differs = np.zeros(known.num_rows, np.bool_)
    for name in COLUMNS:
        one, two = (table.column(name) for table in (known, other))
        if name in ("reasons", "deciding_positions"):
            # Lists of no more than texts and numbers: by the text that they make.
            one, two = (_text(column) for column in (one, two))
            unlike = np.asarray(pc.not_equal(one, two))
            if name == "reasons":
                unlike = unlike & np.asarray(known.column("lag_position").is_null())
        else:
            two = two.cast(one.type)
            unlike = np.asarray(pc.not_equal(one, two).fill_null(False)) | np.asarray(
                pc.not_equal(one.is_null(), two.is_null())
            )
        differs |= unlike
    return int(np.count_nonzero(differs))


def _text(column: Any) -> Any:
    values = column.combine_chunks()
    texts = values.flatten().cast(pa.string())
    ends = np.concatenate([[0], np.cumsum(pc.list_value_length(values).to_numpy())]).astype(np.int32)
    return pc.binary_join(pa.ListArray.from_arrays(pa.array(ends), texts), ",")


def _by_number(path: Path, more: tuple[str, ...]) -> Any:
    table = pq.read_table(path, columns=["request_id", *COLUMNS, *more])
    place = table.column_names.index("request_id")
    table = table.set_column(place, "request_id", table.column("request_id").cast(pa.string()))
    numbers = pc.cast(pc.utf8_slice_codeunits(table.column("request_id"), _ID_LEAD), pa.int64()).to_numpy()
    if (np.diff(numbers) == 1).all():
        return table.combine_chunks()
    return table.take(pa.array(np.argsort(numbers, kind="stable"))).combine_chunks()
