"""A REQUESTS batch as NumPy arrays over the same memory: nothing is copied but what is kept as bits."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa

from ledger.times import END
from projections.audit.arrays import Bools, Int32s, Int64s, UInt8s, all_sealed, sealed
from projections.audit.schemas import REQUESTS
from projections.temporal.coordinates import IN_FORCE, KnownAt

ROWS_MAX: Final = 1 << 20
"""Of a batch, so that the answers' texts, of at most 262 bytes each where they are ids, fit into Arrow's offsets."""

HAS_STORED: Final = 1
HAS_CACHED: Final = 2
HAS_TRAINED: Final = 4
IN_PUBLIC: Final = 8
WAS_OBSERVED: Final = 16
"""Bits of `Observed.deeds`: what was done, and whether anything at all was observed."""

NULL_ID: Final = -1
"""In place of a code: the row names no subject, or says no text."""
NO_CODE: Final = -2
"""The row names a subject, or says a text, that has no code in the index."""


class TextColumn(NamedTuple):
    """Row i says bytes[offsets[i] : offsets[i + 1]] (UTF-8), or nothing where valid[i] is False."""

    offsets: Int32s
    bytes: UInt8s
    valid: Bools


class Ids(NamedTuple):
    """By row: a subject's code, NULL_ID or NO_CODE."""

    key: Int32s
    account: Int32s
    org: Int32s
    project: Int32s
    model: Int32s


class Observed(NamedTuple):
    """By row: when, and what was done. forwarded_to, region: a text's code, NULL_ID or NO_CODE. enforced: a position,
    -1 where there is none. known: what was recorded by then (µs) counts."""

    at: Int64s
    deeds: UInt8s
    forwarded_to: Int32s
    region: Int32s
    enforced: Int64s
    known: Int64s


def checked(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch, if it is one of REQUESTS. Raises `ValueError`."""
    if not batch.schema.equals(REQUESTS):
        raise ValueError("the batch has other columns than REQUESTS; cast it to that schema")
    if batch.num_rows > ROWS_MAX:
        raise ValueError(f"the batch has {batch.num_rows} rows and may have {ROWS_MAX}; slice it")
    return batch


def text_column(array: pa.Array) -> TextColumn:
    rows = len(array)
    _, offsets, content = array.buffers()
    held = np.zeros(rows + 1, np.int32)
    if offsets is not None and offsets.size:
        held = np.frombuffer(offsets, np.int32, rows + 1, array.offset * 4)
    said = np.zeros(0, np.uint8) if content is None else np.frombuffer(content, np.uint8)
    return TextColumn(sealed(held), sealed(said), sealed(valid(array)))


def valid(array: pa.Array) -> Bools:
    bits = array.buffers()[0]
    return np.ones(len(array), np.bool_) if bits is None else _unpacked(bits, array)


def observed(batch: pa.RecordBatch, forwarded_to: Int32s, region: Int32s, known_at: KnownAt) -> Observed:
    """`forwarded_to`, `region`: those columns of the batch in codes; `known_at`: of the index."""
    seen = (forwarded_to != NULL_ID) | (region != NULL_ID)
    deeds = np.zeros(batch.num_rows, np.uint8)
    for name, bit in (("stored", HAS_STORED), ("cached", HAS_CACHED), ("trained", HAS_TRAINED)):
        flag = batch.column(name)
        if flag.null_count == len(flag):
            continue
        said = valid(flag)
        seen |= said
        deeds |= (_unpacked(flag.buffers()[1], flag) & said) * np.uint8(bit)
    network = text_column(batch.column("network"))
    seen |= network.valid
    rows = np.flatnonzero(network.valid)
    # `public` and `private` differ in their second byte; nothing else comes here.
    deeds[rows] |= (network.bytes[network.offsets[rows] + 1] == ord("u")) * np.uint8(IN_PUBLIC)
    deeds |= seen * np.uint8(WAS_OBSERVED)
    positions = batch.column("enforced_position")
    enforced = np.where(valid(positions), _numbers(positions), np.int64(-1))
    at = _numbers(batch.column("at"))
    known = at if known_at == IN_FORCE else np.full(len(at), END if known_at is None else known_at, np.int64)
    return Observed._make(all_sealed((at, deeds, forwarded_to, region, enforced, known)))


def _numbers(array: pa.Array) -> Int64s:
    content = array.buffers()[1]
    if content is None or not content.size:
        return np.zeros(len(array), np.int64)
    return np.frombuffer(content, np.int64, len(array), array.offset * 8)


def _unpacked(bits: pa.Buffer, array: pa.Array) -> Bools:
    first, bit = divmod(array.offset, 8)
    held = np.frombuffer(bits, np.uint8, (bit + len(array) + 7) // 8, first)
    return np.unpackbits(held, count=bit + len(array), bitorder="little")[bit:].view(np.bool_)
