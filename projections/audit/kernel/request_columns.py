"""A REQUESTS batch as NumPy arrays over the same memory: only what Arrow keeps as bits is copied."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa

from ledger.times import END
from projections.audit.arrays import Bools, Int32s, Int64s, UInt8s, all_sealed, sealed
from projections.audit.index.schema import BIT_FALSE, BIT_TRUE
from projections.audit.schemas import REQUESTS
from projections.decisions.model import AS_SERVED
from projections.temporal.coordinates import IN_FORCE, KnownAt

ROWS_MAX: Final = 1 << 20
"""Of a batch: then its texts, ids of at most 262 bytes each, fit into Arrow's 32-bit offsets."""

HAS_STORED: Final = 1
HAS_CACHED: Final = 2
HAS_TRAINED: Final = 4
IN_PUBLIC: Final = 8
WAS_OBSERVED: Final = 16
SAYS_HOW_SERVED: Final = 32
"""Bits of `RequestColumns.observed_flags`: what was done, whether anything at all was observed, and whether anything
was of how the model was served."""

NULL_ID: Final = -1
"""In place of a code: the row names no subject, or has no text."""
NO_CODE: Final = -2
"""The row names a subject, or has a text, that has no code in the index."""


class TextColumn(NamedTuple):
    """The text of row i is bytes[offsets[i] : offsets[i + 1]] (UTF-8). There is none where valid[i] is False."""

    offsets: Int32s
    bytes: UInt8s
    valid: Bools


class RequestIds(NamedTuple):
    """The ids by row: a subject's code, NULL_ID or NO_CODE."""

    key: Int32s
    account: Int32s
    org: Int32s
    project: Int32s
    model: Int32s


class RequestColumns(NamedTuple):
    """When each request was made, and what was done.

    at: µs. forwarded_to, region: a text's code, NULL_ID or NO_CODE. served: int32[rows, 5], in the order of AS_SERVED:
    a text's code or NO_CODE, BIT_FALSE or BIT_TRUE, or NULL_ID; without meaning in rows without SAYS_HOW_SERVED.
    enforced: a position, or -1. known: only what was recorded by then (µs) counts.
    """

    at: Int64s
    observed_flags: UInt8s
    forwarded_to: Int32s
    region: Int32s
    served: Int32s
    enforced: Int64s
    known: Int64s


def check_requests(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Returns the batch. Raises `ValueError` if it is no batch of REQUESTS, or too large."""
    if not batch.schema.equals(REQUESTS):
        raise ValueError("the batch has other columns than REQUESTS; cast it to that schema")
    if batch.num_rows > ROWS_MAX:
        raise ValueError(f"the batch has {batch.num_rows} rows and may have {ROWS_MAX}; slice it")
    return batch


def text_column(array: pa.Array) -> TextColumn:
    rows = len(array)
    _, offset_buffer, byte_buffer = array.buffers()
    offsets = np.zeros(rows + 1, np.int32)
    if offset_buffer is not None and offset_buffer.size:
        offsets = np.frombuffer(offset_buffer, np.int32, rows + 1, array.offset * 4)
    content = np.zeros(0, np.uint8) if byte_buffer is None else np.frombuffer(byte_buffer, np.uint8)
    return TextColumn(sealed(offsets), sealed(content), sealed(valid(array)))


def valid(array: pa.Array) -> Bools:
    """By row, whether it is not null."""
    bits = array.buffers()[0]
    return np.ones(len(array), np.bool_) if bits is None else _unpacked(bits, array)


def request_columns(
    batch: pa.RecordBatch, forwarded_to: Int32s, region: Int32s, texts: Mapping[str, Int32s], known_at: KnownAt
) -> RequestColumns:
    """`forwarded_to`, `region`, `texts`: the codes of those columns of the batch. `known_at`: of the index."""
    observed = (forwarded_to != NULL_ID) | (region != NULL_ID)
    flags = np.zeros(batch.num_rows, np.uint8)
    for name, bit in (("stored", HAS_STORED), ("cached", HAS_CACHED), ("trained", HAS_TRAINED)):
        column = batch.column(name)
        if column.null_count == len(column):
            continue
        there = valid(column)
        observed |= there
        flags |= (_unpacked(column.buffers()[1], column) & there) * np.uint8(bit)
    network = text_column(batch.column("network"))
    observed |= network.valid
    rows = np.flatnonzero(network.valid)
    # The only two values, `public` and `private`, differ in their second byte.
    flags[rows] |= (network.bytes[network.offsets[rows] + 1] == ord("u")) * np.uint8(IN_PUBLIC)
    served = _served(batch, texts)
    if served is None:
        # Its pages stay unused and take no memory.
        served = np.empty((batch.num_rows, len(AS_SERVED)), np.int32)
    else:
        says = (served != NULL_ID).any(axis=1)
        observed |= says
        flags |= says * np.uint8(SAYS_HOW_SERVED)
    flags |= observed * np.uint8(WAS_OBSERVED)
    positions = batch.column("enforced_position")
    enforced = np.where(valid(positions), _numbers(positions), np.int64(-1))
    at = _numbers(batch.column("at"))
    known = at if known_at == IN_FORCE else np.full(len(at), END if known_at is None else known_at, np.int64)
    return RequestColumns._make(all_sealed((at, flags, forwarded_to, region, served, enforced, known)))


def _served(batch: pa.RecordBatch, texts: Mapping[str, Int32s]) -> Int32s | None:
    """`RequestColumns.served`; None if no row says how the model was served."""
    columns = {name: batch.column(name) for name in AS_SERVED}
    if all(column.null_count == len(column) for column in columns.values()):
        return None
    served = np.full((batch.num_rows, len(AS_SERVED)), NULL_ID, np.int32)
    for place, (name, column) in enumerate(columns.items()):
        if name in texts:
            served[:, place] = texts[name]
        elif column.null_count < len(column):
            there = valid(column)
            served[there, place] = np.where(_unpacked(column.buffers()[1], column)[there], BIT_TRUE, BIT_FALSE)
    return served


def _numbers(array: pa.Array) -> Int64s:
    content = array.buffers()[1]
    if content is None or not content.size:
        return np.zeros(len(array), np.int64)
    return np.frombuffer(content, np.int64, len(array), array.offset * 8)


def _unpacked(bits: pa.Buffer, array: pa.Array) -> Bools:
    first, bit = divmod(array.offset, 8)
    packed = np.frombuffer(bits, np.uint8, (bit + len(array) + 7) // 8, first)
    return np.unpackbits(packed, count=bit + len(array), bitorder="little")[bit:].view(np.bool_)
