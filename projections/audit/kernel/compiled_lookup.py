"""Finds the codes of bare ids, compiled: hashes the batch's own bytes, searches the slots, compares the bytes.

Each step is a short loop over a block of rows: each look-up waits for memory, and so many rows wait together.
Proved by tests/audit/kernel/test_compiled_lookup.py.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from projections.audit.arrays import Int32s, in_words
from projections.audit.index import hashing
from projections.audit.index.schema import KINDS, PREFIX_LENGTHS
from projections.audit.kernel.index_tables import IdTable
from projections.audit.kernel.request_columns import NO_CODE, NULL_ID, TextColumn
from projections.audit.numba_support import compiled, constants_key, part

MULTIPLIER, FINAL = np.uint64(hashing.MULTIPLIER), np.uint64(hashing.FINAL)
BLOCK = 1024
PREFIXES: Final = [np.uint64(int.from_bytes(text.encode(), "little")) for text in (*(f"{kind}:" for kind in KINDS), "")]
"""By kind code, the prefix `kind:` as the eight bytes of a word."""
assert max(PREFIX_LENGTHS) <= 8, "a kind's prefix fits into a word"
CONSTANTS: Final = constants_key(globals())


@part
def _word(data: Any, words: Any, at: Any, count: Any) -> Any:
    """The next `count` bytes, at most eight, as a little-endian number. `words`: see `in_words`."""
    if at < len(words):
        if count >= 8:
            return words[at]
        return words[at] & ((np.uint64(1) << np.uint64(8 * count)) - np.uint64(1))
    word = np.uint64(0)
    for place in range(min(count, 8)):
        word |= np.uint64(data[at + place]) << np.uint64(8 * place)
    return word


@part
def _hash(seed: Any, data: Any, words: Any, start: Any, end: Any) -> Any:
    mixed = (seed ^ np.uint64(end - start)) * MULTIPLIER
    at = start
    while at < end:
        mixed = (mixed ^ _word(data, words, at, end - at)) * MULTIPLIER
        mixed ^= mixed >> np.uint64(29)
        at += 8
    mixed *= FINAL
    return mixed ^ (mixed >> np.uint64(32))


@part
def _is_reference(
    prefix: Any,
    length: Any,
    data: Any,
    words: Any,
    start: Any,
    end: Any,
    first: Any,
    until: Any,
    references: Any,
    reference_words: Any,
) -> Any:
    """Whether references[first:until] is `prefix`, of `length` bytes, followed by data[start:end]."""
    if until - first - length != end - start:
        return False
    if _word(references, reference_words, first, length) != prefix:
        return False
    own = first + length - start
    for at in range(start, end, 8):
        if _word(data, words, at, end - at) != _word(references, reference_words, own + at, end - at):
            return False
    return True


@compiled
def find_codes(
    prefix: Any,
    length: Any,
    seed: Any,
    text_offsets: Any,
    text_bytes: Any,
    text_words: Any,
    valid: Any,
    offsets: Any,
    references: Any,
    reference_words: Any,
    slots: Any,
    codes: Any,
    room: Any,
    constants: Any = CONSTANTS,
) -> None:
    """room: uint64[4, BLOCK]."""
    mask, half, low = np.uint64(len(slots) - 1), np.uint64(32), np.uint64(0xFFFFFFFF)
    rows, hashes, places, firsts = room[0], room[1], room[2], room[3]
    last = len(references) - 1
    for block in range(0, len(codes), BLOCK):
        count = 0
        for own in range(block, min(block + BLOCK, len(codes))):
            codes[own] = NULL_ID
            # The next row overwrites this one if it names no subject.
            rows[count] = own
            count += 1 if valid[own] else 0
        for at in range(count):
            row = np.int64(rows[at])
            start, end = np.int64(text_offsets[row]), np.int64(text_offsets[row + 1])
            hashes[at] = _hash(seed, text_bytes, text_words, start, end)
        for at in range(count):
            # Goes on to the first subject with the same upper half of the hash: nearly always the right one.
            place = hashes[at] & mask
            while slots[place] != 0 and slots[place] >> half != hashes[at] >> half:
                place = (place + np.uint64(1)) & mask
            places[at] = place
        for at in range(count):
            code = np.int64(slots[places[at]] & low) - 1
            firsts[at] = offsets[code] if code >= 0 else 0
        for at in range(count):
            # Loads the reference into the processor's cache for the next loop.
            firsts[at] = references[min(np.int64(firsts[at]), last)]
        for at in range(count):
            row, place = np.int64(rows[at]), places[at]
            start, end = np.int64(text_offsets[row]), np.int64(text_offsets[row + 1])
            codes[row] = NO_CODE
            while slots[place] != 0:
                code = np.int64(slots[place] & low) - 1
                if slots[place] >> half == hashes[at] >> half and _is_reference(
                    prefix,
                    length,
                    text_bytes,
                    text_words,
                    start,
                    end,
                    offsets[code],
                    offsets[code + 1],
                    references,
                    reference_words,
                ):
                    codes[row] = code
                    break
                place = (place + np.uint64(1)) & mask


def codes(kind: int, texts: TextColumn, table: IdTable) -> Int32s:
    """By row, the code of its subject of `kind`: NULL_ID if the row names none, NO_CODE if the index has no code."""
    found_codes = np.empty(len(texts.valid), np.int32)
    data, words = in_words(texts.bytes)
    find_codes(
        PREFIXES[kind],
        PREFIX_LENGTHS[kind],
        np.uint64(hashing.KIND_SEEDS[kind]),
        texts.offsets,
        data,
        words,
        texts.valid,
        table.offsets,
        *in_words(table.references),
        table.slots,
        found_codes,
        np.empty((4, BLOCK), np.uint64),
    )
    return found_codes
