"""Two audits of one batch beside each other: which rows were decided otherwise. Pure.

A row is decided otherwise where its verdict, its reasons, who governed it or its handling is another. What decided it,
how long the gateway lagged behind and what hindsight says do not make it so by themselves; they are shown, though.
Proved by tests/audit/what_if/test_comparison.py.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from projections.audit.schemas import REASON_NAMES, VERDICTS
from projections.audit.what_if.numbering import Numbering

HANDLING: Final = (
    "may_store",
    "may_cache",
    "may_train",
    "may_leave_platform",
    "allowed_regions",
    "private_network_required",
    "data_policy",
    "provider",
    "policy_url",
)
COMPARED: Final = ("verdict", "reasons", "governed_by", *HANDLING)
BEFORE: Final = "before_"
AFTER: Final = "after_"
_OF_A_ROW: Final = ("request_id", "at")
_POSITIONS: Final = ("deciding_positions", "lag_position")

DIFFERENCES: Final = pa.schema(
    [
        *(VERDICTS.field(name) for name in _OF_A_ROW),
        pa.field("model_id", pa.string()),
        *(
            field.with_name(side + field.name)
            for field in VERDICTS
            if field.name not in _OF_A_ROW
            for side in (BEFORE, AFTER)
        ),
    ]
)
"""A request that was decided otherwise: every column of VERDICTS as it was, and beside it as it would have been. A
position in an `after_` column that is negative is a proposal: -3 is the one of line 3."""

RowNumbers = NDArray[np.int64]


def differing_rows(before: pa.RecordBatch, after: pa.RecordBatch) -> RowNumbers:
    """The rows, rising, that are decided otherwise in one of two VERDICTS batches than in the other."""
    differ = np.zeros(before.num_rows, np.bool_)
    for name in COMPARED:
        one, other = before.column(name), after.column(name)
        if not one.equals(other):
            differ |= unequal(one, other)
    return np.flatnonzero(differ)


def unequal(one: pa.Array, other: pa.Array) -> NDArray[np.bool_]:
    """Row by row, whether two columns of one name differ; null is equal to null."""
    if pa.types.is_list(one.type):
        one, other = _written(one), _written(other)
    elif pa.types.is_dictionary(one.type):
        one, other = one.dictionary_decode(), other.dictionary_decode()
    differ = pc.fill_null(pc.not_equal(one, other), False)
    found: NDArray[np.bool_] = pc.or_(differ, pc.not_equal(one.is_null(), other.is_null())).to_numpy(
        zero_copy_only=False
    )
    return found


def _written(lists: pa.Array) -> pa.Array:
    """Each list as one text: no member holds the separator, and the first one tells an empty list from a text."""
    members = lists.flatten()
    if pa.types.is_dictionary(members.type):
        members = members.dictionary_decode()
    counts = pc.fill_null(pc.list_value_length(lists), 0).to_numpy()
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))
    plain = pa.ListArray.from_arrays(offsets, pc.binary_join_element_wise("\x00", members, ""))
    joined = pc.binary_join(plain, "")
    return pc.if_else(lists.is_valid(), joined, pa.scalar(None, pa.string()))


def changes(
    requests: pa.RecordBatch, before: pa.RecordBatch, after: pa.RecordBatch, rows: RowNumbers, numbering: Numbering
) -> pa.RecordBatch:
    """CHANGES of these rows of a REQUESTS batch and its two VERDICTS batches, of which `after` is numbered with the
    proposals."""
    taken = pa.array(rows)
    sides = {BEFORE: before.take(taken), AFTER: _shown(after.take(taken), numbering)}
    columns = [sides[BEFORE].column(name) for name in _OF_A_ROW]
    columns.append(requests.column("model_id").take(taken))
    for name in VERDICTS.names:
        if name not in _OF_A_ROW:
            columns += [side.column(name) for side in sides.values()]
    return pa.RecordBatch.from_arrays(columns, schema=DIFFERENCES)


def _shown(verdicts: pa.RecordBatch, numbering: Numbering) -> pa.RecordBatch:
    """Positions as the ledger has them."""
    for name in _POSITIONS:
        verdicts = verdicts.set_column(
            verdicts.schema.get_field_index(name), VERDICTS.field(name), _own(verdicts.column(name), numbering)
        )
    return verdicts


def _own(column: pa.Array, numbering: Numbering) -> pa.Array:
    if pa.types.is_list(column.type):
        counts = pc.list_value_length(column).to_numpy()
        offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))
        return pa.ListArray.from_arrays(offsets, pa.array(numbering.shown(column.flatten().to_numpy())))
    shown = numbering.shown(pc.fill_null(column, 0).to_numpy())
    return pa.array(shown, mask=column.is_null().to_numpy(zero_copy_only=False))


def reason_bits(column: pa.Array) -> NDArray[np.int64]:
    """Of each row its reasons as bits, by their places in REASON_NAMES."""
    members = column.flatten()
    if pa.types.is_dictionary(members.type):
        members = members.dictionary_decode()
    bits = pc.index_in(members, pa.array(REASON_NAMES)).to_numpy().astype(np.int64)
    found = np.zeros(len(column), np.int64)
    np.bitwise_or.at(found, pc.list_parent_indices(column).to_numpy(), np.int64(1) << bits)
    return found


def reason_names(bits: int) -> list[Any]:
    return [name for place, name in enumerate(REASON_NAMES) if bits >> place & 1]
