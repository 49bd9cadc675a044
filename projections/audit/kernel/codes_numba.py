"""Bare ids to subjects' codes, compiled: `hashing.hash_id` over the batch's own bytes, then the slots, then the bytes.

In short loops of one step each, a block of rows at a time: where each look-up waits for memory, many rows wait
together. Proved by tests/audit/kernel/test_codes.py.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from projections.audit.index import hashing
from projections.audit.index.layout import KINDS, OTHER_KIND, PREFIX_LENGTHS, Int32s
from projections.audit.kernel.compiled import compiled
from projections.audit.kernel.rows import TextColumn
from projections.audit.kernel.tables import Names, sealed

# Said again because what is compiled is not compiled anew when another file changes (see `compiled`).
MULTIPLIER = np.uint64(0xFF51AFD7ED558CCD)
FINAL = np.uint64(0xC4CEB9FE1A85EC53)
NULL_ID = -1
NO_CODE = -2
BLOCK = 1024
PREFIXES: Final = [sealed(np.frombuffer(text.encode(), np.uint8)) for text in (*(f"{kind}:" for kind in KINDS), "")]
"""By kind code."""
assert [len(prefix) for prefix in PREFIXES] == list(PREFIX_LENGTHS)
assert len(PREFIXES) == OTHER_KIND + 1
assert (int(MULTIPLIER), int(FINAL)) == (hashing.MULTIPLIER, hashing.FINAL)


@compiled
def _hashed(seed: Any, data: Any, start: Any, end: Any) -> Any:
    mixed = (seed ^ np.uint64(end - start)) * MULTIPLIER
    at = start
    while at + 8 <= end:
        # As the machine's own load of eight bytes: the compiler sees that it is one.
        word = (
            np.uint64(data[at])
            | np.uint64(data[at + 1]) << np.uint64(8)
            | np.uint64(data[at + 2]) << np.uint64(16)
            | np.uint64(data[at + 3]) << np.uint64(24)
            | np.uint64(data[at + 4]) << np.uint64(32)
            | np.uint64(data[at + 5]) << np.uint64(40)
            | np.uint64(data[at + 6]) << np.uint64(48)
            | np.uint64(data[at + 7]) << np.uint64(56)
        )
        mixed = (mixed ^ word) * MULTIPLIER
        mixed ^= mixed >> np.uint64(29)
        at += 8
    if at < end:
        word = np.uint64(0)
        shift = np.uint64(0)
        while at < end:
            word |= np.uint64(data[at]) << shift
            shift += np.uint64(8)
            at += 1
        mixed = (mixed ^ word) * MULTIPLIER
        mixed ^= mixed >> np.uint64(29)
    mixed *= FINAL
    return mixed ^ (mixed >> np.uint64(32))


@compiled
def _same(prefix: Any, data: Any, start: Any, end: Any, code: Any, offsets: Any, references: Any) -> Any:
    """Whether data[start:end] is the id of the subject, behind `prefix`: its kind and a colon, so of the same kind."""
    first, length = offsets[code], len(prefix)
    if offsets[code + 1] - first - length != end - start:
        return False
    for at in range(end - start):
        if references[first + length + at] != data[start + at]:
            return False
    for at in range(length):
        if references[first + at] != prefix[at]:
            return False
    return True


@compiled
def _codes(
    prefix: Any,
    seed: Any,
    text_offsets: Any,
    text_bytes: Any,
    valid: Any,
    offsets: Any,
    references: Any,
    slots: Any,
    codes: Any,
    hashes: Any,
    guesses: Any,
) -> None:
    """hashes, guesses: room for a block of rows."""
    mask, half = np.uint64(len(slots) - 1), np.uint64(32)
    for block in range(0, len(codes), BLOCK):
        size = min(BLOCK, len(codes) - block)
        for at in range(size):
            start, end = np.int64(text_offsets[block + at]), np.int64(text_offsets[block + at + 1])
            hashes[at] = _hashed(seed, text_bytes, start, end)
        for at in range(size):
            # The first slot's subject, as a rule the one that is meant.
            guesses[at] = np.int64(slots[hashes[at] & mask] & np.uint64(0xFFFFFFFF)) - 1
        for at in range(size):
            # Only so that it is at hand in the next loop.
            codes[block + at] = references[offsets[guesses[at]]] if guesses[at] >= 0 else 0
        for at in range(size):
            row = block + at
            if not valid[row]:
                codes[row] = NULL_ID
                continue
            start, end = np.int64(text_offsets[row]), np.int64(text_offsets[row + 1])
            codes[row] = NO_CODE
            place = hashes[at] & mask
            while slots[place] != 0:
                entry = slots[place]
                code = np.int64(entry & np.uint64(0xFFFFFFFF)) - 1
                alike = entry >> half == hashes[at] >> half
                if alike and _same(prefix, text_bytes, start, end, code, offsets, references):
                    codes[row] = code
                    break
                place = (place + np.uint64(1)) & mask


def codes(kind: int, texts: TextColumn, names: Names) -> Int32s:
    """The code of each row's subject of `kind`, NULL_ID where the row names none, NO_CODE where it has no code."""
    found = np.empty(len(texts.valid), np.int32)
    _codes(
        PREFIXES[kind],
        np.uint64(hashing.KIND_SEEDS[kind]),
        texts.offsets,
        texts.bytes,
        texts.valid,
        names.offsets,
        names.references,
        names.slots,
        found,
        np.empty(BLOCK, np.uint64),
        np.empty(BLOCK, np.int64),
    )
    return found
