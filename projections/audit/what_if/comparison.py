"""Compares two audits of one batch: the rows that were decided differently. Pure.

A row differs if its verdict, its reasons, its governing subject or its handling differ. Deciding positions, enforcement
lag and hindsight do not count as a difference, but are shown.
Proved by tests/audit/what_if/test_comparison.py.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from projections.audit.schemas import POLICY_COLUMNS, REASON_NAMES, VERDICTS
from projections.audit.what_if.numbering import Numbering

HANDLING: Final = (
    "may_store",
    "may_cache",
    "may_train",
    "may_leave_platform",
    "allowed_regions",
    "private_network_required",
    "data_policy",
    *POLICY_COLUMNS,
)
COMPARED: Final = ("verdict", "reasons", "governed_by", *HANDLING)
BEFORE: Final = "before_"
AFTER: Final = "after_"
_SHARED: Final = ("request_id", "at")
_POSITIONS: Final = ("deciding_positions", "lag_position")

DIFFERENCES: Final = pa.schema(
    [
        *(VERDICTS.field(name) for name in _SHARED),
        pa.field("model_id", pa.string()),
        *(
            field.with_name(side + field.name)
            for field in VERDICTS
            if field.name not in _SHARED
            for side in (BEFORE, AFTER)
        ),
    ]
)
"""A request that is decided differently: each column of VERDICTS as it was, and beside it as it would have been. A
negative position in an `after_` column is a proposal: -3 is the one in line 3."""

RowNumbers = NDArray[np.int64]


def differing_rows(before: pa.RecordBatch, after: pa.RecordBatch) -> RowNumbers:
    """The rows, ascending, that differ between two VERDICTS batches."""
    differ = np.zeros(before.num_rows, np.bool_)
    for name in COMPARED:
        left, right = before.column(name), after.column(name)
        if not left.equals(right):
            differ |= unequal(left, right)
    return np.flatnonzero(differ)


def unequal(left: pa.Array, right: pa.Array) -> NDArray[np.bool_]:
    """Whether two columns of one name differ, by row; null equals null."""
    convert = _as_texts if pa.types.is_list(left.type) else decoded
    left, right = convert(left), convert(right)
    differ = pc.fill_null(pc.not_equal(left, right), False)
    one_is_null = pc.not_equal(left.is_null(), right.is_null())
    rows: NDArray[np.bool_] = pc.or_(differ, one_is_null).to_numpy(zero_copy_only=False)
    return rows


def decoded(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _as_texts(lists: pa.Array) -> pa.Array:
    """Each list as one text. No member contains the separator; it also precedes the first member, so that an empty list
    and a list of an empty text differ."""
    members = decoded(lists.flatten())
    counts = pc.fill_null(pc.list_value_length(lists), 0).to_numpy()
    separated = pa.ListArray.from_arrays(_offsets(counts), pc.binary_join_element_wise("\x00", members, ""))
    return pc.if_else(lists.is_valid(), pc.binary_join(separated, ""), pa.scalar(None, pa.string()))


def _offsets(counts: Any) -> pa.Array:
    return pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))


def difference_batch(
    requests: pa.RecordBatch, before: pa.RecordBatch, after: pa.RecordBatch, rows: RowNumbers, numbering: Numbering
) -> pa.RecordBatch:
    """The DIFFERENCES of these rows. `after` has positions that count the proposals (see `numbering`)."""
    places = pa.array(rows)
    before, after = before.take(places), after.take(places)
    columns = [*before.select(_SHARED).columns, requests.column("model_id").take(places)]
    for name in VERDICTS.names:
        if name not in _SHARED:
            other = after.column(name)
            columns += [before.column(name), _ledger_positions(other, numbering) if name in _POSITIONS else other]
    return pa.RecordBatch.from_arrays(columns, schema=DIFFERENCES)


def _ledger_positions(column: pa.Array, numbering: Numbering) -> pa.Array:
    if pa.types.is_list(column.type):
        offsets = _offsets(pc.list_value_length(column).to_numpy())
        return pa.ListArray.from_arrays(offsets, pa.array(numbering.shown(column.flatten().to_numpy())))
    shown = numbering.shown(pc.fill_null(column, 0).to_numpy())
    return pa.array(shown, mask=column.is_null().to_numpy(zero_copy_only=False))


def reason_bits(column: pa.Array) -> NDArray[np.int64]:
    """The reasons of each row as bits, by their places in REASON_NAMES."""
    places = pc.index_in(decoded(column.flatten()), pa.array(REASON_NAMES)).to_numpy().astype(np.int64)
    bits = np.zeros(len(column), np.int64)
    np.bitwise_or.at(bits, pc.list_parent_indices(column).to_numpy(), np.int64(1) << places)
    return bits
